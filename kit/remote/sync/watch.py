"""What is said while files go over: how far it is, and what may surprise whoever asked for it."""

from __future__ import annotations

import contextlib
import os
import posixpath
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
        self.dangling: list[str] = []
        self.observer = Observer(status=progress.status, item=self.item, note=self.note)

    def item(self, item: Item) -> None:
        if not item.is_sent:
            return
        name = item.name
        if item.kind == "L":
            name, target = self.link(item.name)
            inside = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
            if inside.startswith(("/", "../")) or inside == "..":
                self.dangling.append(name)
        self.progress.item(readable(name))

    def link(self, text: str) -> tuple[str, str]:
        """The name and the target of a link, which stand with an arrow between them; one may be in a name too."""
        words = text.split(" -> ")
        pairs = [(" -> ".join(words[:i]), " -> ".join(words[i:])) for i in range(1, len(words))]
        for name, target in pairs:
            with contextlib.suppress(OSError):
                if str((self.rsync.folder / unescaped(name)).readlink()) == str(Path(unescaped(target))):
                    return name, target
        return pairs[0] if pairs else (text, "")

    def note(self, note: str) -> None:
        word, _, rest = note.partition(" ")
        if word == "new":
            files, size = _amount(self.rsync.folder, self.tree)
            if size >= LARGE_BYTES:
                self.progress.message(
                    f"{in_bytes(size)} in {files} files are sent this first time; what .gitignore names stays here"
                )
        elif word == "clock" and rest.isdecimal() and abs(ahead := int(rest) - time.time()) > CLOCKS_DIFFER_S:
            self.progress.message(
                f"the clock of {self.rsync.connection.target} is {abs(ahead) / 60:.0f} minutes "
                f"{'ahead' if ahead > 0 else 'behind'}: of two versions of a file the older may look newer"
            )

    def tell(self) -> None:
        if self.dangling:
            what = "1 symbolic link points" if len(self.dangling) == 1 else f"{len(self.dangling)} symbolic links point"
            self.progress.message(f"{what} out of the folder, to nothing there: {listed(self.dangling)}")


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
