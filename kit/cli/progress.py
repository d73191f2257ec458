"""How a build shows itself: one live line on a terminal, a line per finished step elsewhere."""

from __future__ import annotations

import time

from kit import redact
from kit.build.model import Progress
from kit.buildlog import Log, Step
from kit.cli.live import LiveLine
from kit.cli.options import Options

WORTH_A_LINE_S = 0.5


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
