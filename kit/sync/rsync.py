"""Runs rsync through the shared connection, reads what it prints, and says why it failed."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kit import process
from kit.errors import MissingProgramError
from kit.sync import problems, there
from kit.sync.place import Place, Version

if TYPE_CHECKING:
    from kit.ssh import Connection

# Where a file that was half sent waits for the next time.
PARTIAL = ".kit-partial"
# -s: arguments do not go through the shell there. No owners: files belong to the account there, as its containers do.
# No times of folders: each file written in one would make it differ. The whole list first: it takes less time for the
# many small files of a project, and how far it is can be told.
OPTIONS: tuple[str, ...] = ("-rlptOJ", "-K", "-s", "--no-i-r", "--no-h", "--outbuf=L", f"--partial-dir={PARTIAL}")
OPTIONS += ("--out-format=@%i %l %M %n%L",)
TOLD = "--info=stats2,skip1"
# Printed in English and in UTC, with every byte of a name that is not ASCII as \#ooo.
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something that went over, or would."""

    kind: str  # f file, d folder, L symbolic link, * deleted
    is_new: bool
    is_sent: bool  # and not only its permissions changed
    name: str  # as rsync prints it; a link's has what it points to behind it
    version: Version


@dataclass(kw_only=True)
class Transfer:
    """What a run of rsync told."""

    items: list[Item] = field(default_factory=list)
    newer: list[str] = field(default_factory=list)  # names, as rsync prints them
    listed: dict[str, Version] = field(default_factory=dict)
    replaced: dict[str, Version] = field(default_factory=dict)  # what there was on the host before
    identity: str = ""
    literal_bytes: int = 0
    transferred_bytes: int = 0
    complaints: list[str] = field(default_factory=list)
    code: int = 0


@dataclass(frozen=True, kw_only=True)
class Observer:
    """Who is told what while rsync runs."""

    status: Callable[[str], None] | None = None
    item: Callable[[Item], None] = lambda item: None
    note: Callable[[str], None] = lambda note: None


@dataclass(frozen=True, kw_only=True)
class Rsync:
    """rsync between a folder here and one on a host."""

    connection: Connection
    folder: Path
    place: Place

    def send(self, done: Transfer, *options: str, dry_run: bool = False, observer: Observer | None = None) -> None:
        """Run it towards the host; `done` takes what it tells, exit code included."""
        self._run(done, there.RECEIVE_DRY if dry_run else there.RECEIVE, options, True, dry_run, observer)

    def receive(self, done: Transfer, *options: str, dry_run: bool = False, observer: Observer | None = None) -> None:
        """Run it towards here."""
        self._run(done, there.SEND, options, False, dry_run, observer)

    def versions(self, names: Sequence[str], done: Transfer | None = None) -> dict[str, Version]:
        """Of these files (names as rsync prints them), those that are on the host, as they are there."""
        done = done or Transfer()
        with list_file([unescaped(name) for name in names]) as file:
            self.receive(done, "--list-only", "--ignore-missing-args", "--from0", f"--files-from={file}")
        problems.check(self, done, to_host=False)
        return done.listed

    def _run(
        self,
        done: Transfer,
        script: str,
        options: Sequence[str],
        to_host: bool,
        dry_run: bool,
        observer: Observer | None,
    ) -> None:
        observer = observer or Observer()
        place = self.place
        ssh_options, host = machine(self.connection.address)
        told = TOLD + (",progress2" if observer.status else "")
        command = ["rsync", *OPTIONS, told, *(["-n"] if dry_run else []), *options]
        command += ["-e", shlex.join([*self.connection.shell(), *ssh_options])]
        arguments = (place.beside, place.remote_folder, place.origin, os.urandom(8).hex())
        command += [f"--rsync-path={shlex.join(['sh', '-c', script, 'kit', *arguments])}"]
        command += ["--", *(("./", f"{host}:./") if to_host else (f"{host}:./", "./"))]
        try:
            done.code = process.stream(command, _Reader(done, observer).line, env=ENVIRONMENT, cwd=self.folder)
        except MissingProgramError:
            raise MissingProgramError(
                "files are sent to and from hosts by the program `rsync`, which is not installed",
                hint="install it (package rsync)",
            ) from None


