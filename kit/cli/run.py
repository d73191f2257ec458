"""`kit run`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kit.cli import Options, host_option, is_configured, json_option
from kit.cli.build import build_options, placement_options
from kit.cli.defaults import AddingOption

if TYPE_CHECKING:
    from kit.engine import Engine, Mount
    from kit.run import RunRequest, Started
    from kit.ssh import Connection

DETACHED = 130


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.argument("name", required=False, default="")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[jupyter|tensorboard|shell|COMMAND...]")
@click.option(
    "--gpus",
    metavar="WHICH",
    help="all, none, free (the emptiest), how many free ones (2), indexes (0,3 or device=1) or UUIDs. The container "
    "leases free ones.  [default: all, or what CUDA_VISIBLE_DEVICES leaves]",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port on 127.0.0.1.  [default: 8888 or the next free one]")
@click.option("--user", help="UID or UID:GID to run as.  [default: yours; of a rootless engine 0:0, which is you]")
@click.option(
    "-C",
    "--folder",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    default=".",
    help="Folder at /workspace.  [default: the current one]",
)
@click.option(
    "--remote-folder",
    default="",
    metavar="PATH",
    help="With --host: a folder over there at /workspace, and nothing is sent.  [default: a copy of --folder]",
)
@click.option(
    "-e", "--env", "variables", cls=AddingOption, multiple=True, metavar="NAME=VALUE", help="Environment variable."
)
@click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of environment variables, as docker's --env-file takes it.",
)
@click.option(
    "--mount",
    "mounts",
    cls=AddingOption,
    multiple=True,
    metavar="SOURCE:TARGET[:ro]",
    help="Another folder or file of the host's.",
)
@click.option("--logdir", default=".", show_default=True, help="Where TensorBoard looks, under /workspace.")
@click.option("--tensorboard", is_flag=True, help="Start TensorBoard beside the notebook.")
@click.option("-d", "--detach", is_flag=True, help="Let a command run by itself: `kit logs -f`, `kit stop`.")
@click.option(
    "--restart",
    type=click.Choice(["no", "on-failure", "unless-stopped", "always"]),
    default="no",
    help="Whether the engine starts a service or a detached command again after a crash or a reboot.",
)
@click.option("--force", is_flag=True, help="Start an image even when it cannot work with this driver or GPU.")
@placement_options
@build_options
@host_option
@json_option
@click.pass_obj
def run_command(
    options: Options,
    *,
    name: str,
    words: tuple[str, ...],
    gpus: str | None,
    port: int | None,
    user: str | None,
    folder: Path,
    remote_folder: str,
    variables: tuple[str, ...],
    env_file: Path | None,
    mounts: tuple[str, ...],
    logdir: str,
    tensorboard: bool,
    detach: bool,
    restart: str,
    force: bool,
    transfer: bool,
    pull: str,
    base: str,
    registry_mirror: str,
    ca_cert: Path | None,
) -> None:
    """Start a notebook (jupyter), TensorBoard, a shell or a command in an image, which is built first if need be.

    NAME is an image (`kit list`), or `torch` or `tf` for the newest one that works on this machine (`kit resolve`); it
    may be left out where the configuration names one. A service stays up until `kit stop`; its URL is printed once it
    has answered. A command runs on this terminal and its exit code is passed on. Options come before NAME; words after
    `--` are never read as options.

    With --host all of it happens on that machine: this folder is sent there first (`kit sync`), a service is brought
    to a port here by a tunnel, and a command goes on when this terminal or the connection is gone.
    """
    from kit import run
    from kit.catalog import load_catalog
    from kit.cli.build import image_in_engine, make_options, network_for
    from kit.cli.output import say
    from kit.cli.resolve import image_for_host
    from kit.engine import connect
    from kit.errors import BadInputError

    catalog = load_catalog()
    name, words = _name_and_words(options, name, words)
    service, command, words_logdir = run.as_command(words)
    if tensorboard and service != "jupyter":
        raise BadInputError("--tensorboard is for the notebook", hint="alone it is `kit run NAME tensorboard`")
    if detach and service:
        raise BadInputError(f"--detach is for a command; {service} stays up by itself", hint="leave it out")
    if remote_folder and not options.host:
        raise BadInputError("--remote-folder is for a machine behind --host", hint="here it is `-C FOLDER`")
    # What is wrong with the words is said before anything is asked of a machine.
    asked_user = run.parse_user(user) if user else ""
    environment = tuple(variable_of(text) for text in variables)
    secrets = _variables_of(env_file)
    for text in mounts:
        split_mount(text) if options.host else mount_of(text, None)
    host = run.host_for(gpus, options.host)
    image = image_for_host(options, catalog, name, host, force=force)
    if not image.is_gpu and is_configured("gpus"):
        gpus = None  # meant for images that have a use for one
    engine = connect(options.host)
    wanted = make_options(base=base, registry_mirror=registry_mirror, ca_cert=ca_cert)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    request = run.RunRequest(
        image=image,
        service=service,
        command=command,
        gpus=gpus,
        host=host,
        port=port,
        folder=folder.resolve(),
        user=asked_user or run.user_inside(engine),
        environment=environment,
        secrets=secrets,
        mounts=tuple(mount_of(text, engine.connection) for text in mounts),
        logdir=words_logdir or logdir,
        restart="" if restart == "no" else restart,
        network=network_for(wanted.network, engine),
        is_terminal=is_terminal,
    )
    run.decide_gpus(request, engine)  # before anything is built or downloaded
    if image_in_engine(options, catalog, image, engine, wanted, transfer=transfer, pull=pull):
        request = replace(request, host=None)  # who uses which GPU has changed meanwhile
    if engine.connection:
        request = replace(request, folder=_folder_there(options, engine, folder.resolve(), remote_folder))
    if service:
        _start_services(options, engine, request, beside=("tensorboard",) if tensorboard else ())
        return
    is_interactive = command == run.SHELL and is_terminal
    if detach or (engine.target and not is_interactive):
        _run_job(options, engine, request, detach=detach)
        return
    code = run.run_command(
        request, engine, lambda text: say(options, text), on_gpus=lambda found: _say_gpus(options, found)
    )
    click.get_current_context().exit(code)


def _name_and_words(options: Options, name: str, words: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The image and what to run in it; the image from the configuration when the first word is none."""
    from kit.catalog import load_catalog
    from kit.errors import BadInputError, NoSuchImageError

    image = str(options.setting("image") or "") if options.settings.is_there else ""
    if not name:
        if not image:
            raise BadInputError(
                "no image named", hint="`kit list` shows them; `image` in kit.toml names the one of a project"
            )
        return image, words
    if not image:
        return name, words
    from kit import compat

    try:
        compat.parse_name(load_catalog(), name)
    except NoSuchImageError:
        return image, (name, *words)
    return name, words


