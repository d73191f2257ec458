"""How actions show what they do (`kit.screen.Screen`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.options import Options
from kit.cli.output import print_error, say
from kit.errors import KitError

if TYPE_CHECKING:
    from kit.build.model import Progress
    from kit.sync import Progress as SyncProgress
    from kit.sync import Synced


class CommandScreen:
    """Lines on stderr; one live line for what takes long."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def say(self, text: str) -> None:
        say(self.options, text)

    def failed(self, error: KitError) -> None:
        print_error(error)

    def building(self, image: str) -> AbstractContextManager[Progress]:
        from kit.cli.progress import BuildDisplay

        return BuildDisplay(self.options, image)

    @contextmanager
    def sending(self, folder: Path) -> Iterator[SyncProgress]:
        from kit.cli.sending import SyncDisplay

        with SyncDisplay(self.options, f"sending {folder.name}") as (progress, _):
            yield progress

    def sent(self, done: Synced) -> None:
        from kit.cli.sending import tell_sent

        tell_sent(self.options, done)
