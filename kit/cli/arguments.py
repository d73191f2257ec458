"""Options that several commands have, and what their words mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from kit.build.ensure import ImageOptions
from kit.build.model import BuildOptions
from kit.cli.defaults import AddingOption
from kit.cli.options import configured
from kit.network import read_settings
from kit.spec.gpu_request import GpuRequest, parse_request

if TYPE_CHECKING:
    from kit.build.ensure import ImageOptions
    from kit.build.model import BaseChoice, BuildOptions
    from kit.network import NetworkSettings

F = TypeVar("F", bound=Callable[..., Any])


def gpus_option(help: str) -> Callable[[F], F]:
    """`--gpus`, parsed once and for all."""

    def parsed(ctx: click.Context, _: click.Parameter, value: str | None) -> GpuRequest | None:
        return None if value is None or ctx.resilient_parsing else parse_request(value)

    return click.option("--gpus", metavar="WHICH", callback=parsed, help=help)


def build_options(command: F) -> F:
    """The options that say how an image is built, for every command that may build one."""
    for option in (
        click.option(
            "--base",
            type=click.Choice(["auto", "registry", "archive"]),
            default="auto",
            show_default=True,
            envvar="KIT_BASE",
            help="Where the base image comes from: a container registry, or made from the "
            "distribution's package archive.  [env: KIT_BASE]",
        ),
        click.option(
            "--registry-mirror",
            default="",
            metavar="HOST",
            envvar="KIT_REGISTRY_MIRROR",
            help="Take base images from this registry.  [env: KIT_REGISTRY_MIRROR]",
        ),
        click.option(
            "--ca-cert",
            type=click.Path(path_type=Path),
            envvar="KIT_CA_CERT",
            help="CA bundle (PEM) for "
            "builds behind a private certificate authority; never in the image.  [env: KIT_CA_CERT; default: "
            "SSL_CERT_FILE when it is not the system's, or the system's when it was added to]",
        ),
    ):
        command = option(command)
    return command


def placement_options(command: F) -> F:
    """The options that say how an image gets to a machine behind --host, for every command that starts one there."""
    for option in (
        click.option(
            "--transfer/--no-transfer", default=False, help="With --host: build here, and send the image over."
        ),
        click.option(
            "--pull",
            default="",
            metavar="REPOSITORY",
            help="Pull the image from there instead of building it (`kit build --push`).",
        ),
    ):
        command = option(command)
    return command


def user_option(command: F) -> F:
    """Who a container runs as."""
    return click.option(
        "--user", help="UID or UID:GID to run as.  [default: yours; of a rootless engine 0:0, which is you]"
    )(command)


def content_options(*, env_file_help: str) -> Callable[[F], F]:
    """The options that say what a container has besides the image and the folder."""

    def decorated(command: F) -> F:
        for option in reversed(
            (
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
                    "--logdir", default=".", show_default=True, help="Where TensorBoard looks, under /workspace."
                ),
            )
        ):
            command = option(command)
        return command

    return decorated


def restart_option(help: str) -> Callable[[F], F]:
    """Whether the engine starts a container again."""
    return click.option(
        "--restart", type=click.Choice(["no", "on-failure", "unless-stopped", "always"]), default="no", help=help
    )


def network_settings(ca_cert: Path | None) -> NetworkSettings:
    """How this machine reaches the network. Raises BadInputError when `ca_cert` is not a certificate."""
    return read_settings(ca_cert=ca_cert, configured_index=configured("index_url"))


def make_options(
    *, base: str, registry_mirror: str, ca_cert: Path | None, force: bool = False, no_cache: bool = False
) -> BuildOptions:
    """The options of a build, with this machine's network settings."""
    return BuildOptions(
        base=cast("BaseChoice", base),  # click checked the choice
        registry_mirror=registry_mirror,
        apt_mirror=configured("apt_mirror"),
        network=network_settings(ca_cert),
        force=force,
        no_cache=no_cache,
    )


def image_options(*, base: str, registry_mirror: str, ca_cert: Path | None, transfer: bool, pull: str) -> ImageOptions:
    """How an image gets to where it is to run."""
    build = make_options(base=base, registry_mirror=registry_mirror, ca_cert=ca_cert)
    return ImageOptions(build=build, transfer=transfer, pull=pull)
