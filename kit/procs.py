"""Processes of this machine: whether one still runs under its number, and which have a mark in their environment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import cache

from kit import accounts, linux, process
from kit.errors import CommandError, MissingProgramError


@cache
def boot() -> str:
    """What tells this machine, since it was started, from all others; empty where the system does not say."""
    with contextlib.suppress(OSError):
        return (linux.PROC / "sys/kernel/random/boot_id").read_text().strip()
    return _asked("sysctl", "-n", "kern.bootsessionuuid")  # a Mac's


def is_running(pid: int, start: str) -> bool:
    """True when the process with this number that started at this time has not ended."""
    return start_time(pid) == start != ""


def is_alive(pid: int) -> bool:
    """True when a process runs; a zombie of ours is collected and counts as ended."""
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)
    return start_time(pid) != ""


def start_time(pid: int) -> str:
    """When a process started, comparable only with itself: with its number this names it for good. Empty for one that
    has ended, if it is a zombie too.
    """
    if linux.has_proc():
        fields = _stat(pid)
        return fields[19] if fields else ""
    state, _, started = _asked("ps", "-o", "stat=,lstart=", "-p", str(pid)).partition(" ")
    return "" if state.startswith("Z") else started.strip()


def session(pid: int) -> int:
    """The session a process is in; 0 for one that has ended. As all that follows, where there is /proc."""
    fields = _stat(pid)
    return int(fields[3]) if fields else 0


def has_mark(pid: int, mark: str) -> bool:
    """Whether `mark` (NAME=value) is in the environment that a process was started with, as far as we may read it."""
    with contextlib.suppress(OSError):
        return mark.encode() in (linux.PROC / str(pid) / "environ").read_bytes().split(b"\0")
    return False


def numbers() -> Iterator[int]:
    """Those of all processes, zombies too; none where there is no /proc."""
    if not linux.has_proc():
        return iter(())
    return (int(name) for name in os.listdir(linux.PROC) if name.isdigit())  # noqa: PTH208 - a Path for each is of no use


def describe(pid: int) -> str:
    """A process for people, as `kit (PID 7, user ada)`; empty for one that has ended."""
    with contextlib.suppress(OSError):
        own = linux.PROC / str(pid)
        name, uid = (own / "comm").read_text(errors="replace").strip(), own.stat().st_uid
        return f"{name} (PID {pid}, user {accounts.user_name(uid) or uid})"
    return ""


def kill(found: Callable[[], list[int]], *, within_s: float) -> None:
    """Kill what `found` names, again and again until it names none (one may be starting another) or time is up."""
    end = time.monotonic() + within_s
    while (left := found()) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def identity() -> str:
    """What names this process for good, on this machine and since it was started."""
    return f"{boot()} {os.getpid()} {start_time(os.getpid())}"


def is_over(process: str) -> bool:
    """Whether the process of an `identity` has ended; not where that is another machine's, or of before a restart."""
    machine, _, rest = process.partition(" ")
    pid, _, start = rest.partition(" ")
    return machine == boot() != "" and pid.isdecimal() and len(pid) < 11 and not is_running(int(pid), start)


def _asked(*command: str) -> str:
    """What a program says of this machine; empty where it is not there, or knows nothing."""
    with contextlib.suppress(CommandError, MissingProgramError):
        return process.run(command, timeout_s=10).stdout.strip()
    return ""


def _stat(pid: int) -> list[str]:
    """What /proc says of a process, from its state on; empty for one that has ended."""
    try:
        fields = (linux.PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return []
    return [] if fields[0] in ("Z", "X") else fields
