"""Where things are, from a checkout or from an installed wheel; the only module that looks at __file__."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path

from kit.errors import BadInputError

_PACKAGE = Path(__file__).resolve().parent


def catalog_dir() -> Path:
    """The folder of the catalog's tables."""
    return _PACKAGE / "catalog"


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


@cache
def root_dir() -> Path:
    """The folder that holds `images/` and `templates/`: `KIT_ROOT`, the checkout, or the wheel's data."""
    if override := os.environ.get("KIT_ROOT"):
        return Path(override)
    return _PACKAGE.parent if is_checkout() else _PACKAGE / "data"


def templates_dir() -> Path:
    return root_dir() / "templates"


def images_dir() -> Path:
    return root_dir() / "images"


def compose_dir() -> Path:
    return root_dir() / "compose"


def _xdg(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    # The XDG specification: a relative path in these variables is to be ignored.
    return (Path(value) if value.startswith("/") else Path.home() / fallback) / "kit"


def cache_dir() -> Path:
    """Files that can be made again (base images, downloaded packages)."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """Small files about what runs on this machine (port reservations, passwd files)."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def engine_dir() -> Path:
    """The private engine's own folder (`KIT_ENGINE_DIR`, or /var/lib/kit for root): programs, data, sockets, log."""
    if override := os.environ.get("KIT_ENGINE_DIR"):
        return Path(override)
    return Path("/var/lib/kit")


def make_folder(folder: Path) -> None:
    """Make a folder with its parents. What is made is its user's alone whatever the umask says, and so are kit's own
    folders for state and cache when they are there already.
    """
    try:
        made = folder.stat()
    except FileNotFoundError:
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        made = folder.stat()
    if made.st_mode & 0o077 and _is_private(folder) and made.st_uid == os.geteuid():
        folder.chmod(0o700)
    if folder.parent != folder and _is_private(folder.parent):
        make_folder(folder.parent)


def _is_private(path: Path) -> bool:
    return any(path.is_relative_to(own) for own in (state_dir(), cache_dir()))


def write_text(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write a file whole or not at all: beside its place first, then renamed over it. It is its user's alone among what
    kit keeps for itself, and for others to read elsewhere, unless `mode` says. Raises OSError with the path.
    """
    try:
        if _is_private(path):
            make_folder(path.parent)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
        import tempfile

        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        beside = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
            beside.chmod(mode or (0o600 if _is_private(path) else 0o644))
            beside.replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()
            raise
    except OSError as e:
        e.filename, e.filename2 = str(path), None
        raise
