"""The `kit` program, and `python -m kit`."""

from __future__ import annotations

import os
from typing import NoReturn

from kit import signals


def start() -> NoReturn:
    """Run the command of this process's arguments."""
    import gc

    # What is imported stays; looking for garbage in it meanwhile is 5 % of the time of a short command.
    gc.set_threshold(20_000)
    try:
        signals.listen()
        from kit.cli import run

        run()
    except KeyboardInterrupt:  # while that was imported, or once more while it tidied up
        os._exit(signals.exit_code())


if __name__ == "__main__":
    start()
