"""`kit compose`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kit.cli import complete
from kit.cli.arguments import content_options, gpus_option, network_settings, restart_option, user_option
from kit.cli.options import (
    Options,
    Whole,
    configured,
    host_option,
    json_option,
    no_image_named,
    own_environment,
)
from kit.cli.output import print_json, say, show
from kit.cli.screen import CommandScreen
from kit.compose import start
from kit.compose.make import ComposeRequest, make
from kit.compose.written import ENVIRONMENT_FILE, USUAL_NAME
from kit.targets.docker import gpu_arguments

if TYPE_CHECKING:
    from kit.compose.make import Composed
    from kit.facts.engine import GpuForm
    from kit.spec.gpu_request import GpuRequest
    from kit.spec.request import Contents, Service

STDOUT = Path("-")
FORMS: dict[str, GpuForm | None] = {"auto": None, "cdi": "cdi", "nvidia": "runtime"}


@click.command("compose")
@click.argument("name", required=False, default="", shell_complete=complete.images)
@click.option(
    "--with",
    "extra",
    multiple=True,
    type=click.Choice(["tensorboard"]),
    help="Another service beside JupyterLab, on the same folder.",
)
@gpus_option("all, none, indexes (device=1 or 0,3) or UUIDs.  [default: all]")
@click.option(
    "--gpu-form",
    type=click.Choice(["auto", "cdi", "nvidia"]),
    default="auto",
    show_default=True,
    help="How Compose asks for the GPUs: by CDI, or by the NVIDIA runtime. auto: as the engine can.",
)
@click.option("--port", type=Whole(1, 65535), help="The notebook's port on 127.0.0.1.  [default: 8888]")
@user_option
@content_options(env_file_help="File of environment variables.")
@restart_option("Whether the engine starts the services again after a crash or a reboot.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="compose.yaml",
    show_default=True,
    help="The file; its folder is at /workspace. - prints it.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace a file that kit did not write or that was changed, and write beside a .env that changes it.",
)
@click.option(
    "--ca-cert",
    type=click.Path(path_type=Path),
    envvar="KIT_CA_CERT",
    help="CA bundle (PEM) for the containers, as `kit run` takes it.  [env: KIT_CA_CERT]",
)
@host_option
@json_option
@click.pass_obj
def compose_command(
    options: Options,
    *,
    name: str,
    extra: tuple[Service, ...],
    gpus: GpuRequest | None,
    gpu_form: str,
    port: int | None,
    user: str,
    contents: Contents,
    restart: str,
    output: Path,
    force: bool,
    ca_cert: Path | None,
) -> None:
    """Write a compose file that starts what `kit run` starts: user, volumes, limits and all.

    NAME is an image (`kit list`), or `torch` or `tf` for the newest one that works on this machine, or on --host; it
    may be left out where the configuration names one, and in a project with an environment of its own, which it is
    then. A random token for JupyterLab goes into .env beside the file,
    unless there is one. `kit ps`, `url`, `logs` and `stop` know what Compose starts from it.
    """
    declares = None if name else own_environment()
    name = name or str(configured("image") or "")
    if not (name or declares):
        raise no_image_named()
    request = ComposeRequest(
        name=name,
        environment=declares() if declares else None,
        services=("jupyter", *dict.fromkeys(extra)),
        target=options.host,
        gpus=gpus,
        form=FORMS[gpu_form],
        port=port,
        user=user,
        contents=contents,
        restart=restart,
        network=network_settings(ca_cert),
        output=None if output == STDOUT else output,
        force=force,
    )
    made = make(request, CommandScreen(options))
    if output == STDOUT:
        show(made.text, nl=False)
        return
    if options.json:
        print_json(
            {
                "file": str(output),
                "image": made.name,
                "services": list(request.services),
                "project": made.file.project_name,
                "gpus": gpu_arguments(made.gpus),
                "gpu_form": {"cdi": "cdi", "runtime": "nvidia"}.get(made.gpus.form or ""),
                "token": made.token,
            }
        )
    services = " and ".join(request.services)
    say(options, f"{'wrote' if made.is_new else 'unchanged:'} {output}: {services}, {made.gpu_line}")
    _say_next(options, made, output, contents)


def _say_next(options: Options, made: Composed, output: Path, contents: Contents) -> None:
    """What is still to be done, line by line."""
    engine, beside = made.engine, output.parent / ENVIRONMENT_FILE
    if made.token == "written":
        say(options, f"wrote {beside}: a random JUPYTER_TOKEN")
    elif made.token == "missing":
        say(options, f"{beside} has no JUPYTER_TOKEN: add a line JUPYTER_TOKEN=… with one (`openssl rand -hex 24`)")
    for line in made.notes:
        say(options, line)
    if names := ", ".join(name for name, _ in contents.secrets):
        say(options, f"{names} of your configuration: not in {output}, `docker compose` takes it from its environment")
    at = f" --host {options.host}" if options.host else ""
    if not made.has_image:
        own = "" if made.name != made.image.name else f" {made.name}"
        say(options, f"first build the image: kit{at} build{own}")
    if engine and not engine.features.has_compose:
        say(options, f"note: {start.PODMAN_NOTE}")
        return
    if options.host:
        say(options, f"it is for {options.host}: `kit sync` sends the folder there; start it there")
        return
    file = "" if output.name == USUAL_NAME else f" --file {shlex.quote(output.name)}"
    where = "" if output.absolute().parent == Path.cwd() else f"in {output.parent}: "
    say(options, f"start it: {where}{start.docker_words(engine)} compose{file} up --detach")
    if made.problem:
        say(options, f"warning: {made.problem}")
