"""What runs on the host around rsync, in the same session: finding the folder, and telling what only the host knows."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from kit.remote.sync import confined

# How lines begin that are for kit, on standard error.
MARK = "@@kit "


def _script(text: str) -> str:
    # On one line and without a single quote: whichever login shell there is takes it as one word for `sh -c`.
    return re.sub(r"\s*\n\s*", " ", text.strip())


_BEGIN = """
beside=$1; folder=$2; origin=$3; identity=$4; confined=$5; shift 5;
say() { echo "@@kit $*" >&2; };
identify() {
    if [ -f "$beside.from" ]; then { read -r from; read -r identity; } <"$beside.from"; say is "$identity"; fi;
};
command -v rsync >/dev/null 2>&1 || { say no-rsync; exit 127; };
"""
# The clock, because what is newer is told by it. Afterwards: the versions that rsync replaced, which it put aside; they
# are kept when it was interrupted, because nobody is there then to say which of them were changed here.
RECEIVE = _script(
    _BEGIN
    + """
export LC_ALL=C;
unmade() { say unmade; exit 3; };
if ! [ -d "$folder" ] || ! [ -f "$beside.from" ]; then
    (umask 077; mkdir -p "${beside%/*}") || unmade;
    [ -d "$folder" ] || { mkdir -p "$folder" && say new; } || unmade;
    printf "%s\\n" "$origin" "$identity" >"$beside.from" || unmade;
fi;
cd "$folder" || unmade;
identify;
say clock "$(date +%s)";
if [ -d "$beside.replaced/last" ]; then rm -rf "$beside.replaced/last"; fi;
(umask 077; mkdir -p "$folder.partial" "$beside.replaced");
if python3 -I -S -c "" 2>/dev/null; then
    python3 -I -S -c "$confined" "$folder" "$folder.partial" "$beside.replaced" -- rsync "$@"; code=$?;
else rsync "$@"; code=$?; fi;
rmdir "$folder.partial" "$beside.replaced" 2>/dev/null;
if cd "$beside.replaced/last" 2>/dev/null; then
    case $code in
        0|23|24) find . -type f -exec stat -c "@@kit was %s %Y %n" {} + >&2;
            find . -type l -exec stat -c "@@kit link %n" {} + >&2;;
        *) mv "$beside.replaced/last" "$beside.replaced/unfinished-$(date +%Y%m%d-%H%M%S)";;
    esac;
fi;
exit $code
"""
)


def confined_text() -> str:
    """The program that runs rsync there so that it changes nothing outside: a job may exchange a folder for a link."""
    text = base64.b64encode(Path(confined.__file__).read_bytes()).decode()
    return f'import base64; exec(base64.b64decode("{text}"))'


# Where there is no folder yet, an empty one stands for it.
RECEIVE_DRY = _script(
    _BEGIN
    + """
if cd "$folder" 2>/dev/null; then identify; exec rsync "$@"; fi;
none=$(mktemp -d) && cd "$none" || exit 3;
rsync "$@"; code=$?;
rmdir "$none";
exit $code
"""
)
SEND = _script(
    _BEGIN
    + """
cd "$folder" 2>/dev/null || { say absent; exit 3; };
identify;
exec rsync "$@"
"""
)
