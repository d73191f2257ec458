"""`kit export`."""

from __future__ import annotations

import click

from kit import config
from kit.catalog import load_catalog
from kit.cli.options import Options
from kit.cli.output import say, show
from kit.config.files import PROJECT_FILE
from kit.environment.current import differences
from kit.environment.declared import declared
from kit.environment.export import FORMS, export
from kit.environment.format import read
from kit.errors import BadInputError


@click.command("export")
@click.argument("form", metavar="[requirements|environment.yml|pylock]", type=click.Choice(FORMS))
@click.pass_obj
def export_command(options: Options, *, form: str) -> None:
    """Print the project's locked environment in a form that other tools read.

    It has all packages: those of the image that kit.lock names, and the project's in their place. What the form cannot
    say is named on standard error.

    \b
    requirements      for `pip install --require-hashes --no-deps -r FILE`
    environment.yml   for `conda env create -f FILE`: Python from conda-forge, the rest from PyPI
    pylock            pylock.toml (PEP 751), with the addresses that the package index has for the locked hashes
    """
    project = declared(config.load())
    if project is None:
        raise BadInputError(
            f"there is no {PROJECT_FILE} with [environment] in this folder or above it, so no project to export",
            hint="`kit init` makes one, `kit lock` its lock",
        )
    catalog = load_catalog()
    exported = export(form, project.folder, catalog)
    show(exported.text, nl=False)
    lock = read(project.folder)
    for line in differences(catalog, project, lock) if lock else []:
        say(options, f"warning: {line}: `kit lock` brings the lock up to date")
    for line in exported.left:
        say(options, f"not in it: {line}")
