"""`kit compose`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from kit.cli import Options, configured, host_option, json_option
from kit.cli.defaults import AddingOption

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.catalog.model import Image
    from kit.compose import Form, ServiceName, Settings
    from kit.engine import Engine
    from kit.gpu import GpuRequest

STDOUT = Path("-")


@click.command("compose")
@click.argument("name", required=False, default="")
@click.option(
    "--with",
    "extra",
    multiple=True,
    type=click.Choice(["tensorboard"]),
    help="Another service beside JupyterLab, on the same folder.",
)
@click.option("--gpus", metavar="WHICH", help="all, none, indexes (device=1 or 0,3) or UUIDs.  [default: all]")
@click.option(
    "--gpu-form",
    type=click.Choice(["auto", "cdi", "nvidia"]),
    default="auto",
    show_default=True,
    help="How Compose asks for the GPUs: by CDI, or by the NVIDIA runtime. auto: as the engine can.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="The notebook's port on 127.0.0.1.  [default: 8888]")
@click.option("--user", help="UID or UID:GID to run as.  [default: yours; of a rootless engine 0:0, which is you]")
@click.option(
    "-e", "--env", "variables", cls=AddingOption, multiple=True, metavar="NAME=VALUE", help="Environment variable."
)
@click.option("--env-file", type=click.Path(dir_okay=False, path_type=Path), help="File of environment variables.")
@click.option(
    "--mount",
    "mounts",
    cls=AddingOption,
    multiple=True,
    metavar="SOURCE:TARGET[:ro]",
    help="Another folder or file of the host's.",
)
@click.option("--logdir", default=".", show_default=True, help="Where TensorBoard looks, under /workspace.")
@click.option(
    "--restart",
    type=click.Choice(["no", "on-failure", "unless-stopped", "always"]),
    default="no",
    help="Whether the engine starts the services again after a crash or a reboot.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="compose.yaml",
    show_default=True,
    help="The file; its folder is at /workspace. - prints it.",
)
@click.option("--force", is_flag=True, help="Replace a file that kit did not write, or that was changed since.")
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
    extra: tuple[ServiceName, ...],
    gpus: str | None,
    gpu_form: str,
    port: int | None,
    user: str | None,
    variables: tuple[str, ...],
    env_file: Path | None,
    mounts: tuple[str, ...],
    logdir: str,
    restart: str,
    output: Path,
    force: bool,
    ca_cert: Path | None,
) -> None:
    """Write a compose file that starts what `kit run` starts: user, volumes, limits and all.

    NAME is an image (`kit list`), or `torch` or `tf` for the newest one that works on this machine, or on --host; it
    may be left out where the configuration names one. A random token for JupyterLab goes into .env beside the file,
    unless there is one. `kit ps`, `url`, `logs` and `stop` know what Compose starts from it.
    """
    from kit import compose, gpu, lease, render, run
    from kit.catalog import load_catalog
    from kit.cli.build import network_for
    from kit.cli.output import print_json, say
    from kit.cli.run import mount_of, variable_of
    from kit.network import read_settings

    request = gpu.parse_request(gpus) if gpus is not None else None
    image = _image(options, load_catalog(), name, request)
    engine = _engine(options)
    info = lease.engine_info(engine) if engine else None
    form = cast("Form", gpu_form) if gpu_form != "auto" else None
    injection, form = compose.decide_injection(request, image, form=form, info=info)
    caller = run.user_inside(engine) if engine else run.caller()
    uid, _, gid = (run.parse_user(user) if user else caller).partition(":")
    owner = (run.user_of(engine) if engine else caller).partition(":")[0]
    network = read_settings(ca_cert=ca_cert, configured_index=configured("index_url"))
    network = network_for(network, engine) if engine else network
    prints = output == STDOUT
    folder = Path.cwd() if prints else output.absolute().parent
    settings = compose.Settings(
        uid=int(uid),
        gid=int(gid),
        owner=owner if uid != owner else "",
        services=("jupyter", *dict.fromkeys(extra)),
        injection=injection,
        logdir=logdir,
        port=port or 0,
        restart=restart,
        shm_bytes=run.shm_bytes(engine.memory_bytes) if engine else 0,
        ca_file=(engine.provide(network.ca_file) if engine else str(network.ca_file)) if network.ca_file else "",
        proxies=tuple(network.proxies),
        environment=tuple(variable_of(text) for text in variables),
        env_file=_beside(env_file, folder) if env_file else "",
        mounts=tuple(mount_of(text, engine.connection if engine else None) for text in mounts),
        volumes_exist=engine is not None and not prints,
    )
    header = compose.header(image, settings, form)
    project = compose.project_name(folder, settings)
    file = compose.compose_file(image, settings, project=project, header=header)
    text = compose.stamped(render.render_compose(file))
    if prints:
        click.echo(text, nl=False)
        return
    is_new = compose.write(output, text, force=force)
    if engine:
        compose.make_volumes(file, settings, engine)
    token = compose.write_token(folder)
    if options.json:
        print_json(
            {
                "file": str(output),
                "image": image.name,
                "services": list(settings.services),
                "project": settings.filled(project),
                "gpus": list(injection.arguments),
                "gpu_form": form,
                "token": token,
            }
        )
    gpu_line = compose.gpu_line(form, info)
    say(options, f"{'wrote' if is_new else 'unchanged:'} {output}: {' and '.join(settings.services)}, {gpu_line}")
    _say_next(options, engine, image, settings, output, token)


def _image(options: Options, catalog: Catalog, name: str, request: GpuRequest | None) -> Image:
    """The image a name stands for; one that is named outright need not work on this machine."""
    from dataclasses import replace

    from kit import compat
    from kit.catalog.model import Image
    from kit.cli.resolve import image_for_host
    from kit.errors import BadInputError
    from kit.host import read_gpus

    name = name or str(configured("image") or "")
    if not name:
        raise BadInputError(
            "no image named", hint="`kit list` shows them; `image` in kit.toml names the one of a project"
        )
    asked = compat.parse_name(catalog, name)
    if isinstance(asked, Image):
        return asked
    host = read_gpus(options.host)
    if request is not None and request.kind == "none":
        host = replace(host, gpus=(), pci_gpus=())
    return image_for_host(options, catalog, name, host)


def _engine(options: Options) -> Engine | None:
    """The engine the file is for; None when none answers on this machine, which may not be the one that will use it."""
    from kit.engine import connect
    from kit.errors import NoEngineError

    try:
        return connect(options.host)
    except NoEngineError:
        if options.host:
            raise
        return None


def _beside(file: Path, folder: Path) -> str:
    """A path as a compose file in `folder` has it: relative where it can go along with it. Raises BadInputError."""
    from kit.config import read_env_file

    read_env_file(file)
    path = file.absolute()
    return f"./{path.relative_to(folder)}" if path.is_relative_to(folder) else str(path)


def _say_next(
    options: Options, engine: Engine | None, image: Image, settings: Settings, output: Path, token: str
) -> None:
    """What is still to be done, line by line."""
    from kit import compose
    from kit.cli.output import say

    beside = output.parent / compose.ENVIRONMENT_FILE
    if token == "written":
        say(options, f"wrote {beside}: a random JUPYTER_TOKEN")
    elif token == "missing":
        say(options, f"{beside} has no JUPYTER_TOKEN: add a line JUPYTER_TOKEN=… with one (`openssl rand -hex 24`)")
    if engine and engine.image_labels(image.reference) is None:
        say(
            options, f"first build the image: kit{f' --host {options.host}' if options.host else ''} build {image.name}"
        )
    if engine and not engine.features.has_compose:
        say(options, f"note: {compose.PODMAN_NOTE}")
        return
    if options.host:
        say(options, f"it is for {options.host}: `kit sync` sends the folder there; start it there")
        return
    file = "" if output.name in compose.FOUND_BY_COMPOSE else f" --file {output.name}"
    where = "" if output.absolute().parent == Path.cwd() else f"in {output.parent}: "
    say(options, f"start it: {where}{compose.docker_words(engine)} compose{file} up --detach")
    if engine and (problem := compose.version_problem(engine, settings.min_compose)):
        say(options, f"warning: {problem}")
