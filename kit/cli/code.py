"""`kit code`."""

from __future__ import annotations

import click

from kit.cli.options import Options, host_option, json_option
from kit.cli.output import print_json, say
from kit.engine import connect
from kit.errors import BadInputError, NoSuchContainerError
from kit.run import containers
from kit.run import vscode as editor


@click.command("code")
@click.argument("name")
@click.option("--open", "opens", is_flag=True, help="Open it in VS Code, instead of printing the address.")
@click.option(
    "--program",
    default="code",
    show_default=True,
    envvar="KIT_CODE",
    help="VS Code's command, with --open: `code-insiders`, for example.  [env: KIT_CODE]",
)
@click.option(
    "--folder", default="/workspace", show_default=True, metavar="PATH", help="The folder in the container to open."
)
@click.option("-f", "--force", is_flag=True, help="Another user's container too.")
@host_option
@json_option
@click.pass_obj
def code_command(options: Options, *, name: str, opens: bool, program: str, folder: str, force: bool) -> None:
    """Print the address under which VS Code attaches to a running container, here or on --host, or open it.

    VS Code needs the Dev Containers extension and, for a container on --host, a `docker` on this machine. With Podman
    here it must be told so, by its setting dev.containers.dockerPath; with Podman on --host it cannot attach.
    """
    if not folder.startswith("/"):
        raise BadInputError(f"--folder {folder}: not a whole path in the container", hint="give it as /workspace/src")
    engine = connect(options.host)
    editor.require_attachable(engine, name)
    container = containers.find(engine, name)
    if not force:
        containers.require_own([container], engine, action="attach VS Code to")
    if container.status != "running":
        raise NoSuchContainerError(
            f"{container.name} does not run (status: {container.status}), so VS Code cannot attach to it",
            hint="`kit ps` lists what runs",
        )
    settings = editor.engine_settings(engine)
    uri = editor.attach_uri(container.name, folder=folder, engine_settings=settings)
    if opens:
        editor.open_uri(uri, program=program)
        say(options, f"opened {folder} of {container.name} in VS Code")
    if options.json:
        print_json({"name": container.name, "folder": folder, "uri": uri, "opened": opens})
    elif not opens:
        click.echo(uri)
        say(options, f"open it: {program} --folder-uri ADDRESS; or `kit code {name} --open` does")
    if not engine.features.can_attach_by_uri:
        say(
            options,
            f"note: VS Code must know of {engine.features.title}: "
            f'"dev.containers.dockerPath": "{engine.program}" in its settings',
        )
    if not editor.is_lasting(settings):
        say(
            options,
            f"note: it leads through kit's connection to {options.host}, which ends some time after its last use",
        )
