"""How what takes long shows itself: one live line on a terminal, plain lines elsewhere, nothing under --quiet."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from kit.cli.options import Options
from kit.cli.output import harmless, show

if TYPE_CHECKING:
    from rich.status import Status
    from rich.text import Text


class Drawn:
    """What a line says now: it is asked each time the line is drawn, so that a clock in it moves."""

    def __init__(self, text: Callable[[], str]) -> None:
        from rich.text import Text

        self.text, self.kind = text, Text

    def __rich__(self) -> Text:
        return self.kind(harmless(self.text()), no_wrap=True, overflow="ellipsis")


class LiveLine:
    """A line on stderr that is replaced as things go on; a context manager around them."""

    def __init__(self, options: Options, text: str) -> None:
        self.options = options
        self.text = text
        self._status: Status | None = None

    def now(self) -> str:
        """What the line says at this moment."""
        return self.text

    def start(self) -> None:
        """Show the line, if there is a terminal for it."""
        # A dumb terminal can replace nothing.
        if not self.options.quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status(Drawn(self.now))
            self._status.start()

    def stop(self) -> None:
        """Take the line away, for a question or the end."""
        if self._status:
            self._status.stop()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def is_live(self) -> bool:
        return self._status is not None

    def update(self, text: str) -> None:
        """Replace the line; nothing where there is none."""
        self.text = text

    def message(self, text: str) -> None:
        """A line that stays."""
        if self._status:
            # Above the live line, which a plain print would run into.
            self._status.console.print(harmless(text), markup=False, highlight=False)
        elif not self.options.quiet:
            show(text, err=True)