def _folder_there(options: Options, engine: Engine, folder: Path, wanted: str) -> Path:
    """The folder over there for /workspace: one that was named, else a copy of this one, sent now."""
    assert engine.connection is not None
    if not wanted:
        from kit.cli.sync import send_folder

        return Path(send_folder(options, engine.connection, folder))
    from kit.errors import BadInputError

    there = _path_there(engine.connection, wanted)
    if not there.startswith("/") or engine.connection.run('test -d "$1"', arguments=[there], check=False).returncode:
        raise BadInputError(
            f"--remote-folder {wanted}: no such folder on {engine.target}", hint="give a whole path, or one with ~/"
        )
    return Path(there)


def _path_there(connection: Connection, path: str) -> str:
    """A path of a machine behind SSH, with ~ as the home folder there."""
    return connection.account.home + path[1:] if path == "~" or path.startswith("~/") else path


def _start_services(options: Options, engine: Engine, request: RunRequest, *, beside: tuple[str, ...]) -> None:
    from kit import run
    from kit.cli.output import print_json, say

    started: list[tuple[str, Started]] = []
    for service in (str(request.service), *beside):
        wanted = request
        if started:
            # What is beside the notebook needs no GPU, and takes the port that is its own.
            gpus = "none" if request.image.is_gpu else None
            wanted = replace(request, service="tensorboard", port=None, gpus=gpus, host=None)
        started.append((service, run.start_service(wanted, engine, lambda text: say(options, text))))
    if options.json:
        rows = [
            {"name": s.name, "image": request.image.name, "service": service, "url": s.url, "host": engine.target}
            for service, s in started
        ]
        print_json({**rows[0], **({"beside": rows[1:]} if beside else {})})
    else:
        for _, found in started:
            click.echo(found.url)
    on = f" on {engine.target}" if engine.target else ""
    at = f" --host {engine.target}" if engine.target else ""
    for service, found in started:
        say(
            options,
            f"{service} runs{on} as {found.name}; it stays up: `kit{at} logs {found.name}`, "
            f"`kit{at} stop {found.name}`",
        )
    if request.image.is_gpu:
        # Now that the URL is printed.
        from kit import gpu_check

        _say_gpus(options, gpu_check.check(engine, started[0][1].name))


