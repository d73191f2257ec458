"""`kit reset`."""

from __future__ import annotations

from pathlib import Path

import click

from kit.cli.arguments import user_option
from kit.cli.options import Folder, Options, configured_image, host_option, json_option, own_environment
from kit.cli.output import ask, print_json, say
from kit.cli.screen import CommandScreen
from kit.run import reset


@click.command("reset")
@click.argument("name", required=False, default="")
@click.option(
    "-C",
    "--folder",
    type=Folder(),
    default=".",
    help="The folder whose containers they are.  [default: the current one]",
)
@click.option(
    "--remote-folder",
    default="",
    metavar="PATH",
    help="With --host: the folder there.  [default: where `kit run` sends --folder]",
)
@user_option
@host_option
@json_option
@click.pass_obj
def reset_command(options: Options, *, name: str, folder: Path, remote_folder: str, user: str) -> None:
    """Take out what `pip install` added to an image in this folder: its volume for ~/.local. Asks first.

    NAME is an image as in `kit run`. The folder itself, the rest of the home folder, other folders and other images
    stay as they are.
    """
    engine, layer = reset.find(
        name,
        folder,
        CommandScreen(options),
        configured_image=configured_image() if options.is_configured else "",
        declares=own_environment(),
        target=options.host,
        remote_folder=remote_folder,
        user=user,
    )
    on = f" on {engine.target}" if engine.target else ""
    if layer.is_there:
        if not options.yes:
            ask(f"Delete what was installed into {layer.image} for {layer.folder}{on}?")
        reset.empty(engine, layer)
    done = f"{layer.image} in {layer.folder}{on}: " + (
        "as the image is again" if layer.is_there else "nothing was added"
    )
    if options.json:
        print_json({"image": layer.image, "folder": str(layer.folder), "host": options.host, "reset": layer.is_there})
    else:
        say(options, done)
