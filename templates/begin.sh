# Opens a step: sourced, so that what it sets reaches the step's commands.
set -eu
start="$(date +%s.%N)"
# Byte code depends on the hash seed, also what the distribution's packages compile when they are installed.
export DEBIAN_FRONTEND=noninteractive SOURCE_DATE_EPOCH PYTHONHASHSEED=0
# Root's Python makes no user's layer in the image.
export PYTHONNOUSERSITE=1
# Proxies and mirrors of whoever builds; a secret, so it is in no layer and no history.
if [ -f /run/secrets/environment ]; then . /run/secrets/environment; fi
if [ -f /run/secrets/ca ]; then
    export SSL_CERT_FILE=/run/secrets/ca APT_CONFIG=/run/kit-apt.conf
    echo 'Acquire::https::CAInfo "/run/secrets/ca";' > "$APT_CONFIG"
fi
export UV_CACHE_DIR=/run/kit/cache UV_LINK_MODE=copy UV_NO_INSTALLER_METADATA=1 UV_PYTHON_DOWNLOADS=never

# add_user_layer VENV LAYER CONSTRAINTS PIP_PYTHON: what brings the user's layer into each Python of VENV and makes pip
# install there.
add_user_layer() {
    site="$("$1/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
        && install -m 644 /run/kit/user_layer.py "$site/kit_user_layer.py" \
        && echo "import kit_user_layer; kit_user_layer.start('$2', '$3')" > "$site/kit.pth" \
        && "$1/bin/python" -S -m compileall -qq --invalidation-mode checked-hash "$site/kit_user_layer.py" \
        && install -m 755 /run/kit/pip_python.py "$4" \
        && printf '[global]\npython = %s\n' "$4" > "$1/pip.conf"
}

# install_layer NAME VENV: this layer's part of the lock, exactly, then byte code that stays valid when file times change
# (not of test suites, which nobody imports). In one process that has imported nothing from there (-S): the bytes depend
# on what was loaded before. A wheel may carry files that are not for this Python version; they stay uncompiled.
install_layer() {
    /run/kit/uv pip install --quiet --python "$2" --no-deps --require-hashes --only-binary :all: \
        --requirement /run/kit/wheels.txt || return
    find "$2" -newermt "@$start" -name '*.py' -not -path '*/tests/*' | LC_ALL=C sort > /run/kit-sources
    "$2/bin/python" -S -m compileall -qq -j1 --invalidation-mode checked-hash -i /run/kit-sources || true
}
