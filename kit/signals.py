"""Being told to end is an interruption, whoever says it: Ctrl-C, SIGTERM (a scheduler, `timeout`) or SIGHUP (a terminal
that went away). All that a command began is undone then as it is after Ctrl-C.
"""

from __future__ import annotations

import signal
import sys
from typing import Any, NoReturn

AGAIN_S = 0.01
_came: list[int] = []


def heard() -> list[signal.Signals]:
    """The signals that interrupt; not those that the caller has this process ignore (nohup)."""
    every = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in every if signal.getsignal(number) is not signal.SIG_IGN]


def listen() -> None:
    """Have them interrupt this process; programs that it starts do not inherit it."""
    for number in heard():
        signal.signal(number, _on_signal)
    sys.unraisablehook = _on_lost


def interrupt(number: int) -> NoReturn:
    """Interrupt this process as the signal does, and note which it was."""
    _came.append(number)
    raise KeyboardInterrupt


def is_interruption(error: BaseException) -> bool:
    """Whether it is one, or what Python before 3.12 makes of one that comes while a class is being made."""
    return isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt)


def exit_code() -> int:
    """What an interrupted process ends with: 128 and the number of the signal that came first."""
    return 128 + (_came[0] if _came else signal.SIGINT)


def _on_signal(number: int, _: Any) -> None:
    # What tidies up already is not to be told again, except by whoever sits there and presses Ctrl-C once more.
    if not _came or number == signal.SIGINT:
        interrupt(number)


def _on_lost(lost: Any) -> None:
    """Python ignores what is raised while it tidies an object away: an interruption comes again then, a bit later."""
    if lost.exc_type is KeyboardInterrupt and _came:
        number = _came.pop()
        signal.signal(signal.SIGALRM, lambda *_: interrupt(number))
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
    else:
        sys.__unraisablehook__(lost)
