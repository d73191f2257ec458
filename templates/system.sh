#!/bin/sh
# system.sh LIST: installs packages of the distribution in a step, exactly those of the list and nothing else. It comes
# from the entry of kit.lock for the image's release (kit/environment/system.py):
#
#   suite SUITE ARCHITECTURE            once
#   snapshot URL                        an archive that keeps what mirrors delete; any number of them
#   package SHA256 NAME VERSION ARCHITECTURE FILE
#
# Files come from the mirrors that the image's apt has, by their path: no index is read, so neither its age nor what it
# says matters, and the hash of each file is checked before anything is unpacked. What is wrong is said in a line that
# begins with `kit: `.
set -eu
list=$1
store=/var/cache/apt/kit
mkdir -p "$store"

fail() {
    echo "kit: $*" >&2
    exit 1
}
# each FUNCTION: call it with the fields of every package.
each() {
    while read -r word hash name version architecture file; do
        [ "$word" != package ] || "$1" "$hash" "$name" "$version" "$architecture" "$file" < /dev/null || return
    done < "$list"
}

# What is there already must not be newer: that would be the way back, and something else may need it as it is.
require_not_newer() {
    there=$(dpkg-query --show --showformat='${db:Status-Status} ${Version}' "$2:$4" 2>/dev/null) || return 0
    [ "${there% *}" = installed ] || return 0
    if dpkg --compare-versions "${there#* }" gt "$3"; then
        fail "the image has $2 ${there#* } already, which is newer than the $3 of kit.lock; \`kit lock --upgrade\` takes it"
    fi
}
is_right() { echo "$1  $store/$2" | sha256sum --check --status 2>/dev/null; }

wanted=''
add_if_missing() {
    is_right "$1" "$1.deb" || wanted="$wanted $1"
}
add_of_repository() {
    case " $wanted " in *" $1 "*) printf '%s/%s %s/%s.new\n' "$repository" "$5" "$store" "$1" ;; esac
}
# What came: kept when its hash is right. One that is another's is asked for again alone, since of many that are asked for
# at once apt does not say which of them it broke off.
take() {
    case " $wanted " in *" $1 "*) ;; *) return 0 ;; esac
    [ -f "$store/$1.new" ] || return 0
    if ! is_right "$1" "$1.new"; then
        rm "$store/$1.new"
        /usr/lib/apt/apt-helper download-file "$repository/$5" "$store/$1.new" >/dev/null 2>&1 || return 0
        if ! is_right "$1" "$1.new"; then
            found=$(sha256sum "$store/$1.new")
            rm "$store/$1.new"
            fail "hash mismatch: $2 $3 from $repository has the SHA256 ${found%% *}, and in kit.lock it is $1"
        fi
    fi
    mv "$store/$1.new" "$store/$1.deb"
    wanted=$(printf '%s' " $wanted " | sed "s/ $1 / /")
}
repositories() {
    apt-get update --print-uris | sed -n "s,^'\(.*\)/InRelease' .*,\1,p" | sed 's,/dists/.*,,' | awk '!seen[$0]++'
    sed -n 's/^snapshot //p' "$list"
}
download() {
    each add_if_missing
    for repository in $(repositories); do
        [ -n "${wanted# }" ] || return 0
        rm -f "$store"/*.new
        # One call for all: it keeps the connection. It fails when one of them is not there, and has the others then.
        each add_of_repository | xargs -r /usr/lib/apt/apt-helper -o Acquire::Retries=2 -o Acquire::http::Timeout=30 \
            -o APT::Sandbox::User=root download-file > /dev/null 2> /tmp/kit-said || true
        each take
    done
    [ -z "${wanted# }" ] || each explain
}
# Why the first that is missing is not there.
explain() {
    case " $wanted " in *" $1 "*) ;; *) return 0 ;; esac
    tail -n 5 /tmp/kit-said >&2
    lists='-o Dir::State::lists=/tmp/kit-lists -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache='
    mkdir -p /tmp/kit-lists/partial
    # shellcheck disable=SC2086
    apt-get $lists -o APT::Update::Error-Mode=any --quiet=2 update \
        || fail "$2 $3 cannot be downloaded, and no mirror of the image's answers"
    # shellcheck disable=SC2086
    now=$(apt-cache $lists policy "$2:$4" | sed -n 's/^  Candidate: //p')
    case $now in
        "$3") fail "$2 $3 cannot be downloaded, although the mirror lists it" ;;
        '' | '(none)') fail "the mirror has no $2 any more, and kit.lock $3; a snapshot mirror has it" ;;
    esac
    fail "the mirror has $2 $now now, and kit.lock $3; \`kit lock --upgrade\` takes the new one, a snapshot mirror has" \
        "the old one"
}

add_file() { echo "$store/$1.deb"; }
install() {
    # No package may start a service.
    policy=''
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod 755 "$policy"
    fi
    # What is to be one machine's own would be that of everyone who has the image.
    machine=$(cat /etc/machine-id 2>/dev/null || true)
    # Neither lists nor sources: apt has these files and no others, and puts them in the order that they need.
    mkdir -p /tmp/kit-none/partial
    each add_file | xargs -r apt-get --yes --quiet=2 --no-install-recommends --no-remove \
        -o Dir::State::lists=/tmp/kit-none -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root \
        -o DPkg::Options::=--force-confdef -o DPkg::Options::=--force-confold install \
        || fail "the packages of kit.lock cannot be installed in this image; \`kit lock --upgrade\` asks anew"
    [ -z "$policy" ] || rm "$policy"
    rm -f /var/lib/dbus/machine-id /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
    if [ "$(cat /etc/machine-id 2>/dev/null || true)" != "$machine" ]; then
        printf '%s' "${machine:+$machine
}" > /etc/machine-id
    fi
}
require_installed() {
    there=$(dpkg-query --show --showformat='${db:Status-Status} ${Version}' "$2:$4" 2>/dev/null) || true
    [ "$there" = "installed $3" ] || fail "$2 is not installed as kit.lock has it: ${there:-not at all} instead of $3"
}

# shellcheck disable=SC1091
here="$(. /etc/os-release && echo "${VERSION_CODENAME:-}") $(dpkg --print-architecture)"
of=$(sed -n 's/^suite //p' "$list")
[ "$here" = "$of" ] || fail "these are packages for $of, and the image is $here; \`kit lock\` adds them"
each require_not_newer
download
install
each require_installed
