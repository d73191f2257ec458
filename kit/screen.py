"""Where actions say what they do; the command line shows it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from kit.errors import KitError
    from kit.image.build.options import Progress
    from kit.remote import sync


class Screen(Protocol):
    """One line at a time, and what takes long."""

    def say(self, text: str) -> None:
        """A line about what is going on."""

    def confirm(self, question: str) -> None:
        """Go on when the answer is yes, or when nobody can be asked; else this ends the command."""

    def failed(self, error: KitError) -> None:
        """One of several things failed; the others go on."""

    def building(self, image: str) -> AbstractContextManager[Progress]:
        """Shows a build, or another way an image comes, while the block runs."""

    def sending(self, folder: Path) -> AbstractContextManager[sync.Progress]:
        """Shows a folder going to another machine while the block runs."""

    def sent(self, done: sync.Synced) -> None:
        """What came of it."""
