"""What is said while files go over: how far it is, and what may surprise whoever asked for it."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kit.frozen import dataclass
from kit.remote.sync import ignored
from kit.remote.sync.rsync import Item, Observer, Rsync, in_bytes, readable, unescaped

# A first time that is worth a word before.
LARGE_BYTES = 5_000_000_000
# Clocks that differ by more than this may make the older of two versions look newer.
CLOCKS_DIFFER_S = 60
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a sync reports while it runs."""

    message: Callable[[str], None] = lambda text: None  # a line worth keeping
    status: Callable[[str], None] | None = None  # how far it is, several times a second
    item: Callable[[str], None] = lambda name: None  # each file that goes over, or would, as people read it


SILENT = Progress()


def listed(names: Sequence[str]) -> str:
    shown = ", ".join(readable(name) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


class Watch:
    """Reads along, and says what is worth saying."""

    def __init__(self, rsync: Rsync, tree: ignored.Tree | None, progress: Progress) -> None:
        self.rsync, self.tree, self.progress = rsync, tree, progress
        self.links: list[Item] = []
        self.observer = Observer(status=progress.status, item=self.item, note=self.note)

    def item(self, item: Item) -> None:
        if not item.is_sent:
            return
        if item.kind == "L":
            self.links.append(item)
        self.progress.item(readable(item.name))

    def note(self, note: str) -> None:
        word, _, rest = note.partition(" ")
        if word == "new":
            files, size = _amount(self.rsync.folder, self.tree)
            if size >= LARGE_BYTES:
                self.progress.message(
                    f"{in_bytes(size)} in {files} files are sent this first time; what .gitignore names stays here"
                )
        elif (
            word == "clock"
            and re.fullmatch("[0-9]{1,11}", rest)
            and abs(ahead := int(rest) - time.time()) > CLOCKS_DIFFER_S
        ):
            self.progress.message(
                f"the clock of {self.rsync.connection.target} is {abs(ahead) / 60:.0f} minutes "
                f"{'ahead' if ahead > 0 else 'behind'}: of two versions of a file the older may look newer"
            )

    def tell(self, direction: str) -> None:
        """Say which links went over that lead out of the folder; `direction` says where to: to HOST, from HOST."""
        out = [f"{readable(item.name)} -> {readable(item.target)}" for item in self.links if self._leads_out(item)]
        if out:
            what = "1 symbolic link" if len(out) == 1 else f"{len(out)} symbolic links"
            more = f" and {len(out) - SHOWN} more" if len(out) > SHOWN else ""
            verb = "leads" if len(out) == 1 else "lead"
            self.progress.message(f"{what} {direction} {verb} out of the folder: {', '.join(out[:SHOWN])}{more}")

    def _leads_out(self, item: Item) -> bool:
        name, folder = unescaped(item.name), self.rsync.folder
        written = posixpath.normpath(posixpath.join(posixpath.dirname(name), unescaped(item.target)))
        if written.startswith(("/", "../")) or written == "..":
            return True
        # A link may also lead out by way of another.
        return os.path.lexists(folder / name) and not Path(os.path.realpath(folder / name)).is_relative_to(folder)


def _amount(folder: Path, tree: ignored.Tree | None) -> tuple[int, int]:
    """How many files are to be sent, and their bytes."""
    left_out = {path.rstrip("/") for path in tree.ignored} if tree else set()
    files = size = 0
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(folder / inner) as entries:
            for entry in entries:
                path = inner + entry.name
                if entry.name == ".git" or path in left_out:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path + "/")
                elif entry.is_file(follow_symlinks=False):
                    files += 1
                    size += entry.stat().st_size
    return files, size
