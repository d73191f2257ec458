"""Get an image: choose it for a host, and have it in an engine, built there, pulled, or built here and sent."""

from __future__ import annotations

import time
from dataclasses import field, replace
from typing import TYPE_CHECKING

from kit import paths
from kit.catalog import Catalog, load_catalog
from kit.decide import compat
from kit.engine import Engine, connect
from kit.errors import BadInputError, CheckFailedError, KitError
from kit.frozen import dataclass
from kit.image.build.inputs import current, labelled_so
from kit.image.build.options import BuildOptions, Built, Progress

if TYPE_CHECKING:
    from kit.catalog.rows import Image
    from kit.facts.host import Host
    from kit.network import NetworkSettings
    from kit.screen import Screen


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How an image gets to where it is to run: built there as `build` says, pulled, or built here and sent."""

    build: BuildOptions = field(default_factory=BuildOptions)
    transfer: bool = False
    pull: str = ""  # a repository, or one with the digest of one image in it


def choose_image(catalog: Catalog, name: str, host: Host, screen: Screen, *, force: bool = False) -> Image:
    """The image a name stands for on the host, the choice said in one line.

    Raises IncompatibleError when nothing fits, or when the image was named outright and cannot work; that it goes on
    with `force`.
    """
    image, found = compat.choose(catalog, name, host)
    if found:
        screen.say(f"{name}: {image.name} ({compat.describe(host)})")
        for warning in found.warnings:
            screen.say(f"warning: {warning}")
    elif problem := compat.objection(catalog, image, host):
        if not force:
            raise problem
        screen.say(f"warning: {problem.message}; going on because of --force")
    return image


def built_instead(
    catalog: Catalog, name: str, image: Image, host: Host, engine: Engine, options: ImageOptions, screen: Screen
) -> Image:
    """The image that was chosen for a name; where the engine lacks it and has another one, up to date, that the name
    stands for and that works on the host, it is that, without a download.
    """
    wanted = options.build
    if options.pull or options.transfer or wanted.force:
        return image
    _, found = compat.choose(catalog, name, host)
    if found is None or current(catalog, image, engine, wanted):
        return image
    there = set(engine.tags())
    for other in found.alternatives:
        if other.reference in there and current(catalog, other, engine, wanted):
            screen.say(f"{name}: {other.name}, which is there already; {image.name} would have to be built")
            return other
    return image


def cost(catalog: Catalog, image: Image) -> str:
    """What a build of an image takes, in a sentence; no more than is known of it."""
    from kit.decide.doctor.report import BUILD_FACTOR, IMAGE_BYTES
    from kit.locks.format import read_lock

    try:
        number = len(read_lock(paths.images_dir() / image.name, image).packages)
        packages = "1 package" if number == 1 else f"{number} packages"
    except KitError:  # the build says what is wrong with it
        packages = "its packages"
    download = f"{packages} and a base image to download, of unknown size"
    if not image.is_gpu:
        return download
    whole, with_cache = (f"{size / 1e9:.0f} GB" for size in (IMAGE_BYTES, IMAGE_BYTES * BUILD_FACTOR))
    return f"{download}; with CUDA it takes up to {whole} on disk, and {with_cache} while it is built"


def network_on(network: NetworkSettings, engine: Engine) -> NetworkSettings:
    """How the engine's machine reaches the network: proxies are its own, mirrors and certificates the caller's."""
    return replace(network, proxies=engine.connection.account.proxies) if engine.connection else network


def require_one_way(engine: Engine, options: ImageOptions) -> None:
    """Raise BadInputError for options that contradict each other."""
    if options.transfer and not engine.target:
        raise BadInputError("--transfer is for a machine behind --host", hint="leave it out, or name the machine")
    if options.transfer and options.pull:
        raise BadInputError("--transfer and --pull contradict each other", hint="leave one of them out")


def ensure_image(
    catalog: Catalog, image: Image, engine: Engine, options: ImageOptions, screen: Screen
) -> tuple[str, bool]:
    """See to it that the engine has the image as its files say, or the one to pull: its reference, and whether it had
    to be brought first.

    Raises BadInputError for options that contradict each other, and what building, pulling and sending raise.
    """
    require_one_way(engine, options)
    wanted = options.build
    if not wanted.force and "@" not in options.pull and current(catalog, image, engine, wanted):
        return image.reference, False
    from kit.image.build import images, transfer

    def is_so(reference: str) -> bool:
        return labelled_so(catalog, image, engine.image_labels(reference), wanted) is not None

    if options.pull:
        with screen.building(image.name) as progress:
            reference = transfer.pulled(engine, image, options.pull, is_so, progress)
        screen.say(f"{image.name}: {reference}, which kit has not built")
        if not is_so(reference):
            screen.say(f"warning: that {image.name} differs from this kit's lock; using it anyway")
        return reference, True
    screen.say(f"{image.name} has to be built: {cost(catalog, image)}")
    screen.confirm("Download and build it now?")
    with screen.building(image.name) as progress:
        builder = connect() if options.transfer else engine
        wanted = replace(wanted, network=network_on(wanted.network, builder))
        built = images.build(catalog, image, builder, wanted, progress)
        if built.is_new:
            progress.message(line_of(built))
        if options.transfer:
            send(built, builder, engine, progress, screen)
    return image.reference, True


def send(built: Built, source: Engine, engine: Engine, progress: Progress, screen: Screen) -> None:
    """Send a built image to another machine's engine, and say what that took. Raises what sending raises."""
    from kit.image.build import transfer

    progress.message(f"{built.image}: sending it to {engine.target}")
    started = time.monotonic()
    sent = transfer.transfer_image(source, engine, built.reference, progress)
    seconds = time.monotonic() - started
    screen.say(f"{built.image}: {sent / 1e6:.0f} MB sent to {engine.target} in {seconds:.0f} s")


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What `kit build` is asked for."""

    names: tuple[str, ...]
    everything: bool = False  # every image that has a lock, instead of names
    target: str = ""  # the machine behind SSH whose engine gets the images
    image: ImageOptions
    check_repro: bool = False
    push: str = ""  # a repository


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """Two builds from nothing."""

    image: str
    digests: tuple[str, str]
    equal: bool


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """An image that was asked for on another machine, and whether it had to be sent."""

    image: str
    is_new: bool


Result = Built | Reproduced | Transferred


@dataclass(frozen=True, kw_only=True)
class BuildsDone:
    """What came of several builds."""

    results: tuple[Result, ...]
    count: int  # of images that were asked for
    failed: int


def build_images(request: BuildRequest, screen: Screen) -> BuildsDone:
    """Build images, one after another. Of several, those that fail are shown, and the others are built all the same.

    Raises BadInputError when nothing is named, and for one image what building, pushing and sending raise.
    """
    catalog = load_catalog()
    images = _named(catalog, request, screen)
    if request.image.transfer and (request.check_repro or request.push):
        raise BadInputError("--transfer sends an image and nothing else", hint="leave out --check-repro and --push")
    engine = connect(request.target)
    results: list[Result] = []
    failed = 0
    for image in images:
        try:
            result = _build_one(catalog, image, engine, request, screen)
            results.append(result)
            if isinstance(result, Reproduced) and not result.equal:
                raise CheckFailedError(f"two builds of {image.name} differ", details=result.digests)
        except KitError as e:
            if len(images) == 1 or request.image.transfer:
                raise
            screen.failed(e)
            failed += 1
    return BuildsDone(results=tuple(results), count=len(images), failed=failed)


def _named(catalog: Catalog, request: BuildRequest, screen: Screen) -> list[Image]:
    if request.everything:
        # For wherever they are going to run: that this machine could not run one is no reason against it.
        images = [image for image in catalog.images() if not catalog.unlocked_reason(image)]
    else:
        from kit.host import read_gpus

        host = read_gpus(request.target)
        images = [choose_image(catalog, name, host, screen, force=request.image.build.force) for name in request.names]
    if not images:
        raise BadInputError("no image named", hint="name one or more (`kit list` shows them), or give --all")
    return images


def _build_one(catalog: Catalog, image: Image, engine: Engine, request: BuildRequest, screen: Screen) -> Result:
    from kit.image.build import images, transfer

    if request.image.transfer:
        _, is_new = ensure_image(catalog, image, engine, request.image, screen)
        if not is_new:
            screen.say(f"{image.name}: up to date")
        return Transferred(image=image.name, is_new=is_new)
    options = replace(request.image.build, network=network_on(request.image.build.network, engine))
    with screen.building(image.name) as progress:
        if request.check_repro:
            first, second = (images.build_digest(catalog, image, engine, options, progress) for _ in range(2))
            if first == second:
                screen.say(f"{image.name}: two builds, one digest: {first}")
            return Reproduced(image=image.name, digests=(first, second), equal=first == second)
        built = images.build(catalog, image, engine, options, progress)
        if request.push:
            transfer.push_image(engine, built, request.push, progress)
    screen.say(line_of(built) if built.is_new else f"{image.name}: up to date")
    return built


def line_of(built: Built) -> str:
    """What a build did, in a sentence."""
    return f"{built.image}: built in {built.seconds:.0f} s on {built.base}"