class _Reader:
    def __init__(self, done: Transfer, observer: Observer) -> None:
        self.done, self.observer = done, observer

    def line(self, text: str) -> None:
        # A line of progress ends where the next one overwrites it.
        for part in text.split("\r"):
            self.part(part)

    def part(self, text: str) -> None:
        done = self.done
        if text.startswith(there.MARK):
            self.note(text.removeprefix(there.MARK))
        elif item := _ITEM.fullmatch(text):
            what, size, changed, name = item.groups()
            found = Item(
                kind="*" if what.startswith("*deleting") else what[1],
                is_new="+" in what,
                is_sent=what[0] in "<>" or (what[0] == "c" and what[1] == "L"),
                name=name,
                version=Version(size=int(size), changed=changed),
            )
            done.items.append(found)
            self.observer.item(found)
        elif text.endswith(" is newer"):
            done.newer.append(text.removesuffix(" is newer"))
        elif progress := _PROGRESS.match(text):
            if self.observer.status:
                size, percent, rate, left = progress.groups()
                self.observer.status(f"{percent}  {in_bytes(int(size))}  {rate}  {left}")
        elif listed := _LISTED.fullmatch(text):
            size, day, hour, name = listed.groups()
            done.listed[name] = Version(size=int(size), changed=f"{day}-{hour}")
        elif stats := _STATS.fullmatch(text):
            if stats[1] == "Literal data":
                done.literal_bytes = int(stats[2])
            else:
                done.transferred_bytes = int(stats[2])
        elif text and not _NOISE.match(text):
            done.complaints.append(text)

    def note(self, note: str) -> None:
        word, _, rest = note.partition(" ")
        if word == "is":
            self.done.identity = rest
        elif word == "was":
            import time

            size, _, rest = rest.partition(" ")
            seconds, _, name = rest.partition(" ")
            changed = time.strftime("%Y/%m/%d-%H:%M:%S", time.gmtime(int(seconds)))
            self.done.replaced[escaped(name.removeprefix("./"))] = Version(size=int(size), changed=changed)
        else:
            self.observer.note(note)
            if word in ("absent", "unmade", "no-rsync"):
                self.done.complaints.append(note)


_ITEM = re.compile(r"@([<>ch.*]\S{10}|\*deleting  ) (\d+) (\S+) (.*)")
_PROGRESS = re.compile(r"\s*(\d+)\s+(\d+%)\s+(\S+/s)\s+(\d+:\d\d:\d\d)")
_LISTED = re.compile(r"-\S+\s+(\d+) (\d{4}/\d\d/\d\d) (\d\d:\d\d:\d\d) (.*)")
_STATS = re.compile(r"(Literal data|Total transferred file size): (\d+) bytes")
_NOISE = re.compile(
    r"\s*$|Number of |Total |Matched data|File list |sent \d|total size is|[dlcbps]\S{9}\s+\d+ \d{4}/"
    r"|skipping non-regular file|file has vanished|IO error encountered -- skipping|created directory "
    r"|rsync warning: some files vanished"
)


def machine(address: str) -> tuple[list[str], str]:
    """How rsync is told an address of ssh's: options for ssh, and a name that rsync takes for a machine.

    rsync knows no ssh://, takes what is after a colon for a path, and a name with a slash for one here. Where a name
    cannot be told, another goes in its place: the connection is open, and is found by its socket.
    """
    if address.startswith("ssh://"):
        from urllib.parse import unquote

        user, _, host = address.removeprefix("ssh://").partition("/")[0].rpartition("@")
        user, port = unquote(user), ""
        if parts := re.fullmatch(r"(\[.*\]|[^:]*):(\d+)", host):
            host, port = parts.groups()
    else:
        user, _, host = address.rpartition("@")
        port = ""
    options = [*(["-l", user] if user else []), *(["-p", port] if port else [])]
    host = host.removeprefix("[").removesuffix("]")
    if not re.fullmatch(r"[\w.%:][\w.%:-]*", host):
        host = "kit-host"
    return options, f"[{host}]" if ":" in host else host


def unescaped(name: str) -> str:
    """A name from what rsync prints of it."""
    raw = re.sub(rb"\\#([0-7]{3})", lambda match: bytes([int(match[1], 8)]), name.encode())
    return os.fsdecode(raw)


def escaped(name: str) -> str:
    """A name as rsync prints it."""
    raw = re.sub(rb"\\(?=#[0-9]{3})|[^\x20-\x7e]", lambda match: b"\\#%03o" % match[0][0], os.fsencode(name))
    return raw.decode()


def in_line(name: str) -> str:
    """A name as people read it: on one line, and without bytes that are no text."""
    text = os.fsencode(name).decode(errors="replace")
    return text if text.isprintable() else repr(text)[1:-1]


def readable(name: str) -> str:
    """A name from what rsync prints of it, as people read it."""
    return in_line(unescaped(name))


@contextlib.contextmanager
def list_file(lines: Sequence[str]) -> Iterator[str]:
    """A file with these lines for rsync's `--from0`."""
    import tempfile

    with tempfile.NamedTemporaryFile(prefix="kit-sync-") as file:
        file.write(b"".join(os.fsencode(line) + b"\0" for line in lines))
        file.flush()
        yield file.name


def in_bytes(size: float) -> str:
    """A number of bytes, as people read it."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
