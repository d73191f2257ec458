"""Run a command: on the caller's terminal, or as a job that goes on without it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from kit.engine import Container, Engine, connect, stream
from kit.errors import KitError, NoSuchContainerError
from kit.run import mount_points
from kit.run.containers import sweep
from kit.run.lease import GpuDecision, reserved
from kit.run.prepare import new_name, open_ports, place_on, require_free
from kit.spec.container import ContainerSpec, describe
from kit.spec.request import RunRequest

Write = Callable[[int, bytes], None]  # gets a stream (1 is stdout, 2 is stderr) and what came on it
# Between tries to reach a machine again, in seconds.
WAITS_S = (1.0, 2.0, 4.0, 8.0, 15.0)
LONGEST_S = 10 * 365 * 86400.0


def run_command(
    request: RunRequest,
    gpus: GpuDecision,
    engine: Engine,
    on_message: Callable[[str], None],
    *,
    on_gpus: Callable[[tuple[str, str] | None], None] = lambda _: None,
) -> int:
    """Run a command on the caller's terminal and return its exit code; the container is gone afterwards.

    `on_gpus` gets what `gpu_check.check_before` finds, before the command starts.
    """
    # Nothing is left to be started again when it ends.
    request = replace(request, restart="")
    with _described(request, gpus, engine, on_message, on_gpus) as (spec, release):
        return engine.run_attached(spec, release if spec.gpus.lease else None)


def start_job(
    request: RunRequest,
    gpus: GpuDecision,
    engine: Engine,
    on_message: Callable[[str], None],
    *,
    write: Write | None = None,
    input: int | None = None,
    on_started: Callable[[str], None] = lambda _: None,
    on_gpus: Callable[[tuple[str, str] | None], None] = lambda _: None,
) -> tuple[str, int | None]:
    """Start a command that needs nobody: its container's name, and its exit code once it has ended.

    Without `write` it returns at once, with None. With it, everything the command prints is handed on; an interruption
    then ends the reading and not the command. `input`: the descriptor of what it reads, until the connection is lost,
    on an engine that `takes_input`. The container stays when nobody read to the end, and is removed when somebody did.
    `on_started` gets the name as soon as it runs, `on_gpus` what `gpu_check.check_before` found before.
    """
    with _described(request, gpus, engine, on_message, on_gpus) as (spec, release):
        spec = replace(spec, remove=False, interactive=input is not None, tty=False)
        for line in engine.cautions(spec):
            on_message(line)
        if write is None:
            engine.run_detached(spec)
            release()
            open_ports(engine, spec.name, spec.ports, on_message)
            on_started(spec.name)
            return spec.name, None
        with engine.started(spec, release, input=input) as frames:
            open_ports(engine, spec.name, spec.ports, on_message)
            on_started(spec.name)
            if engine.connection:
                engine.connection.rest()  # it may take days
            seen: dict[int, int] = {}
            try:
                for kind, data in stream.after(frames, seen):
                    write(kind, data)
            except KitError:
                # Behind SSH it goes on where this stopped.
                if not engine.target:
                    raise
            code = follow_job(engine, spec.name, write, on_message, seen=seen)
        engine.remove(spec.name, force=True)
        return spec.name, code


@contextmanager
def _described(
    request: RunRequest,
    gpus: GpuDecision,
    engine: Engine,
    on_message: Callable[[str], None],
    on_gpus: Callable[[tuple[str, str] | None], None],
) -> Iterator[tuple[ContainerSpec, Callable[[], None]]]:
    """The container of a command, its GPUs reserved and proven; and what lets go of the lock they were chosen under."""
    if engine.is_here:  # where it costs a millisecond
        sweep(engine)
    require_free(engine, request)
    place = place_on(engine, request)
    for line in place.notes:
        on_message(line)
    with reserved(gpus, engine, on_message) as (granted, release):
        spec = describe(request, place, granted, name=new_name(request))
        if granted.note:
            on_message(granted.note)
        mount_points.make(engine, spec)
        if granted.devices:
            from kit.run import gpu_check

            on_gpus(gpu_check.check_before(engine, spec))
        yield spec, release


def follow_job(
    engine: Engine,
    name: str,
    write: Write,
    on_message: Callable[[str], None],
    *,
    seen: dict[int, int] | None = None,
) -> int:
    """Hand on what a container prints until it ends, and return its exit code.

    `seen` says how many bytes of each stream the caller had before. Where the engine is behind SSH, a connection that
    breaks is made again, for as long as it takes, and the reading goes on where it stopped.
    """
    seen = {} if seen is None else seen
    is_read = bool(seen)
    while True:
        try:
            container = engine.container(name)
            if not is_read or engine.target:
                _read_on(engine, container, write, seen)
                is_read = True
                container = engine.container(name)
            elif container.status == "running":
                engine.call(["wait", name], timeout_s=LONGEST_S)
                container = engine.container(name)
            if container.status not in ("running", "restarting"):
                return container.exit_code
        except NoSuchContainerError:
            raise
        except KitError:
            if not engine.target:
                raise
            is_read = True
            engine = _again(engine, name, on_message)


def _read_on(engine: Engine, container: Container, write: Write, seen: dict[int, int]) -> None:
    """Hand on what comes after what was seen: until the container ends, or the connection does."""
    is_up, had_some = container.status == "running", bool(seen)
    with engine.log(container.name, follow=is_up) as frames:
        for kind, data in stream.after(frames, seen):
            # The engine's log ends the last line where the program did not; whoever saw that line needs no more.
            if is_up or not had_some or data != b"\n":
                write(kind, data)


def _again(engine: Engine, name: str, on_message: Callable[[str], None]) -> Engine:
    """The same engine once it can be reached again."""
    on_message(f"the connection to {engine.target} is lost; {name} goes on there. Connecting again")
    tries = 0
    while True:
        time.sleep(WAITS_S[min(tries, len(WAITS_S) - 1)])
        tries += 1
        try:
            found = connect(engine.target)
            found.container(name)
        except NoSuchContainerError:
            raise
        except KitError:
            continue
        on_message(f"connected to {engine.target} again")
        return found
