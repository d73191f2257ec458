"""What only Linux has, each with what stands for it elsewhere: on a Mac kit is a client of engines and other machines.

Nothing else asks which system this is, but for what runs on Linux alone: the private engine, the probe of a host, what
is run in containers and on hosts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROC = Path("/proc")


def is_here() -> bool:
    """Whether this is Linux."""
    return sys.platform == "linux"


def has_proc() -> bool:
    """Whether processes can be read in /proc; elsewhere `ps` is asked for the little it knows."""
    return (PROC / "self/stat").exists()


def longest_socket() -> int:
    """The most bytes that the path of a Unix socket may have (sun_path, less its end)."""
    return 107 if is_here() else 103


def memory_bytes() -> int:
    """The memory of this machine, as containers here have it; 0 elsewhere: there they are in a virtual machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if is_here() else 0


def end_with_parent() -> Callable[[], None] | None:
    """What a child calls before it becomes the program, to end with its parent; None where there is no such thing, and
    the next command ends what one that was killed has left.
    """
    if not is_here():
        return None
    import ctypes

    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()
    pr_set_pdeathsig, number = 1, ctypes.c_ulong(signal.SIGTERM)

    def bind() -> None:
        prctl(pr_set_pdeathsig, number, 0, 0, 0)
        # It may have ended before the kernel was told.
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return bind


@contextlib.contextmanager
def unlisted(text: str) -> Iterator[str]:
    """A file that only programs of this user can read, and that is gone with this process however that ends; elsewhere
    one that is gone when the block ends.
    """
    if not (is_here() and has_proc()):
        import tempfile

        with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="kit-") as file:
            file.write(text)
            file.flush()
            yield file.name
        return
    with os.fdopen(os.memfd_create("kit"), "w", encoding="utf-8") as memory:
        memory.write(text)
        memory.flush()
        yield f"{PROC}/{os.getpid()}/fd/{memory.fileno()}"


def lock_holder(path: Path) -> int:
    """The PID of who holds the lock on a file; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        file = path.stat()
        mark = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
        for words in map(str.split, (PROC / "locks").read_text().splitlines()):
            # Those who wait for one have an arrow in their line.
            if words[1] == "FLOCK" and words[5] == mark:
                return int(words[4])
    return 0


def sleep_clock() -> float:
    """A number that jumps forward when this machine was asleep, and else stays as it is."""
    clock = getattr(time, "CLOCK_BOOTTIME", None) if is_here() else None
    return (time.time() if clock is None else time.clock_gettime(clock)) - time.monotonic()


def network() -> tuple[str, ...]:
    """This machine's IPv4 routes and IPv6 addresses, to notice that a network came back; empty where it is not said."""
    found = []
    with contextlib.suppress(OSError):
        routes = [line.split() for line in (PROC / "net/route").read_text().splitlines()[1:]]
        # The columns between count uses.
        found += [" ".join((*words[:3], *words[7:8])) for words in routes]
    with contextlib.suppress(OSError):
        # Link-local ones come and go with every container.
        found += [line for line in (PROC / "net/if_inet6").read_text().splitlines() if not line.startswith("fe80")]
    return tuple(sorted(found))
