"""The timing loop: a budget of seconds, a warm-up, samples of several calls each; the device says how time is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.bench.work import Before, Bench, Call

MIN_SAMPLES = 5
MAX_SAMPLES = 200
WARM_UP_PART = 0.15  # of the budget
WARM_UP_CALLS = 3


@dataclass(frozen=True)
class Timing:
    """What the loop found."""

    seconds: list[float]  # per call, one for each sample
    calls: int  # in each sample
    first_s: float  # the first call, which loads and compiles


def measure(bench: Bench, call: Call, budget_s: float, *, before: Before = None, calls: int = 0) -> Timing:
    """Time a call for about `budget_s` seconds, the first call not counted.

    `call` is given a number that grows, by which it takes its buffers in turn. `calls` fixes how many make a sample;
    0 takes as many as make the sample long enough.
    """
    first_s = wall(bench, call, 1)
    end = bench.now() + WARM_UP_PART * budget_s
    warm_up = 0
    while warm_up < WARM_UP_CALLS or bench.now() < end:
        each = wall(bench, call, WARM_UP_CALLS) / WARM_UP_CALLS
        warm_up += WARM_UP_CALLS
    each = max(each, 1e-9)
    calls = calls or max(1, math.ceil(bench.sample_s / each))
    samples = int(budget_s * (1 - WARM_UP_PART) / (each * calls))
    samples = min(MAX_SAMPLES, max(MIN_SAMPLES, samples))
    return Timing(seconds=bench.timed(call, samples, calls, before), calls=calls, first_s=first_s)


def wall(bench: Bench, call: Call, calls: int) -> float:
    """Wall-clock seconds of some calls, until the device has done them."""
    bench.synchronize()
    start = bench.now()
    for number in range(calls):
        call(number)
    bench.synchronize()
    return bench.now() - start
