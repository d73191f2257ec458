"""The small files of tunnels, `XDG_STATE_HOME/kit/tunnels/ID.{json,lock,log}`, and what is left of one that was killed.

Whoever holds the lock owns the tunnel: first the kit that opens it, then its supervisor, which inherits the lock. The
kernel frees it when they end, however they do. The files of a tunnel without an owner are rubbish, whatever is in them.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, Literal

from kit import files, linux, paths, procs
from kit.frozen import dataclass
from kit.remote import ssh

Status = Literal["up", "connecting", "down"]
STATUSES: tuple[Status, ...] = ("up", "connecting", "down")
# In the environment of a tunnel's ssh and of all that it starts, such as the ssh to a jump host.
MARK = "KIT_TUNNEL"
LONGEST_STATE = 64 * 1024
_FILE = re.compile(r"([0-9a-f]{10})\.(?:json|lock|log)")


@dataclass(frozen=True, kw_only=True)
class Tunnel:
    """A port of this machine that leads to a service on another one."""

    id: str
    target: str  # the machine, as the user named it
    container: str
    service: str
    local_port: int  # on 127.0.0.1, the same for the tunnel's whole life
    remote_port: int  # on the loopback of the target
    status: Status
    problem: str  # why it is not up; empty when it is
    started: str  # ISO 8601
    tries: int  # connections that failed since it was up
    pid: int  # of its supervisor
    is_shared: bool = False  # through the shared connection, as the machine asks for a password at every login

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.local_port}/"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A tunnel as its file has it."""

    tunnel: Tunnel
    machine: str  # whose processes these are: a home folder may be shared with others
    boot: str
    start: str  # when the supervisor started; with its number this names the process for good
    ssh_pid: int = 0  # leads a session of its own
    ssh_start: str = ""
    is_lasting: bool = False  # the problem is one that does not go away by itself


def folder() -> Path:
    return paths.state_dir() / "tunnels"


def file(identity: str, kind: Literal["json", "lock", "log"]) -> Path:
    return folder() / f"{identity}.{kind}"


def sockets(identity: str) -> str:
    """The name of the folder for what ssh forwards (`ssh.private_folder`), another where the files are elsewhere."""
    return f"t-{zlib.crc32(str(folder()).encode()):08x}-{identity}"


def identity_of(target: str, container: str, remote_port: int) -> str:
    """The name of the tunnel to a port of a container: always the same on this machine, so that there is only one."""
    import hashlib

    words = "\0".join((procs.boot(), target, container, str(remote_port)))
    return hashlib.sha256(words.encode()).hexdigest()[:10]


def identities() -> list[str]:
    """The tunnels that have a file of any kind."""
    try:
        names = os.listdir(folder())  # noqa: PTH208 - a Path for each is of no use here
    except OSError:
        return []
    return sorted({found.group(1) for name in names if (found := _FILE.fullmatch(name))})


def read(identity: str) -> Record | None:
    """A tunnel's record; None when there is none, or what is there is none."""
    try:
        with file(identity, "json").open("rb") as source:
            raw = json.loads(source.read(LONGEST_STATE))
        tunnel = Tunnel(**_checked(Tunnel, raw["tunnel"]))
        record = Record(**{**_checked(Record, raw), "tunnel": tunnel})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    is_sound = tunnel.id == identity and tunnel.status in STATUSES and tunnel.pid > 1 and record.ssh_pid >= 0
    return record if is_sound and all(0 < p < 65536 for p in (tunnel.local_port, tunnel.remote_port)) else None


def _checked(kind: type, raw: Any) -> dict[str, Any]:
    """The fields that a dataclass has, of the types it says. Raises ValueError, KeyError or TypeError."""
    types = {"str": str, "int": int, "bool": bool, "Status": str, "Tunnel": dict}
    wanted = {name: types[str(annotation)] for name, annotation in kind.__annotations__.items()}
    raw = {**{f.name: f.default for f in fields(kind) if f.default is not MISSING}, **raw}
    for name, of in wanted.items():
        if type(raw[name]) is not of:
            raise ValueError(f"{name} is no {of.__name__}")
    return {name: raw[name] for name in wanted}


def write(record: Record) -> None:
    paths.write_text(file(record.tunnel.id, "json"), json.dumps(asdict(record), indent=1) + "\n", mode=0o600)


def give_up(identity: str, handle: int) -> None:
    """Remove a tunnel's files, the lock last, unless that is another's by now."""
    if files.is_at(handle, file(identity, "lock")):
        _remove(identity)
        file(identity, "lock").unlink(missing_ok=True)


def _remove(identity: str) -> None:
    ssh.remove_folder(sockets(identity))
    # Also what a writer left that was killed between a file and its name.
    for left in (file(identity, "json"), file(identity, "log"), *folder().glob(f".{identity}.*")):
        left.unlink(missing_ok=True)


def acquire(identity: str) -> int | None:
    """The descriptor that holds the lock of a tunnel from now on, or None: it has an owner already."""
    return files.acquire(file(identity, "lock"), wait_s=0)


def sweep(identity: str) -> bool:
    """Clear away a tunnel that has no owner; False when it has one, or is another machine's. Raises OSError."""
    record = read(identity)
    if record and record.boot != procs.boot() and record.machine != machine():
        return False  # machines that share files do not always share locks
    handle = acquire(identity)
    if handle is None:
        return False
    try:
        clear(identity, handle)
        give_up(identity, handle)
    finally:
        os.close(handle)
    return True


def clear(identity: str, handle: int) -> None:
    """End what a dead supervisor left running, and remove its files; not the lock, which the caller holds."""
    if not files.is_at(handle, file(identity, "lock")):
        return  # the caller holds one that is gone, and the files are another's
    record = read(identity)
    if record and record.boot == procs.boot():
        end_orphans(record)
    _remove(identity)


def end_orphans(record: Record) -> None:
    """Kill the ssh of a dead supervisor, and what it started, and wait until they are gone."""
    procs.kill(lambda: orphans(record), within_s=5)


def orphans(record: Record) -> list[int]:
    """The processes of a tunnel's last connection that run.

    By the session they are in and the mark in their environment; a connection to a jump host that the user's own
    configuration keeps open (ControlPersist) has left that session, and is not ours to end. Without /proc: the ssh.
    """
    if not record.ssh_pid:
        return []
    if not linux.has_proc():
        return [record.ssh_pid] if procs.is_running(record.ssh_pid, record.ssh_start) else []
    mark = f"{MARK}={record.tunnel.id}"
    return [pid for pid in procs.numbers() if procs.session(pid) == record.ssh_pid and procs.has_mark(pid, mark)]


def machine() -> str:
    import socket

    return socket.gethostname()
