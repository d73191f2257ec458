"""How an account comes to use an engine that it has no right to. Pure."""

from __future__ import annotations

from kit.facts.sockets import Access


def way_in(access: Access | None, path: str, *, is_private: bool, owner: str = "another user") -> str:
    """What to do about a socket at `path` that is not for this account; None: nobody could say whose it is.

    `owner`: what to call who has it, where that is not root.
    """
    if access is None:
        return f"`ls -l {path}` shows its owner and its group: who is in that group may use it after the next login"
    if access.group and access.is_member:
        return f"log out and in again: you are in the group {access.group} now (`newgrp {access.group}` for this shell)"
    if access.group:
        return (
            f"`sudo usermod -aG {access.group} $USER`, then log out and in again "
            f"(`newgrp {access.group}` for this shell)"
        )
    if not access.is_roots:
        return f"it is {owner}'s alone: ask them" + (", or `sudo -E kit …` uses it as root" if access.has_sudo else "")
    if not access.has_sudo:
        return "it is root's alone: ask an administrator for it, or install rootless Docker or Podman"
    if is_private:
        return f"root started it: `sudo chown $USER {path}` gives it to you, and `sudo -E kit …` uses it as root"
    return "it is root's alone: `sudo -E kit …` uses it as root"
