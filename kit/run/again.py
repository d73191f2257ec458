"""Start again what ended: the same container, with its packages, its port and its token."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from kit import labels, layout
from kit.engine import Container, Engine
from kit.errors import BadInputError, GpuUnavailableError, KitError, PortTakenError
from kit.run.containers import (
    STOPPED,
    Running,
    close_tunnels,
    describe,
    find,
    open_tunnel,
    require_own,
    targets,
)
from kit.run.lease import held, holders
from kit.run.service import wait_for

# Kit's own, which no container can exchange.
OWN_FILES = (layout.PASSWD_FILE, layout.GROUP_FILE, layout.CA_FILE)
EXCHANGED = """
while [ $# -gt 1 ]; do
    [ "$(readlink -f "$1")${2#"$1"}" = "$(readlink -f "$2")" ] || printf '%s\\n' "$2"
    shift 2
done
"""
UP = ("running", "restarting", "paused")
Say = Callable[[str], None]


def start(engine: Engine, names: Sequence[str], *, everything: bool, say: Say) -> Iterator[Running]:
    """Start stopped containers; each one once it runs, a service once it has answered.

    Raises BadInputError for another user's and for one whose mounts lead elsewhere now, PortTakenError when a service's
    port is another program's now, GpuUnavailableError when a GPU that it had to itself is leased to another, and
    NotReadyError when a service does not answer; it stays as it is then.
    """
    chosen = [find(engine, name, first=STOPPED) for name in names] if names and not everything else []
    chosen = chosen or targets(engine, names, everything=everything, statuses=STOPPED)
    require_own(chosen, engine, action="start", hint="ask them, or start one of your own: `kit run`")
    for container in chosen:
        if container.status in UP:
            say(f"{container.name} runs already")
        else:
            _start(engine, container, say)
        yield _ready(engine, container.name)


def restart(engine: Engine, names: Sequence[str], *, everything: bool, timeout_s: int, say: Say) -> Iterator[Running]:
    """Stop containers and start them again, as `start` does; those that had ended are started."""
    chosen = targets(engine, names, everything=everything, statuses=UP)
    require_own(chosen, engine, action="restart", hint="ask them, or start one of your own: `kit run`")
    for container in chosen:
        if container.status in UP:
            engine.stop(container.name, timeout_s=timeout_s)
            close_tunnels(container.name, engine)
        _start(engine, container, say)
        yield _ready(engine, container.name)


def _start(engine: Engine, container: Container, say: Say) -> None:
    if moved := exchanged(engine, container):
        raise BadInputError(
            f"{container.name} is not started: {moved[0]} leads elsewhere than when it was made",
            hint=f"look what is there now; {_anew(container)}",
        )
    anew = _anew(container)
    with _its_gpus(engine, container, say, anew):
        try:
            engine.start(container.name)
        except PortTakenError as e:
            port = next(iter(container.ports.values()), 0)
            raise PortTakenError(
                f"port {port} of {container.name} is another program's now",
                details=e.details,
                hint=f"end that, or {anew}",
            ) from None


def _anew(container: Container) -> str:
    return f"start another: `kit run {container.labels.get(labels.IMAGE, 'NAME')} …`"


def exchanged(engine: Engine, container: Container) -> list[str]:
    """What is mounted in a container and leads elsewhere now: an engine follows links at each start, and a job may have
    put one into a folder of its own. What `kit run` mounts here was no link; elsewhere none was below another mount.
    """
    binds = [source for target, source in container.binds.items() if target not in OWN_FILES]
    inside = [(outer, source) for source in binds for outer in binds if source.startswith(f"{outer}/")]
    if engine.connection:
        words = [word for pair in inside for word in pair]
        return engine.connection.run(EXCHANGED, arguments=words).stdout.splitlines() if words else []
    moved = [source for outer, source in inside if _real(outer) + source[len(outer) :] != _real(source)]
    if container.labels.get(labels.CLIENT) != "compose":
        moved += [source for source in binds if _real(source) != source]
    return moved


def _real(path: str) -> str:
    return os.path.realpath(path)


@contextmanager
def _its_gpus(engine: Engine, container: Container, say: Say, anew: str) -> Iterator[None]:
    """The GPUs that were the container's alone, for as long as the block takes. Raises GpuUnavailableError."""
    lease = set(container.labels.get(labels.LEASE, "").split())
    if not lease:
        yield
        return
    with held(engine, on_wait=say):
        others = [holder for holder in holders(engine) if holder.name != container.name and lease & set(holder.lease)]
        if others:
            taken = ", ".join(f"{other.name} ({other.user})" for other in others)
            raise GpuUnavailableError(
                f"a GPU that {container.name} had to itself is leased to {taken} now", hint=f"wait for it, or {anew}"
            )
        yield


def _ready(engine: Engine, name: str) -> Running:
    """A container that was started, once its service answers."""
    container = engine.container(name)
    service = container.labels.get(labels.SERVICE)
    if service and container.ports:
        open_tunnel(container, engine)
        port = find_port(engine, container)
        found = container.environment
        wait_for(engine, name, service, port, found.get(layout.TOKEN, ""), found.get(layout.BASE_URL, ""))
    return describe(engine.container(name), engine)


def find_port(engine: Engine, container: Container) -> int:
    """Where a service is on this machine: its port, or that of the tunnel to it. Raises KitError without one."""
    if not engine.target:
        return next(iter(container.ports.values()))
    from kit.remote import tunnels

    port = next((t.local_port for t in tunnels.listed() if t.container == container.name), 0)
    if not port:
        raise KitError(f"no tunnel leads to {container.name}", hint=f"`kit url {container.name}` opens one")
    return port
