#!/bin/sh
# Prints facts of this machine in sections, for kit/host/assemble.py. Runs by `sh -s`, here or behind ssh, and needs no
# more than a POSIX shell; writes only into a folder of its own, which it removes. Set before it on the same input:
#   KIT_MARK       what opens the first line of each section: MARK NAME EXIT-CODE REST
#   KIT_GROUPS     which facts: gpu use engine machine network
#   KIT_DOCKER     the docker program, or podman; empty: docker or podman, whichever there is
#   KIT_SOCKET     where docker is to look for its engine; empty: where it looks by itself
#   KIT_ENDPOINTS  addresses to ask, apart by spaces
#   KIT_PIDS       processes whose owner and control group are wanted, besides those nvidia-smi lists
#   KIT_TEST_ROOT  in tests: a folder that stands for / where files of the system are read

# A function, called by the last line: input that was cut off runs nothing.
main() {
    LC_ALL=C
    # Non-interactive logins often lack these; WSL2 has nvidia-smi in the third.
    PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin:/usr/lib/wsl/lib:/snap/bin"
    export LC_ALL PATH
    umask 077
    root=${KIT_TEST_ROOT:-} names='' jobs='' has_timeout=''
    folder=''
    trap finish EXIT
    trap 'exit 1' HUP INT TERM PIPE
    for place in "${TMPDIR:-/tmp}" /tmp /var/tmp "${XDG_RUNTIME_DIR:-/tmp}"; do
        folder=$(mktemp -d "$place/kit-host.XXXXXX" 2>/dev/null) || continue
        # A full disk takes a folder, and nothing in it.
        if echo room 2>/dev/null >"$folder/room"; then break; fi
        rm -rf "$folder"
        folder=''
    done
    [ -n "$folder" ] || exit 1
    timeout -s KILL 1 true 2>/dev/null && has_timeout=yes

    wants gpu && start_gpu
    find_engine
    wants engine && start_engine
    if wants use || wants engine; then start_containers; fi
    wants network && start_network

    ask uname uname -srm
    show os "$root/etc/os-release"
    show version "$root/proc/version"
    wants gpu && driver
    wants machine && machine

    collect
    emit
    wants engine && cdi
    wants engine && disk
    wants use && processes
    section end 0
}

wants() {
    case " ${KIT_GROUPS:-} " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}

has() {
    command -v "$1" >/dev/null 2>&1
}

finish() {
    # shellcheck disable=SC2086 # a list of process IDs
    [ -z "$jobs" ] || kill $jobs 2>/dev/null
    [ -z "$folder" ] || rm -rf "$folder"
}

section() { # NAME EXIT-CODE [REST]
    printf '\n%s %s %s %s\n' "$KIT_MARK" "$1" "$2" "${3:-}"
}

show() { # NAME FILE
    if [ -r "$2" ]; then
        section "$1" 0
        cat "$2" 2>/dev/null
    else
        section "$1" 1
    fi
}

ask() { # NAME COMMAND... that answers at once
    name=$1
    shift
    text=$("$@" 2>/dev/null </dev/null)
    section "$name" $?
    printf '%s\n' "$text"
}

limited() { # SECONDS COMMAND...
    seconds=$1
    shift
    if [ -n "$has_timeout" ]; then timeout -s KILL "$seconds" "$@"; else "$@"; fi
}

# What may be slow or hang runs beside the rest. Nothing of it holds this script's own output open, so that a process
# that cannot even be killed (in an ioctl of a broken driver) does not keep the caller waiting.
start() { # NAME SECONDS COMMAND...
    name=$1 limit=$2
    shift 2
    (
        limited "$limit" "$@" >"$folder/$name.out" 2>"$folder/$name.err" </dev/null
        echo "$? $(date +%s)" >"$folder/$name.end"
        mv "$folder/$name.end" "$folder/$name.done"
    ) >/dev/null 2>&1 </dev/null &
    names="$names $name" jobs="$jobs $!"
}

collect() {
    # Two seconds more than the longest limit given to `start`.
    end=$(($(date +%s) + 12))
    while :; do
        waiting=''
        for name in $names; do
            [ -e "$folder/$name.done" ] || waiting=yes
        done
        [ -n "$waiting" ] && [ "$(date +%s)" -lt "$end" ] || break
        sleep 0.05 2>/dev/null || sleep 1
    done
}

emit() {
    for name in $names; do
        # As after a SIGKILL, which is what a program that took too long gets.
        code=137 when=''
        [ -e "$folder/$name.done" ] && read -r code when <"$folder/$name.done"
        section "$name" "$code" "$when"
        # A thousand lines per GPU that nobody reads.
        sed '/<supported_graphics_clock>/d' "$folder/$name.out" 2>/dev/null
        if [ -s "$folder/$name.err" ]; then
            section "$name.err" "$code"
            cat "$folder/$name.err"
        fi
    done
}

