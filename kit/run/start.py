"""What `kit run` does: from the words of its user to what runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace
from pathlib import Path
from typing import Literal

from kit.config import read_env_file
from kit.engine import Engine
from kit.errors import BadInputError
from kit.frozen import dataclass
from kit.run.containers import user_inside
from kit.run.lease import GpuDecision, no_gpus
from kit.run.prepare import Wanted, bring, folder_on, mount_on, name_and_words, prepare
from kit.run.service import start_service
from kit.screen import Screen
from kit.spec.request import Contents, RunRequest, Service, Started, as_command, wants_terminal


@dataclass(frozen=True, kw_only=True)
class RunAsk(Wanted):
    """What `kit run` was told."""

    words: tuple[str, ...]
    configured_image: str = ""
    port: int | None = None
    user: str = ""  # UID:GID; empty: the caller
    folder: Path
    remote_folder: str = ""
    include: tuple[str, ...] = ()  # of the folder, what is sent although git ignores it
    contents: Contents = field(default_factory=Contents)
    tensorboard: bool = False  # beside the notebook
    detach: bool = False
    restart: str = ""
    configured: tuple[str, ...] = ()  # of these fields, those whose value is a default for whatever it is of use to
    is_terminal: bool = False
    wants_terminal: bool = False  # whatever the command is
    input: Literal["file", "stream", ""] = ""  # what its standard input is, if there may be something in it


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What is to run, in an image that is there; and how: as a service, as a job that goes on without its caller, or
    attached to the caller's terminal.
    """

    request: RunRequest
    gpus: GpuDecision
    engine: Engine
    way: Literal["service", "job", "attached"]
    beside: tuple[Service, ...] = ()


def plan(ask: RunAsk, screen: Screen) -> Planned:
    """Understand what was asked, and bring the image and the folder to where it will run.

    Raises BadInputError for words that contradict each other, before anything is asked of a machine, and what
    `prepare`, `bring` and `folder_on` raise.
    """
    name, words = name_and_words(ask.name, ask.words, ask.configured_image)
    service, command, logdir = as_command(words)
    if ask.tensorboard and service != "jupyter":
        raise BadInputError("--tensorboard is for the notebook", hint="alone it is `kit run NAME tensorboard`")
    if ask.port is not None and not service and "port" not in ask.configured:
        raise BadInputError("--port is for a service", hint="leave it out; a command's own ports are not published")
    stays = service or ask.detach or ask.target
    if ask.restart and not stays and "restart" not in ask.configured:
        raise BadInputError("--restart is for what stays", hint="leave it out, or give --detach too")
    if ask.detach and service:
        raise BadInputError(f"--detach is for a command; {service} stays up by itself", hint="leave it out")
    if ask.remote_folder and not ask.target:
        raise BadInputError("--remote-folder is for a machine behind --host", hint="here it is `-C FOLDER`")
    if ask.wants_terminal and not ask.is_terminal:
        raise BadInputError("--tty: this is no terminal", hint="leave it out, or run the command on one")
    if ask.wants_terminal and (ask.detach or service):
        raise BadInputError("--tty is for a command that somebody sits at", hint="leave it out")
    if ask.detach and ask.input == "file":
        raise BadInputError(
            "--detach: nobody is there to hand a file to its standard input",
            hint="leave out --detach, or have the command open the file itself",
        )
    contents = ask.contents
    secrets = read_env_file(contents.env_file) if contents.env_file else ()
    mounts = contents.mounts if ask.target else [mount_on(mount, None) for mount in contents.mounts]
    ready = prepare(replace(ask, name=name), screen)
    engine = ready.engine
    if engine.connection:
        mounts = [mount_on(mount, engine.connection) for mount in mounts]
    ready = bring(ready, screen)
    request = RunRequest(
        image=ready.image,
        reference=ready.reference,
        service=service,
        command=command,
        port=ask.port,
        folder=folder_on(engine, ask.folder, ask.remote_folder, screen, include=ask.include),
        user=ask.user or user_inside(engine, ask.folder),
        environment=contents.environment,
        secrets=(*secrets, *contents.secrets),
        memory_bytes=contents.memory_bytes,
        pids=contents.pids,
        mounts=tuple(mounts),
        logdir=logdir or contents.logdir,
        restart=ask.restart,
        network=ready.network,
        is_terminal=ask.is_terminal,
    )
    is_interactive = ask.is_terminal and (ask.wants_terminal or (not service and wants_terminal(command)))
    # Without its socket, an engine takes input for as long as somebody waits alone.
    is_read = bool(ask.input) and not engine.takes_input
    is_job = ask.detach or (engine.target and not is_interactive and not is_read)
    return Planned(
        request=request,
        gpus=ready.gpus,
        engine=engine,
        way="service" if service else "job" if is_job else "attached",
        beside=("tensorboard",) if ask.tensorboard else (),
    )


def start_services(planned: Planned, on_message: Callable[[str], None]) -> dict[Service, Started]:
    """Start the service, and those beside it, which need no GPU and take the ports that are their own."""
    request = planned.request
    assert request.service is not None
    started = {request.service: start_service(request, planned.gpus, planned.engine, on_message)}
    for service in planned.beside:
        wanted = replace(request, service=service, port=None)
        started[service] = start_service(wanted, no_gpus(request.image), planned.engine, on_message)
    return started


def check_gpus(planned: Planned, started: dict[Service, Started]) -> tuple[str, str] | None:
    """Whether the GPUs that the first service was given are there and compute, as `gpu_check.check` says it."""
    from kit.run import gpu_check

    found = next(iter(started.values()))
    return gpu_check.check(planned.engine, found.name, found.gpus.devices)
