"""What `kit run` does: from the words of its user to what runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from kit.build.ensure import ImageOptions
from kit.engine import Engine
from kit.errors import BadInputError
from kit.run.containers import user_inside
from kit.run.lease import GpuDecision, no_gpus
from kit.run.prepare import bring, folder_on, mount_on, name_and_words, prepare
from kit.run.service import start_service
from kit.screen import Screen
from kit.spec.gpu_request import GpuRequest
from kit.spec.request import (
    SHELL,
    RunRequest,
    Service,
    Started,
    as_command,
    parse_mount,
    parse_user,
    parse_variable,
)


@dataclass(frozen=True, kw_only=True)
class RunAsk:
    """What `kit run` was told, in its own words."""

    name: str
    words: tuple[str, ...]
    configured_image: str = ""
    target: str = ""
    gpus: GpuRequest | None = None
    gpus_are_optional: bool = False  # meant for images that have a use for them
    port: int | None = None
    user: str = ""
    folder: Path
    remote_folder: str = ""
    variables: tuple[str, ...] = ()
    env_file: Path | None = None
    mounts: tuple[str, ...] = ()
    logdir: str = "."
    tensorboard: bool = False  # beside the notebook
    detach: bool = False
    restart: str = "no"
    force: bool = False
    image: ImageOptions = field(default_factory=ImageOptions)
    is_terminal: bool = False


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
    if ask.detach and service:
        raise BadInputError(f"--detach is for a command; {service} stays up by itself", hint="leave it out")
    if ask.remote_folder and not ask.target:
        raise BadInputError("--remote-folder is for a machine behind --host", hint="here it is `-C FOLDER`")
    user = parse_user(ask.user) if ask.user else ""
    environment = tuple(parse_variable(text) for text in ask.variables)
    secrets = _secrets(ask.env_file)
    mounts = [parse_mount(text) for text in ask.mounts]
    if not ask.target:
        mounts = [mount_on(mount, None) for mount in mounts]
    ready = prepare(
        name,
        screen,
        target=ask.target,
        gpus=ask.gpus,
        network=ask.image.build.network,
        force=ask.force,
        gpus_are_optional=ask.gpus_are_optional,
    )
    engine = ready.engine
    if engine.connection:
        mounts = [mount_on(mount, engine.connection) for mount in mounts]
    ready = bring(ready, ask.image, screen)
    request = RunRequest(
        image=ready.image,
        service=service,
        command=command,
        port=ask.port,
        folder=folder_on(engine, ask.folder, ask.remote_folder, screen),
        user=user or user_inside(engine),
        environment=environment,
        secrets=secrets,
        mounts=tuple(mounts),
        logdir=logdir or ask.logdir,
        restart="" if ask.restart == "no" else ask.restart,
        network=ready.network,
        is_terminal=ask.is_terminal,
    )
    is_interactive = command == SHELL and ask.is_terminal
    is_job = ask.detach or (engine.target and not is_interactive)
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
    from kit import gpu_check

    found = next(iter(started.values()))
    return gpu_check.check(planned.engine, found.name, found.gpus.devices)


def _secrets(file: Path | None) -> tuple[tuple[str, str], ...]:
    if file is None:
        return ()
    from kit.config import read_env_file

    return read_env_file(file)
