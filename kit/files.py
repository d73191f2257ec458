"""Reading a file that somebody else may have put there, and locks on files and folders between kit processes.

The kernel frees a lock when its holder ends, however that happens.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kit import linux, procs
from kit.errors import NotReadyError

MIB = 2**20
# Longer than what is done under a lock takes, but for a transfer or a download on a bad day.
WAIT_S = 600.0
NOTICE_S = 2.0


def read_bytes(path: Path, *, limit: int = 4 * MIB, opened: Callable[[os.stat_result], None] = lambda _: None) -> bytes:
    """What is in a file that may be a stranger's: a pipe is not waited for, a device not opened, nothing read for ever.

    `opened` is told what the system says of the very file that is read. Raises OSError, also for what is not a regular
    file (once links are followed) and for more than `limit` bytes; its `strerror` says what is wrong, as the system's
    own do.
    """
    _must_be_regular(path, path.stat().st_mode)
    # What is there now may be another thing than what was looked at.
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:  # noqa: PTH123
        status = os.fstat(file.fileno())
        _must_be_regular(path, status.st_mode)
        opened(status)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"It has more than {limit:,} bytes", str(path))
    return data


def read_text(path: Path, *, limit: int = 4 * MIB, encoding: str = "utf-8", errors: str = "strict") -> str:
    """As `read_bytes`, as text with the line ends it has. Raises UnicodeDecodeError, too."""
    return read_bytes(path, limit=limit).decode(encoding, errors)


def _must_be_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise OSError(errno.EINVAL, f"It is {kind} and not a file", str(path))


def _open(path: Path) -> int:
    """The lock file, made where it is missing; for its owner alone, as whoever may open a file may hold its lock."""
    for _ in range(100):
        # Whoever had the lock may be removing the folder as well.
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            return _make_and_open(path)
    return _make_and_open(path)


def _make_and_open(path: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as e:
        if e.errno != errno.EROFS or not path.exists():
            raise
        return os.open(path, flags | os.O_RDONLY)  # one that is there can be locked all the same
    found = os.fstat(handle)
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != 0o600:
        os.fchmod(handle, 0o600)
    return handle


def acquire(
    path: Path,
    *,
    wait_s: float,
    on_wait: Callable[[float], None] = lambda _: None,
    opened: Callable[[Path], int] = _open,
) -> int | None:
    """The descriptor that holds the lock on a file while it, or one inherited from it, is open.

    A file that is not there is made, with its folder, or `opened` says how. Returns None when another has the lock for
    longer than `wait_s` seconds; `on_wait` is told now and then for how many it has waited.
    """
    begun = time.monotonic()
    while True:
        handle = opened(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        if passed >= wait_s:
            return None
        on_wait(passed)
        time.sleep(0.02)


def is_at(handle: int, path: Path) -> bool:
    """Whether a descriptor is of the file that is at this path, and not of one that was there."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False))
    return False


def holder(path: Path) -> str:
    """Who holds the lock on a file, as `kit (PID 7, user ada)`; `another process` where the system does not say."""
    if (pid := linux.lock_holder(path)) and (name := procs.describe(pid)):
        return name
    return "another process"


@contextlib.contextmanager
def locked(path: Path, *, wait_s: float = WAIT_S, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the lock on a file while the block runs; other kit processes wait, and `say` is told for whom.

    Raises NotReadyError when another has it for longer than `wait_s` seconds.
    """
    is_told = False

    def tell(passed: float) -> None:
        nonlocal is_told
        if passed > NOTICE_S and not is_told:
            say(f"waiting for {holder(path)}, which holds {path}")
            is_told = True

    handle = acquire(path, wait_s=wait_s, on_wait=tell)
    if handle is None:
        raise NotReadyError(
            f"{holder(path)} has held {path} for {wait_s:g} s",
            hint="run the command again when that has ended, or end it",
        )
    try:
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def scratch(use: str) -> Iterator[Path]:
    """A temporary folder for this user alone, gone when the block ends. Those of the same `use` whose process was
    killed go first: each is locked as long as its process lives.
    """
    import shutil
    import tempfile

    prefix = f"kit-{use}."
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            handle = acquire(left, wait_s=0, opened=_open_own_folder)
            if handle is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(handle)
    handle = None
    while handle is None:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        with contextlib.suppress(FileNotFoundError):  # another one tidied up before it was locked
            handle = acquire(folder, wait_s=WAIT_S, opened=_open_own_folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _open_own_folder(path: Path) -> int:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if os.fstat(handle).st_uid != os.geteuid():
        os.close(handle)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))
    return handle
