"""Options that several commands have, and what their words mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from kit.cli.defaults import AddingOption
from kit.cli.options import configured, without_login
from kit.image.build.ensure import ImageOptions
from kit.image.build.options import BuildOptions
from kit.network import read_settings
from kit.spec.gpu_request import GpuRequest, parse_request
from kit.spec.request import (
    Contents,
    parse_count,
    parse_cpus,
    parse_mount,
    parse_network,
    parse_port,
    parse_server_option,
    parse_size,
    parse_ulimit,
    parse_user,
    parse_variable,
)

if TYPE_CHECKING:
    from kit.image.build.options import BaseChoice
    from kit.network import NetworkSettings

F = TypeVar("F", bound=Callable[..., Any])


def gpus_option(help: str) -> Callable[[F], F]:
    """`--gpus`, parsed once and for all."""

    def parsed(ctx: click.Context, _: click.Parameter, value: str | None) -> GpuRequest | None:
        return None if value is None or ctx.resilient_parsing else parse_request(value)

    return click.option("--gpus", metavar="WHICH", callback=parsed, help=help)


def bundled(name: str, make: Callable[..., Any], *options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Options whose values, the arguments of `make`, reach a command as one parameter: what `make` makes of them."""

    def decorated(command: F) -> F:
        @wraps(command)
        def with_bundle(*args: Any, **values: Any) -> Any:
            given = {parameter: values.pop(parameter) for parameter in make.__annotations__.keys() - {"return"}}
            return command(*args, **values, **{name: make(**given)})

        for option in reversed(options):
            with_bundle = option(with_bundle)
        return cast("F", with_bundle)

    return decorated


def network_settings(ca_cert: Path | None) -> NetworkSettings:
    """How this machine reaches the network. Raises BadInputError when `ca_cert` is not a certificate."""
    return read_settings(ca_cert=ca_cert, configured_index=configured("index_url"))


def _build(*, base: BaseChoice, registry_mirror: str, ca_cert: Path | None) -> BuildOptions:
    return BuildOptions(
        base=base,
        registry_mirror=registry_mirror,
        apt_mirror=configured("apt_mirror"),
        network=network_settings(ca_cert),
    )


def _image(*, transfer: bool, pull: str, base: BaseChoice, registry_mirror: str, ca_cert: Path | None) -> ImageOptions:
    build = _build(base=base, registry_mirror=registry_mirror, ca_cert=ca_cert)
    return ImageOptions(build=build, transfer=transfer, pull=pull)


def image_as_configured() -> ImageOptions:
    """How an image is built and gets to where it is to run, for a command that has no options for it."""
    return _image(
        transfer=False,
        pull="",
        base=configured("base"),
        registry_mirror=configured("registry_mirror"),
        ca_cert=configured("ca_cert"),
    )


_BUILD = (
    click.option(
        "--ca-cert",
        type=click.Path(path_type=Path),
        envvar="KIT_CA_CERT",
        help="CA bundle (PEM) for "
        "builds behind a private certificate authority; never in the image.  [env: KIT_CA_CERT; default: "
        "SSL_CERT_FILE when it is not the system's, or the system's when it was added to]",
    ),
    click.option(
        "--registry-mirror",
        default="",
        metavar="HOST",
        callback=without_login,
        envvar="KIT_REGISTRY_MIRROR",
        help="Take base images from this registry.  [env: KIT_REGISTRY_MIRROR]",
    ),
    click.option(
        "--base",
        type=click.Choice(["auto", "registry", "archive"]),
        default="auto",
        show_default=True,
        envvar="KIT_BASE",
        help="Where the base image comes from: a container registry, or made from the "
        "distribution's package archive.  [env: KIT_BASE]",
    ),
)
transfer_option = click.option(
    "--transfer/--no-transfer", default=False, help="With --host: build here, and send the image over."
)
_pull_option = click.option(
    "--pull",
    default="",
    metavar="REPOSITORY",
    callback=without_login,
    help="Pull the image from there (`kit build --push`) and run it, without building one; REPOSITORY@sha256:… is "
    "exactly that image.",
)
# How an image is built, for `kit build`: as the parameter `build`.
build_options = bundled("build", _build, *_BUILD)
# The same, and how it gets to a machine behind --host, for every command that starts one: as the parameter `image`.
image_options = bundled("image", _image, _pull_option, transfer_option, *_BUILD)

