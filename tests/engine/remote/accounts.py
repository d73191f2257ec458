"""Accounts on the server, with a home of their own, that may or may not use the container engine."""

from __future__ import annotations

import grp
import os
import pwd
import random
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user of the server."""

    name: str
    uid: int
    gid: int
    home: Path


class Accounts:
    """Makes accounts, and removes them with everything they have."""

    def __init__(self, folder: Path, mark: str, socket: Path) -> None:
        self.folder, self.mark, self.socket = folder, mark, socket
        self.made: list[Account] = []
        self.group = f"kit-docker-{mark}"
        self._group_before = socket.stat().st_gid
        _run("groupadd", "--gid", str(_free_id()), self.group)
        self.allow()

    def allow(self) -> None:
        """Let the group use the engine's socket; again after the engine was restarted, for its socket is a new one."""
        self._group_before = self.socket.stat().st_gid
        if self._group_before == 0:
            os.chown(self.socket, -1, grp.getgrnam(self.group).gr_gid)

    def add(self, name: str, *, may_use_engine: bool = True) -> Account:
        """An account of this name, and something behind it that keeps parallel tests apart."""
        groups = {self.group, grp.getgrgid(self.socket.stat().st_gid).gr_name} if may_use_engine else set()
        account = add_account(f"kit-{name}-{self.mark}", self.folder / "homes" / name, groups)
        self.made.append(account)
        return account

    def remove(self) -> None:
        for account in self.made:
            remove_account(account)
        if self._group_before == 0 and self.socket.exists():
            os.chown(self.socket, -1, self._group_before)
        _run("groupdel", self.group, check=False)


def add_account(login: str, home: Path, groups: Iterable[str] = ()) -> Account:
    """An account with a home of its own, that ssh lets in with a key alone."""
    number = _free_id()
    home.mkdir(parents=True)
    _run("groupadd", "--gid", str(number), login)
    _run(
        *("useradd", "--uid", str(number), "--gid", str(number), "--groups", ",".join(sorted(groups))),
        *("--home-dir", str(home), "--no-create-home", "--shell", "/bin/sh"),
        # No password fits; one that begins with `!` would lock the account, which sshd heeds.
        *("--password", "*", login),
    )
    os.chown(home, number, number)
    home.chmod(0o700)
    return Account(name=login, uid=number, gid=number, home=home)


def remove_account(account: Account) -> None:
    _run("userdel", account.name, check=False)
    _run("groupdel", account.name, check=False)
    shutil.rmtree(account.home, ignore_errors=True)


def _free_id() -> int:
    """A number that no user and no group has; far from those that people get, as kit's volumes are named by it."""
    users, groups = {user.pw_uid for user in pwd.getpwall()}, {group.gr_gid for group in grp.getgrall()}
    return random.choice(sorted(set(range(50000, 60000)) - users - groups))


def _run(*command: str, check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
