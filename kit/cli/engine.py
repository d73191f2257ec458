"""`kit engine`: start, stop and look at kit's private container engine."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import cast

import click

from kit import private_engine
from kit.cli.options import Options, json_option, without_login
from kit.cli.output import ask, count, print_json, runnable, say, show
from kit.engine import find, rights
from kit.errors import BadInputError
from kit.private_engine import daemon
from kit.private_engine.settings import Store
from kit.run import clean


@click.group()
def engine_command() -> None:
    """Start or stop kit's private container engine, for machines that have none.

    Docker Engine's programs come from the distribution's archive and are not installed; everything is in one
    folder (KIT_ENGINE_DIR, /var/lib/kit). Needs root.
    """


@engine_command.command("up")
@click.option(
    "--store",
    type=click.Choice(["containerd", "overlay2"]),
    default=None,
    help="The image store; each has its own images.  [default: the last one used, first containerd]",
)
@click.option(
    "--registry-mirror",
    "registry_mirrors",
    multiple=True,
    metavar="URL",
    callback=without_login,
    help="Ask this registry for Docker Hub's images first; repeatable.",
)
@click.option(
    "--insecure-registry",
    "insecure_registries",
    multiple=True,
    metavar="HOST[:PORT]",
    callback=without_login,
    help="A registry to reach over plain HTTP, beside this machine's own; repeatable.",
)
@click.option("--update", is_flag=True, help="Download the newest programs first.")
@json_option
@click.pass_obj
def up_command(
    options: Options,
    *,
    store: str | None,
    registry_mirrors: tuple[str, ...],
    insecure_registries: tuple[str, ...],
    update: bool,
) -> None:
    """Start the engine; says so if it is up already."""
    started = daemon.up(
        store=cast("Store | None", store),
        registry_mirrors=registry_mirrors,
        insecure_registries=insecure_registries,
        update=update,
        say=lambda text: say(options, text),
    )
    found = private_engine.status()
    say(
        options,
        f"private engine {'started' if started else 'is up already'}: Docker {found.version}, "
        f"{found.store} store, {found.socket}",
    )
    if options.json:
        _print(options)


@engine_command.command("down")
@click.option("--purge", is_flag=True, help="Also delete its images, containers, volumes and programs.")
@click.option("--force", is_flag=True, help="With --purge and --yes: even while containers run.")
@json_option
@click.pass_obj
def down_command(options: Options, *, purge: bool, force: bool) -> None:
    """Stop the engine and its containers; nothing of it stays on the machine but its folder.

    With --purge it says first whose containers, images and volumes go. While any container runs, --yes is not enough.
    """
    if purge:
        _agree(options, force=force)
    stopped = daemon.down(purge=purge, say=lambda text: say(options, text))
    say(options, "private engine stopped" if stopped else "private engine was not up")
    if options.json:
        _print(options)


def _agree(options: Options, *, force: bool) -> None:
    """Say what --purge deletes, and ask. Raises BadInputError where --yes is not enough for it."""
    folder = private_engine.engine_paths().folder
    engine = find.private()
    found = clean.contents(engine) if engine else clean.Contents()
    if folder.is_dir():
        is_known = "" if engine else " (the engine is not up: whose containers, images and volumes it has is not known)"
        say(options, f"this deletes {folder}{is_known}")
    for line in found.lines:
        say(options, f"  {line}")
    if options.yes and found.running and not force:
        raise BadInputError(
            f"{count(len(found.running), 'container runs', 'containers run')} in the private engine",
            details=found.running,
            hint="see to it that they end (`kit stop`), or give --force beside --yes",
        )
    if not options.yes:
        ask(f"Delete all images, containers and volumes in {folder}?")


@engine_command.command("status")
@json_option
@click.pass_context
def status_command(ctx: click.Context) -> None:
    """Say whether the engine is up; exit code 0 when it is, 1 when not."""
    if private_engine.is_denied():
        raise rights.denied(private_engine.socket_path(), is_private=True)
    running = _print(ctx.obj)
    ctx.exit(0 if running else 1)


@engine_command.command("env")
def env_command() -> None:
    """Print what makes plain `docker` use the engine: eval "$(kit engine env)"."""
    for name, value in private_engine.environment().items():
        if name == "PATH":
            show(f'export PATH={shlex.quote(value.partition(":")[0])}:"$PATH"')
        else:
            show(f"export {name}={shlex.quote(value)}" if value else f"unset {name}")


def _print(options: Options) -> bool:
    found = private_engine.status()
    if options.json:
        print_json(asdict(found))
    elif found.running:
        for name, value in asdict(found).items():
            show(f"{name.replace('_', ' '):<10}{str(value).lower() if isinstance(value, bool) else value}")
    else:
        show(runnable("the private engine is not up (`kit engine up` starts it)"))
    return found.running
