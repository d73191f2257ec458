"""Which engine is used: the one rule, for this machine, for those behind SSH, and for the probe of either."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kit import unix_http
from kit.engine.docker import NO_ENGINE_HINT, Engine
from kit.errors import EngineDeniedError, NoEngineError
from kit.facts import sockets
from kit.facts.sockets import ENGINE_VARIABLE, Candidate, docker_config

if TYPE_CHECKING:
    from kit.remote.ssh import Account


def connect(target: str = "", *, may_ask: bool | None = None) -> Engine:
    """The engine to use: the one the user's docker settings name, else the first of the candidates that answers, else
    Podman where docker is not installed.

    `KIT_ENGINE=private`, `system` or `podman` chooses. `target`: the engine of that machine, over SSH, where `may_ask`
    says whether ssh may ask for a password (None: on a terminal). Raises NoEngineError with what to do when none
    answers, EngineDeniedError when there is one that this account may not use.
    """
    choice = os.environ.get(ENGINE_VARIABLE, "")
    if target:
        return _connect_there(target, may_ask)
    if choice == "podman":
        return _podman()
    if choice != "private" and has_context():
        named = local_socket(os.environ.get("DOCKER_HOST", ""))
        return _podman() if named and _is_podmans(named) else Engine(socket_path=named)
    denied = None
    for candidate in candidates():
        try:
            if found := _answering(candidate):
                return found
        except PermissionError:
            denied = denied or candidate
    if not choice and _has_podman_alone():
        return _podman()
    if denied:
        from kit.engine import rights  # an engine that answers is what most commands find

        raise rights.denied(denied.path(), is_private=denied.choice == "private")
    raise NoEngineError("no container engine answers", hint=NO_ENGINE_HINT)


def private() -> Engine | None:
    """kit's private engine, if it answers."""
    with suppress(PermissionError):
        return next((_answering(candidate) for candidate in sockets.CANDIDATES if candidate.choice == "private"), None)
    return None


def _connect_there(target: str, may_ask: bool | None) -> Engine:
    """The container engine of a machine behind SSH: Docker, else Podman, which `KIT_ENGINE=podman` takes at once.

    Raises NetworkError when the machine cannot be reached, NoEngineError when no engine answers there, or when this
    account may use none.
    """
    from kit.engine import remote
    from kit.remote import ssh  # of all commands only those with --host need it

    was_open = ssh.is_connected(target)
    connection = ssh.connect(target, may_ask=may_ask)
    if takes_podman(connection.account):
        return remote.RemotePodman(remote.alive(connection, may_ask) if was_open else connection)
    if os.environ.get(ENGINE_VARIABLE) == "podman":
        raise NoEngineError(f"{target} has no Podman", hint=f"unset {ENGINE_VARIABLE}, or install it there")
    if unix_http.is_answering(connection.folder / remote.SOCKET, timeout_s=remote.PING_S):
        return remote.RemoteEngine(connection)
    if (connection.folder / remote.SOCKET).exists():
        # It was there before. Either the engine there is gone for now, or the connection is: this one sleeps until it
        # finds out for itself, a new one knows at once.
        ssh.close(target)
        connection = ssh.connect(target, may_ask=may_ask)
    if remote.forward(connection):
        return remote.RemoteEngine(connection)
    account = connection.account
    if takes_podman(account):
        return remote.RemotePodman(connection)  # Docker went since the connection was made
    if account.denied:
        raise EngineDeniedError(
            f"{account.user} has no right to use the container engine of {target} ({', '.join(account.denied)})",
            hint=f"`kit --host {target} doctor` says how its administrator gives it; then end the connection that "
            f"was made without it: `kit --host {target} tunnel close --all`",
        )
    raise NoEngineError(
        f"no container engine answers on {target}",
        hint="install Docker Engine there, or start kit's private one there as root",
        details=tuple(f"{path}: no answer" for path in account.sockets),
    )


def candidates() -> list[Candidate]:
    """The candidates that the user's choice leaves."""
    choice = os.environ.get(ENGINE_VARIABLE, "")
    return [found for found in sockets.CANDIDATES if choice not in ("system", "private") or found.choice == choice]


def takes_podman(account: Account) -> bool:
    """True where Podman is the engine of a machine behind SSH: chosen, or there is no socket of Docker's.

    With a socket that does not answer there is a Docker, which is down.
    """
    choice = os.environ.get(ENGINE_VARIABLE, "")
    return account.has_podman and (choice == "podman" or not (choice or account.sockets))


def likely_socket(account: Account | None = None) -> str:
    """Where Docker would be asked, here or on a machine behind SSH, though it need not answer: for a probe that is to
    tell why not. Empty where docker itself knows.
    """
    if account:
        return next(iter((*account.sockets, *account.denied)), "")
    paths = [] if has_context() else [candidate.path() for candidate in candidates()]
    return next((str(path) for path in paths if path.is_socket()), "")


def has_context() -> bool:
    """True when the user chose an engine for the docker command line: an address or a context."""
    if os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT"):
        return True
    try:
        return bool(json.loads(docker_config().read_text()).get("currentContext", "default") != "default")
    except (OSError, ValueError, AttributeError):
        return False


def local_socket(docker_host: str) -> Path | None:
    """The socket that an address of the engine names, when it is one on this machine."""
    return Path(docker_host.removeprefix("unix://")) if docker_host.startswith("unix:///") else None


def _answering(candidate: Candidate) -> Engine | None:
    """The engine of a candidate on this machine; None when it does not answer. Raises PermissionError."""
    if candidate.choice == "private":
        from kit import private_engine  # most machines have an engine of their own

        if not private_engine.is_up():
            if private_engine.is_denied():
                raise PermissionError
            return None
        return Engine(
            program=str(private_engine.docker_program() or "docker"),
            environment=private_engine.environment(),
            socket_path=private_engine.socket_path(),
        )
    path = candidate.path()
    if _is_podmans(path):
        return _podman()
    if not _answers(path):
        return None
    # The first is where docker looks by itself.
    environment = {} if candidate == sockets.CANDIDATES[0] else {"DOCKER_HOST": f"unix://{path}"}
    return Engine(environment=environment, socket_path=path)


def _answers(path: Path) -> bool:
    """True when something listens on a unix socket. Raises PermissionError when the caller may not ask."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        try:
            client.connect(str(path))
        except PermissionError:
            raise
        except OSError:
            return False
    return True


def _is_podmans(path: Path) -> bool:
    """True for the socket of Podman's Docker interface, also under the name that the package podman-docker gives it."""
    return Path(os.path.realpath(path)).name.startswith("podman")


def _has_podman_alone() -> bool:
    """True where there is Podman and no docker, or one that is Podman under another name."""
    import shutil  # compressors and all; where an engine answers nobody looks

    if not shutil.which("podman"):
        return False
    docker = shutil.which("docker")
    if docker is None:
        return True
    try:
        with Path(docker).open("rb") as file:
            # podman-docker's is a shell script of a few lines.
            return file.read(2) == b"#!" and b"podman" in file.read(4096)
    except OSError:
        return False


def _podman() -> Engine:
    from kit.engine.podman import Podman  # most machines have Docker

    return Podman()
