"""`kit base`: make registry-free base images."""

from __future__ import annotations

from dataclasses import asdict

import click

from kit.cli.options import Options, json_option
from kit.cli.output import print_json, say, show
from kit.engine import connect
from kit.image import base


@click.group()
def base_command() -> None:
    """Make registry-free base images, from the Debian package archive alone."""


@base_command.command("make")
@click.argument("suite", default="bookworm")
@click.option("--mirror", default="", metavar="URL", help="A Debian mirror.  [default: the one this machine uses]")
@click.option("--force", is_flag=True, help="Make it anew with today's packages, also when it is there.")
@json_option
@click.pass_obj
def make_command(options: Options, *, suite: str, mirror: str, force: bool) -> None:
    """Make the base image of SUITE (bookworm, bullseye, trixie; default bookworm) in the engine.

    The right to use an engine is enough. Takes half a minute, and 1 GB while it works. A base that is there is kept,
    unless --force.
    """
    made = base.ensure(suite, connect(), mirror=mirror, force=force, on_message=lambda text: say(options, text))
    if options.json:
        print_json(asdict(made))
    else:
        show(f"{made.reference}  {made.content_hash}")