start_gpu() {
    has nvidia-smi || return 0
    start nvidia-smi 10 nvidia-smi -q -x
    # An older driver does not know compute_cap, and the report has neither it nor the UUIDs of MIG instances.
    start nvidia-smi-query 10 nvidia-smi --query-gpu=index,uuid,compute_cap --format=csv,noheader
    start nvidia-smi-list 10 nvidia-smi -L
}

driver() {
    show driver "$root/proc/driver/nvidia/version"
    section modules 0
    sed -n -e 's/^nouveau .*/nouveau/p' -e 's/^nvidia .*/nvidia/p' "$root/proc/modules" 2>/dev/null
    section license 0
    # Of the module on disk, which may be one that does not load: the flavors differ in it.
    if has modinfo; then modinfo -F license nvidia 2>/dev/null; fi
    section wsl 0
    ls "$root/usr/lib/wsl/lib" 2>/dev/null
    section libraries 0
    # Plain `(libc6)` is the 32-bit library.
    ldconfig -p 2>/dev/null | grep -v '(libc6)' | sed -n \
        -e 's/^[[:space:]]*libnvidia-ml\.so\.1 .*=> //p' -e 's/^[[:space:]]*libcuda\.so\.1 .*=> //p' |
        while read -r file; do readlink -f "$file" 2>/dev/null; done
    section pci 0
    for device in "$root"/sys/bus/pci/devices/*; do
        # 0x10de is NVIDIA, class 0x03 a display controller.
        read -r value 2>/dev/null <"$device/vendor" && [ "$value" = 0x10de ] || continue
        read -r value 2>/dev/null <"$device/class" || continue
        case $value in 0x03*) ;; *) continue ;; esac
        read -r value 2>/dev/null <"$device/device" || continue
        bound=$(readlink "$device/driver" 2>/dev/null)
        printf '%s %s %s\n' "${device##*/}" "${value#0x}" "${bound##*/}"
    done
}

# Which engine is decided before (kit/engine/find.py); here is only looked which command line there is to ask it.
find_engine() {
    engine=${KIT_DOCKER:-}
    [ -z "$engine" ] || return 0
    own=${KIT_ENGINE_DIR:-/var/lib/kit}
    if has docker; then
        engine=docker
    elif [ -n "${KIT_SOCKET:-}" ] && [ -x "$own/programs/bin/docker" ]; then
        engine=$own/programs/bin/docker
        export DOCKER_CONFIG="$own/client"
    elif has podman; then
        engine=podman
    fi
    [ -z "${KIT_SOCKET:-}" ] || export DOCKER_HOST="unix://$KIT_SOCKET"
}

start_engine() {
    if has podman; then start podman 5 podman --version; fi
    if has nvidia-ctk; then start nvidia-ctk 5 nvidia-ctk --version; fi
    if has nvidia-container-cli; then start nvidia-container-cli 5 nvidia-container-cli --version; fi
    section linger 0
    # Where systemd runs, and nobody said otherwise, it ends what a user runs with the last session of theirs.
    if [ -d "$root/run/systemd/system" ]; then
        if [ -e "$root/var/lib/systemd/linger/$(id -un)" ]; then echo yes; else echo no; fi
    fi
    section toolkit 0
    sed -n 's/^[[:space:]]*no-cgroups[[:space:]]*=[[:space:]]*\([a-z]*\).*/\1/p' \
        "$root/etc/nvidia-container-runtime/config.toml" 2>/dev/null
    [ -n "$engine" ] || return 0
    section program 0
    printf '%s\n' "$engine"
    readlink -f "$(command -v "$engine")" 2>/dev/null
    # Whose its socket is, and the groups of this account: in this session, and after the next login.
    section access 0
    case ${DOCKER_HOST:-unix:///var/run/docker.sock} in
        unix://*)
            socket=${DOCKER_HOST:-unix:///var/run/docker.sock}
            stat -L -c '%u %G %A' "$root${socket#unix://}" 2>/dev/null && id -nG "$(id -un)" 2>/dev/null
            if has sudo; then echo sudo; fi
            ;;
    esac
    start info 8 "$engine" info --format '{{json .}}'
    if [ "$engine" != podman ]; then
        start buildx 8 "$engine" buildx version
        start context 8 "$engine" context inspect --format '{{.Endpoints.docker.Host}}'
    fi
}

start_containers() {
    case $engine in
        '') ;;
        podman)
            start containers 8 podman ps --all --no-trunc \
                --format '[{{json .ID}},{{json .Names}},{{json .Status}},{{json .Labels}}]'
            ;;
        *)
            start containers 8 "$engine" ps --all --no-trunc --format \
                '[{{json .ID}},{{json .Names}},{{json .Status}},{{json (.Label "kit.image")}},{{json (.Label "kit.service")}},{{json (.Label "kit.user")}},{{json (.Label "kit.gpus")}},{{json (.Label "kit.lease")}},{{json (.Label "kit.owner-name")}}]'
            ;;
    esac
}

