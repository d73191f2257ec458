"""How commands print: data to stdout, everything else to stderr; tables, JSON and errors look alike everywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from kit import redact
from kit.cli.options import Options
from kit.errors import KitError


def print_error(error: KitError) -> None:
    """What happened, its details, and what to do next, on stderr; without secrets, which programs print as well."""
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(redact.text(error.message), err=True)
    for line in redact.text("\n".join(error.details)).split("\n") if error.details else ():
        click.echo(f"  {line}", err=True)
    if error.hint:
        click.secho("hint: ", fg="cyan", nl=False, err=True)
        click.echo(redact.text(error.hint), err=True)


def print_json(data: Any) -> None:
    """Data for programs, on stdout."""
    json.dump(data, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
    # Here and not when the program ends, where a reader that went away would be an error.
    sys.stdout.flush()


def say(options: Options, text: str) -> None:
    """A line about what is going on, on stderr; silent under --quiet."""
    if not options.quiet:
        click.echo(text, err=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on stdout, the header bold on a terminal."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    click.secho(line(header), bold=True)
    for row in rows:
        click.echo(line(row))


def write_out(kind: int, data: bytes) -> None:
    """Hand on what a container printed: to the stream it came from."""
    target = sys.stderr.buffer if kind == 2 else sys.stdout.buffer
    target.write(data)
    target.flush()


def print_gpus(options: Options, found: tuple[str, str] | None) -> None:
    """Whether the GPUs that a container was given are there inside and compute."""
    if found is None:
        return
    gpus, wrong = found
    if wrong:
        click.secho("warning: ", fg="yellow", nl=False, err=True)
        click.echo(f"{wrong}; `kit doctor` looks for the cause", err=True)
    else:
        say(options, f"GPU inside: {gpus}; a kernel ran on it")
