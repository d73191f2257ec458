# Opens a step: sourced, so that what it sets reaches the step's commands.
set -eu
# What is written from here on is newer than this file, which is in no layer. Not the clock's time: files get the kernel's
# coarser one, which is some milliseconds behind, so that what is written first would look older.
start=/dev/shm/kit-start
touch "$start"
until touch "$start-next" && [ -n "$(find "$start-next" -newer "$start")" ]; do :; done
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

# install_wheels VENV FILE [OPTION…]: what the file lists, exactly: a wheel with another hash ends the step.
install_wheels() {
    environment=$1 wheels=$2
    shift 2
    /run/kit/uv pip install --quiet --python "$environment" --no-deps --require-hashes --only-binary :all: \
        --requirement "$wheels" "$@"
}

# install_layer NAME VENV [INDEX PACKAGE…]: this layer's part of the lock, the packages that are named from that index or
# whoever builds names a mirror of it; then byte code that stays valid when file times change (not of test suites, which
# nobody imports). In one process that has imported nothing from there (-S): the bytes depend on what was loaded before.
# A wheel may carry files that are not for this Python version; they stay uncompiled.
install_layer() {
    venv=$2
    if [ $# -lt 3 ]; then
        install_wheels "$venv" /run/kit/wheels.txt || return
    else
        index=${KIT_FRAMEWORK_INDEX:-$3}
        shift 3
        # That index has other files of what is on PyPI, too: only its own packages are looked for there.
        awk -v own=" $* " 'BEGIN { file = "rest" }
            /^[A-Za-z0-9]/ { split($1, part, "=="); file = index(own, " " part[1] " ") ? "own" : "rest" }
            { print > ("/run/kit-" file ".txt") }' /run/kit/wheels.txt || return
        [ ! -s /run/kit-rest.txt ] || install_wheels "$venv" /run/kit-rest.txt || return
        case $index in
            *.html) install_wheels "$venv" /run/kit-own.txt --no-index --find-links "$index" || return ;;
            *) install_wheels "$venv" /run/kit-own.txt --default-index "$index" || return ;;
        esac
    fi
    find "$venv" -newer "$start" -name '*.py' -not -path '*/tests/*' | LC_ALL=C sort > /run/kit-sources
    "$venv/bin/python" -S -m compileall -qq -j1 --invalidation-mode checked-hash -i /run/kit-sources || true
}

# settle VENV FONT: what follows from the wheels once all are there. CUDA's libraries in them are found by name, by `ctypes`
# and by programs that know nothing of Python's folders; matplotlib draws what its own font lacks in FONT.
settle() {
    find "$1" -type d -path '*/site-packages/nvidia/*/lib' | LC_ALL=C sort > /etc/ld.so.conf.d/kit.conf
    settings="$(echo "$1"/lib/python3*/site-packages/matplotlib/mpl-data/matplotlibrc)"
    sed -i "s/^#font\.family: .*/font.family: sans-serif, $2/" "$settings" && grep -q '^font\.family: ' "$settings" && ldconfig
}
