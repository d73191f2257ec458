"""How actions show what they do (`kit.screen.Screen`). What takes long: one live line on a terminal, plain lines
elsewhere, nothing under --quiet.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import click

from kit import redact
from kit.build.model import Progress
from kit.buildlog import Log, Step
from kit.cli.options import Options
from kit.cli.output import print_error, say
from kit.errors import KitError

if TYPE_CHECKING:
    from rich.status import Status

    from kit.sync import Progress as SyncProgress
    from kit.sync import Synced

# A step of a build that took less is not worth a line.
WORTH_A_LINE_S = 0.5


class LiveLine:
    """A line on stderr that is replaced as things go on; a context manager around them."""

    def __init__(self, options: Options, text: str) -> None:
        self.options = options
        self.text = text
        self._status: Status | None = None

    def start(self) -> None:
        """Show the line, if there is a terminal for it."""
        if not self.options.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.markup import escape

            self._escape = escape
            self._status = Console(stderr=True).status(escape(self.text))
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
        if self._status:
            self._status.update(self._escape(text))

    def message(self, text: str) -> None:
        """A line that stays."""
        if self._status:
            # Above the live line, which a plain print would run into.
            self._status.console.print(text, markup=False, highlight=False)
        elif not self.options.quiet:
            click.echo(text, err=True)


class BuildDisplay(LiveLine):
    """Shows one image's build on stderr; use as a context manager around it."""

    def __init__(self, options: Options, image: str) -> None:
        super().__init__(options, f"{image}: starting")
        self.image = image
        self.started = time.monotonic()

    def __enter__(self) -> Progress:
        self.start()
        return Progress(message=self.message, log=self.log)

    def log(self, log: Log, finished: list[Step]) -> None:
        for step in finished:
            if not step.is_internal and not step.error and step.seconds >= WORTH_A_LINE_S:
                self.message(f"  {step.seconds:6.1f} s  {redact.text(step.title)}")
        if log.running:
            step = log.running[-1]
            last = f" · {redact.text(step.lines[-1])[:60]}" if step.lines else ""
            self.update(f"{self.image}  {time.monotonic() - self.started:.0f} s  {redact.text(step.title)}{last}")


class CommandScreen:
    """Lines on stderr; one live line for what takes long."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def say(self, text: str) -> None:
        say(self.options, text)

    def failed(self, error: KitError) -> None:
        print_error(error)

    def building(self, image: str) -> AbstractContextManager[Progress]:
        return BuildDisplay(self.options, image)

    @contextmanager
    def sending(self, folder: Path) -> Iterator[SyncProgress]:
        from kit.cli.sending import SyncDisplay

        with SyncDisplay(self.options, f"sending {folder.name}") as (progress, _):
            yield progress

    def sent(self, done: Synced) -> None:
        from kit.cli.sending import tell_sent

        tell_sent(self.options, done)
