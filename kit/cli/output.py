"""How commands print: data to stdout, everything else to stderr; tables, JSON and errors look alike everywhere.

The only way to the terminal. Much of what is shown comes from others (labels, logs, file names, what a server says), so
nothing that is shown here can be an order to the terminal. What a user's own program prints passes through unchanged.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from kit import paths, redact
from kit.errors import DiskFullError, FilesError, KitError
from kit.paths import FULL

if TYPE_CHECKING:
    from kit.cli.options import Options

# Controls but tab and end of line, what turns the direction of text, ends of line of other kinds, halves of characters.
_ORDERS = "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"


# A command of kit's among those between backquotes, with variables and sudo before it.
_COMMAND = re.compile(
    r"(?P<before>(?:^`|&& |\|\| |; )(?:[A-Z_]+=\S+ )*)(?P<sudo>sudo (?:-E )?)?kit (?P<arguments>engine up|engine down|)"
)


def harmless(text: str) -> str:
    """A text of which a terminal shows every part: without colours, and with other controls as `\\u001b`, which is
    what they are in JSON too.
    """
    if text.isprintable():
        return text
    return re.sub(_ORDERS, lambda match: f"\\u{ord(match[0]):04x}", re.sub(r"\x1b\[[0-9;]*m", "", text))


def show(text: str = "", *, err: bool = False, nl: bool = True, **style: Any) -> None:
    """Print a text on stdout, or on stderr. Raises DiskFullError or FilesError when stdout takes no more."""
    is_plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    try:
        shown = harmless(text)
        click.echo(click.style(shown, **style) if style else shown, err=err, nl=nl, color=False if is_plain else None)
    except OSError as e:
        # click ends the command when the reader went away. Of stderr there is nobody left to tell.
        if e.errno == errno.EPIPE:
            raise
        if not err:
            kind = DiskFullError if e.errno in FULL else FilesError
            raise kind(f"cannot write to standard output: {e.strerror}") from None


def is_terminal() -> bool:
    """Whether there is somebody who can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(text: str, *, abort: bool = True, default: bool = False) -> bool:
    """The answer to a question on stderr. Raises click.Abort when it is no, unless `abort` is not."""
    return click.confirm(harmless(text), default=default, abort=abort, err=True)


def runnable(text: str) -> str:
    """A text whose commands of kit's, in backquotes, work when they are typed here: `kit` need not be on PATH, nor on
    root's, and the private engine takes root.
    """
    return re.sub(r"`[^`\n]+`", lambda quoted: _COMMAND.sub(_as_typed, quoted[0]), text)


def _as_typed(found: re.Match[str]) -> str:
    import shutil  # only who is told what to type pays for it

    is_roots = found["arguments"] in ("engine up", "engine down") and os.geteuid() != 0 and bool(shutil.which("sudo"))
    sudo = "sudo -E " if found["sudo"] or is_roots else ""
    return f"{found['before']}{sudo}{paths.command(as_root=bool(sudo))} {found['arguments']}"


def print_error(error: KitError) -> None:
    """What happened, its details, and what to do next, on stderr; without secrets, which programs print as well."""

    def lines(text: str) -> str:
        # No line of somebody else's can look like one of kit's.
        return redact.text(text).replace("\n", "\n  ")

    show("error: ", fg="red", bold=True, nl=False, err=True)
    show(lines(error.message), err=True)
    if error.details:
        show(f"  {lines(chr(10).join(error.details))}", err=True)
    if error.hint:
        show("hint: ", fg="cyan", nl=False, err=True)
        show(lines(runnable(error.hint)), err=True)


def print_json(data: Any) -> None:
    """Data for programs, on stdout."""
    show(json.dumps(data, indent=2, ensure_ascii=False))


def picked(of: object, *names: str) -> dict[str, Any]:
    """The fields of these names, as JSON has them."""
    return {name: getattr(of, name) for name in names}


def say(options: Options, text: str) -> None:
    """A line about what is going on, on stderr; silent under --quiet."""
    if not options.quiet:
        show(runnable(text), err=True)


def warn(text: str) -> None:
    """A line about something that may be wrong, on stderr."""
    show("warning: ", fg="yellow", nl=False, err=True)
    show(text, err=True)


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
    table = [[harmless(cell).replace("\n", "\\n") for cell in cells] for cells in (header, *rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    for number, (*cells, last) in enumerate(table):
        start = "".join(f"{cell:{width}}  " for cell, width in zip(cells, widths, strict=False))
        if number and last in colours:
            show(start, nl=False)
            show(last, fg=colours[last])
        else:
            show(f"{start}{last}".rstrip(), **({} if number else {"bold": True}))
        for text in below[number - 1] if number and below else ():
            show(f"     {text}")


def print_facts(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values on stdout, aligned; of a value of several lines each below the other, as those of one that is
    wider than the terminal.
    """
    width = max(len(name) for name, _ in rows)
    columns = 0
    if sys.stdout.isatty():
        import textwrap

        columns = max(columns_of_terminal() - width - 2, 20)
    for name, value in rows:
        lines = value.split("\n")
        if columns:
            fill = textwrap.TextWrapper(width=columns, break_long_words=False, break_on_hyphens=False)
            lines = [part for line in lines for part in fill.wrap(harmless(line)) or [""]]
        for number, line in enumerate(lines):
            if columns and len(line) > columns:  # an address or a digest, which is to stay in one piece
                show(f"  {line}" if number else f"{name}\n  {line}")
            else:
                show(f"{'' if number else name:{width}}  {line}")


def show_text(text: str) -> None:
    """A sentence on stdout; on a terminal in lines of its width."""
    if sys.stdout.isatty():
        import textwrap

        text = textwrap.fill(
            harmless(text),
            width=columns_of_terminal(),
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    show(text)


def columns_of_terminal() -> int:
    """How wide a line on stdout may be: 80, or what a terminal has; elsewhere a line may be as long as it is."""
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000


def shortened(text: str, width: int) -> str:
    """A text that is no longer than that, the end of it left out where need be."""
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"


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
