"""How commands print: data to stdout, everything else to stderr; tables, JSON and errors look alike everywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
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


def picked(of: object, *names: str) -> dict[str, Any]:
    """The fields of these names, as JSON has them."""
    return {name: getattr(of, name) for name in names}


def say(options: Options, text: str) -> None:
    """A line about what is going on, on stderr; silent under --quiet."""
    if not options.quiet:
        click.echo(text, err=True)


def warn(text: str) -> None:
    """A line about something that may be wrong, on stderr."""
    click.secho("warning: ", fg="yellow", nl=False, err=True)
    click.echo(text, err=True)


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    colours: Mapping[str, str] = MappingProxyType({}),
    below: Sequence[Sequence[str]] = (),
) -> None:
    """Aligned columns on stdout, the header bold on a terminal; last cells of these words in colour; and `below` each
    row its lines, indented.
    """
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    click.secho(line(header), bold=True)
    for number, (*cells, last) in enumerate(rows):
        click.echo(line([*cells, click.style(last, fg=colours[last]) if last in colours else last]))
        for text in below[number] if below else ():
            click.echo(f"     {text}")


def print_facts(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values on stdout, aligned; of a value of several lines each below the other."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        for number, line in enumerate(value.split("\n")):
            click.echo(f"{'' if number else name:{width}}  {line}")


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
        warn(f"{wrong}; `kit doctor` looks for the cause")
    else:
        say(options, f"GPU inside: {gpus}; a kernel ran on it")
