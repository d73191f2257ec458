"""`kit code`."""

from __future__ import annotations

import click

from kit.cli import complete
from kit.cli.options import Options, host_option, json_option
from kit.cli.output import print_json, say, show
from kit.engine import connect
from kit.run import vscode


@click.command("code")
@click.argument("name", shell_complete=complete.containers)
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
    found = vscode.attach(connect(options.host), name, folder=folder, force=force)
    if opens:
        vscode.open_uri(found.uri, program=program)
        say(options, f"opened {folder} of {found.container} in VS Code")
    if options.json:
        print_json({"name": found.container, "folder": folder, "uri": found.uri, "opened": opens})
    elif not opens:
        show(found.uri)
        say(options, f"open it: {program} --folder-uri ADDRESS; or `kit code {name} --open` does")
    for note in found.notes:
        say(options, f"note: {note}")
