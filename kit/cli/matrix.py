"""`kit matrix`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from kit import paths
from kit.catalog import load_catalog
from kit.cli.options import Options, json_option
from kit.cli.output import print_json, say, show
from kit.decide import matrix
from kit.errors import BadInputError


@click.command("matrix")
@click.option(
    "--format",
    "form",
    default="names",
    show_default=True,
    type=click.Choice(["names", "json", "github", "markdown"]),
    help="names: one a line. json: a list. github: a job matrix on one line. "
    "markdown: the README's table of all images.",
)
@click.option("--only", "names", multiple=True, metavar="NAME", help="An image; repeatable.  [default: all]")
@click.option("--all", "with_devel", is_flag=True, help="The -devel images too.")
@click.option(
    "--into",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With markdown: replace the table in FILE instead of printing it.",
)
@json_option
@click.pass_obj
def matrix_command(options: Options, *, form: str, names: tuple[str, ...], with_devel: bool, into: Path | None) -> None:
    """Print the images to build: those that have a lock."""
    catalog = load_catalog()
    if into and form != "markdown":
        raise BadInputError(f"--into does not go with --format {form}", hint="give --format markdown")
    if form == "markdown":
        table = matrix.markdown_table(catalog)
        if into:
            _replace_table(options, into, table)
        else:
            show(table, nl=False)
        return
    found = matrix.jobs(catalog, names=names, with_devel=with_devel)
    if form == "github":
        show(matrix.as_github(found))
    elif form == "json" or options.json:
        print_json([dataclasses.asdict(job) for job in found])
    else:
        for job in found:
            show(job.image)
    if not names and (without := matrix.left_out(catalog)):
        say(options, f"left out, no lock yet: {', '.join(without)}")


def _replace_table(options: Options, file: Path, table: str) -> None:
    before = file.read_text(encoding="utf-8")
    after = matrix.replace_table(before, table)
    if after != before:
        paths.write_text(file, after, mode=file.stat().st_mode & 0o777)
    say(options, f"{file}: {'table written' if after != before else 'up to date'}")
