"""Where a folder is kept on a host, and what both sides have agreed on there: names that stay the same."""

from __future__ import annotations

import hashlib
import os
import posixpath
import pwd
import re
import socket
from collections.abc import Iterable
from pathlib import Path

from kit import files, paths
from kit.errors import BadInputError
from kit.frozen import dataclass
from kit.remote.ssh import Connection

# In the home directory there, where whoever logs in sees it.
PARENT = "kit-workspaces"
LONGEST_NAME = 60
# A record that is longer than this is written anew when most of its lines do not count any more.
LONG_RECORD_BYTES = 8_000_000


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a folder is kept on a host, and the files about it there and here."""

    remote_folder: str
    beside: str  # there: how the names of what is about it begin: NAME.from, NAME.replaced
    origin: str  # what NAME.from says about where it came from

    @property
    def lock(self) -> Path:
        return paths.state_dir() / "sync" / f"{posixpath.basename(self.beside)}.lock"

    @property
    def put_aside(self) -> str:
        """The folder there for what a sync replaced."""
        return f"{self.beside}.replaced"

    @property
    def partial(self) -> str:
        """The folder there for a file that was half sent: on the same disk, and out of the reach of jobs."""
        return f"{self.remote_folder}.partial"

    def last_record(self) -> Record:
        """The record that was written last, of whichever copy there."""
        name = f"{posixpath.basename(self.beside)}-"
        files = [f for f in self.lock.parent.glob("*") if re.fullmatch(r"[0-9a-f]+", f.name.removeprefix(name))]
        return Record(max((f for f in files if f.name.startswith(name)), key=lambda f: f.stat().st_mtime, default=None))

    def record(self, identity: str) -> Record:
        """What is known of the copy that has this identity: one made anew there has another."""
        file = paths.state_dir() / "sync" / f"{posixpath.basename(self.beside)}-{identity}"
        return Record(file if re.fullmatch(r"[0-9a-f]+", identity) else None)


@dataclass(frozen=True, kw_only=True)
class Version:
    """What tells one version of a file from another."""

    size: int
    changed: str  # in UTC, as rsync prints it: 2026/11/21-17:33:54


def find(connection: Connection, folder: Path, remote_folder: str = "") -> Place:
    """Where `folder` is kept; `remote_folder` chooses another place there than its own.

    Raises BadInputError when that is no place for files of one folder alone.
    """
    home = connection.account.home
    mark = [_machine(), str(os.getuid()), str(folder)]
    if remote_folder:
        remote_folder = _chosen(remote_folder, home)
        mark.append(remote_folder)
    name = f"{_readable(folder.name)}-{hashlib.sha256(os.fsencode(chr(0).join(mark))).hexdigest()[:8]}"
    own = posixpath.join(home, PARENT, name)
    return Place(remote_folder=remote_folder or own, beside=own, origin=_origin(folder))


def _chosen(remote_folder: str, home: str) -> str:
    chosen = remote_folder
    if chosen == "~" or chosen.startswith("~/"):
        chosen = home + chosen[1:]
    if not chosen.startswith("/") or re.search(r"[\x00-\x1f]", chosen):
        raise BadInputError(
            f"the remote folder {remote_folder!r} is no full path", hint="give a path that begins with / or ~/"
        )
    chosen = posixpath.normpath(chosen)
    chosen = "/" + chosen.lstrip("/")
    if chosen == posixpath.normpath(home) or posixpath.normpath(home).startswith(chosen.rstrip("/") + "/"):
        raise BadInputError(
            f"the remote folder {remote_folder!r} is the home directory there, or above it",
            hint="give a folder for these files alone, such as ~/project",
        )
    return chosen


def _readable(name: str) -> str:
    """A folder's name without what a shell, or a path, could take for something else."""
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in name).strip("-.")
    return os.fsencode(kept)[:LONGEST_NAME].decode(errors="ignore") or "folder"


def _origin(folder: Path) -> str:
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    plain = os.fsencode(folder).decode(errors="replace")
    return re.sub(r"[\x00-\x1f]", "?", f"{user}@{socket.gethostname()}:{plain}")


def _machine() -> str:
    """What this machine is called in the names of its folders: its host name may change, or be another's too."""
    file = paths.state_folder("sync") / "machine"
    if not file.exists():
        with files.locked(file.with_suffix(".lock")):
            if not file.exists():
                paths.write_text(file, os.urandom(16).hex() + "\n", mode=0o600)
    return file.read_text(encoding="utf-8").strip()


class Record:
    """For each file, the last version that was on both sides: whoever has another one has changed it since.

    Names are as rsync prints them. A line is added for each file that went over; the last one of a name counts.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file  # None: nothing is known, and nothing noted
        self._text: str | None = None

    @property
    def text(self) -> str:
        if self._text is None:
            self._text = "\n"
            if self.file and self.file.exists():
                self._text += self.file.read_text(encoding="ascii", errors="replace")
        return self._text

    def find(self, name: str) -> Version | None:
        start = self.text.rfind(f"\n{name}\t")
        return _version(self.text[start + 1 :].partition("\n")[0]) if start >= 0 else None

    def names(self) -> list[str]:
        return list(dict.fromkeys(line.partition("\t")[0] for line in self.text.splitlines() if line))

    def add(self, versions: Iterable[tuple[str, Version]]) -> None:
        lines = "".join(f"{name}\t{version.size}\t{version.changed}\n" for name, version in versions)
        if not lines or not self.file:
            return
        self._text = None
        paths.state_folder("sync")
        with os.fdopen(
            os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="ascii"
        ) as record:
            os.fchmod(record.fileno(), 0o600)
            record.write(lines)
            is_long = record.tell() > LONG_RECORD_BYTES
        if is_long:
            every = [line for line in self.text.splitlines() if line]
            last = {line.partition("\t")[0]: line for line in every}
            if len(last) < len(every) // 2:
                paths.write_text(self.file, "".join(f"{line}\n" for line in last.values()), mode=0o600)


def _version(line: str) -> Version | None:
    words = line.split("\t")
    if len(words) != 3 or not words[1].isdecimal():
        return None
    return Version(size=int(words[1]), changed=words[2])
