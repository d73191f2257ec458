"""Which processes belong to an engine, found without its help, and ended when it cannot do so any more."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from kit import linux, procs

CGROUPS = Path("/sys/fs/cgroup")


def belonging_to(mark: str, cgroup: str) -> list[int]:
    """Processes that have `mark` (`NAME=value`) in their environment, or are in the control group `cgroup`."""
    others = (pid for pid in procs.numbers() if pid != os.getpid())
    # A zombie holds nothing any more, and is its parent's to collect.
    return [p for p in others if procs.start_time(p) and (_is_in_group(p, cgroup) or procs.has_mark(p, mark))]


def _is_in_group(pid: int, cgroup: str) -> bool:
    with contextlib.suppress(OSError):
        lines = (linux.PROC / str(pid) / "cgroup").read_text().splitlines()
        return any(f"/{cgroup}/" in f"{line.rpartition(':')[2]}/" for line in lines)
    return False


def wait_until(done: Callable[[], bool], timeout_s: float) -> bool:
    """Look often until `done()`; False when that took longer than `timeout_s` seconds."""
    end = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def remove_cgroups(name: str) -> None:
    """Remove an engine's control groups, in every hierarchy; those with a process in them stay."""
    # The kernel calls a group busy until the last process killed in it is wholly gone.
    wait_until(lambda: _are_removed([*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}")]), 5)


def _are_removed(groups: list[Path]) -> bool:
    """Try to remove these control groups and all in them; True when none is left."""
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
    return not any(group.is_dir() for group in groups)
