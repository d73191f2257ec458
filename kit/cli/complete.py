"""What a shell completes: images, containers, what runs in an image. Never an error, never a question."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click

from kit import labels
from kit.cli.options import COMPLETED_HOST, HERE
from kit.errors import KitError


def _beginning(words: Iterable[str], incomplete: str) -> list[str]:
    return sorted(word for word in set(words) if word.startswith(incomplete))


def images(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """The names of images: those of the catalog, and the short ones once they are begun."""
    from kit.catalog import load_catalog
    from kit.catalog.names import possible_names

    try:
        found = load_catalog().images()
    except KitError:
        return []
    names = [image.name for image in found if not image.flavor or "-d" in incomplete]
    short = [name for image in found for name in possible_names(image)[:2] if not image.flavor]
    return _beginning([*names, *short], incomplete)


def containers(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The containers that kit started on this machine, by their names without `kit-`; of others no login is opened."""
    from kit.engine import connect

    if _host(ctx) not in HERE:
        return []
    try:
        names = [container.name for container in connect().listed(label=labels.CLIENT)]
    except KitError:
        return []
    if not incomplete.startswith("kit-"):
        names = [name.removeprefix("kit-") for name in names]
    return _beginning(names, incomplete)


def examples(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """The examples that come with kit."""
    from kit.project.example import example_names

    return _beginning(example_names(), incomplete)


def declared_packages(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """The packages that the project's kit.toml lists, by name."""
    from kit import config

    try:
        listed = config.load().value("environment.packages") if config.is_there() else ()
    except KitError:
        return []
    return _beginning((re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0] for text in listed), incomplete)


def words(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """What runs in an image: a service or a shell as the first word, files of this folder after it."""
    from kit.spec.request import SERVICES

    if ctx.params.get("words"):
        return _files(incomplete)
    return _beginning([*SERVICES, "shell", "python"], incomplete) or _files(incomplete)


def _files(incomplete: str) -> list[str]:
    above, _, begun = incomplete.rpartition("/")
    try:
        found = [f"{above}/{file.name}" if above else file.name for file in Path(above or ".").iterdir()]
    except OSError:
        return []
    return [name for name in sorted(found) if name.rpartition("/")[2].startswith(begun)]


def _host(ctx: click.Context) -> str:
    """The machine that a line is for: by --host, on the command or before it, or by what has it otherwise."""
    from kit import config

    found = ctx.meta.get(COMPLETED_HOST) or ctx.find_root().params.get("host")
    if found is None and config.is_there():
        with suppress(KitError):
            found = config.load().value("host")
    return str(found or "")
