"""The files of the configuration: where they are, and what is written in them, line by line."""

from __future__ import annotations

import importlib
import os
import re
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit import paths
from kit.errors import BadInputError

USER_FILE = "config.toml"
PROJECT_FILE = "kit.toml"
# Replaces the user's file; /dev/null is an empty one.
FILE_VARIABLE = "KIT_CONFIG"


def home() -> Path | None:
    """The caller's home; None for an account that has none."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def user_file(environment: Mapping[str, str]) -> Path | None:
    """Where the user's own file is, or would be; None for an account without a home.

    Raises BadInputError when KIT_CONFIG names a file that is not there.
    """
    if named := environment.get(FILE_VARIABLE):
        if not is_there(Path(named)):
            raise BadInputError(
                f"{FILE_VARIABLE}={named}: there is no such file",
                hint=f"name a file that is there, or unset {FILE_VARIABLE}; /dev/null stands for an empty one",
            )
        return Path(named).absolute()
    try:
        return paths._xdg("XDG_CONFIG_HOME", ".config") / USER_FILE
    except RuntimeError:
        return None


def project_file(start: Path, environment: Mapping[str, str]) -> tuple[Path | None, tuple[str, ...]]:
    """The project's file: in this folder or the nearest above it; and those that were passed over, with the reason.

    The search ends with the root of a Git repository, and before the home: what is there belongs to no project, and a
    file for all of them is the user's.
    """
    over: list[str] = []
    own_home = home()
    stop = own_home.resolve() if own_home else None
    for folder in (start, *start.parents):
        file = folder / PROJECT_FILE
        if _is_file(file):
            if folder == stop:
                over.append(f"{file}: the home folder is no project; the user's file is for all of them")
            elif _is_planted(file, environment):
                over.append(f"{file}: it is another user's, in a folder that everybody may write to")
            else:
                return file, tuple(over)
        if folder == stop or os.path.lexists(folder / ".git"):
            break
    return None, tuple(over)


def is_there(path: Path) -> bool:
    """Whether there is something at that path. Not behind a folder that may not be entered: the home of another account
    is the HOME of many a service, and kit works there as it does without a home.
    """
    return os.path.lexists(path)


def _is_file(path: Path) -> bool:
    # A pipe or a device would be waited for.
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _is_planted(file: Path, environment: Mapping[str, str]) -> bool:
    """Whether anybody could have put a file there, for whoever works below: one of somebody else's in /tmp."""
    owner, folder = file.stat().st_uid, file.parent.stat()
    if not folder.st_mode & stat.S_IWOTH or owner in (0, os.geteuid(), folder.st_uid):
        return False
    return str(owner) != environment.get("SUDO_UID")


def read(path: Path) -> tuple[str, dict[str, Any]]:
    """What is written in a file, and what it says; nothing when there is none.

    Raises BadInputError when it cannot be read, or is not TOML.
    """
    if not is_there(path):
        return "", {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:  # a link that leads nowhere
        return "", {}
    except UnicodeDecodeError:
        raise BadInputError(f"{path} is not UTF-8 text", hint="a TOML file always is") from None
    except OSError as e:
        raise BadInputError(
            f"{path} cannot be read: {e.strerror}", hint="correct its permissions, or move it away"
        ) from None
    if not text.strip():
        return text, {}
    # The standard library's, or what it was made of where Python is older.
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        return text, toml.loads(text)
    except (ValueError, RecursionError) as e:  # ValueError: TOML's own kind of it, and numbers with too many digits
        place = re.search(r"line (\d+)", str(e))
        line = int(place[1]) if place else len(text.splitlines())
        problem = re.sub(r" \(at .*\)$", "", str(e)) if isinstance(e, ValueError) else "nested too deeply"
        raise BadInputError(
            f"{path}:{line}: not valid TOML: {problem}", hint="correct the line; a text stands in quotes"
        ) from None


def line_of(text: str, key: str, part: str = "") -> int:
    """The line a key stands in, or an entry of its table or list; 0 when it is not to be seen."""
    table = name = ""
    found = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([^\[\]]+?)\s*\]+\s*(#|$)", line):
            name = table = _unquoted(header[1])
        elif assignment := re.match(r"\s*([^=\s#\[{,][^=#\[{,]*?)\s*=", line):
            name = ".".join(filter(None, (table, _unquoted(assignment[1]))))
        if name == key or name.startswith(f"{key}."):
            found = found or number
            # An entry of a table has a name; one of a list is itself.
            if part and (name == f"{key}.{part}" or (name == key and f'"{part}"' in line)):
                return number
    return found


def _unquoted(name: str) -> str:
    return re.sub(r"[\"'\s]", "", name)
