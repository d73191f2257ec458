"""`kit lock`, of images or of a project, and `kit update`."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click
from packaging.utils import canonicalize_name

from kit import locks, paths
from kit.catalog import load_catalog
from kit.catalog.update import Registry, update
from kit.cli import complete
from kit.cli.arguments import image_as_configured
from kit.cli.options import Options, host_option, json_option, without_login
from kit.cli.output import count, picked, print_json, say
from kit.cli.screen import CommandScreen
from kit.environment.declared import declared
from kit.environment.format import LOCK_NAME
from kit.errors import BadInputError, CheckFailedError, KitError, LockError, UnlockedError
from kit.locks.format import read_lock
from kit.locks.popular import Popular
from kit.project import lock as project_lock
from kit.project.lock import LockAsk

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.catalog.rows import Image
    from kit.environment.declared import Declared
    from kit.environment.format import EnvironmentLock


@click.command("lock")
@click.argument("names", nargs=-1, shell_complete=complete.images)
@click.option("--check", is_flag=True, help="Write nothing; fail when a lock is not what the catalog asks for.")
@click.option("--solve", "again", is_flag=True, help="With --check: solve again and compare (needs the package index).")
@click.option("--popular", is_flag=True, help="With --check: whether much used packages can be installed beside them.")
@click.option("--upgrade", is_flag=True, help="Take the newest versions that fit, not the locked ones.")
@click.option(
    "--upgrade-package",
    "upgrade_packages",
    multiple=True,
    metavar="NAME",
    help="In a project: take the newest version that fits of this one. May be repeated.",
)
@host_option
@json_option
@click.pass_obj
def lock_command(
    options: Options,
    *,
    names: tuple[str, ...],
    check: bool,
    again: bool,
    popular: bool,
    upgrade: bool,
    upgrade_packages: tuple[str, ...],
) -> None:
    """Solve and write the lock of this folder's project, or of images.

    In a folder whose kit.toml has [environment], and without NAMES, it is the project's: kit.lock, to be committed. The
    image's own packages are part of the solve: what is held (framework, CUDA, NumPy) cannot move, and what takes the
    place of another package is said. A wish such as `torch` becomes the image for this machine, or --host, and stays
    that one until --upgrade. With --check no index is asked.

    Elsewhere, or with NAMES, it is the locks of images (all without NAMES), in a checkout of kit. Locked versions stay
    while they fit; --upgrade lets go of them. An image that the catalog calls unlocked is tried when it is named. Where
    PyTorch's own index does not answer, hashes that public lock files agree on take its place, and `kit list` says so;
    where it does, it must have the same.
    """
    if check and upgrade:
        raise BadInputError("--check writes nothing, so it cannot --upgrade", hint="leave one of them out")
    project = None if names else _project(options)
    if project:
        if again or popular:
            raise BadInputError(
                f"--{'solve' if again else 'popular'} is for images, and {project.folder} is a project",
                hint="name images, or leave it out",
            )
        if check and upgrade_packages:
            raise BadInputError("--check writes nothing, so it cannot --upgrade-package", hint="leave one of them out")
        if check:
            _check_project(options, project)
        else:
            _lock_project(options, project, upgrade=upgrade, upgrade_packages=upgrade_packages)
        return
    if upgrade_packages:
        raise BadInputError(
            "--upgrade-package is for the packages of a project, and there is none here",
            hint="in a folder whose kit.toml has [environment]; `kit init` writes one",
        )
    if again and not check:
        raise BadInputError("--solve goes with --check", hint="`kit lock` alone solves and writes")
    if popular and not check:
        raise BadInputError("--popular goes with --check", hint="it asks the package index, and writes nothing")
    catalog = load_catalog()
    images = locks.chosen_images(catalog, names)
    if popular:
        # What a `-devel` image adds is not what packages are installed beside.
        plain = list(dict.fromkeys(catalog.find(image.release.name) for image in images))
        tried = Popular(catalog)
        _each(
            options,
            plain,
            lambda image: _try_popular(tried, image),
            "tried",
            "images keep much used packages from being installed",
        )
        return
    if check:
        _each(
            options,
            images,
            lambda image: _check(catalog, image, again=again),
            "lock is up to date",
            "locks are not up to date",
        )
        return
    paths.require_checkout("kit lock")
    _each(
        options,
        images,
        lambda image: _lock(catalog, image, upgrade=upgrade, named=bool(names)),
        "locked",
        "images could not be locked",
    )


@click.command("update")
@click.argument("names", nargs=-1, shell_complete=complete.images)
@click.option(
    "--registry-mirror",
    default="",
    metavar="HOST",
    envvar="KIT_REGISTRY_MIRROR",
    callback=without_login,
    help="A registry that answers for Docker Hub.  [env: KIT_REGISTRY_MIRROR]",
)
@json_option
@click.pass_obj
def update_command(options: Options, *, names: tuple[str, ...], registry_mirror: str) -> None:
    """Ask a registry for the digests of the base images (of all images, or of NAMES), and pin them."""
    paths.require_checkout("kit update")
    catalog = load_catalog()
    bases = (
        list(dict.fromkeys(catalog.base_for(image) for image in locks.chosen_images(catalog, names)))
        if names
        else list(catalog.bases)
    )
    today = datetime.datetime.now(datetime.timezone.utc).date()
    found, failed = update(
        catalog, bases, Registry(registry_mirror), today=today, progress=lambda line: say(options, line)
    )
    changed = [c for c in found if c.after != c.before]
    for change in changed:
        say(options, f"{change.base.tag}: {change.before or 'no digest'} -> {change.after}")
    if options.json:
        print_json(
            [{"repository": c.base.repository, "tag": c.base.tag, "before": c.before, "after": c.after} for c in found]
        )
    say(
        options,
        f"{len(found)} tags confirmed, {len(changed)} digests changed; "
        "`kit lock` and `kit render` write them into the images",
    )
    if failed:
        raise CheckFailedError(
            f"{len(failed)} tags are not in the registry any more",
            details=tuple(e.message for e in failed),
            hint=failed[0].hint,
        )


def lock_ask(options: Options, *, upgrade: bool = False, upgrade_packages: Sequence[str] = ()) -> LockAsk:
    """How a command locks a project."""
    return LockAsk(
        target=options.host,
        image=image_as_configured(),
        upgrade=upgrade,
        upgrade_packages=frozenset(canonicalize_name(name) for name in upgrade_packages),
    )


def _project(options: Options) -> Declared | None:
    """The environment that this folder's project declares; None where there is none."""
    if not options.is_configured:
        return None
    found = declared(options.config)
    if found:
        # What comes from there is installed and run: the user is asked, where the file is somebody else's.
        for key in dict.fromkeys(setting.key for setting in options.config.project):
            if key.startswith("environment."):
                options.setting(key)
    return found


