"""Locks on files and folders between kit processes. The kernel frees one when its holder ends, however that happens."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kit import paths


def _open(path: Path) -> int:
    if path.is_dir():
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    # Each time: who had the lock may have removed the folder as well.
    paths.make_folder(path.parent)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def acquire(
    path: Path,
    *,
    wait_s: float | None = None,
    on_wait: Callable[[float], None] = lambda _: None,
    opened: Callable[[Path], int] = _open,
) -> int | None:
    """The descriptor that holds the lock on a file or folder while it, or one inherited from it, is open.

    A file that is not there is made, with its folder, or `opened` says how. Returns None when another has the lock for
    longer than `wait_s` seconds (None: waits however long); `on_wait` is told now and then for how many it has waited.
    """
    begun = time.monotonic()
    while True:
        handle = opened(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait_s is None else fcntl.LOCK_NB))
            # Whoever tidied up may have removed the file since it was opened, and others make and lock a new one.
            if is_at(handle, path):
                return handle
            os.close(handle)
            continue
        except BlockingIOError:
            os.close(handle)
        except BaseException:
            os.close(handle)
            raise
        passed = time.monotonic() - begun
        if wait_s is not None and passed >= wait_s:
            return None
        on_wait(passed)
        time.sleep(0.02)


def is_at(handle: int, path: Path) -> bool:
    """Whether a descriptor is of the file that is at this path, and not of one that was there."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False))
    return False


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file or folder while the block runs; other kit processes wait."""
    handle = acquire(path)
    assert handle is not None
    try:
        yield
    finally:
        os.close(handle)
