#!/bin/sh
# Builds an image with Podman, for whoever holds its standard input open; kit/image/build/podman.py runs it.
#
# Runs `$1 build` with the arguments from `$3` on, and the files that `$2` announces (`NAME:LINES …`) as secrets. Each
# line that is printed comes out behind a space, and last a dot with the exit code. When the input ends, whoever
# asked for the build is gone, and it ends too. Whatever happens, the files go.
#
# A build is ended by the death of the step that runs: Podman then fails, and removes what it made. Killed itself, or
# with a closed pipe where it prints, it leaves its containers, and the files of the secrets in them.
#
# Its temporary folder holds what `--mount=type=cache` names. It would be one for all accounts of a machine, and the
# first one's own.
program="$1" announced="$2"; shift 2
work="${XDG_CACHE_HOME:-$HOME/.cache}/kit/podman"
mkdir -p "$work" || exit 1
parent="${XDG_RUNTIME_DIR:-}"
if [ -z "$parent" ] || [ ! -w "$parent" ]; then parent="$work"; fi
umask 077
# Of builds that were killed themselves.
for left in "$parent"/kit-podman.*; do
    pid="${left##*/kit-podman.}"
    kill -0 "${pid%%.*}" 2>/dev/null || rm -rf "$left"
done
folder="$(mktemp -d "$parent/kit-podman.$$.XXXXXX")" || exit 1

children() {
    cat /proc/[0-9]*/status 2>/dev/null | awk -v root="$1" '
        /^Pid:/ { pid = $2 }
        /^PPid:/ { parent[pid] = $2 }
        END {
            for (pid in parent) {
                for (above = parent[pid]; above + 0 > 1 && above != root; above = parent[above]);
                if (above == root) print pid, parent[pid]
            }
        }'
}
end_build() {
    tries=0
    while [ ! -s "$folder/code" ] && [ "$tries" -lt 100 ]; do
        children "$(cat "$folder/pid" 2>/dev/null)" | while read -r pid parent; do
            case "$(tr '\0' ' ' < "/proc/$parent/cmdline" 2>/dev/null)" in
                buildah-*) kill -KILL "$pid" 2>/dev/null ;;
            esac
        done
        tries=$((tries + 1))
        sleep 0.2
    done
    if [ ! -s "$folder/code" ]; then kill "$(cat "$folder/pid")"; fi
}
trap 'rm -rf "$folder"' EXIT
trap 'end_build; exit 1' HUP INT TERM

for file in $announced; do
    name="${file%%:*}" left="${file##*:}"
    while [ "$left" -gt 0 ]; do
        IFS= read -r line || exit 1
        printf '%s\n' "$line"
        left=$((left - 1))
    done > "$folder/$name"
    set -- "--secret=id=$name,src=$folder/$name" "$@"
done
umask 022

exec 3<&0
{
    TMPDIR="$work" "$program" build "$@" < /dev/null 3<&- &
    echo $! > "$folder/pid"
    wait $!
    echo $? > "$folder/code"
} 2>&1 | {
    trap '' PIPE
    while IFS= read -r line || [ -n "$line" ]; do printf ' %s\n' "$line" || break; done 2>/dev/null
    cat > /dev/null
} &
build=$!
{ while read -r _; do :; done <&3; end_build; } > /dev/null 2>&1 &
watch=$!
# Only now: what a step starts would not die of it either.
trap '' PIPE
wait "$build"
kill "$watch" 2>/dev/null
printf '.%s\n' "$(cat "$folder/code")"
