"""Two results beside each other, and many pairs of one test inside and outside a container. Pure."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kit.bench import arithmetic
from kit.bench.results import Measurement, Result

# How near 1 the whole interval of a ratio must lie to say that nothing is lost. Launches are the CPU's work, and swing.
NO_LOSS, NO_LOSS_ON_CPU = 0.02, 0.10
CPU_BOUND = ("launch_eager", "launch_graph")
RESAMPLES = 2000
Loss = Literal["none", "slower", "faster", "not distinguishable"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One test in two results; `ratio` is how much faster the second one is."""

    test: str
    unit: str
    first: float | None
    second: float | None
    ratio: float | None
    is_clear: bool  # the difference is larger than what either scatters


def compare(first: Result, second: Result) -> list[Difference]:
    """Every test that either result measured, in the first one's order."""
    ours, theirs = _measured(first), _measured(second)
    found = []
    for name in {**ours, **theirs}:
        one, other = ours.get(name), theirs.get(name)
        ratio = speed_ratio(one.value, other.value, one.unit) if one and other and one.unit == other.unit else None
        found.append(
            Difference(
                test=name,
                unit=one.unit if one else theirs[name].unit,
                first=one.value if one else None,
                second=other.value if other else None,
                ratio=ratio,
                is_clear=bool(ratio and one and other and _is_clear(one, other)),
            )
        )
    return found


def differences(first: Result, second: Result) -> list[str]:
    """What else differs between two results, so that a ratio may not be what it seems."""
    facts: list[tuple[str, Callable[[Result], Any]]] = [
        ("method", lambda result: result.method),
        ("framework", lambda result: result.framework.name),
        ("framework version", lambda result: result.framework.version),
        ("CUDA", lambda result: result.framework.cuda),
        ("cuDNN", lambda result: result.framework.cudnn),
        ("device", lambda result: result.device.name),
        ("GPU", lambda result: result.device.uuid),
        ("driver", lambda result: result.device.driver),
        ("power limit", lambda result: result.device.power_limit_w),
        ("CPUs", lambda result: result.host.cpus),
    ]
    found = [f"{name}: {of(first)} / {of(second)}" for name, of in facts if of(first) != of(second)]
    ours, theirs = _measured(first), _measured(second)
    for name, test in ours.items():
        if name in theirs and test.variant != theirs[name].variant:
            found.append(f"{name}: {test.variant} / {theirs[name].variant}")
    return found


def speed_ratio(first: float, second: float, unit: str) -> float:
    """How many times as fast the second is."""
    return first / second if unit == arithmetic.TIME_UNIT else second / first


def _measured(result: Result) -> dict[str, Measurement]:
    return {test.name: test for test in result.tests if test.is_measured}


def _is_clear(one: Measurement, other: Measurement) -> bool:
    """The ranges between 20th and 80th percentile do not touch."""
    ranges = [[test.value if p is None else p for p in (test.p20, test.p80)] for test in (one, other)]
    return max(map(min, ranges)) > min(map(max, ranges))


@dataclass(frozen=True, kw_only=True)
class PairedRatio:
    """Speed inside the container by speed outside, over several pairs taken in turn."""

    test: str
    unit: str
    inside: float  # median of the runs
    outside: float
    ratio: float  # of the medians
    low: float  # bootstrap interval, 95 %
    high: float
    pairs: int
    loss: Loss


def paired_ratios(pairs: Sequence[tuple[Result, Result]]) -> list[PairedRatio]:
    """Each test that every run of every pair (inside, outside) measured."""
    inside = [_measured(one) for one, _ in pairs]
    outside = [_measured(other) for _, other in pairs]
    found = []
    for name in inside[0]:
        if name == "soak" or not all(name in run for run in (*inside, *outside)):
            continue
        unit = inside[0][name].unit
        ours, theirs = [run[name].value for run in inside], [run[name].value for run in outside]
        ratio = speed_ratio(statistics.median(theirs), statistics.median(ours), unit)
        low, high = interval(ours, theirs, unit)
        found.append(
            PairedRatio(
                test=name,
                unit=unit,
                inside=statistics.median(ours),
                outside=statistics.median(theirs),
                ratio=ratio,
                low=low,
                high=high,
                pairs=len(pairs),
                loss=judge_loss(low, high, NO_LOSS_ON_CPU if name in CPU_BOUND else NO_LOSS),
            )
        )
    return found


def interval(inside: Sequence[float], outside: Sequence[float], unit: str) -> tuple[float, float]:
    """Where 95 % of the ratios of medians lie when whole pairs are drawn again and again, with a fixed seed."""
    draw = random.Random(0)
    pairs = list(zip(inside, outside, strict=True))
    ratios = []
    for _ in range(RESAMPLES):
        chosen = draw.choices(pairs, k=len(pairs))
        ratios.append(
            speed_ratio(statistics.median(o for _, o in chosen), statistics.median(i for i, _ in chosen), unit)
        )
    return arithmetic.percentile(ratios, 0.025), arithmetic.percentile(ratios, 0.975)


def judge_loss(low: float, high: float, margin: float) -> Loss:
    """What an interval of ratios allows to say: none only when it lies within the margin altogether."""
    if low >= 1 - margin and high <= 1 + margin:
        return "none"
    if high < 1 - margin:
        return "slower"
    if low > 1 + margin:
        return "faster"
    return "not distinguishable"
