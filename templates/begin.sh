# Opens a step: sourced, so that what it sets reaches the step's commands.
set -eu
start="$(date +%s.%N)"
export DEBIAN_FRONTEND=noninteractive SOURCE_DATE_EPOCH
# Proxies and mirrors of whoever builds; a secret, so it is in no layer and no history.
if [ -f /run/secrets/environment ]; then . /run/secrets/environment; fi
if [ -f /run/secrets/ca ]; then
    export SSL_CERT_FILE=/run/secrets/ca APT_CONFIG=/run/kit-apt.conf
    echo 'Acquire::https::CAInfo "/run/secrets/ca";' > "$APT_CONFIG"
fi
export UV_CACHE_DIR=/run/kit/cache UV_LINK_MODE=copy UV_NO_INSTALLER_METADATA=1 UV_PYTHON_DOWNLOADS=never

# install_layer NAME VENV: this layer's part of the lock, exactly, then byte code that stays valid when file times change.
# One process and a fixed hash seed: the bytes depend on both. A wheel may carry files that are not for this Python
# version; they stay uncompiled.
install_layer() {
    if grep -q == /run/kit/wheels.txt; then
        /run/kit/uv pip install --quiet --python "$2" --no-deps --require-hashes --only-binary :all: \
            --requirement /run/kit/wheels.txt
    fi
    find "$2" -newermt "@$start" -name '*.py' | LC_ALL=C sort > /run/kit-sources
    PYTHONHASHSEED=0 "$2/bin/python" -m compileall -qq -j1 --invalidation-mode checked-hash -i /run/kit-sources || true
}
