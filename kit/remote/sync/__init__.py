"""A folder here and its copy on a host: `push` sends what changed, `fetch` brings results home.

rsync does the work, over the shared connection. What was changed on the other side since both had the same is never
lost: the newer version stays where it is, or what is replaced is put aside. Nothing is deleted unasked.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kit import files, paths
from kit.errors import BadInputError, MissingProgramError
from kit.frozen import dataclass
from kit.remote.ssh import Connection
from kit.remote.sync import ignored, included, place
from kit.remote.sync.included import LeftOut
from kit.remote.sync.place import Place, Version
from kit.remote.sync.rsync import (
    DONE,
    PARTIAL,
    PARTLY,
    VANISHED,
    Rsync,
    Transfer,
    check,
    escaped,
    in_line,
    list_file,
    unescaped,
)
from kit.remote.sync.watch import SILENT, Progress, Watch, listed

__all__ = ["NOT_FETCHED", "SILENT", "LeftOut", "Progress", "Synced", "fetch", "push", "remote_folder"]

# What belongs to one machine, or is made again from the rest: never brought home unless it is named.
NOT_FETCHED: tuple[str, ...] = (
    ".git",
    "__pycache__",
    ".ipynb_checkpoints",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
)
NOT_FETCHED += (".venv", "node_modules", PARTIAL)
# What is never sent, whatever git says of it.
_OWN = ("--exclude=.git", f"--exclude={PARTIAL}")


@dataclass(frozen=True, kw_only=True)
class Synced:
    """What went over, and what did not. Names are relative to the folder."""

    remote_folder: str
    sent_files: int  # in the direction asked for; of a dry run: that would
    sent_bytes: int  # of their content that was not on the other side already
    kept_newer: tuple[str, ...]  # left as they are, because they are newer where they would have gone
    put_aside: tuple[str, ...]  # replaced although changed there as well; what was there is in `aside`
    aside: str  # a folder on the host (push), or what the names here end in (fetch); empty when there is nothing
    deleted: tuple[str, ...]
    seconds: float
    is_all: bool = True  # nothing stays here, but for `.git` and what was not asked for
    left_out: tuple[LeftOut, ...] = ()  # what stays as git ignores it, but for what is made again from the rest


def remote_folder(connection: Connection, folder: Path, chosen: str = "") -> str:
    """Where this folder is kept over there: the same each time, another for each folder, machine and user here.

    `chosen` replaces it. Raises BadInputError when that is no place for the files of one folder.
    """
    return place.find(connection, folder.resolve(), chosen).remote_folder


def push(
    connection: Connection,
    folder: Path,
    *,
    names: Sequence[str] = (),
    include: Sequence[str] = (),
    remote_folder: str = "",
    delete: bool = False,
    dry_run: bool = False,
    force: bool = False,
    may_delete: Callable[[Sequence[str]], bool] = lambda names: True,
    progress: Progress = SILENT,
) -> Synced:
    """Make the copy on the host like this folder: all but `.git` and what git would ignore.

    `include`, and the lines of the folder's own `.kitinclude`: paths and patterns that go although git ignores them.
    `names`: these files and folders alone, also when git ignores them.

    A file that is newer there and was changed there stays. One that was changed on both sides and is newer here is
    sent, and what was there is put aside. `delete`: what is there and not here goes, unless git would ignore it, if
    `may_delete` agrees to the names. Raises BadInputError for the home directory and what is above it (but for
    `force`) and for a name that is not in the folder, and what kit.remote.sync.rsync.check says; what could be sent was
    sent even then.
    """
    started = time.monotonic()
    folder = _checked(folder, force)
    where = place.find(connection, folder, remote_folder)
    rsync = Rsync(connection=connection, folder=folder, place=where)
    if names and delete:
        raise BadInputError("--delete is for the whole folder", hint="leave out the paths, or --delete")
    chosen = _chosen(folder, names, include, progress)
    with (
        files.locked(where.lock, say=progress.message),
        ignored.read(folder) as tree,
        _rules(folder, tree, chosen, progress) as rules,
    ):
        deleted = _delete(rsync, tree, may_delete, dry_run=dry_run) if delete else ()
        count = None
        if tree and not chosen.names:
            count = included.Count(folder, tree, chosen.included, NOT_FETCHED)
        watch = Watch(rsync, tree, progress)
        done = Transfer()
        try:
            backup = ("--backup", f"--backup-dir={where.put_aside}/last")
            rsync.send(done, "--update", *backup, *rules, dry_run=dry_run, observer=watch.observer)
            aside, put_aside = _aside_there(rsync, done, progress)
            watch.tell(f"to {connection.target}")
            check(rsync, done, to_host=True)
            if done.newer:
                record, there = where.record(done.identity), rsync.versions(done.newer)
                stale = [name for name in done.newer if name in there and there[name] == record.find(name)]
                if stale:
                    with _only(stale) as options:
                        rsync.send(done, *options, dry_run=dry_run, observer=watch.observer)
                    check(rsync, done, to_host=True)
        finally:
            # What went over before an interruption counts too.
            if not dry_run:
                where.record(done.identity).add(_versions(done))
            left_out = count.end() if count else ()
    synced = _synced(where, done, started, dry_run=dry_run, aside=aside, put_aside=put_aside, deleted=deleted)
    return replace(synced, left_out=left_out, is_all=count.is_nothing if count else bool(chosen.names))


def fetch(
    connection: Connection,
    folder: Path,
    names: Sequence[str] = (),
    *,
    remote_folder: str = "",
    dry_run: bool = False,
    progress: Progress = SILENT,
) -> Synced:
    """Bring home what is new or changed in the copy on the host, what git would ignore too.

    `names`: only these files and folders; without them `NOT_FETCHED` stays there, and what was deleted here and has
    not changed there. A file that is newer here and was changed here stays; one that was changed on both sides and is
    newer there is replaced, and what was here is kept beside it. Deletes nothing. Raises BadInputError for a name that
    is not in the folder, or not there, and what kit.remote.sync.rsync.check says.
    """
    started = time.monotonic()
    folder = _checked(folder, force=True)
    where = place.find(connection, folder, remote_folder)
    rsync = Rsync(connection=connection, folder=folder, place=where)
    wanted = [included.inside(name) for name in names]
    aside = f".before-fetch-{time.strftime('%Y%m%d-%H%M%S')}"
    with files.locked(where.lock, say=progress.message), _wanted(rsync, wanted, progress) as selected:
        watch = Watch(rsync, None, progress)
        done = Transfer()
        put_aside: tuple[str, ...] = ()
        try:
            backup = ("--backup", f"--suffix={aside}")
            rsync.receive(done, "--update", *backup, *selected, dry_run=dry_run, observer=watch.observer)
            record = where.record(done.identity)
            stale = [name for name in done.newer if _version_here(folder, name) == record.find(name) is not None]
            if stale and done.code in (DONE, VANISHED):
                with _only(stale) as options:
                    rsync.receive(done, *options, dry_run=dry_run, observer=watch.observer)
        finally:
            if not dry_run:
                put_aside = _aside_here(rsync, done, aside, progress)
                here = [(name, version) for name, version in _versions(done) if _version_here(folder, name) == version]
                where.record(done.identity).add(here)
            watch.tell(f"from {connection.target}")
        check(rsync, done, to_host=False)
    return _synced(where, done, started, dry_run=dry_run, aside=aside if put_aside else "", put_aside=put_aside)


def _checked(folder: Path, force: bool) -> Path:
    """The folder, if it is one that may be sent."""
    if not folder.is_dir():
        raise BadInputError(f"there is no folder {folder}", hint="-C names the folder")
    folder, home = folder.resolve(), paths.home().resolve()
    if not force and (folder == home or folder in home.parents):
        what = "your home directory" if folder == home else "above your home directory"
        raise BadInputError(
            f"{folder} is {what}: all of it would be sent",
            hint="go to the project's folder, or name it with `-C FOLDER`; `kit sync --force` sends this one",
        )
    return folder


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """What of a folder is sent: paths in it, none of which ends in a slash."""

    names: tuple[str, ...] = ()  # these alone; empty: all
    included: tuple[str, ...] = ()  # also when git ignores it


def _chosen(folder: Path, names: Sequence[str], include: Sequence[str], progress: Progress) -> _Chosen:
    """What was asked for. Raises BadInputError for a name that stands for nothing."""
    wanted, missing = included.expanded(folder, names)
    if missing:
        raise BadInputError(
            f"{', '.join(missing)}: not in {folder}", hint="name files and folders as seen from the folder"
        )
    found, missing = included.expanded(folder, (*include, *included.of_file(folder)))
    if missing:
        progress.message(f"to be sent although git ignores it, and not here: {', '.join(map(in_line, missing))}")
    if names and "." not in wanted:
        found = [path for path in found if included.is_under(path, wanted)]
    return _Chosen(names=() if "." in wanted else tuple(wanted), included=tuple(found))


@contextlib.contextmanager
def _rules(folder: Path, tree: ignored.Tree | None, chosen: _Chosen, progress: Progress) -> Iterator[tuple[str, ...]]:
    """rsync's options for what is sent, and what is not."""
    if tree is None:
        if chosen.names or chosen.included:
            raise MissingProgramError(
                "a part of a folder, or what git ignores, is sent with the help of the program `git`, which is not "
                "installed",
                hint="install it (package git)",
            )
        progress.message("git is not installed: rsync reads .gitignore, and takes it nearly as git does")
        yield (*_OWN, "--filter=:- .gitignore")
        return
    if tree.problem:
        progress.message(f"git does not read this repository, only its .gitignore files count ({tree.problem})")
    left_out = {path.rstrip("/") for path in tree.ignored}
    taken = [*chosen.included, *(name for name in chosen.names if included.is_under(name, left_out))]
    rules = [*included.rules(folder, taken, tree.ignored), *tree.rules()]
    if chosen.names:
        rules += included.only(folder, chosen.names)
    with list_file(rules) as file:
        yield (*_OWN, "--from0", f"--exclude-from={file}")


