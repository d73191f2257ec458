"""`kit clean`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kit.cli.options import Options, host_option, json_option
from kit.cli.output import ask, count, is_terminal, picked, print_error, print_json, print_table, say
from kit.engine import connect
from kit.errors import BadInputError, CheckFailedError, KitError
from kit.run import clean
from kit.sizes import in_bytes

if TYPE_CHECKING:
    from kit.run.clean import Item, Kind

# A build makes them again.
COME_BACK: tuple[Kind, ...] = ("images", "cache")
NOUNS: dict[Kind, tuple[str, str]] = {
    "images": ("image", ""),
    "cache": ("cache", ""),
    "volumes": ("volume with what you installed and downloaded", "volumes with what you installed and downloaded"),
}


@click.command("clean")
@click.argument("words", nargs=-1, metavar="[images|cache|volumes|NAME...]")
@host_option
@json_option
@click.pass_obj
def clean_command(options: Options, *, words: tuple[str, ...]) -> None:
    """Show what of kit's takes space, with its size, and delete what you say yes to.

    images are kit's own, cache is what builds leave and what kit downloaded, volumes are the home folders of your
    projects' containers: what `pip install` added, downloaded models. What a container uses stays (`kit rm`), and what
    is another user's. With --yes nothing is asked: images and cache go, and volumes only where the command names them.
    """
    engine = connect(options.host)
    items = clean.found(engine, words)
    if not options.json:
        if not items:
            say(options, "nothing of kit's takes space here")
            return
        print_table(
            ("WHAT", "SIZE", "NAME"),
            [(NOUNS[item.kind][0].split()[0], _size(item.size), _name(item)) for item in items],
        )
    gone: list[Item] = []
    failed = 0
    for kind in clean.KINDS:
        chosen = [item for item in items if item.kind == kind and not item.stays]
        if not chosen or not _is_wanted(options, kind, chosen, is_named=bool(words)):
            continue
        for item in chosen:
            try:
                clean.delete(engine, item)
            except KitError as e:
                print_error(e)
                failed += 1
            else:
                gone.append(item)
                say(options, f"deleted {item.name}")
    if options.json:
        print_json([{**picked(item, "kind", "name", "size", "stays"), "deleted": item in gone} for item in items])
    if failed:
        raise CheckFailedError(f"{count(failed, 'thing')} could not be deleted")


def _size(size: int | None) -> str:
    return "unknown" if size is None else in_bytes(size)


def _name(item: Item) -> str:
    return f"{item.name}  ({item.stays})" if item.stays else item.name


def _is_wanted(options: Options, kind: Kind, chosen: list[Item], *, is_named: bool) -> bool:
    """Whether these are to be deleted. Raises BadInputError where nobody can be asked."""
    if options.yes:
        return is_named or kind in COME_BACK
    if options.json:
        return False
    if not is_terminal():
        raise BadInputError("nothing is deleted unasked", hint="`kit --yes clean images` (or cache, volumes, a name)")
    sizes = [item.size for item in chosen if item.size is not None]
    how_much = in_bytes(sum(sizes)) if len(sizes) == len(chosen) else "of a size that the engine does not say"
    return ask(f"Delete {count(len(chosen), *NOUNS[kind])}, {how_much}?", abort=False)
