"""`kit build`."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from kit.cli import complete
from kit.cli.arguments import build_options, transfer_option
from kit.cli.options import Options, host_option, json_option, own_environment, without_login
from kit.cli.output import print_json
from kit.cli.screen import CommandScreen
from kit.errors import CheckFailedError
from kit.image.build.ensure import BuildRequest, ImageOptions, build_images

if TYPE_CHECKING:
    from kit.image.build.options import BuildOptions


@click.command("build")
@click.argument("names", nargs=-1, shell_complete=complete.images)
@click.option("--all", "everything", is_flag=True, help="Every image that has a lock.")
@click.option(
    "--force", is_flag=True, help="Build again when the image is up to date; build one that cannot work here."
)
@click.option("--no-cache", is_flag=True, help="Run every step again.")
@click.option("--check-repro", is_flag=True, help="Build twice from nothing and compare the digests; keeps no image.")
@click.option(
    "--push",
    default="",
    metavar="REPOSITORY",
    callback=without_login,
    help="Push each image to REPOSITORY/NAME after building it.",
)
@transfer_option
@build_options
@host_option
@json_option
@click.pass_obj
def build_command(
    options: Options,
    *,
    names: tuple[str, ...],
    everything: bool,
    force: bool,
    no_cache: bool,
    check_repro: bool,
    push: str,
    transfer: bool,
    build: BuildOptions,
) -> None:
    """Build images into the container engine's store. An image that is up to date is not built again.

    A NAME is an image (`kit list`), or `torch` or `tf` for the newest one that works on this machine (`kit resolve`).
    Without one, in a project with an environment of its own, that is built: one more layer on its image.
    """
    request = BuildRequest(
        names=names,
        everything=everything,
        target=options.host,
        image=ImageOptions(build=replace(build, force=force, no_cache=no_cache), transfer=transfer),
        check_repro=check_repro,
        push=push,
    )
    declares = None if names or everything else own_environment()
    if declares:
        from kit.image.environment import build_environment

        done = build_environment(declares(), request, CommandScreen(options))
    else:
        done = build_images(request, CommandScreen(options))
    if options.json:
        print_json([asdict(result) for result in done.results])
    if done.failed:
        raise CheckFailedError(f"{done.failed} of {done.count} images failed")