def _check_project(options: Options, project: Declared) -> None:
    found = project_lock.check(project)
    if options.json:
        print_json({"image": found.image, "packages": len(found.packages), "outcome": "up to date"})
    say(options, f"{LOCK_NAME} is up to date: {_summary(found)}")


def _lock_project(options: Options, project: Declared, *, upgrade: bool, upgrade_packages: tuple[str, ...]) -> None:
    ask = lock_ask(options, upgrade=upgrade, upgrade_packages=upgrade_packages)
    done = project_lock.lock(project, ask, CommandScreen(options))
    if options.json:
        replaced = [p for p in done.lock.packages if p.replaces]
        print_json(
            {
                "file": str(project.folder / LOCK_NAME),
                "image": done.lock.image,
                "outcome": "written" if done.is_new else "unchanged",
                "packages": len(done.lock.packages),
                "changes": [picked(change, "name", "before", "after") for change in done.changes],
                "replaced": [picked(package, "name", "version", "replaces") for package in replaced],
            }
        )
    if done.before and done.before.image != done.lock.image:
        say(options, f"image: {done.before.image} -> {done.lock.image}")
    for change in done.changes:
        if change.before and change.after:
            say(options, f"{change.name} {change.before} -> {change.after}")
        else:
            say(options, f"{'+' if change.after else '-'} {change.name} {change.after or change.before}")
    say(options, f"{LOCK_NAME} {'written' if done.is_new else 'is unchanged'}: {_summary(done.lock)}")


def _summary(lock: EnvironmentLock) -> str:
    layers = [f"system packages of {layer.suite}" for layer in lock.system]
    return ", ".join([lock.image, count(len(lock.packages), "package"), *layers])


def _try_popular(tried: Popular, image: Image) -> str:
    try:
        lock = read_lock(paths.images_dir() / image.name, image)
    except UnlockedError:
        return "unlocked"
    found = list(tried.check(image, lock))
    if problems := tuple(f.problem for f in found if f.problem):
        raise CheckFailedError(
            f"{len(problems)} of {len(found)} packages are not the same beside what `{image.name}` holds",
            details=problems,
            hint="cap what is in the way (packages.toml), or say in kit/catalog/popular.toml why it is so",
        )
    return f"{len(found)} packages, {sum(f.known is not None for f in found)} known to differ"


def _check(catalog: Catalog, image: Image, *, again: bool) -> str:
    locks.check(catalog, image)
    uv = locks.other_uv(catalog, image)
    if uv and again:
        raise LockError(
            f"`{image.name}` was solved by uv {uv}, and this kit has {catalog.uv_version}: it writes otherwise",
            hint=f"`kit lock --upgrade {image.name}` solves it with this one",
        )
    if again and not catalog.unlocked_reason(image) and not locks.resolves_the_same(catalog, image):
        raise CheckFailedError(
            f"`{image.name}` solves to something else than its lock",
            hint=f"`kit lock {image.name}` brings it up to date",
        )
    outcome = f"up to date, by uv {uv}" if uv else "up to date"
    return _with_hashes(catalog, image, outcome)


def _lock(catalog: Catalog, image: Image, *, upgrade: bool, named: bool) -> str:
    reason = catalog.unlocked_reason(image)
    if reason and not named:
        locks.write_unlocked(catalog, image)
        return f"unlocked: {reason}"
    outcome = "written" if locks.solve(catalog, image, upgrade=upgrade) else "unchanged"
    return _with_hashes(catalog, image, outcome)


def _with_hashes(catalog: Catalog, image: Image, outcome: str) -> str:
    hashes = locks.unconfirmed(catalog, image)
    return f"{outcome}; hashes {hashes}" if hashes else outcome


def _each(options: Options, images: Sequence[Image], work: Callable[[Image], str], good: str, bad: str) -> None:
    """Do the work for every image, say how each went, and fail at the end when any did."""
    results: list[dict[str, str]] = []
    failed: list[tuple[Image, KitError]] = []
    for number, image in enumerate(images, 1):
        try:
            outcome = work(image)
        except KitError as e:
            if len(images) == 1:
                raise
            failed.append((image, e))
            outcome = f"failed: {e.message}"
        results.append({"image": image.name, "outcome": outcome})
        say(options, f"[{number}/{len(images)}] {image.name}: {outcome}")
    if options.json:
        print_json(results)
    if failed:
        details = tuple(
            line
            for image, e in failed
            for line in (f"{image.name}: {e.message}", *(f"  {detail}" for detail in e.details))
        )
        raise CheckFailedError(f"{len(failed)} of {len(images)} {bad}", details=details, hint=failed[0][1].hint)
    say(options, f"{len(images)} images: {good}" if len(images) != 1 else good)
