"""The timing loop: a budget of seconds, a warm-up, samples of several calls each; the device says how time is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[[int], object]
    Before = Callable[[], object] | None

MIN_SAMPLES = 5
MAX_SAMPLES = 200
WARM_UP_PART = 0.15  # of the budget
WARM_UP_CALLS = 3


class Clock(Protocol):
    """How a device takes time."""

    sample_s: float  # a sample this long makes the cost of taking it negligible

    def now(self) -> float:
        """Seconds of the host's clock."""

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""

    def timed(self, call: Call, samples: int, calls: int, before: Before) -> list[float]:
        """Seconds per call of each sample of `calls` calls; `before` runs ahead of each sample, outside the time."""


@dataclass(frozen=True)
class Timing:
    """What the loop found."""

    seconds: list[float]  # per call, one for each sample
    calls: int  # in each sample
    first_s: float  # the first call, which loads and compiles
    warm_up_calls: int


def measure(clock: Clock, call: Call, budget_s: float, *, before: Before = None, calls: int = 0) -> Timing:
    """Time a call for about `budget_s` seconds, the first call not counted.

    `call` is given a number that grows, by which it takes its buffers in turn. `calls` fixes how many make a sample;
    0 takes as many as make the sample long enough.
    """
    first_s = wall(clock, call, 1)
    end = clock.now() + WARM_UP_PART * budget_s
    warm_up = 0
    while warm_up < WARM_UP_CALLS or clock.now() < end:
        each = wall(clock, call, WARM_UP_CALLS) / WARM_UP_CALLS
        warm_up += WARM_UP_CALLS
    each = max(each, 1e-9)
    calls = calls or max(1, math.ceil(clock.sample_s / each))
    samples = int(budget_s * (1 - WARM_UP_PART) / (each * calls))
    samples = min(MAX_SAMPLES, max(MIN_SAMPLES, samples))
    return Timing(
        seconds=clock.timed(call, samples, calls, before), calls=calls, first_s=first_s, warm_up_calls=warm_up
    )


def wall(clock: Clock, call: Call, calls: int) -> float:
    """Wall-clock seconds of some calls, until the device has done them."""
    clock.synchronize()
    start = clock.now()
    for number in range(calls):
        call(number)
    clock.synchronize()
    return clock.now() - start
