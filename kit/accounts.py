"""The accounts of this machine: their names and groups, who called sudo, and their time zone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_LARGEST = 2**32 - 2
LOCALTIME = "/etc/localtime"


def user_name(uid: int) -> str:
    """The name of a user of this machine; empty when it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return ""


def group_name(gid: int) -> str:
    """The name of a group of this machine; empty when it has none."""
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return ""


def groups_at_login() -> tuple[int, ...]:
    """The groups that this process's user has after the next login; empty when nobody can say."""
    import pwd

    try:
        account = pwd.getpwuid(os.getuid())
        return tuple(os.getgrouplist(account.pw_name, account.pw_gid))
    except (KeyError, OSError):
        return ()


def sudo_user(environment: Mapping[str, str] | None = None) -> tuple[int, int] | None:
    """The UID and GID of who called sudo. None for who is not root, to whom the variables mean nothing, and where they
    are not such numbers.
    """
    env = os.environ if environment is None else environment
    given = [env.get(name, "") for name in ("SUDO_UID", "SUDO_GID")]
    if os.geteuid() != 0 or not all(text.isascii() and text.isdecimal() and len(text) < 11 for text in given):
        return None
    uid, gid = map(int, given)
    return (uid, gid) if max(uid, gid) <= _LARGEST else None


def home_of_root() -> str:
    """Root's home as its account says, whatever HOME is."""
    import pwd

    try:
        return pwd.getpwuid(0).pw_dir
    except KeyError:
        return "/root"


def groups_of(uid: int, gid: int) -> tuple[tuple[int, str], ...]:
    """The groups of a user besides the one with this number, each with its name, which may be empty: for this process's
    own user those that it has, for another what the machine's accounts say.
    """
    import grp
    import pwd

    if uid == os.geteuid():
        found = os.getgroups()
    else:
        try:
            account = pwd.getpwuid(uid)
        except (KeyError, OverflowError):
            return ()
        found = os.getgrouplist(account.pw_name, account.pw_gid)
    named = []
    for number in sorted({*found} - {gid}):
        try:
            named.append((number, grp.getgrgid(number).gr_name))
        except KeyError:
            named.append((number, ""))
    return tuple(named)


def timezone(environment: Mapping[str, str] | None = None) -> str:
    """The name of the time zone here (`Asia/Shanghai`); empty when it has none, and for one without summer and winter
    that every container has.
    """
    env = os.environ if environment is None else environment
    name = env.get("TZ", "").removeprefix(":")
    if not name:
        try:
            name = os.path.realpath(LOCALTIME).partition("/zoneinfo/")[2]
        except OSError:
            name = ""
    is_name = re.fullmatch(r"[A-Za-z][\w+-]*(/[\w+-]+){0,2}", name)
    return name if is_name and name not in ("UTC", "Etc/UTC", "Universal", "Zulu") else ""