@contextlib.contextmanager
def _only(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """rsync's options for these files alone; names are as it prints them."""
    with list_file([unescaped(name) for name in names]) as file:
        yield ("--from0", "--ignore-missing-args", f"--files-from={file}")


@contextlib.contextmanager
def _wanted(rsync: Rsync, names: Sequence[str], progress: Progress) -> Iterator[tuple[str, ...]]:
    """rsync's options for what is fetched."""
    asked = {part for name in names for part in name.split("/")}
    everywhere = tuple(f"--exclude={name}" for name in NOT_FETCHED if name not in asked)
    if names:
        with list_file(names) as file:
            yield (*everywhere, "--from0", f"--files-from={file}")
        return
    gone = _gone_here(rsync)
    if gone:
        progress.message(f"deleted here, so not brought back: {listed(gone)}; name them to have them again")
    with list_file([ignored.anchored(unescaped(name)) for name in gone]) as file:
        yield (*everywhere, "--from0", f"--exclude-from={file}")


def _gone_here(rsync: Rsync) -> list[str]:
    """Files that both sides had, that are here no more, and that are as they were there."""
    record = rsync.place.last_record()
    gone = [name for name in record.names() if not os.path.lexists(rsync.folder / unescaped(name))]
    if not gone:
        return []
    listing = Transfer()
    there = rsync.versions(gone, listing)
    same = rsync.place.record(listing.identity).file == record.file
    return [name for name in gone if same and name in there and there[name] == record.find(name)]


def _delete(
    rsync: Rsync, tree: ignored.Tree | None, may_delete: Callable[[Sequence[str]], bool], *, dry_run: bool
) -> tuple[str, ...]:
    """Delete there what is not here and would have been sent from here; returns the names."""
    if tree is None:
        raise MissingProgramError(
            "--delete needs the program `git`, which is not installed: it tells what was never sent from here",
            hint="install it (package git)",
        )
    extraneous = ("--delete", "--existing", "--ignore-existing", *_OWN)
    found = Transfer()
    rsync.send(found, *extraneous, dry_run=True)
    check(rsync, found, to_host=True)
    names = [unescaped(item.name) for item in found.items if item.kind == "*"]
    safe = tree.among(names)
    # Of a folder with something in it that stays, rsync leaves what is needed.
    names = [name for name in names if name not in safe]
    if not names or dry_run or not may_delete(names):
        return tuple(names) if dry_run else ()
    # Exactly these, whatever has come there meanwhile: R puts a name at risk, P protects all others.
    rules = [*(f"R {ignored.anchored(name)}" for name in names), "P *"]
    done = Transfer()
    with list_file(rules) as file:
        rsync.send(done, *extraneous, "--from0", f"--filter=. {file}")
    check(rsync, done, to_host=True)
    return tuple(unescaped(item.name) for item in done.items if item.kind == "*")


def _aside_there(rsync: Rsync, done: Transfer, progress: Progress) -> tuple[str, tuple[str, ...]]:
    """Keep what was replaced there although it had been changed there; returns the folder there, and the names."""
    record = rsync.place.record(done.identity)
    changed = [name for name, version in done.replaced.items() if version != record.find(name)]
    # A link that is another one now was one here too.
    links = sorted({*done.links} - {item.name for item in done.items if item.kind == "L"})
    if not changed and not links:
        return "", ()
    if links:
        progress.message(_not_followed(f"on {rsync.connection.target}", links))
    kept = f"{rsync.place.put_aside}/{time.strftime('%Y%m%d-%H%M%S')}"
    rsync.connection.run('mv "$1" "$2"', arguments=(f"{rsync.place.put_aside}/last", kept))
    return kept, tuple(unescaped(name) for name in (*changed, *links))


def _aside_here(rsync: Rsync, done: Transfer, ending: str, progress: Progress) -> tuple[str, ...]:
    """Of the files that were replaced here, remove what they were unless it was changed here; returns the others."""
    record = rsync.place.record(done.identity)
    kept, links = [], []
    for item in done.items:
        name = item.name.rstrip("/")
        before = rsync.folder / unescaped(name + escaped(ending))
        # What rsync did not put here is behind a link, and not ours.
        if not os.path.lexists(before) or before.parent.resolve() != before.parent:
            continue
        if item.kind == "f" and _version_here(rsync.folder, name + escaped(ending)) == record.find(item.name):
            before.unlink()
        else:
            kept.append(unescaped(name))
            if before.is_symlink() and item.kind != "L":
                links.append(name)
    if links:
        progress.message(_not_followed("here", links))
    return tuple(kept)


def _not_followed(where: str, links: Sequence[str]) -> str:
    what, has = ("a link", "leads") if len(links) == 1 else ("links", "lead")
    return (
        f"{what} {where}, which kit does not follow, put aside for what came in its place: {listed(links)}; "
        f"what it {has} to is as it was"
    )


def _versions(done: Transfer) -> list[tuple[str, Version]]:
    """The files that are the same on both sides now."""
    failed = "\n".join(done.complaints) if done.code == PARTLY else ""
    sent = (item for item in done.items if item.kind == "f" and item.is_sent)
    return [(item.name, item.version) for item in sent if not failed or item.name not in failed]


def _version_here(folder: Path, name: str) -> Version | None:
    try:
        found = (folder / unescaped(name)).lstat()
    except OSError:
        return None
    return Version(size=found.st_size, changed=time.strftime("%Y/%m/%d-%H:%M:%S", time.gmtime(found.st_mtime)))


def _synced(
    where: Place,
    done: Transfer,
    started: float,
    *,
    dry_run: bool,
    aside: str,
    put_aside: tuple[str, ...],
    deleted: tuple[str, ...] = (),
) -> Synced:
    sent = [item for item in done.items if item.is_sent]
    again = {item.name for item in sent}
    return Synced(
        remote_folder=where.remote_folder,
        sent_files=len(sent),
        sent_bytes=done.transferred_bytes if dry_run else done.literal_bytes,
        kept_newer=tuple(unescaped(name) for name in done.newer if name not in again),
        put_aside=put_aside,
        aside=aside,
        deleted=deleted,
        seconds=time.monotonic() - started,
    )
