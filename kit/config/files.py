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

from kit import accounts, files, paths
from kit.errors import BadInputError

USER_FILE = "config.toml"
PROJECT_FILE = "kit.toml"
# Replaces the user's file; /dev/null is an empty one.
FILE_VARIABLE = "KIT_CONFIG"
# More than anybody writes, and read in less than a second.
LIMIT_BYTES = 2**18
# Of keys and tables in each other. The standard library's reader takes time with the square of it.
MAX_DEPTH = 50


def home() -> Path | None:
    """The caller's home; None for an account that has none."""
    try:
        return paths.home()
    except BadInputError:
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
    except BadInputError:
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
        if is_there(file):
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


def _is_planted(file: Path, environment: Mapping[str, str]) -> bool:
    """Whether anybody could have put a file there, for whoever works below: one of somebody else's in /tmp."""
    owner, folder = file.lstat().st_uid, file.parent.stat()
    return bool(folder.st_mode & stat.S_IWOTH) and owner != folder.st_uid and not _is_own(owner, environment)


def _is_own(owner: int, environment: Mapping[str, str]) -> bool:
    """Whether an account is this one, root, or the one that became root by sudo."""
    sudo = accounts.sudo_user(environment)
    return owner in (0, os.geteuid()) or (sudo is not None and owner == sudo[0])


def written_by_others(status: os.stat_result, environment: Mapping[str, str]) -> str:
    """Why somebody else has written a file, or may; empty when nobody but this account and root."""
    if not _is_own(status.st_uid, environment):
        return f"it is {accounts.user_name(status.st_uid) or status.st_uid}'s"
    if stat.S_ISLNK(status.st_mode):  # of which only the owner counts
        return ""
    if status.st_mode & stat.S_IWOTH:
        return "everybody may write to it"
    if status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid, status.st_uid):
        return f"the group {status.st_gid} may write to it"
    return ""


def _is_private(gid: int, uid: int) -> bool:
    """Whether a group is one that many systems make for each user, with nobody else in it."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and not set(group.gr_mem) - {user.pw_name}


def read(path: Path, environment: Mapping[str, str]) -> tuple[str, dict[str, Any], str]:
    """What is written in a file, what it says, and why it may be somebody else's; nothing when there is none.

    Raises BadInputError when it cannot be read, or is not TOML.
    """
    others = ""

    def opened(status: os.stat_result) -> None:
        nonlocal others
        others = written_by_others(path.lstat(), environment) or written_by_others(status, environment)

    if not is_there(path) or os.path.realpath(path) == os.devnull:
        return "", {}, ""
    try:
        text = files.read_bytes(path, limit=LIMIT_BYTES, opened=opened).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInputError(f"{path} is not UTF-8 text", hint="a TOML file always is") from None
    except OSError as e:
        raise BadInputError(
            f"{path} cannot be read: {e.strerror}", hint="correct its permissions, or move it away"
        ) from None
    return text, parse(text, path), others


def parse(text: str, path: Path) -> dict[str, Any]:
    """What a text of TOML says. Raises BadInputError, with the line, for one that is none."""
    if not text.strip():
        return {}
    # The standard library's, or what it was made of where Python is older.
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        for number, line in enumerate(text.splitlines(), start=1):
            if line.count(".") > MAX_DEPTH and _unquoted_dots(line) > MAX_DEPTH:
                raise ValueError(f"a key of more than {MAX_DEPTH} parts (at line {number})")
        document: dict[str, Any] = toml.loads(text)
        return document
    except (ValueError, RecursionError) as e:  # ValueError: TOML's own kind of it, and numbers with too many digits
        found = re.search(r"line (\d+)", str(e))
        place = int(found[1]) if found else len(text.splitlines())
        problem = re.sub(r" \(at .*\)$", "", str(e)) if isinstance(e, ValueError) else "nested too deeply"
        raise BadInputError(
            f"{path}:{place}: not valid TOML: {problem}", hint="correct the line; a text stands in quotes"
        ) from None


class Lines:
    """Which line of a file a key stands in, or an entry of its table or list, as far as that is to be seen."""

    def __init__(self, text: str) -> None:
        self._keys: dict[str, int] = {}  # the first line of each key, and of each entry of a table
        self._texts: dict[tuple[str, str], int] = {}  # of each text in double quotes below a key
        table = name = ""
        for number, line in enumerate(text.splitlines(), start=1):
            bare, (left, sign, _) = line.partition("#")[0].strip(), line.partition("=")
            if bare.startswith("[") and bare.endswith("]") and "," not in bare and "=" not in bare:
                name = table = _unquoted(bare.strip("[]"))
            elif sign and not set(left) & set("#[{,") and left.strip():
                name = ".".join(filter(None, (table, _unquoted(left))))
            self._keys.setdefault(name, number)
            self._keys.setdefault(name.partition(".")[0], number)
            for quoted in line.split('"')[1::2]:
                self._texts.setdefault((name, quoted), number)

    def of(self, key: str, part: str = "") -> int:
        """The line of a key, or of an entry; 0 when it is not to be seen."""
        first = self._keys.get(key, 0)
        # An entry of a table has a name; one of a list is itself.
        return (self._keys.get(f"{key}.{part}") or self._texts.get((key, part)) or first) if part else first


def _unquoted_dots(line: str) -> int:
    return re.sub(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|#.*', "", line).count(".")


def _unquoted(name: str) -> str:
    return re.sub(r"[\"'\s]", "", name)
