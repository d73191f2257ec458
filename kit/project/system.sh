# Resolves packages of the distribution in a container of an image, for kit/project/system.py: what apt would install
# beside what is there, with their hashes. Nothing is installed, and all that is written goes to a folder of its own, for
# which root needs no right over the files of others. What comes before this text says how to reach the network.
#
# resolve WANTED…: each line that it prints begins with a word that says what it is. Exit code 3: the lists cannot be
# fetched; 4: a package does not exist, named in lines `missing NAME`; 5: they cannot be installed together.
resolve() {
    set -eu
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 APT_CONFIG=/tmp/kit/apt.conf
    folder=/tmp/kit
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    cat > "$APT_CONFIG" <<END
Dir::State::lists "$folder/lists";
Dir::Cache "$folder/cache";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "root";
Debug::NoLocking "true";
Acquire::Languages "none";
Acquire::ForceHash "SHA256";
Acquire::Retries "3";
Acquire::http::Timeout "30";
END
    if [ -f "$folder/ca" ]; then echo "Acquire::https::CAInfo \"$folder/ca\";" >> "$APT_CONFIG"; fi
    apt-get -o APT::Update::Error-Mode=any --quiet=2 update || exit 3
    # By their whole names: apt takes what it does not know for a pattern, or for the order to remove something.
    apt-cache pkgnames > "$folder/names"
    missing=0
    for wanted in "$@"; do
        if ! grep --quiet --line-regexp --fixed-strings -e "${wanted%%=*}" "$folder/names"; then
            echo "missing ${wanted%%=*}"
            missing=1
        fi
    done
    [ "$missing" = 0 ] || exit 4
    # What is there already stays as it is, unless another version is named.
    for wanted in "$@"; do
        shift
        case $wanted in
            *=*) there='' ;;
            *) there=$(dpkg-query --show --showformat='${db:Status-Status}' "$wanted" 2> /dev/null) || there='' ;;
        esac
        [ "$there" = installed ] || set -- "$@" "$wanted"
    done
    : > "$folder/uris"
    if [ $# -gt 0 ]; then
        set -- install --yes --no-install-recommends --no-remove "$@"
        if ! apt-get --quiet=2 --print-uris "$@" > "$folder/uris"; then
            # Why, which the quiet run does not say.
            apt-get --simulate "$@" >&2 || true
            exit 5
        fi
    fi
    dpkg-query --show --showformat='${db:Status-Status} ${Package} ${Architecture} ${Version}\n'
    # shellcheck disable=SC2016
    apt-get indextargets --format 'repository $(REPO_URI)' 'Created-By: Packages'
    sed -n 's/^Date: /date /p' "$folder"/lists/*Release
    sed 's/^/package /' "$folder/uris"
}
