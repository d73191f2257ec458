"""What goes over although git ignores it, because it was named; and what stays here, which is said."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from kit import files
from kit.errors import BadInputError
from kit.frozen import dataclass
from kit.remote.sync.ignored import Tree, anchored, literal

# A file of a folder that says what is sent although git ignores it: a path or a pattern a line.
FILE = ".kitinclude"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file or folder that stays here as git ignores it, and how much there is."""

    path: str  # that of a folder ends in "/"
    files: int
    size_bytes: int
    is_whole: bool  # False: there is more; not all of it was counted


def inside(name: str) -> str:
    """A name that was asked for, if it is one in the folder. Raises BadInputError."""
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts or "\0" in name:
        raise BadInputError(
            f"{name!r} is no path in the folder", hint="name files and folders as seen from the folder, such as runs/1"
        )
    if ".git" in parts:
        raise BadInputError(f"{name!r} is git's own, which kit leaves alone", hint="`git pull` brings commits here")
    return posixpath.normpath(name)


def of_file(folder: Path) -> list[str]:
    """The lines of the folder's own file. Raises BadInputError for what is none, or has a line that is none."""
    try:
        text = os.fsdecode(files.read_bytes(folder / FILE))
    except FileNotFoundError:
        return []
    except OSError as e:
        raise BadInputError(f"{FILE} cannot be read: {e.strerror}", hint=f"`ls -l {folder / FILE}` shows it") from None
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def expanded(folder: Path, entries: Sequence[str]) -> tuple[list[str], list[str]]:
    """The paths of the folder that these entries stand for, and the entries that stand for none.

    `*`, `?` and `[…]` are those of a shell; `**` is any folders; a pattern without a slash is a name at any depth.
    """
    found: dict[str, None] = {}
    missing = []
    for entry in entries:
        name = inside(entry)
        if os.path.lexists(folder / name):
            paths = [name]
        elif re.search(r"[*?\[]", name):
            pattern = name if "/" in name else f"**/{name}"
            paths = sorted(os.path.relpath(path, folder) for path in folder.glob(pattern))
        else:
            paths = []
        if not paths:
            missing.append(entry)
        found.update(dict.fromkeys(path for path in paths if ".git" not in path.split("/")))
    return list(found), missing


def is_under(path: str, above: Collection[str]) -> bool:
    """Whether a path is one of these, or is in one of them. None ends in a slash."""
    parts = path.split("/")
    return any("/".join(parts[:n]) in above for n in range(1, len(parts) + 1))


def rules(folder: Path, paths: Sequence[str], ignored: Sequence[str]) -> list[str]:
    """rsync's rules that take these paths with all that is in them; of an ignored folder around one nothing else.

    They stand before the rules for what is ignored.
    """
    left_out = {path.rstrip("/") for path in ignored if path.endswith("/")}
    taken, closed = [], []
    for path in paths:
        for above in _above(path):
            taken.append(f"+ {anchored(above + '/')}")
            if is_under(above, left_out):
                closed.append(f"- /{literal(above)}/*")
        taken += _whole(folder, path)
    return list(dict.fromkeys((*taken, *closed)))


def only(folder: Path, paths: Sequence[str]) -> list[str]:
    """rsync's rules that take these paths and no others. They stand behind the rules for what is ignored."""
    found = [f"+ {anchored(above + '/')}" for path in paths for above in _above(path)]
    found += [rule for path in paths for rule in _whole(folder, path)]
    return list(dict.fromkeys((*found, "- *")))


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _whole(folder: Path, path: str) -> list[str]:
    if path == ".":
        return ["+ *"]
    return [f"+ {anchored(path)}", *([f"+ /{literal(path)}/***"] if (folder / path).is_dir() else [])]


class Count:
    """Counts what stays here, beside the sending: there may be much of it."""

    # Once all is sent, for as long as nobody minds.
    PATIENCE_S = 0.3

    def __init__(self, folder: Path, tree: Tree, included: Sequence[str], unnamed: Collection[str]) -> None:
        """`unnamed`: names of what nobody would send, which is not counted."""
        self.folder, self.included = folder, set(included)
        # git names some files beside the folder that has nothing else.
        folders = {path.rstrip("/") for path in tree.ignored if path.endswith("/")}
        found = [path for path in tree.ignored if not is_under(path.rstrip("/"), self.included)]
        found = [path for path in found if not is_under(posixpath.dirname(path.rstrip("/")), folders)]
        self.is_nothing = not found
        self.waiting = [path for path in found if path.rstrip("/").rpartition("/")[2] not in unnamed]
        self.found: list[LeftOut] = []
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._count, daemon=True)
        self.thread.start()

    def end(self) -> tuple[LeftOut, ...]:
        """What was counted, the largest first; what was not is there as well."""
        self.thread.join(self.PATIENCE_S)
        self.is_over.set()
        self.thread.join()
        return tuple(sorted(self.found, key=lambda one: (-one.size_bytes, one.path)))

    def _count(self) -> None:
        for path in self.waiting:
            number = size = 0
            folders = [path.rstrip("/")] if path.endswith("/") else []
            if not folders:
                with contextlib.suppress(OSError):
                    number, size = 1, (self.folder / path).lstat().st_size
            while folders and not self.is_over.is_set():
                inner = folders.pop()
                with contextlib.suppress(OSError), os.scandir(self.folder / inner) as entries:
                    for entry in entries:
                        name = f"{inner}/{entry.name}"
                        if name in self.included:
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(name)
                        else:
                            number += 1
                            size += entry.stat(follow_symlinks=False).st_size
            self.found.append(LeftOut(path=path, files=number, size_bytes=size, is_whole=not folders))
