"""What a full disk, a read-only one, a missing right or folder becomes wherever no command expects it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from kit import paths
from kit.errors import DiskFullError, FilesError, KitError

# What is the system's doing even where no path is named.
_FAULTS = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.EIO, errno.EBADF, errno.EROFS, errno.ENOENT)
_TEMPORARY = Path(os.environ.get("TMPDIR") or "/tmp")


def of_system(error: OSError) -> KitError | None:
    """The error that an OSError stands for, with what to do about it; None for one that is a defect of kit's."""
    named = error.filename2 or error.filename
    path = Path(os.fsdecode(named)) if isinstance(named, (str, bytes)) else None
    if path is None or not path.is_absolute():
        try:
            Path.cwd()
        except OSError:
            return FilesError("the current folder is gone or may not be entered", hint="`cd` to one that is there")
    if error.errno in paths.FULL:
        what = "no space left" if error.errno == errno.ENOSPC else "the disk quota is used up"
        where = [path] if path else [_TEMPORARY, paths.state_dir()]
        return DiskFullError(
            f"{what}: cannot write {path}" if path else what,
            details=tuple(_free(folder) for folder in dict.fromkeys(map(_existing, where))),
            hint=f"free some space there (`kit clean` shows what of kit's takes it), or {_elsewhere(path)}",
        )
    if path is None and error.errno not in _FAULTS:
        return None
    return FilesError(
        f"cannot use {path}: {error.strerror}" if path else str(error.strerror),
        hint=f"see to it that it can be used, or {_elsewhere(path)}",
    )


def _existing(path: Path) -> Path:
    """The folder of a path that is there, or would have to be made first."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def _free(folder: Path) -> str:
    found = os.statvfs(folder)
    free, size = (f"{blocks * found.f_frsize / 1e6:,.1f} MB" for blocks in (found.f_bavail, found.f_blocks))
    return f"{folder}: {free} of {size} free" + (", and no inodes" if found.f_files and not found.f_favail else "")


def _elsewhere(path: Path | None) -> str:
    """How to have kit write in another place than that."""
    places = {
        "XDG_STATE_HOME": paths.state_dir(),
        "XDG_CACHE_HOME": paths.cache_dir(),
        "KIT_ENGINE_DIR": paths.engine_dir(),
        "KIT_ROOT": paths.root_dir(),
        "TMPDIR": _TEMPORARY,
    }
    for variable, folder in places.items():
        # Its parents too: what is missing is made from the top.
        if path and (path.is_relative_to(folder) or folder.is_relative_to(path)):
            return f"set {variable} to a folder that can be written to"
    return "write somewhere else" if path else "set TMPDIR or XDG_STATE_HOME to a folder with space"
