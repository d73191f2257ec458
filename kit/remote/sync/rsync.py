"""Runs rsync through the shared connection, reads what it prints, and says why it failed."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kit import linux, process
from kit.errors import BadInputError, CommandError, DiskFullError, KitError, MissingProgramError, NetworkError
from kit.remote import relay, ssh
from kit.remote.sync import confined, scripts
from kit.remote.sync.place import Place, Version
from kit.sizes import in_bytes as in_bytes

# Where a file that was half fetched waits for the next time, in the folder here.
PARTIAL = ".kit-partial"
# -s: arguments do not go through the shell there. No owners: files belong to the account there, as its containers do.
# No times of folders: each file written in one would make it differ. The whole list first: it takes less time for the
# many small files of a project, and how far it is can be told. Never -K, -L or --inplace: what receives would follow
# links that a job or a server put there. A mode that gives rights to others is no file's that comes from elsewhere.
OPTIONS: tuple[str, ...] = ("-rlptOJ", "-s", "--no-i-r", "--no-h", "--outbuf=L", "--chmod=ug-s,o-t,o-w")
# No name has // in it.
OPTIONS += ("--out-format=@%i %l %M %n//%L",)
TOLD = "--info=stats2,skip1"
# Where a newer rsync is on a Mac, though its folder need not be in PATH: Homebrew's, MacPorts'.
ELSEWHERE = (Path("/opt/homebrew/bin/rsync"), Path("/usr/local/bin/rsync"), Path("/opt/local/bin/rsync"))
# What rsync takes for a machine; which one it is the shell knows that is there already.
HOST = "host"
# Printed in English and in UTC, with every byte of a name that is not ASCII as \#ooo.
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}
# Its exit codes; the last are those when the other end does not go on: protocol, sockets, streams, waiting.
DONE, PARTLY, VANISHED = 0, 23, 24
_LOST = (5, 10, 12, 14, 30, 35, 127, 255)
SHOWN_FILES = 8  # that could not be sent


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something that went over, or would."""

    kind: str  # f file, d folder, L symbolic link, * deleted
    is_new: bool
    is_sent: bool  # and not only its permissions changed
    name: str  # as rsync prints it
    version: Version
    target: str = ""  # of a link, as rsync prints it


@dataclass(kw_only=True)
class Transfer:
    """What a run of rsync told."""

    items: list[Item] = field(default_factory=list)
    newer: list[str] = field(default_factory=list)  # names, as rsync prints them
    listed: dict[str, Version] = field(default_factory=dict)
    replaced: dict[str, Version] = field(default_factory=dict)  # what there was on the host before
    links: list[str] = field(default_factory=list)  # of what there was on the host before
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

    connection: ssh.Connection
    folder: Path
    place: Place

    def send(self, done: Transfer, *options: str, dry_run: bool = False, observer: Observer | None = None) -> None:
        """Run it towards the host; `done` takes what it tells, exit code included."""
        self._run(done, scripts.RECEIVE_DRY if dry_run else scripts.RECEIVE, options, True, dry_run, observer)

    def receive(self, done: Transfer, *options: str, dry_run: bool = False, observer: Observer | None = None) -> None:
        """Run it towards here."""
        self._run(done, scripts.SEND, options, False, dry_run, observer)

    def versions(self, names: Sequence[str], done: Transfer | None = None) -> dict[str, Version]:
        """Of these files (names as rsync prints them), those that are on the host, as they are there."""
        done = done or Transfer()
        with list_file([unescaped(name) for name in names]) as file:
            self.receive(done, "--list-only", "--ignore-missing-args", "--from0", f"--files-from={file}")
        check(self, done, to_host=False)
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
        told = TOLD + (",progress2" if observer.status else "")
        # Only in a place that no job and no server can make a link: rsync would look, and delete, behind it.
        partial = place.partial if to_host else _real_folder(self.folder / PARTIAL)
        command = [_program(), *OPTIONS, f"--partial-dir={partial}", told, *(["-n"] if dry_run else []), *options]
        text = scripts.confined_text() if script == scripts.RECEIVE else ""
        arguments = (place.beside, place.remote_folder, place.origin, os.urandom(8).hex(), text)
        command += [f"--rsync-path={shlex.join(['sh', '-c', script, 'kit', *arguments])}"]
        ends = ("./", f"{HOST}:./") if to_host else (f"{HOST}:./", "./")
        try:
            there = self.connection.kept_shell()
        except CommandError as e:
            raise ssh.failure(self.connection.target, e.returncode, e.stderr or e.stdout) from None
        with there.lent() as (streams, mark):
            # No ssh of its own: that would be another login.
            through = [sys.executable, "-I", "-S", relay.__file__, *map(str, streams), mark]
            command += ["-e", shlex.join(through), "--", *ends]
            if not to_host:
                # A server may send a file in a folder that it does not send: rsync takes a link here for that folder.
                command = [sys.executable, "-I", "-S", confined.__file__, str(self.folder), "--", *command]
            done.code = -1
            try:
                reader = _Reader(done, observer)
                done.code = process.stream(command, reader.line, env=ENVIRONMENT, cwd=self.folder, pass_fds=streams)
            finally:
                with contextlib.suppress(OSError):  # of a file that is half there, or there is none
                    (self.folder / PARTIAL).rmdir()
                if done.code != 0:
                    # What still runs there may be waiting for more.
                    there.end(is_busy=done.code < 0)


