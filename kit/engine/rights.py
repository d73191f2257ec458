"""An engine on this machine that this account may not use: said as that, with the way in."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

from kit import accounts
from kit.decide.rights import way_in
from kit.errors import EngineDeniedError
from kit.facts.sockets import Access


def denied(path: Path, *, is_private: bool = False) -> EngineDeniedError:
    """The error for a socket that is there and not for this account."""
    access, owner = access_to(path)
    what = "no right to use the container engine"
    if is_private:
        what = "kit's private engine is up, and you have no right to use it"
    hint = way_in(access, str(path), is_private=is_private, owner=owner or "another user")
    return EngineDeniedError(f"{what} ({path})", hint=hint)


def access_to(path: Path) -> tuple[Access | None, str]:
    """Whose the socket is, and the name of its owner; None where the account may not even look at it."""
    try:
        found = path.stat()
    except OSError:
        return None, ""
    group_may = bool(found.st_mode & stat.S_IWGRP) and found.st_gid != 0
    access = Access(
        is_roots=found.st_uid == 0,
        group=accounts.group_name(found.st_gid) if group_may else "",
        is_member=group_may and found.st_gid in accounts.groups_at_login(),
        has_sudo=shutil.which("sudo") is not None,
    )
    return access, accounts.user_name(found.st_uid)
