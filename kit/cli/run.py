"""`kit run`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kit.cli import Options, json_option
from kit.cli.build import build_options

if TYPE_CHECKING:
    from kit.engine import Engine, Mount


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.argument("name")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[jupyter|tensorboard|shell|COMMAND...]")
@click.option(
    "--gpus",
    metavar="WHICH",
    help="all, none, free (the emptiest), how many free ones (2), indexes (0,3 or device=1) or UUIDs. The container "
    "leases free ones.  [default: all, or what CUDA_VISIBLE_DEVICES leaves]",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port on 127.0.0.1.  [default: 8888 or the next free one]")
@click.option("--user", help="UID or UID:GID to run as.  [default: yours]")
@click.option(
    "-C",
    "--folder",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    default=".",
    help="Folder at /workspace.  [default: the current one]",
)
@click.option("-e", "--env", "variables", multiple=True, metavar="NAME=VALUE", help="Environment variable.")
@click.option("--mount", "mounts", multiple=True, metavar="SOURCE:TARGET[:ro]", help="Another folder or file.")
@click.option("--logdir", default=".", show_default=True, help="Where TensorBoard looks, under /workspace.")
@click.option(
    "--restart",
    type=click.Choice(["no", "on-failure", "unless-stopped", "always"]),
    default="no",
    help="Whether the engine starts a service again after a crash or a reboot.",
)
@click.option("--force", is_flag=True, help="Start an image even when it cannot work with this driver or GPU.")
@build_options
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
    variables: tuple[str, ...],
    mounts: tuple[str, ...],
    logdir: str,
    restart: str,
    force: bool,
    base: str,
    registry_mirror: str,
    ca_cert: Path | None,
) -> None:
    """Start a notebook (jupyter), TensorBoard, a shell or a command in an image, which is built first if need be.

    NAME is an image (`kit list`), or `torch` or `tf` for the newest one that works on this machine (`kit resolve`).
    A service stays up until `kit stop`; its URL is printed once it has answered. A command runs on this terminal and
    its exit code is passed on. Options come before NAME; words after `--` are never read as options.
    """
    from kit import build, run
    from kit.catalog import load_catalog
    from kit.cli.build import make_options
    from kit.cli.output import print_json, say
    from kit.cli.progress import BuildDisplay
    from kit.cli.resolve import image_for_host
    from kit.engine import connect

    catalog = load_catalog()
    service, command = run.as_command(words)
    host = run.host_for(gpus)
    image = image_for_host(options, catalog, name, host, force=force)
    request = run.RunRequest(
        image=image,
        service=service,
        command=command,
        gpus=gpus,
        host=host,
        port=port,
        folder=folder.resolve(),
        user=run.parse_user(user) if user else run.caller(),
        environment=tuple(_variable(text) for text in variables),
        mounts=tuple(_mount(text) for text in mounts),
        logdir=logdir,
        restart="" if restart == "no" else restart,
        network=(wanted := make_options(base=base, registry_mirror=registry_mirror, ca_cert=ca_cert)).network,
        is_terminal=sys.stdin.isatty() and sys.stdout.isatty(),
    )
    engine = connect()
    run.decide_gpus(request, engine)  # before anything is built or downloaded
    if not build.current(catalog, image, engine, wanted):
        with BuildDisplay(options, image.name) as progress:
            built = build.build(catalog, image, engine, wanted, progress)
        say(options, f"{image.name}: built in {built.seconds:.0f} s on {built.base}")
        request = replace(request, host=None)  # who uses which GPU has changed meanwhile
    if not service:
        code = run.run_command(request, engine, lambda text: say(options, text))
        click.get_current_context().exit(code)
    started = run.start_service(request, engine, lambda text: say(options, text))
    if options.json:
        print_json({"name": started.name, "image": image.name, "service": service, "url": started.url})
    else:
        click.echo(started.url)
    say(options, f"{service} runs as {started.name}; it stays up: `kit logs {started.name}`, `kit stop {started.name}`")
    if image.is_gpu:
        _say_gpus(options, engine, started.name)


def _say_gpus(options: Options, engine: Engine, name: str) -> None:
    """Whether the GPUs a service was given are there inside, now that its URL is printed.

    Of a command nothing is said: asked before it, it would start later; asked beside it, the answer would run into
    what it prints, and may come after its end.
    """
    from kit import gpu_check
    from kit.cli.output import say

    found = gpu_check.check(engine, name)
    if found is None:
        return
    gpus, wrong = found
    if wrong:
        click.secho("warning: ", fg="yellow", nl=False, err=True)
        click.echo(f"{wrong}; `kit doctor` looks for the cause", err=True)
    else:
        say(options, f"GPU inside: {gpus}; a kernel ran on it")


def _variable(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise click.BadParameter(f"'{text}' is not NAME=VALUE", param_hint="--env")
    return name, value


def _mount(text: str) -> Mount:
    from kit.engine import Mount

    parts = text.split(":")
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")) or not parts[1].startswith("/"):
        raise click.BadParameter(f"'{text}' is not SOURCE:TARGET[:ro]", param_hint="--mount")
    source = Path(parts[0]).expanduser().resolve()
    if not source.exists():
        raise click.BadParameter(f"{source} does not exist", param_hint="--mount")
    return Mount(source=str(source), target=parts[1], read_only=parts[2:] == ["ro"])
