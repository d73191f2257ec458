"""`kit run`."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from kit import signals
from kit.cli import complete
from kit.cli.arguments import (
    content_options,
    gpus_option,
    image_options,
    restart_option,
    user_option,
)
from kit.cli.defaults import include_option
from kit.cli.ended import Tail, print_cause
from kit.cli.options import (
    Folder,
    Options,
    Whole,
    configured_image,
    host_option,
    is_configured,
    json_option,
    own_environment,
)
from kit.cli.output import ask as ask_user
from kit.cli.output import is_terminal, print_gpus, print_json, say, show, write_out
from kit.cli.screen import CommandScreen
from kit.run.command import run_command as run_attached
from kit.run.command import start_job
from kit.run.containers import Running
from kit.run.start import RunAsk, check_gpus, plan, start_services
from kit.spec.request import parse_name

if TYPE_CHECKING:
    from kit.image.build.ensure import ImageOptions
    from kit.run.start import Planned
    from kit.spec.gpu_request import GpuRequest
    from kit.spec.request import Contents


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.argument("name", required=False, default="", shell_complete=complete.images)
@click.argument(
    "words",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[jupyter|tensorboard|shell|COMMAND...]",
    shell_complete=complete.words,
)
@gpus_option(
    "all, none, free (the emptiest), how many free ones (2), indexes (0,3 or device=1) or UUIDs. The container "
    "leases free ones.  [default: all, or what CUDA_VISIBLE_DEVICES leaves]"
)
@click.option("--port", type=Whole(1, 65535), help="Port on 127.0.0.1.  [default: 8888 or the next free one]")
@user_option
@click.option(
    "-C",
    "--folder",
    type=Folder(),
    default=".",
    help="Folder at /workspace.  [default: the current one]",
)
@click.option(
    "--remote-folder",
    default="",
    metavar="PATH",
    help="With --host: a folder over there at /workspace, and nothing is sent.  [default: a copy of --folder]",
)
@include_option
@content_options(env_file_help="File of environment variables, as docker's --env-file takes it.")
@click.option(
    "--name",
    "container",
    default="",
    callback=lambda ctx, _, value: value if ctx.resilient_parsing else parse_name(value),
    metavar="NAME",
    help="Of the container, for `kit logs`, `stop` and the others.  [default: one that is free]",
)
@click.option("--tensorboard", is_flag=True, help="Start TensorBoard beside the notebook.")
@click.option("-d", "--detach", is_flag=True, help="Let a command run by itself: `kit logs -f`, `kit stop`.")
@click.option(
    "-t",
    "--tty",
    is_flag=True,
    help="With --host: give the command this terminal, with which it ends. A shell, an editor, a debugger and `python` "
    "alone have it anyway.",
)
@restart_option("Whether the engine starts a service or a detached command again after a crash or a reboot.")
@click.option("--another", is_flag=True, help="Start a service even where the same one runs in this folder.")
@click.option("--force", is_flag=True, help="Start an image even when it cannot work with this driver or GPU.")
@image_options
@host_option
@json_option
@click.pass_obj
def run_command(
    options: Options,
    *,
    name: str,
    words: tuple[str, ...],
    gpus: GpuRequest | None,
    port: int | None,
    user: str,
    folder: Path,
    remote_folder: str,
    include: tuple[str, ...],
    contents: Contents,
    container: str,
    tensorboard: bool,
    detach: bool,
    tty: bool,
    restart: str,
    another: bool,
    force: bool,
    image: ImageOptions,
) -> None:
    """Start a notebook (jupyter), TensorBoard, a shell or a command in an image, which is built first if need be.

    NAME is an image (`kit list`), or `torch` or `tf` for the newest one that works on this machine (`kit resolve`); it
    may be left out where the configuration names one, and in a project with an environment of its own, which it is
    then. A service stays up until `kit stop`; its URL is printed once it
    has answered; where it runs in this folder already, that one is offered (with --json another one is started). A
    command runs on this terminal and its exit code is passed on. Options come before NAME; words after
    `--` are never read as options.

    With --host all of it happens on that machine: this folder is sent there first (`kit sync`), a service is brought
    to a port here by a tunnel, and a command goes on when this terminal or the connection is gone. What is piped or
    redirected to its standard input goes there too.
    """
    ask = RunAsk(
        name=name,
        words=words,
        configured_image=configured_image() if options.is_configured else "",
        declares=own_environment(),
        target=options.host,
        gpus=gpus,
        gpus_are_optional=is_configured("gpus"),
        port=port,
        user=user,
        folder=folder.resolve(),
        remote_folder=remote_folder,
        include=include,
        contents=contents,
        container=container,
        tensorboard=tensorboard,
        detach=detach,
        restart=restart,
        configured=tuple(name for name in ("port", "restart", "publish", "jupyter_options") if is_configured(name)),
        force=force,
        takes_built=True,
        image=image,
        is_terminal=sys.stdin.isatty() and sys.stdout.isatty(),
        wants_terminal=tty,
        input=_input(),
    )
    planned = plan(ask, CommandScreen(options), None if another or options.json else partial(_takes, options))
    if isinstance(planned, Running):
        show(planned.url)
        return
    if planned.way == "service":
        _start_services(options, planned)
    elif planned.way == "job":
        _run_job(options, planned, detach=detach, has_input=ask.input != "")
    else:
        code = run_attached(
            planned.request,
            planned.gpus,
            planned.engine,
            lambda text: say(options, text),
            on_gpus=lambda found: print_gpus(options, found),
        )
        click.get_current_context().exit(code)


# What a container is given when it starts: a running one may have been given something else.
GIVEN = (
    *("gpus", "port", "user", "variables", "env_file", "mounts", "memory", "pids_limit", "logdir", "cpus", "shm_size"),
    *("ulimits", "publish", "network", "jupyter_options", "container", "tensorboard", "restart", "pull"),
)


def _takes(options: Options, running: Running) -> bool:
    """Whether the service that runs already is what was wanted. Where nobody can be asked it is, unless options say
    what another one would have.
    """
    context = click.get_current_context()
    is_special = any(context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE for name in GIVEN)
    what = f"{running.service} runs in this folder already, as {running.name}"
    if not options.yes and is_terminal():
        aside = "; your options are not for that one" if is_special else ""
        return ask_user(f"{what}{aside}. Take it, instead of starting another?", abort=False, default=not is_special)
    if not is_special:
        say(options, f"{what}; --another starts one more")
    return not is_special


def _start_services(options: Options, planned: Planned) -> None:
    image, target = planned.request.image.name, planned.engine.target
    started = start_services(planned, lambda text: say(options, text))
    if options.json:
        rows = [
            {"name": s.name, "image": image, "service": service, "url": s.url, "host": target}
            for service, s in started.items()
        ]
        print_json({**rows[0], **({"beside": rows[1:]} if rows[1:] else {})})
    else:
        for found in started.values():
            show(found.url)
    on, at = (f" on {target}", f" --host {target}") if target else ("", "")
    for service, found in started.items():
        say(
            options,
            f"{service} runs{on} as {found.name}; it stays up: `kit{at} logs {found.name}`, "
            f"`kit{at} stop {found.name}`",
        )
    # Now that the URL is printed.
    print_gpus(options, check_gpus(planned, started))


def _input() -> Literal["file", "stream", ""]:
    """What standard input is, if there may be something in it: no terminal, and not /dev/null."""
    with contextlib.suppress(OSError, ValueError):
        mode = os.fstat(sys.stdin.fileno()).st_mode
        if stat.S_ISREG(mode):
            return "file"
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            return "stream"
    return ""


def _run_job(options: Options, planned: Planned, *, detach: bool, has_input: bool) -> None:
    """Run a command that goes on without this terminal; its output and its exit code come here while it is there."""
    target = planned.engine.target
    at = f"kit --host {target}" if target else "kit"
    names: list[str] = []
    printed = Tail(write_out)

    def on_started(name: str) -> None:
        names.append(name)
        say(options, f"{name} runs" + (f" on {target}" if target else ""))
        if planned.request.is_terminal and not detach:
            say(options, "it goes on when this terminal is gone, and has no keyboard: `kit run -t …` gives it this one")

    try:
        name, code = start_job(
            planned.request,
            planned.gpus,
            planned.engine,
            lambda text: say(options, text),
            write=None if detach else printed,
            input=sys.stdin.fileno() if has_input and not detach else None,
            on_started=on_started,
            on_gpus=lambda found: print_gpus(options, found),
        )
    except KeyboardInterrupt:
        if not names:
            raise
        say(options, f"\n{names[0]} goes on: `{at} logs -f {names[0]}`, `{at} stop {names[0]}`")
        click.get_current_context().exit(signals.exit_code())
    if code is not None:
        if code:
            print_cause(bytes(printed.text))
        click.get_current_context().exit(code)
    if options.json:
        print_json({"name": name, "image": planned.request.image.name, "service": "", "url": "", "host": target})
    else:
        show(name)
    say(options, f"`{at} logs -f {name}` shows what it prints and ends with its exit code; `{at} stop {name}` ends it")
