"""Mounts as this process sees them, and deleting a folder without ever deleting through one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from kit import process

MOUNTS = Path("/proc/self/mounts")


def parse_mounts(text: str) -> list[str]:
    """The mount points in /proc/mounts, with its octal escapes (`\\040` is a space) undone."""
    targets = (line.split()[1] for line in text.splitlines() if len(line.split()) > 1)
    return [re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), target) for target in targets]


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
