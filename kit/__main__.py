"""The `kit` program, and `python -m kit`."""

from __future__ import annotations

from typing import NoReturn


def start() -> NoReturn:
    """Run the command of this process's arguments."""
    import gc

    # What is imported stays; looking for garbage in it meanwhile is 5 % of the time of a short command.
    gc.set_threshold(20_000)
    from kit.cli import run

    run()


if __name__ == "__main__":
    start()
