"""How actions show what they do (`kit.screen.Screen`). What takes long: one live line on a terminal, plain lines
elsewhere, nothing under --quiet.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kit import network, redact
from kit.cli.live import LiveLine
from kit.cli.options import Options
from kit.cli.output import ask, is_terminal, print_error, say
from kit.errors import KitError
from kit.image.build.options import Progress
from kit.sizes import in_bytes

if TYPE_CHECKING:
    from kit.image.buildlog import Log, Step
    from kit.remote.sync import Progress as SyncProgress
    from kit.remote.sync import Synced

# A step of a build that took less is not worth a line.
WORTH_A_LINE_S = 0.5


class BuildDisplay(LiveLine):
    """Shows one image's build on stderr; use as a context manager around it."""

    def __init__(self, options: Options, image: str) -> None:
        super().__init__(options, "starting")
        self.image = image
        self.started = time.monotonic()
        # Of a build on another machine this one receives nothing.
        self.received = None if options.host else network.received_bytes()

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
            moved = next((f" · {in_bytes(some)}" for some in [log.moved] if some), "")
            self.update(f"{redact.text(step.title)}{moved}{last}")

    def now(self) -> str:
        now = network.received_bytes()
        received = now - self.received if now is not None and self.received is not None else 0
        # Of the whole machine: what a step downloads inside says nobody else.
        here = f"  {in_bytes(received)} received" if received > 10**6 else ""
        return f"{self.image}  {_clock(time.monotonic() - self.started)}{here}  {self.text}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"


class CommandScreen:
    """Lines on stderr; one live line for what takes long."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def say(self, text: str) -> None:
        say(self.options, text)

    def confirm(self, question: str) -> None:
        if is_terminal() and not (self.options.yes or self.options.quiet or self.options.json):
            ask(question, default=True)

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
