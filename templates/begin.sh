# Opens a step: sourced, so that what it sets reaches the step's commands.
set -eu
# What is written from here on is newer than this file, which is in no layer. Not the clock's time: files get the kernel's
# coarser one, which is some milliseconds behind, so that what is written first would look older.
start=/dev/shm/kit-start
touch "$start"
until touch "$start-next" && [ -n "$(find "$start-next" -newer "$start")" ]; do :; done
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
    find "$2" -newer "$start" -name '*.py' -not -path '*/tests/*' | LC_ALL=C sort > /run/kit-sources
    "$2/bin/python" -S -m compileall -qq -j1 --invalidation-mode checked-hash -i /run/kit-sources || true
}
