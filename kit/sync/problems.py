"""Why rsync failed, from its exit code and what it printed, as an error with what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kit.errors import BadInputError, DiskFullError, KitError, MissingProgramError, NetworkError

if TYPE_CHECKING:
    from kit.sync.rsync import Rsync, Transfer

SHOWN = 8
DONE, PARTLY, VANISHED = 0, 23, 24
# rsync's exit codes when the other end does not go on: protocol, sockets, streams, waiting.
_MISSING = re.compile(r"link_stat .*No such file or directory \(2\)$")
_LOST = (5, 10, 12, 14, 30, 35, 127, 255)


def check(rsync: Rsync, done: Transfer, *, to_host: bool) -> None:
    """Raise what went wrong, if anything did: a file that vanished meanwhile is nothing.

    NetworkError when the connection failed, DiskFullError, MissingProgramError when an rsync is missing or too old,
    BadInputError when the folder there is not there or cannot be made, KitError with names when single files failed.
    """
    if done.code in (DONE, VANISHED):
        return
    target, place = rsync.connection.target, rsync.place
    text = "\n".join(done.complaints)
    details = tuple(line for line in done.complaints if not line.startswith("rsync error: "))
    if re.search(r"No space left|[Qq]uota exceeded|\((?:28|122)\)$", text, re.MULTILINE):
        where = f"on {target}, where {place.remote_folder} is" if to_host else f"here, where {rsync.folder} is"
        raise DiskFullError(f"no space is left {where}", hint="free some; what went over stays", details=details[:4])
    if "no-rsync" in done.complaints:
        raise MissingProgramError(
            f"files are sent by the program `rsync`, which is not installed on {target}",
            hint="ask for it there (package rsync)",
        )
    if "absent" in done.complaints:
        raise BadInputError(
            f"{target} has nothing of {rsync.folder}: there is no {place.remote_folder}",
            hint="`kit sync` sends this folder; -C names another one here, --remote-folder there",
        )
    if "unmade" in done.complaints:
        raise BadInputError(
            f"{place.remote_folder} cannot be made on {target}",
            hint="--remote-folder names a place where you may write",
            details=tuple(line for line in details if line != "unmade")[:4],
        )
    if re.search(r"unknown option|[Uu]nknown --info item|requested action not supported", text):
        where = "here" if "[client" in text else f"on {target}"
        raise MissingProgramError(
            f"the rsync {where} is too old, or another program of that name",
            hint="install rsync 3.1 or newer; `rsync --version` tells",
            details=details[:2],
        )
    if "shell clean" in text:
        raise NetworkError(
            f"{target} prints text when a program logs in, which rsync takes for an answer",
            hint=f"let ~/.bashrc there print only for people (`case $- in *i*) … ;; esac`): `ssh {target} true` must "
            "print nothing",
        )
    if done.code == PARTLY:
        raise _partly(rsync, details, to_host=to_host)
    if done.code in _LOST:
        raise _lost(target, text, details)
    raise KitError(f"rsync failed with exit code {done.code}", details=details[-4:])


def _partly(rsync: Rsync, lines: Sequence[str], *, to_host: bool) -> KitError:
    found = list(dict.fromkeys(_short(rsync, line) for line in lines))
    missing = [_short(rsync, line).rpartition(": ")[0] for line in lines if _MISSING.search(line)]
    if missing and not to_host:
        return BadInputError(
            f"{', '.join(missing)}: not on {rsync.connection.target}, in {rsync.place.remote_folder}",
            hint="what was named beside it is here; names are as seen from the folder",
        )
    details = found[:SHOWN]
    if len(found) > SHOWN:
        details.append(f"… and {len(found) - SHOWN} more")
    target = rsync.connection.target
    what = "1 file" if len(found) == 1 else f"{len(found)} files"
    text = "\n".join(lines)
    hint = "see to these; the same command goes on with them"
    if "make way" in text or "non-empty" in text:
        hint = "what is a folder on one side is none on the other; move one of them away"
    elif "Permission denied" in text:
        is_reading = ("[sender]" in text) == to_host
        hint = (
            "make them readable (`chmod u+r`), or list them in .gitignore"
            if is_reading and to_host
            else f"`ls -l` {'on ' + target if to_host != is_reading or not to_host else 'here'} shows whose they are"
        )
    went = f"sent to {target}" if to_host else f"fetched from {target}"
    return KitError(f"{what} could not be {went}; the rest was", hint=hint, details=tuple(details))


def _short(rsync: Rsync, line: str) -> str:
    """A line of rsync's without its own names for things: `data/x: Permission denied`."""
    from kit.sync.rsync import readable

    match = re.fullmatch(r'rsync: .*?"(.*)"[^"]*?: (.*?)(?: \(\d+\))?', line)
    if not match:
        return line.removeprefix("rsync: ")
    name, why = match.groups()
    for folder in (os.fsdecode(rsync.folder), rsync.place.remote_folder):
        name = name.removeprefix(folder.rstrip("/") + "/")
    return f"{readable(name)}: {why}"


def _lost(target: str, text: str, details: tuple[str, ...]) -> NetworkError:
    from kit import ssh

    # Nothing came over it: what ssh said tells why.
    if "(0 bytes received so far)" in text or not details:
        return ssh.failure(target, 255, text)
    return NetworkError(
        f"the connection to {target} was lost while files went over",
        hint="the same command goes on where this one ended",
        details=details[-2:],
    )
