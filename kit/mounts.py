"""Mounts as this process sees them, and deleting a folder without ever deleting through one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from kit import process
from kit.frozen import dataclass

MOUNTS = Path("/proc/self/mounts")
TABLE = Path("/proc/self/mountinfo")


@dataclass(frozen=True, kw_only=True)
class Mounted:
    """A file system that is mounted, from a line of /proc/self/mountinfo (proc_pid_mountinfo(5))."""

    id: int
    parent: int
    target: str
    kind: str
    options: tuple[str, ...] = ()  # of the file system
    is_shared: bool = False  # what is mounted in it later is seen from other mount namespaces, too

    @property
    def is_of_its_user_alone(self) -> bool:
        """Whether root gets EACCES in it, as in FUSE's where whoever mounted it has not said otherwise."""
        is_fuse = self.kind.startswith("fuse.") and "user_id=0" not in self.options
        return is_fuse and not {"allow_other", "allow_root"} & {*self.options}


def read_table(text: str | None = None) -> list[Mounted]:
    """What is mounted here, in the order in which it was; nothing where the kernel does not say."""
    if text is None:
        try:
            text = TABLE.read_text(errors="surrogateescape")
        except OSError:
            return []
    found = []
    for words in map(str.split, text.splitlines()):
        if "-" not in words[6:]:
            continue
        end = words.index("-", 6)
        kind, _, options = (*words[end + 1 :], "", "", "")[:3]
        found.append(
            Mounted(
                id=int(words[0]),
                parent=int(words[1]),
                target=_unescaped(words[4]),
                kind=kind,
                options=tuple(options.split(",")),
                is_shared=any(word.startswith("shared:") for word in words[6:end]),
            )
        )
    return found


def at(table: list[Mounted], path: str) -> Mounted | None:
    """The file system that a path is on: of those mounted over each other the last."""
    inside = [m for m in table if m.target == "/" or path == m.target or path.startswith(f"{m.target}/")]
    return max(inside, key=lambda m: (len(m.target), table.index(m)), default=None)


def is_shared(table: list[Mounted], found: Mounted) -> bool:
    """Whether a file system was seen from other mount namespaces as soon as it was mounted; true for the root's."""
    around = next((mount for mount in table if mount.id == found.parent), None)
    return found.target == "/" or around is None or around.is_shared


def parse_mounts(text: str) -> list[str]:
    """The mount points in /proc/mounts, with its octal escapes (`\\040` is a space) undone."""
    return [_unescaped(line.split()[1]) for line in text.splitlines() if len(line.split()) > 1]


def _unescaped(target: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), target)


def changed_root(mountinfo: str | None = None) -> str:
    """Where this process's root folder is when it was changed (chroot): empty for the root of a file system.

    Processes in a chroot share the process table and the network with the machine around it.
    """
    if mountinfo is None:
        mountinfo = Path("/proc/self/mountinfo").read_text()
    roots = [fields[3] for fields in map(str.split, mountinfo.splitlines()) if len(fields) > 4 and fields[4] == "/"]
    if not roots:
        return f"@{Path('/').stat().st_ino}"
    return "" if roots[-1] == "/" else roots[-1]


def below(targets: Iterable[str], folder: Path) -> list[str]:
    """The mounts inside `folder`, innermost first; one on the folder itself is the user's own and not among them."""
    inside = [target for target in targets if target.startswith(f"{folder}/")]
    return sorted(inside, key=len, reverse=True)


def unmount_below(folder: Path) -> None:
    """Unmount what is mounted inside `folder`; what is busy goes when its last user does."""
    for target in below(parse_mounts(MOUNTS.read_text()), folder):
        process.run(["umount", "--lazy", target], check=False)


def remove_tree(folder: Path) -> None:
    """Delete a folder; what is mounted inside (a killed program's /proc or /dev) is unmounted, never deleted."""
    import shutil  # which every command would pay for that looks for an engine

    unmount_below(folder)
    if not below(parse_mounts(MOUNTS.read_text()), folder):
        shutil.rmtree(folder, ignore_errors=True)
