"""SSH tunnels to services on other machines: each has a process of its own that keeps it up until it is closed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kit import paths, ports, process, procs
from kit.errors import BadInputError, MissingProgramError, NetworkError, NoSuchContainerError, PortTakenError
from kit.remote import ssh
from kit.remote.tunnels import forward, state
from kit.remote.tunnels.state import Record, Status, Tunnel

START_TRIES = 20
# How long a supervisor may take to end its ssh and its files.
CLOSE_PATIENCE_S = 6.0


def open_tunnel(
    target: str,
    *,
    container: str,
    service: str,
    remote_port: int,
    first_port: int,
    life: str,
    exact: bool = False,
    timeout_s: float = 60,
) -> Tunnel:
    """A port of this machine that leads to a port on the loopback of `target`, and goes on doing so by itself.

    `life`: a POSIX script that prints there, on one line, what is the same as long as the container runs and another
    each time it is started, and nothing when it does not run. What is sent to the port waits until that tells that the
    port there was the container's own.

    Returns when ssh is logged in and listens. One that is open already for this port is returned as it is; one that has
    lost its connection is given `timeout_s` seconds to get it back. Where a login is asked for a password the tunnel
    goes through the shared connection, if that is open, and is up as long as that is. Raises NetworkError when it
    cannot be opened, and nothing is left then; PortTakenError when `exact` and `first_port` is in use (else the next
    free one is taken); BadInputError for a target that is none; MissingProgramError without ssh.
    """
    paths.state_folder(state.folder().name)
    listed()
    identity = state.identity_of(target, container, remote_port)
    deadline = time.monotonic() + timeout_s
    waiting = _Waiting()
    while True:
        handle = state.acquire(identity)
        if handle is not None:
            break
        found = waiting.look(identity)
        if found and exact and found.local_port != first_port:
            raise BadInputError(
                f"{container} has a tunnel already, on port {found.local_port}",
                hint=f"`kit tunnel close {found.id}` first, or leave out --port",
            )
        if found and found.status == "up":
            return found
        if time.monotonic() > deadline:
            raise _not_up(target, container, found)
        time.sleep(0.05)
    tunnel = Tunnel(
        id=identity,
        target=target,
        container=container,
        service=service,
        local_port=first_port if exact else waiting.port or first_port,
        remote_port=remote_port,
        status="connecting",
        problem="",
        started=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        tries=0,
        pid=0,
    )
    try:
        state.clear(identity, handle)
        return _start(tunnel, life, handle, exact=exact, deadline=deadline)
    except BaseException:
        state.give_up(identity, handle)
        raise
    finally:
        os.close(handle)


class _Waiting:
    """Looks at a tunnel that another process owns, and helps it to come up again."""

    def __init__(self) -> None:
        self.port = 0  # of a tunnel that was ended to be opened anew
        self._next_poke = 0.0

    def look(self, identity: str) -> Tunnel | None:
        """The tunnel as it is; None when it cannot be read, or was ended because it cannot come up by itself."""
        record = state.read(identity)
        if record is None or not procs.is_running(record.tunnel.pid, record.start):
            return None
        if record.is_lasting and not self.port:
            # Nothing it does by itself helps. This process may have another key or agent.
            self.port = record.tunnel.local_port
            _end([record])
            return None
        if record.tunnel.status == "down" and time.monotonic() >= self._next_poke:
            self._next_poke = time.monotonic() + 1
            _signal(record, signal.SIGUSR1)
        return record.tunnel


def _not_up(target: str, container: str, found: Tunnel | None) -> NetworkError:
    if found is None:
        return NetworkError(f"another kit process is still opening the tunnel to {container} on {target}")
    return NetworkError(
        f"the tunnel to {container} on {target} is {found.status}: {found.problem or 'ssh does not answer'}",
        hint=f"it goes on trying, and `kit tunnel` shows it; `kit tunnel close {found.id}` ends it",
    )


def _start(tunnel: Tunnel, life: str, lock: int, *, exact: bool, deadline: float) -> Tunnel:
    """Start the supervisor of a tunnel whose lock is held here, and wait for its first connection."""
    first = tunnel.local_port
    for _ in range(START_TRIES):
        port, reservation = ports.reserve(first, exact=exact)
        try:
            answer = _try(replace(tunnel, local_port=port), life, lock, reservation, deadline)
            if ssh.is_refusal(str(answer.get("text", ""))) and ssh.is_connected(tunnel.target):
                # The machine asks at every login; somebody answered when the shared connection was opened.
                shared = replace(tunnel, local_port=port, is_shared=True)
                answer = _try(shared, life, lock, reservation, deadline)
        finally:
            os.close(reservation)
        if answer.get("is_up"):
            record = state.read(tunnel.id)
            if record is None:
                raise _closed(tunnel)
            return record.tunnel
        if not answer.get("is_port_taken"):
            raise _failure(tunnel, str(answer.get("text", "")), str(answer.get("problem", "")))
        if exact:
            break
        # Another program took it between the look and ssh.
        first = port + 1
    raise PortTakenError(f"port {first} on 127.0.0.1 is in use", hint="leave out --port to get the next free one")


def _try(tunnel: Tunnel, life: str, lock: int, reservation: int, deadline: float) -> dict[str, Any]:
    """Start a supervisor and return what it says of its first connection; unless that is up, nothing is left."""
    # Another name each time: the shared connection may still have a forward of one that was killed.
    path = ssh.private_folder(state.sockets(tunnel.id)) / f"service-{os.urandom(4).hex()}"
    command, ending = forward.commands(tunnel.target, path, tunnel.remote_port, life, is_shared=tunnel.is_shared)
    if shutil.which(command[0]) is None:
        raise MissingProgramError(
            f"a tunnel to {tunnel.target} needs the program `{command[0]}`, which is not installed",
            hint="install the OpenSSH client (package openssh-client or openssh-clients)",
        )
    # Paths in KIT_SSH may be relative; else no folder is kept busy.
    folder = str(Path.cwd()) if os.environ.get(ssh.SSH_VARIABLE) else "/"
    order = {"tunnel": asdict(tunnel), "command": command, "ending": ending, "socket": str(path), "folder": folder}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        handles = (lock, reservation, theirs.fileno())
        isolated = ["-E"] if sys.flags.ignore_environment else []
        pid = process.start_daemon(
            [sys.executable, *isolated, "-m", "kit.remote.tunnels", tunnel.id, *map(str, handles), json.dumps(order)],
            log_file=state.file(tunnel.id, "log"),
            # `-m` looks for modules where it is started, first of all.
            cwd=Path("/"),
            pass_fds=handles,
        )
        theirs.close()
        start, answer = procs.start_time(pid), {}
        try:
            answer = _asked(tunnel, ours, deadline)
        finally:
            # Without an opener a supervisor ends itself, unless its tunnel is up.
            ours.close()
            if not answer.get("is_up"):
                _wait_for_end([(pid, start)])
                state.clear(tunnel.id, lock)
    return answer


def _asked(tunnel: Tunnel, ours: socket.socket, deadline: float) -> dict[str, Any]:
    received = b""
    try:
        while not received.endswith(b"\n"):
            ours.settimeout(max(deadline - time.monotonic(), 0.01))
            if not (some := ours.recv(65536)):
                raise _closed(tunnel)
            received += some
        answer: dict[str, Any] = json.loads(received)
        if answer.get("is_up"):
            ours.settimeout(5)
            ours.sendall(b"y")
            ours.recv(1)  # its end of the connection is closed when its file says that it is up
    except TimeoutError:
        raise ssh.failure(tunnel.target, 124, "logging in timed out") from None
    except OSError:
        raise _closed(tunnel) from None
    return answer


def _failure(tunnel: Tunnel, text: str, problem: str) -> NetworkError:
    if text:
        return ssh.failure(tunnel.target, 255, text)
    return NetworkError(f"the tunnel to {tunnel.container} on {tunnel.target} cannot be opened: {problem}")


def _closed(tunnel: Tunnel) -> NetworkError:
    """Its supervisor ended without a word: it was told to, or it could not even start."""
    with contextlib.suppress(OSError):
        lines = state.file(tunnel.id, "log").read_text(encoding="utf-8", errors="replace").splitlines()
        return NetworkError(
            f"the tunnel to {tunnel.container} on {tunnel.target} was closed while it was being opened",
            details=tuple(lines[-6:]),
        )
    return NetworkError(f"the tunnel to {tunnel.container} on {tunnel.target} was closed while it was being opened")


def listed() -> list[Tunnel]:
    """The tunnels of this machine that are up, or try to be; what was left of others is cleared away first."""
    return [record.tunnel for record in _records()]


def _records() -> list[Record]:
    found = []
    for identity in state.identities():
        # Whatever is wrong with a file, the others count.
        with contextlib.suppress(OSError):
            if state.sweep(identity):
                continue
            record = state.read(identity)
            if record and record.boot == procs.boot() and procs.is_running(record.tunnel.pid, record.start):
                found.append(record)
    return sorted(found, key=lambda r: (r.tunnel.target, r.tunnel.container, r.tunnel.local_port))


def close_for(container: str) -> list[Tunnel]:
    """Close the tunnels to a container; returns those there were.

    By its name alone, a part of which is drawn: the same machine may have been named in another way.
    """
    return close([tunnel for tunnel in listed() if tunnel.container == container])


def close(tunnels: Sequence[Tunnel]) -> list[Tunnel]:
    """Close tunnels, all at the same time, and return them when nothing is left of any; one may be closed already."""
    wanted = {tunnel.id for tunnel in tunnels}
    _end([record for record in _records() if record.tunnel.id in wanted])
    return list(tunnels)


def _end(records: Sequence[Record]) -> None:
    """End supervisors, which end their ssh and remove their files, and see to it that they did."""
    for record in records:
        _signal(record, signal.SIGTERM)
    _wait_for_end([(record.tunnel.pid, record.start) for record in records])
    for record in records:
        with contextlib.suppress(OSError):
            state.sweep(record.tunnel.id)


def _wait_for_end(supervisors: Sequence[tuple[int, str]]) -> None:
    """Wait until these processes ended; kill those that take too long."""
    begun = time.monotonic()
    while running := [(pid, start) for pid, start in supervisors if procs.is_running(pid, start)]:
        passed = time.monotonic() - begun
        if passed > CLOSE_PATIENCE_S:
            for pid, _ in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if passed > 2 * CLOSE_PATIENCE_S:
            return
        time.sleep(0.02)


def _signal(record: Record, number: signal.Signals) -> None:
    """Signal a supervisor, if its number is still its own."""
    if procs.is_running(record.tunnel.pid, record.start):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(record.tunnel.pid, number)


__all__ = ["Status", "Tunnel", "close", "close_for", "listed", "open_tunnel"]


def matching(found: Sequence[Tunnel], name: str) -> list[Tunnel]:
    """The tunnels that a name stands for: an ID, a local port, or a container as `kit stop` takes it.

    Raises NoSuchContainerError when there is none, also when the name stands for several containers.
    """
    if not name:  # every container's name begins with it
        raise NoSuchContainerError("a tunnel's name is empty", hint="`kit tunnel` lists them")
    whole = (name, f"kit-{name}")
    tests = (
        lambda t: name in (t.id, str(t.local_port)),
        lambda t: t.container in whole,
        lambda t: t.container.startswith(whole),
    )
    for test in tests:
        fit = [t for t in found if test(t)]
        containers = dict.fromkeys((t.target, t.container) for t in fit)
        if len(containers) > 1:
            raise NoSuchContainerError(
                f"'{name}' stands for {len(containers)} containers",
                details=tuple(f"{container} on {target}" for target, container in containers),
                hint="give the port, or one whole name and --host",
            )
        if fit:
            return fit
    raise NoSuchContainerError(
        f"there is no tunnel '{name}'",
        details=tuple(f"{t.container} on {t.target} (127.0.0.1:{t.local_port})" for t in found),
        hint="`kit tunnel` lists them",
    )
