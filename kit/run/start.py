"""What `kit run` does: from the words of its user to what runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kit import ports
from kit.config import read_env_file
from kit.engine import Engine
from kit.errors import BadInputError
from kit.frozen import dataclass
from kit.run import folder
from kit.run.containers import Running, running_service, user_inside
from kit.run.lease import GpuDecision, no_gpus
from kit.run.prepare import Ready, Wanted, bring, folder_on, groups_on, mount_on, name_and_words, prepare
from kit.run.service import start_service
from kit.screen import Screen
from kit.spec.request import (
    Contents,
    RunRequest,
    Service,
    Started,
    as_command,
    parse_port,
    require_publishing,
    split_server_options,
    wants_terminal,
)

if TYPE_CHECKING:
    from kit.environment.declared import Declared


@dataclass(frozen=True, kw_only=True)
class RunAsk(Wanted):
    """What `kit run` was told."""

    words: tuple[str, ...]
    configured_image: str = ""
    declares: Callable[[], Declared] | None = None  # reads the project's own environment, where it has one
    port: int | None = None
    user: str = ""  # UID:GID; empty: the caller
    folder: Path
    remote_folder: str = ""
    include: tuple[str, ...] = ()  # of the folder, what is sent although git ignores it
    contents: Contents = field(default_factory=Contents)
    tensorboard: bool = False  # beside the notebook
    detach: bool = False
    restart: str = ""
    container: str = ""  # its name; empty: one that kit makes up
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


def plan(ask: RunAsk, screen: Screen, takes: Callable[[Running], bool] | None = None) -> Planned | Running:
    """Understand what was asked, and bring the image and the folder to where it will run. Where the same service runs
    with the same folder already, and `takes` says yes to it, it is that.

    Raises BadInputError for words that contradict each other, before anything is asked of a machine, and what
    `prepare`, `bring` and `folder_on` raise.
    """
    name, words = name_and_words(ask.name, ask.words, ask.configured_image)
    bare, options = split_server_options(words)
    service, command, logdir = as_command(bare)
    if options and service != "jupyter":
        service, command, logdir = as_command(words)  # they are the command's own
        options = ()
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
    if contents.server_options and service != "jupyter" and "jupyter_options" not in ask.configured:
        raise BadInputError("--jupyter-option is for the notebook", hint="a program's own options stand behind it")
    if service:
        require_publishing(contents.joins)
    secrets = read_env_file(contents.env_file) if contents.env_file else ()
    mounts = contents.mounts if ask.target else [mount_on(mount, None) for mount in contents.mounts]
    # An image that was named is that image, whatever the project has.
    is_own = ask.declares is not None and (not ask.name or words != ask.words)
    environment = ask.declares() if ask.declares and is_own else None
    ready = prepare(replace(ask, name=name, environment=environment), screen)
    engine = ready.engine
    if engine.connection:
        mounts = [mount_on(mount, engine.connection) for mount in mounts]
    if (service and takes and not engine.connection) and (same := _same(ready, service, ask.folder)) and takes(same):
        return same
    ready = bring(ready, screen)
    there = folder_on(engine, ask.folder, ask.remote_folder, screen, include=ask.include)
    user = ask.user or user_inside(engine, ask.folder)
    folder.require_visible(engine, [str(there), *(mount.source for mount in mounts)], ready.reference)
    # A copy that was sent is the user's own.
    is_copy = engine.connection is not None and not ask.remote_folder
    groups = [number for number, _ in groups_on(engine, user)]
    for line in [] if is_copy else folder.notes(engine, there, user, groups, mounts):
        screen.say(line)
    own_ports = tuple(map(parse_port, environment.ports)) if environment else ()
    configured_ports = {*own_ports, *(contents.ports if "publish" in ask.configured else ())}
    contents = replace(contents, ports=tuple(dict.fromkeys((*contents.ports, *own_ports))))
    if configured_ports and engine.is_here:
        # What a file asks for each time, a container that runs already may have.
        taken = [pair for pair in contents.ports if pair in configured_ports and not ports.is_free(pair[0])]
        for port, _ in taken:
            screen.say(f"port {port} of the configuration is in use, and not published a second time")
        contents = replace(contents, ports=tuple(pair for pair in contents.ports if pair not in taken))
    if environment and environment.project and ask.folder != environment.folder and not ask.remote_folder:
        screen.say(
            f"warning: the project's own code is in {environment.folder}, and {ask.folder} is at /workspace: "
            f"`-C {environment.folder}` has both"
        )
    request = RunRequest(
        image=ready.image,
        reference=ready.reference,
        additions=ready.additions,
        service=service,
        command=command,
        port=ask.port,
        folder=there,
        user=user,
        **contents.as_they_are,
        secrets=(*secrets, *contents.secrets),
        server_options=(*contents.server_options, *options) if service == "jupyter" else (),
        name=ask.container,
        mounts=tuple(mounts),
        logdir=logdir or contents.logdir,
        restart=ask.restart,
        network=ready.network,
        is_terminal=ask.is_terminal,
    )
    if (service and takes and engine.connection) and (same := _same(ready, service, request.folder)) and takes(same):
        return same
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


def _same(ready: Ready, service: Service, folder: Path) -> Running | None:
    return running_service(
        ready.engine, image=ready.image.name, additions=ready.additions, service=service, folder=folder
    )


def start_services(planned: Planned, on_message: Callable[[str], None]) -> dict[Service, Started]:
    """Start the service, and those beside it, which need no GPU and take the ports that are their own."""
    request = planned.request
    assert request.service is not None
    started = {request.service: start_service(request, planned.gpus, planned.engine, on_message)}
    for service in planned.beside:
        # Ports of the user's own are the first one's, and options the notebook's.
        name = f"{request.name}-{service}" if request.name else ""
        wanted = replace(request, service=service, port=None, ports=(), server_options=(), name=name)
        started[service] = start_service(wanted, no_gpus(request.image), planned.engine, on_message)
    return started


def check_gpus(planned: Planned, started: dict[Service, Started]) -> tuple[str, str] | None:
    """Whether the GPUs that the first service was given are there and compute, as `gpu_check.check` says it."""
    from kit.run import gpu_check

    found = next(iter(started.values()))
    return gpu_check.check(planned.engine, found.name, found.gpus.devices)
