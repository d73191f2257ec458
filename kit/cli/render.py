"""`kit render`."""

from __future__ import annotations

import click

from kit import paths, render
from kit.catalog import load_catalog
from kit.cli import complete
from kit.cli.options import Options, json_option
from kit.cli.output import print_json, say
from kit.errors import CheckFailedError


@click.command("render")
@click.argument("names", nargs=-1, shell_complete=complete.images)
@click.option("--check", is_flag=True, help="Write nothing; fail when a file is not what it should be.")
@json_option
@click.pass_obj
def render_command(options: Options, *, names: tuple[str, ...], check: bool) -> None:
    """Write images/NAME/Dockerfile and the examples in compose/ from templates and catalog (all without NAMES)."""
    catalog = load_catalog()
    images = [catalog.find(name) for name in names] or catalog.images()
    if check:
        differences = render.check(catalog, images)
        if options.json:
            print_json([{"path": str(path), "problem": problem} for path, problem in differences.items()])
        if differences:
            raise CheckFailedError(
                f"{len(differences)} rendered file(s) are not what the catalog and the templates say",
                details=tuple(f"{problem}: {path}" for path, problem in differences.items()),
                hint="write them again: `kit render`",
            )
        say(options, f"{len(images)} images: rendered files are up to date")
        return
    paths.require_checkout("kit render")
    changed = render.render(catalog, images)
    for path in changed:
        say(options, f"wrote {path.relative_to(paths.root_dir())}")
    for folder in render.left_over(catalog):
        say(options, f"left over: {folder.relative_to(paths.root_dir())} is no longer rendered; remove it")
    if options.json:
        print_json([str(path) for path in changed])
    say(options, f"{len(images)} images, {len(changed)} written")
