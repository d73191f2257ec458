"""`kit build`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from kit.cli import Options, configured, host_option, json_option

if TYPE_CHECKING:
    from kit.build.model import BaseChoice, BuildOptions
    from kit.catalog import Catalog
    from kit.catalog.model import Image
    from kit.engine import Engine
    from kit.network import NetworkSettings

F = TypeVar("F", bound=Callable[..., Any])


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


def make_options(
    *, base: str, registry_mirror: str, ca_cert: Path | None, force: bool = False, no_cache: bool = False
) -> BuildOptions:
    """The options of a command line, with this machine's network settings."""
    from kit.build.model import BuildOptions
    from kit.network import read_settings

    return BuildOptions(
        base=cast("BaseChoice", base),  # click checked the choice
        registry_mirror=registry_mirror,
        apt_mirror=configured("apt_mirror"),
        network=read_settings(ca_cert=ca_cert, configured_index=configured("index_url")),
        force=force,
        no_cache=no_cache,
    )


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


def network_for(network: NetworkSettings, engine: Engine) -> NetworkSettings:
    """How the engine's machine reaches the network: proxies are its own, mirrors and certificates the caller's."""
    from dataclasses import replace

    if engine.connection is None:
        return network
    return replace(network, proxies=engine.connection.account.proxies)


def image_in_engine(
    options: Options,
    catalog: Catalog,
    image: Image,
    engine: Engine,
    wanted: BuildOptions,
    *,
    transfer: bool = False,
    pull: str = "",
) -> bool:
    """See to it that the engine has the image as its files say: built there, pulled, or built here and sent.

    True when it had to be brought first.
    """
    from dataclasses import replace

    from kit.build.inputs import current
    from kit.cli.output import say
    from kit.errors import BadInputError

    if transfer and not engine.target:
        raise BadInputError("--transfer is for a machine behind --host", hint="leave it out, or name the machine")
    if transfer and pull:
        raise BadInputError("--transfer and --pull contradict each other", hint="leave one of them out")
    if not wanted.force and current(catalog, image, engine, wanted):
        return False
    # Not above: `kit run` comes here for an image that is up to date.
    from kit.build.images import build
    from kit.build.transfer import pull_image, transfer_image
    from kit.cli.progress import BuildDisplay
    from kit.engine import connect

    with BuildDisplay(options, image.name) as progress:
        if pull:
            pull_image(engine, image, pull, progress)
            if not current(catalog, image, engine, wanted):
                progress.message(f"warning: the {image.name} of {pull} is not what this kit's files say; taking it")
            return True
        builder = connect() if transfer else engine
        built = build(catalog, image, builder, replace(wanted, network=network_for(wanted.network, builder)), progress)
        if built.is_new:
            progress.message(f"{image.name}: built in {built.seconds:.0f} s on {built.base}")
        if transfer:
            progress.message(f"{image.name}: sending it to {engine.target}")
            started = time.monotonic()
            sent = transfer_image(builder, engine, image, progress)
            seconds = time.monotonic() - started
            say(options, f"{image.name}: {sent / 1e6:.0f} MB sent to {engine.target} in {seconds:.0f} s")
    return True


@click.command("build")
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every image that has a lock.")
@click.option(
    "--force", is_flag=True, help="Build again when the image is up to date; build one that cannot work here."
)
@click.option("--no-cache", is_flag=True, help="Run every step again.")
@click.option("--check-repro", is_flag=True, help="Build twice from nothing and compare the digests; keeps no image.")
@click.option("--push", default="", metavar="REPOSITORY", help="Push each image to REPOSITORY/NAME after building it.")
@click.option("--transfer/--no-transfer", default=False, help="With --host: build here, and send the image over.")
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
    base: str,
    registry_mirror: str,
    ca_cert: Path | None,
) -> None:
    """Build images into the container engine's store. An image that is up to date is not built again.

    A NAME is an image (`kit list`), or `torch` or `tf` for the newest one that works on this machine (`kit resolve`).
    """
    import dataclasses

    from kit.build.images import build, build_digest
    from kit.build.transfer import push_image
    from kit.catalog import load_catalog
    from kit.cli.output import print_json, say
    from kit.cli.progress import BuildDisplay
    from kit.cli.resolve import image_for_host
    from kit.engine import connect
    from kit.errors import BadInputError, CheckFailedError, KitError
    from kit.host import read_gpus

    catalog = load_catalog()
    if everything:
        # For wherever they are going to run: that this machine could not run one is no reason against it.
        images = [image for image in catalog.images() if not catalog.unlocked_reason(image)]
    else:
        host = read_gpus(options.host)
        images = [image_for_host(options, catalog, name, host, force=force) for name in names]
    if not images:
        raise BadInputError("no image named", hint="name one or more (`kit list` shows them), or give --all")
    wanted = make_options(base=base, registry_mirror=registry_mirror, ca_cert=ca_cert, force=force, no_cache=no_cache)
    engine = connect(options.host)
    wanted = dataclasses.replace(wanted, network=network_for(wanted.network, engine))
    if transfer:
        if check_repro or push:
            raise BadInputError("--transfer sends an image and nothing else", hint="leave out --check-repro and --push")
        new = [image_in_engine(options, catalog, image, engine, wanted, transfer=True) for image in images]
        for image, is_new in zip(images, new, strict=True):
            if not is_new:
                say(options, f"{image.name}: up to date")
        if options.json:
            print_json([{"image": i.name, "is_new": n} for i, n in zip(images, new, strict=True)])
        return
    results: list[dict[str, Any]] = []
    failures: list[KitError] = []
    for image in images:
        try:
            with BuildDisplay(options, image.name) as progress:
                if check_repro:
                    first, second = (build_digest(catalog, image, engine, wanted, progress) for _ in range(2))
                    results.append({"image": image.name, "digests": [first, second], "equal": first == second})
                    if first != second:
                        raise CheckFailedError(f"two builds of {image.name} differ", details=(first, second))
                    say(options, f"{image.name}: two builds, one digest: {first}")
                    continue
                built = build(catalog, image, engine, wanted, progress)
                if push:
                    push_image(engine, built, push, progress)
            results.append(dataclasses.asdict(built))
            say(
                options,
                f"{image.name}: built in {built.seconds:.0f} s on {built.base}"
                if built.is_new
                else f"{image.name}: up to date",
            )
        except KitError as e:
            if len(images) == 1:
                raise
            from kit.cli.output import print_error

            print_error(e)
            failures.append(e)
    if options.json:
        print_json(results)
    if failures:
        raise CheckFailedError(f"{len(failures)} of {len(images)} images failed")
