# Opens a step: sourced, so that what it sets reaches the step's commands.
set -eu
start="$(date +%s.%N)"
# The kernel writes times of files by a clock that is up to 10 ms behind: what the step writes at once is after `start` too.
sleep 0.02
# Byte code depends on the hash seed, also what the distribution's packages compile when they are installed.
export DEBIAN_FRONTEND=noninteractive SOURCE_DATE_EPOCH PYTHONHASHSEED=0
# Proxies and mirrors of whoever builds; a secret, so it is in no layer and no history.
if [ -f /run/secrets/environment ]; then . /run/secrets/environment; fi
if [ -f /run/secrets/ca ]; then
    export SSL_CERT_FILE=/run/secrets/ca APT_CONFIG=/run/kit-apt.conf
    echo 'Acquire::https::CAInfo "/run/secrets/ca";' > "$APT_CONFIG"
fi
export UV_CACHE_DIR=/run/kit/cache UV_LINK_MODE=copy UV_NO_INSTALLER_METADATA=1 UV_PYTHON_DOWNLOADS=never

# install_layer NAME VENV: this layer's part of the lock, exactly, then byte code that stays valid when file times change
# (not of test suites, which nobody imports). In one process that has imported nothing from there (-S): the bytes depend
# on what was loaded before. A wheel may carry files that are not for this Python version; they stay uncompiled.
install_layer() {
    /run/kit/uv pip install --quiet --python "$2" --no-deps --require-hashes --only-binary :all: \
        --requirement /run/kit/wheels.txt || return
    find "$2" -newermt "@$start" -name '*.py' -not -path '*/tests/*' | LC_ALL=C sort > /run/kit-sources
    "$2/bin/python" -S -m compileall -qq -j1 --invalidation-mode checked-hash -i /run/kit-sources || true
}

# settle VENV FONT: what follows from the wheels once all are there. CUDA's libraries in them are found by name, by `ctypes`
# and by programs that know nothing of Python's folders; matplotlib draws what its own font lacks in FONT.
settle() {
    find "$1" -type d -path '*/site-packages/nvidia/*/lib' | LC_ALL=C sort > /etc/ld.so.conf.d/kit.conf
    settings="$(echo "$1"/lib/python3*/site-packages/matplotlib/mpl-data/matplotlibrc)"
    sed -i "s/^#font\.family: .*/font.family: sans-serif, $2/" "$settings" && grep -q '^font\.family: ' "$settings" && ldconfig
}