def _run_job(options: Options, engine: Engine, request: RunRequest, *, detach: bool) -> None:
    """Run a command that goes on without this terminal; its output and its exit code come here while it is there."""
    from kit import run
    from kit.cli.output import print_json, say

    at = f"kit --host {engine.target}" if engine.target else "kit"
    names: list[str] = []

    def on_started(name: str) -> None:
        names.append(name)
        say(options, f"{name} runs" + (f" on {engine.target}" if engine.target else ""))

    try:
        name, code = run.start_job(
            request,
            engine,
            lambda text: say(options, text),
            write=None if detach else write_out,
            on_started=on_started,
            on_gpus=lambda found: _say_gpus(options, found),
        )
    except KeyboardInterrupt:
        if not names:
            raise
        say(options, f"\n{names[0]} goes on: `{at} logs -f {names[0]}`, `{at} stop {names[0]}`")
        click.get_current_context().exit(DETACHED)
    if code is not None:
        click.get_current_context().exit(code)
    if options.json:
        print_json({"name": name, "image": request.image.name, "service": "", "url": "", "host": engine.target})
    else:
        click.echo(name)
    say(options, f"`{at} logs -f {name}` shows what it prints and ends with its exit code; `{at} stop {name}` ends it")


def write_out(kind: int, data: bytes) -> None:
    """Hand on what a container printed: to the stream it came from."""
    target = sys.stderr.buffer if kind == 2 else sys.stdout.buffer
    target.write(data)
    target.flush()


def _say_gpus(options: Options, found: tuple[str, str] | None) -> None:
    """Whether the GPUs that a container was given are there inside and compute."""
    from kit.cli.output import say

    if found is None:
        return
    gpus, wrong = found
    if wrong:
        click.secho("warning: ", fg="yellow", nl=False, err=True)
        click.echo(f"{wrong}; `kit doctor` looks for the cause", err=True)
    else:
        say(options, f"GPU inside: {gpus}; a kernel ran on it")


def variable_of(text: str) -> tuple[str, str]:
    """The value of `--env`. Raises BadParameter."""
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise click.BadParameter(f"'{text}' is not NAME=VALUE", param_hint="--env")
    return name, value


def _variables_of(file: Path | None) -> tuple[tuple[str, str], ...]:
    if file is None:
        return ()
    from kit.config import read_env_file

    return read_env_file(file)


def mount_of(text: str, connection: Connection | None) -> Mount:
    """The value of `--mount`, on the machine behind a connection or on this one. Raises BadParameter."""
    from kit.engine import Mount

    name, target, read_only = split_mount(text)
    if connection:
        # The engine over there says so when it is not there.
        there = _path_there(connection, name)
        if not there.startswith("/"):
            raise click.BadParameter(f"'{name}' is not a whole path on the host", param_hint="--mount")
        return Mount(source=there, target=target, read_only=read_only)
    source = Path(name).expanduser().resolve()
    if not source.exists():
        raise click.BadParameter(f"{source} does not exist", param_hint="--mount")
    return Mount(source=str(source), target=target, read_only=read_only)


def split_mount(text: str) -> tuple[str, str, bool]:
    """Source, target and whether it is read-only of a value of `--mount`. Raises BadParameter."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")) or not parts[1].startswith("/"):
        raise click.BadParameter(f"'{text}' is not SOURCE:TARGET[:ro]", param_hint="--mount")
    return parts[0], parts[1], parts[2:] == ["ro"]
