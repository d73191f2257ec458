"""The `kit` program, and `python -m kit`."""
# ruff: noqa: PTH100, PTH120

from __future__ import annotations

# Only what Python itself has loaded by now: until it starts again, a project's folder may stand before its library.
import os
import site
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# What these say is for the user's own programs; here it would leave out checks, or take a project's files for kit's.
NOT_FOR_KIT = {"PYTHONHOME", "PYTHONOPTIMIZE", "PYTHONPATH", "PYTHONPYCACHEPREFIX"}
# `-c` looks for modules where it is started, first of all.
AGAIN = "import sys; del sys.path[0]; from kit.__main__ import start; start()"


def start() -> NoReturn:
    """Run the command of this process's arguments, in a Python that takes nothing from the environment."""
    is_told = bool(NOT_FOR_KIT & os.environ.keys()) and not sys.flags.ignore_environment
    if (sys.flags.optimize or is_told) and not _is_found_by_environment():
        os.execv(sys.executable, [sys.executable, "-E", "-c", AGAIN, *sys.argv[1:]])
    import gc

    from kit import signals

    # What is imported stays; looking for garbage in it meanwhile is 5 % of the time of a short command.
    gc.set_threshold(20_000)
    try:
        signals.listen()
        from kit.cli import run

        run()
    except (KeyboardInterrupt, RuntimeError) as e:  # while that was imported, or once more while it tidied up
        if not signals.is_interruption(e):
            raise
        os._exit(signals.exit_code())


def _is_found_by_environment() -> bool:
    """Whether kit itself would not be found without the environment: modules of clusters set PYTHONPATH for that."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    places += [str(site.USER_SITE)] if "PYTHONUSERBASE" in os.environ else []
    return here in [os.path.abspath(place) for place in places if place]


if __name__ == "__main__":
    start()