start_network() {
    number=0
    set -f
    for url in ${KIT_ENDPOINTS:-}; do
        if has curl; then
            start "endpoint-$number" 3 curl --silent --show-error --head --max-time 2 \
                --write-out 'seconds %{time_total}\n' "$url"
        elif has wget; then
            start "endpoint-$number" 3 wget -S --spider -T 2 "$url"
        elif has python3; then
            start "endpoint-$number" 3 python3 -c '
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=2)
except urllib.error.HTTPError as error:
    answer = error
print("HTTP/1.1", answer.code)
print(answer.headers)' "$url"
        fi
        number=$((number + 1))
    done
    set +f
}

machine() {
    ask cpus getconf _NPROCESSORS_ONLN
    section memory 0
    sed -n '/^MemTotal:/p' "$root/proc/meminfo" 2>/dev/null
    ask shm df -Pk "$root/dev/shm"
    section proxies 0
    for name in http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY; do
        eval "value=\${$name:-}"
        # shellcheck disable=SC2154 # `eval` sets it
        [ -z "$value" ] || printf '%s\n' "$name"
    done
    section authorities 0
    for file in "$root"/usr/local/share/ca-certificates/*.crt "$root"/usr/local/share/ca-certificates/*.pem \
        "$root"/etc/pki/ca-trust/source/anchors/*.crt "$root"/etc/pki/ca-trust/source/anchors/*.pem; do
        [ ! -e "$file" ] || printf '%s\n' "${file##*/}"
    done
    section ports 0
    # 0A is the state LISTEN.
    sed -n '/^ *[0-9]*: [0-9A-F]*:[0-9A-F]* [0-9A-F]*:[0-9A-F]* 0A /p' "$root/proc/net/tcp" "$root/proc/net/tcp6" \
        2>/dev/null
}

cdi() {
    more=$(sed -n 's/.*"CDISpecDirs":\[\([^]]*\)\].*/\1/p' "$folder/info.out" 2>/dev/null | tr -d '"' | tr ',' '\n')
    seen=' '
    for place in "$root/etc/cdi" "$root/var/run/cdi" $more; do
        case $seen in *" $place "*) continue ;; esac
        seen="$seen$place "
        [ -d "$place" ] || continue
        [ -r "$place" ] || section cdi 1 "$place"
        for file in "$place"/*.yaml "$place"/*.yml "$place"/*.json; do
            [ -e "$file" ] || continue
            if [ ! -r "$file" ]; then
                section cdi 1 "$file"
            elif grep -q nvidia.com/gpu "$file"; then
                section cdi 0 "$file"
                stat -c %Y "$file" 2>/dev/null || echo
                cat "$file"
                section cdi-missing 0 "$file"
                # shellcheck disable=SC2020 # each of them ends a line, so that JSON is read as YAML is
                tr ',{}[]' '\n\n\n\n\n' <"$file" | sed -n \
                    -e "s/^[^A-Za-z]*hostPath[\"'[:space:]]*:[\"'[:space:]]*\\(\\/[^\"']*\\).*/\\1/p" \
                    -e "s/^[^A-Za-z]*path[\"'[:space:]]*:[\"'[:space:]]*\\(\\/[^\"']*\\).*/\\1/p" | sort -u |
                    while read -r path; do [ -e "$root$path" ] || printf '%s\n' "$path"; done
            fi
        done
    done
}

disk() {
    place=$(sed -n -e 's/.*"DockerRootDir":"\([^"]*\)".*/\1/p' -e 's/.*"graphRoot": *"\([^"]*\)".*/\1/p' \
        "$folder/info.out" 2>/dev/null)
    place=${place:-/var/lib/docker}
    while [ -n "$place" ] && [ ! -d "$place" ]; do
        case $place in */*) place=${place%/*} ;; *) place='' ;; esac
    done
    place=${place:-/}
    section disk 0 "$place"
    limited 2 df -Pk "$place" 2>/dev/null
}

processes() {
    listed=$(sed -n 's/.*<pid>\([0-9]*\)<.*/\1/p' "$folder/nvidia-smi.out" 2>/dev/null)
    for pid in ${KIT_PIDS:-} $listed; do
        [ -d "$root/proc/$pid" ] || continue
        section process 0 "$pid"
        stat -c %U "$root/proc/$pid" 2>/dev/null || echo
        cat "$root/proc/$pid/comm" 2>/dev/null || echo
        cat "$root/proc/$pid/cgroup" 2>/dev/null
    done
}

main
