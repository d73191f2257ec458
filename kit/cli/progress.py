"""How a build shows itself: one live line on a terminal, a line per finished step elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

import click

from kit.build import Progress
from kit.buildlog import BuildLog, Step
from kit.cli import Options

if TYPE_CHECKING:
    from rich.status import Status

WORTH_A_LINE_S = 0.5


class BuildDisplay:
    """Shows one image's build on stderr; use as a context manager around it."""

    def __init__(self, options: Options, image: str) -> None:
        self.options = options
        self.image = image
        self.started = time.monotonic()
        self.status: Status | None = None

    def __enter__(self) -> Progress:
        if not self.options.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.markup import escape

            self.escape = escape
            self.status = Console(stderr=True).status(f"{self.image}: starting")
            self.status.start()
        return Progress(message=self.message, log=self.log)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.status:
            self.status.stop()

    def message(self, text: str) -> None:
        if self.status:
            # Above the live line, which a plain print would run into.
            self.status.console.print(text, markup=False, highlight=False)
        elif not self.options.quiet:
            click.echo(text, err=True)

    def log(self, log: BuildLog, finished: list[Step]) -> None:
        for step in finished:
            if not step.is_internal and not step.error and step.seconds >= WORTH_A_LINE_S:
                self.message(f"  {step.seconds:6.1f} s  {step.title}")
        if self.status and log.running:
            step = log.running[-1]
            last = f" · {step.lines[-1][:60]}" if step.lines else ""
            self.status.update(
                f"{self.image}  {time.monotonic() - self.started:.0f} s  {self.escape(step.title + last)}"
            )
