"""Where things are, from a checkout or from an installed wheel; the only module that looks at __file__."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from kit import accounts
from kit.errors import BadInputError

_PACKAGE = Path(__file__).resolve().parent
FULL = (errno.ENOSPC, errno.EDQUOT)  # the errors of a disk, or an account's share of it, that takes no more


def catalog_dir() -> Path:
    """The folder of the catalog's tables."""
    return _PACKAGE / "catalog"


def base_dir() -> Path:
    """The folder of the code and scripts that make bases."""
    return _PACKAGE / "image" / "base"


def is_checkout() -> bool:
    """True when kit runs from a source checkout, where `kit render` and `kit lock` may write."""
    return (_PACKAGE.parent / "templates").is_dir() and (_PACKAGE.parent / "pyproject.toml").is_file()


def require_checkout(command: str) -> None:
    """Raise BadInputError for a command that writes into a checkout when kit runs from an installed wheel."""
    if not is_checkout():
        raise BadInputError(
            f"{command} writes into a source checkout, and this kit is an installed package",
            hint="clone kit's repository and run it there",
        )


# The PATH that sudo gives, unless its administrator says otherwise.
_ROOTS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def command(*, as_root: bool = False) -> str:
    """What starts this kit, as a shell here takes it: `kit` where PATH leads to it, else a path. `as_root`: by sudo,
    whose PATH is another.
    """
    import shutil  # only who is told what to type pays for it

    typed = Path(sys.argv[0])
    own = typed if typed.name == "kit" and typed.is_file() else Path(sys.executable).with_name("kit")
    if not own.exists():
        return "kit"
    found = shutil.which("kit", path=_ROOTS_PATH if as_root else None)
    if found and Path(found).samefile(own):
        return "kit"
    own = own.absolute()
    with contextlib.suppress(OSError, ValueError):
        below = own.relative_to(Path.cwd())
        own = below if below.parent != Path() else own
    return shlex.quote(str(own))


@cache
def root_dir() -> Path:
    """The folder that holds `images/`, `templates/` and `examples/`: `KIT_ROOT`, the checkout, or the wheel's data."""
    if override := os.environ.get("KIT_ROOT"):
        return Path(override)
    return _PACKAGE.parent if is_checkout() else _PACKAGE / "data"


def templates_dir() -> Path:
    return root_dir() / "templates"


def images_dir() -> Path:
    return root_dir() / "images"


def examples_dir() -> Path:
    return root_dir() / "examples"


def compose_dir() -> Path:
    return root_dir() / "compose"


def home() -> Path:
    """The caller's home. Raises BadInputError for an account that has none."""
    try:
        found = Path.home()
    except RuntimeError:
        found = Path()
    if not found.is_absolute():
        raise BadInputError("this account has no home folder", hint="set HOME to the whole path of one")
    return found


def _xdg(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    # The XDG specification: a relative path in these variables is to be ignored.
    where = Path(value) if value.startswith("/") else home()
    folder = where if value.startswith("/") else where / fallback
    if os.geteuid() == 0:
        # Not the home of who called `sudo -E`, where root's files would stand in their way, and none is made for it.
        nearest = next((path for path in (where, *where.parents) if path.exists()), where) if value else where
        if not (nearest.exists() and nearest.stat().st_uid == 0):
            folder = Path(accounts.home_of_root()) / fallback
    return folder / "kit"


def _made(folder: Path, mode: int) -> Path:
    """A folder of kit's, made where it is missing, that has this mode whatever the umask, as has the one it is in."""
    for each in (*reversed(folder.parents), folder):
        with contextlib.suppress(FileExistsError):
            each.mkdir(mode=0o700)
            each.chmod(mode)
    for each in (folder.parent, folder):
        if each.stat().st_mode & 0o777 & ~mode:
            with contextlib.suppress(PermissionError):  # another's, which several share
                each.chmod(mode)
    return folder


def cache_dir() -> Path:
    """Files that can be made again (base images, downloaded packages)."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """Small files about what runs on this machine (port reservations, passwd files)."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def cache_folder(name: str) -> Path:
    """A folder of the cache, which nobody else may change; apt, as a user of its own, gets at what is in it."""
    return _made(cache_dir() / name, 0o755)


def state_folder(name: str) -> Path:
    """A folder of that state, for this user alone."""
    return _made(state_dir() / name, 0o700)


def usable_folder(folder_of: Callable[[str], Path], name: str) -> Path:
    """`state_folder` or `cache_folder` of what can be made again at any time. Where that cannot be written to, as the
    home on many a cluster's node, it is one of this user's alone beside the temporary files. Raises OSError.
    """
    try:
        if os.access(folder := folder_of(name), os.W_OK):
            return folder
        failure = OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))
    except OSError as e:
        if e.errno in FULL:
            raise
        failure = e
    runtime, temporary = os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR") or "/tmp"
    for above in (*([Path(runtime, "kit")] if runtime else []), Path(temporary, f"kit-{os.geteuid()}")):
        folder = above / name
        with contextlib.suppress(OSError):
            for each in (above, folder):
                with contextlib.suppress(FileExistsError):
                    each.mkdir(mode=0o700)
            found = above.lstat()
            # Another user may have been there first, in a folder that all may write to.
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077:
                return folder
    raise failure


def engine_dir() -> Path:
    """The private engine's own folder (`KIT_ENGINE_DIR`, or /var/lib/kit for root): programs, data, sockets, log."""
    if override := os.environ.get("KIT_ENGINE_DIR"):
        return Path(override)
    return Path("/var/lib/kit")


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file whole or not at all: beside its place first, then renamed over it. Raises OSError with the path."""
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        import tempfile

        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        beside = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            os.fchmod(out.fileno(), mode)
            user, folder = accounts.sudo_user(), path.parent.stat()
            if user and user[0] == folder.st_uid:  # a file in the folder of who called sudo is theirs
                os.fchown(out.fileno(), folder.st_uid, folder.st_gid)
        beside.replace(path)
    except BaseException as e:
        if beside:
            with contextlib.suppress(OSError):
                beside.unlink()
        if isinstance(e, OSError):
            e.filename, e.filename2 = str(path), None
        raise