def _program() -> str:
    """The rsync of this machine. Raises MissingProgramError where there is none, or none that is of use."""
    found = shutil.which("rsync")
    if linux.is_here():
        if found is None:
            raise MissingProgramError(
                "files are sent to and from hosts by the program `rsync`, which is not installed",
                hint="install it (package rsync)",
            )
        return found
    # A Mac's own is another program of that name, or one of 2006.
    for program in filter(None, (found, *map(str, ELSEWHERE))):
        with contextlib.suppress(CommandError, MissingProgramError):
            if re.match(r"rsync +version (3\.[1-9]|[4-9]|\d\d)", process.run([program, "--version"]).stdout):
                return program
    raise MissingProgramError(
        "files are sent to and from hosts by rsync 3.1 or newer, which is not installed",
        hint="`brew install rsync`; what macOS has under that name cannot do it",
    )


def _real_folder(path: Path) -> Path:
    """The path, if it is of a folder or of nothing."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise BadInputError(f"{path} is not a folder of kit's", hint=f"look what it is, and remove it: `ls -l {path}`")
    return path


class _Reader:
    """Reads what rsync prints here, and what the host makes it print: both come in the same lines."""

    def __init__(self, done: Transfer, observer: Observer) -> None:
        self.done, self.observer = done, observer
        self.kept = 0

    def line(self, text: str) -> None:
        # A line of progress ends where the next one overwrites it.
        for part in text.split("\r"):
            self.part(part)

    def part(self, text: str) -> None:
        done, text = self.done, text.replace("\t", r"\#011")  # which rsync leaves as it is
        if text.startswith(scripts.MARK):
            self.note(text.removeprefix(scripts.MARK))
        elif item := _ITEM.fullmatch(text):
            what, size, changed, name, target = item.groups()
            found = Item(
                kind="*" if what.startswith("*deleting") else what[1],
                is_new="+" in what,
                is_sent=what[0] in "<>" or (what[0] == "c" and what[1] == "L"),
                name=name,
                version=Version(size=int(size), changed=changed),
                target=target or "",
            )
            if self.keeps(name):
                done.items.append(found)
                self.observer.item(found)
        elif text.endswith(" is newer"):
            if self.keeps(name := text.removesuffix(" is newer")):
                done.newer.append(name)
        elif progress := _PROGRESS.match(text):
            if self.observer.status:
                size, percent, rate, left = progress.groups()
                self.observer.status(f"{percent}  {in_bytes(int(size))}  {rate}  {left}")
        elif listed := _LISTED.fullmatch(text):
            size, day, hour, name = listed.groups()
            if self.keeps(name):
                done.listed[name] = Version(size=int(size), changed=f"{day}-{hour}")
        elif stats := _STATS.fullmatch(text):
            if stats[1] == "Literal data":
                done.literal_bytes = int(stats[2])
            else:
                done.transferred_bytes = int(stats[2])
        elif text and not _NOISE.match(text) and len(done.complaints) < MOST_COMPLAINTS:
            done.complaints.append(text)

    def keeps(self, name: str) -> bool:
        """Whether a name is one in the folder, as rsync prints it, and not more than a host may make us remember."""
        self.kept += 1
        if self.kept > MOST_NAMES:
            raise KitError("the host names files without end", hint="is there an rsync at all? log in and try it")
        return name.isascii() and name.isprintable() and name[:1] != "/" and ".." not in name.split("/")

    def note(self, note: str) -> None:
        word, _, rest = note.partition(" ")
        if word == "is":
            self.done.identity = rest
        elif was := _WAS.fullmatch(note):
            size, seconds, raw = was.groups()
            name = escaped(raw.removeprefix("./"))
            if self.keeps(name):
                changed = time.strftime("%Y/%m/%d-%H:%M:%S", time.gmtime(int(seconds)))
                self.done.replaced[name] = Version(size=int(size), changed=changed)
        elif word == "link":
            if self.keeps(name := escaped(rest.removeprefix("./"))):
                self.done.links.append(name)
        else:
            self.observer.note(note)
            if word in ("absent", "unmade", "no-rsync"):
                self.done.complaints.append(note)


# More than this a host says only to fill the memory here.
MOST_NAMES, MOST_COMPLAINTS = 10_000_000, 10_000
_NUMBER = r"([0-9]{1,18})"
_ITEM = re.compile(rf"@([<>ch.*]\S{{10}}|\*deleting  ) {_NUMBER} ([0-9/:-]{{1,40}}) (.*?/?)//(?: -> (.*))?")
_PROGRESS = re.compile(rf"\s*{_NUMBER}\s+(\d+%)\s+(\S+/s)\s+(\d+:\d\d:\d\d)")
_LISTED = re.compile(rf"-\S+\s+{_NUMBER} (\d{{4}}/\d\d/\d\d) (\d\d:\d\d:\d\d) (.*)")
_STATS = re.compile(rf"(Literal data|Total transferred file size): {_NUMBER} bytes")
_WAS = re.compile(rf"was {_NUMBER} ([0-9]{{1,11}}) (.+)")
_MISSING = re.compile(r"link_stat .*No such file or directory \(2\)$")
_NOISE = re.compile(
    r"\s*$|Number of |Total |Matched data|File list |sent \d|total size is|[dlcbps]\S{9}\s+\d+ \d{4}/"
    r"|skipping non-regular file|file has vanished|IO error encountered -- skipping|created directory "
    r"|rsync warning: some files vanished"
)


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
    if re.search(r"unknown option|unrecognized option|[Uu]nknown --info item|requested action not supported", text):
        where = "here" if "[client" in text else f"on {target}"
        raise MissingProgramError(
            f"the rsync {where} is too old, or another program of that name",
            hint="install rsync 3.1 or newer; `rsync --version` tells",
            details=details[:2],
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
    details = found[:SHOWN_FILES]
    if len(found) > SHOWN_FILES:
        details.append(f"… and {len(found) - SHOWN_FILES} more")
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
    match = re.fullmatch(r'rsync: .*?"(.*)"[^"]*?: (.*?)(?: \(\d+\))?', line)
    if not match:
        return line.removeprefix("rsync: ")
    name, why = match.groups()
    for folder in (os.fsdecode(rsync.folder), rsync.place.remote_folder):
        name = name.removeprefix(folder.rstrip("/") + "/")
    return f"{readable(name)}: {why}"


def _lost(target: str, text: str, details: tuple[str, ...]) -> NetworkError:
    # Nothing came over it: what ssh said tells why.
    if "(0 bytes received so far)" in text or not details:
        return ssh.failure(target, 255, text)
    return NetworkError(
        f"the connection to {target} was lost while files went over",
        hint="the same command goes on where this one ended",
        details=details[-2:],
    )


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
    with tempfile.NamedTemporaryFile(prefix="kit-sync-") as file:
        file.write(b"".join(os.fsencode(line) + b"\0" for line in lines))
        file.flush()
        yield file.name