user_option = click.option(
    "--user",
    default="",
    callback=lambda ctx, _, value: parse_user(value) if value and not ctx.resilient_parsing else "",
    help="UID or UID:GID to run as.  [default: yours; of a rootless engine 0:0, which is you]",
)


def _contents(
    *,
    variables: tuple[str, ...],
    env_file: Path | None,
    mounts: tuple[str, ...],
    logdir: str,
    memory: str | None,
    pids_limit: str | None,
    cpus: str | None,
    shm_size: str | None,
    ulimits: tuple[str, ...],
    publish: tuple[str, ...],
    network: str,
    jupyter_options: tuple[str, ...],
) -> Contents:
    own = _users_own()
    return Contents(
        environment=tuple(parse_variable(text) for text in variables if text not in own),
        secrets=tuple(parse_variable(text) for text in variables if text in own),
        env_file=env_file,
        mounts=tuple(parse_mount(text) for text in mounts),
        logdir=logdir,
        memory_bytes=None if memory is None else parse_size(memory),
        pids=None if pids_limit is None else parse_count(pids_limit),
        cpus=0 if cpus is None else parse_cpus(cpus),
        shm_bytes=0 if shm_size is None else parse_size(shm_size, "--shm-size"),
        ulimits=tuple({limit.name: limit for limit in map(parse_ulimit, ulimits)}.values()),
        ports=tuple(dict.fromkeys(map(parse_port, publish))),
        joins=parse_network(network),
        server_options=tuple(map(parse_server_option, jupyter_options)),
    )


def _users_own() -> set[str]:
    """The variables that the user's own file has for every project."""
    options = click.get_current_context().obj
    if not options.is_configured:
        return set()
    return {f"{setting.part}={setting.value}" for setting in options.config.of("env") if setting.source == "user"}


def content_options(*, env_file_help: str) -> Callable[[F], F]:
    """What a container has besides the image and the folder: as the parameter `contents`."""
    return bundled(
        "contents",
        _contents,
        click.option(
            "-e",
            "--env",
            "variables",
            cls=AddingOption,
            multiple=True,
            metavar="NAME=VALUE",
            help="Environment variable.",
        ),
        click.option("--env-file", type=click.Path(dir_okay=False, path_type=Path), help=env_file_help),
        click.option(
            "--mount",
            "mounts",
            cls=AddingOption,
            multiple=True,
            metavar="SOURCE:TARGET[:ro]",
            help="Another folder or file of the host's.",
        ),
        click.option(
            "--memory", metavar="SIZE", help="Limit, such as 24g, or none.  [default: what leaves the machine some]"
        ),
        click.option("--pids-limit", metavar="N", help="Limit of processes and threads, or none.  [default: 16384]"),
        click.option("--cpus", metavar="N", help="Limit of CPU time, such as 4 or 1.5.  [default: none]"),
        click.option(
            "--shm-size", metavar="SIZE", help="Of /dev/shm, such as 32g.  [default: half the memory, 16 GiB at most]"
        ),
        click.option(
            "--ulimit",
            "ulimits",
            multiple=True,
            metavar="NAME=SOFT[:HARD]",
            help="Limit of each process, as docker's --ulimit takes it: memlock=unlimited, stack=67108864.  [default: "
            "nofile=65536:524288]",
        ),
        click.option(
            "-p",
            "--publish",
            multiple=True,
            metavar="HOST:INNER",
            help="A further port of the container, on 127.0.0.1; one number for both.",
        ),
        click.option(
            "--network",
            default="",
            metavar="NAME",
            help="Another network of the engine's; for a command also host or none.  [default: one of your own]",
        ),
        click.option(
            "--jupyter-option",
            "jupyter_options",
            multiple=True,
            metavar="--CLASS.NAME=VALUE",
            help="Option of JupyterLab's own, which may stand behind `jupyter` too.",
        ),
        click.option("--logdir", default=".", show_default=True, help="Where TensorBoard looks, under /workspace."),
    )


def restart_option(help: str) -> Callable[[F], F]:
    """Whether the engine starts a container again: empty for `no`."""
    return click.option(
        "--restart",
        type=click.Choice(["no", "on-failure", "unless-stopped", "always"]),
        default="no",
        callback=lambda _, __, value: "" if value == "no" else value,
        help=help,
    )
