"""What is said when a program failed: the cause of it, where its words are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.cli.output import show
from kit.errors import BuildFailedError, CheckFailedError, CommandError, EngineError, KitError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable

TAIL_BYTES = 256 * 1024
# Of these the details are what a program printed.
PROGRAMS_FAILED = (BuildFailedError, CheckFailedError, CommandError, EngineError, NotReadyError)


class Tail:
    """Hands on what a program prints, and keeps the end of it for `print_cause`."""

    def __init__(self, write: Callable[[int, bytes], None]) -> None:
        self.write = write
        self.text = bytearray()

    def __call__(self, kind: int, data: bytes) -> None:
        self.write(kind, data)
        self.text += data
        if len(self.text) > 2 * TAIL_BYTES:
            del self.text[:-TAIL_BYTES]


def print_cause_of(error: KitError) -> None:
    """The cause of an error that a program's words stand behind, as `print_cause`."""
    if isinstance(error, PROGRAMS_FAILED) and error.details:
        words = error.stderr + error.stdout if isinstance(error, CommandError) else "\n".join(error.details)
        print_cause(words.encode(errors="replace"))


def print_cause(words: bytes) -> None:
    """Why a program failed and what to do, as `kit explain` says it, on stderr; nothing where it is not known.

    Nothing that this needs is imported while all goes well.
    """
    import io

    from kit.catalog import load_catalog
    from kit.decide.explain import explain_lines, known_errors, numbered_lines

    try:
        cause = explain_lines(numbered_lines(io.BytesIO(words)), known_errors(load_catalog())).cause
    except KitError:
        return  # a broken table must not hide the error that this is about
    if cause is None:
        return
    show("cause: ", fg="yellow", nl=False, err=True)
    show(f"{cause.problem.cause} [{cause.problem.id}]", err=True)
    if cause.problem.decide:
        show(f"  decide: {cause.problem.decide}", err=True)
    show(f"  fix: {cause.problem.fix}", err=True)
