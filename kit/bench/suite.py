"""Runs the tests one after another and writes down what each gave; decides nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from kit.bench import arithmetic, timing
from kit.bench.results import Measurement, Variant, Window
from kit.bench.work import NotRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.bench.work import Bench, Sizes, Work

# Seconds of each test, shared by its variants; with imports and checks the whole stays under 60 s.
BUDGETS_S = {
    "matmul_fp32_ieee": 2.0,
    "matmul_tf32": 2.0,
    "matmul_fp16": 2.0,
    "matmul_bf16": 2.0,
    "matmul_fp8": 2.0,
    "memory_copy": 1.0,
    "memory_triad": 1.0,
    "h2d_pinned": 0.75,
    "h2d_pageable": 0.75,
    "d2h_pinned": 0.75,
    "d2h_pageable": 0.75,
    "launch_eager": 0.5,
    "launch_graph": 0.5,
    "conv_fp32": 2.0,
    "conv_amp": 2.0,
    "resnet50_step": 6.0,
    "transformer_step": 6.0,
}
TEST_NAMES = tuple(BUDGETS_S)
# A cold GPU runs faster than it can keep up.
WARM_UP_S = 5.0
SOAK_WINDOW_S = 5.0
MAX_KEPT_SAMPLES = 100
DIGITS = 6
# PyTorch's and TensorFlow's own names for it.
OUT_OF_MEMORY = ("OutOfMemoryError", "ResourceExhaustedError")


def run(
    bench: Bench,
    sizes: Sizes,
    *,
    only: tuple[str, ...] = (),
    elapsed: Callable[[], float] = time.monotonic,
    on_test: Callable[[Measurement], None] = lambda _: None,
) -> list[Measurement]:
    """What every test of the framework gave, or the ones named; a test that fails does not stop the rest.

    `elapsed` is the clock the results are stamped with, the same as the sampler's.
    """
    tests, found = bench.tests(), []
    for name in TEST_NAMES:
        if name in tests and (not only or name in only):
            result = run_test(name, bench, tests[name], sizes, elapsed)
            found.append(result)
            bench.release()
            on_test(result)
    return found


def run_test(
    name: str, bench: Bench, make: Callable[[Sizes], Iterator[Work]], sizes: Sizes, elapsed: Callable[[], float]
) -> Measurement:
    """One test in all its variants; the best one by its median is the result."""
    budget_s = BUDGETS_S[name] * sizes.budget_part
    if name.startswith("matmul"):
        budget_s /= 2 * len(sizes.matmul)
    start_s, variants = elapsed(), []
    try:
        for work in make(sizes):
            variants.append(_measured(name, bench, work, budget_s, elapsed))
            del work
            bench.release()
    except NotRunError as e:
        return Measurement(name, "not_run", str(e))
    except Exception as e:
        kind = type(e).__name__
        text = (str(e).strip().splitlines() or [""])[0][:300]
        return Measurement(name, "not_run" if kind in OUT_OF_MEMORY else "failed", f"{kind}: {text}")
    best = variants[0]
    for variant in variants[1:]:
        if arithmetic.is_better(variant.value, best.value, best.unit):
            best = variant
    # A wrong variant is not hidden by a right one.
    wrong = next((v for v in variants if v.correctness and not v.correctness.passed), best)
    return replace(
        best,
        correctness=wrong.correctness,
        variants=tuple(Variant(v.variant, v.value) for v in variants),
        test_start_s=round(start_s, 3),
        test_end_s=round(elapsed(), 3),
    )


def _measured(name: str, bench: Bench, work: Work, budget_s: float, elapsed: Callable[[], float]) -> Measurement:
    start_s = elapsed()
    taken = timing.measure(bench, work.call, budget_s, before=work.before, calls=work.calls)
    end_s = elapsed()
    values = [arithmetic.rate(work.amount, seconds, work.unit) for seconds in taken.seconds]
    middle = arithmetic.spread(values)
    return Measurement(
        name=name,
        outcome="measured",
        unit=work.unit,
        value=_rounded(middle.median),
        p20=_rounded(middle.p20),
        p80=_rounded(middle.p80),
        jitter_percent=round(middle.jitter_percent, 2),
        n=middle.n,
        samples=tuple(_rounded(value) for value in values[:MAX_KEPT_SAMPLES]),
        calls_per_sample=taken.calls,
        work_per_call=work.amount,
        first_call_s=round(taken.first_s, 3),
        variant=work.variant,
        details=work.details,
        correctness=work.check(),
        start_s=round(start_s, 3),
        end_s=round(end_s, 3),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def warm_up(bench: Bench, sizes: Sizes, seconds: float = WARM_UP_S) -> None:
    """Keep the device busy with 16-bit products, so that the first test does not measure a cold one."""
    try:
        work = next(bench.tests()["matmul_fp16"](sizes))
    except NotRunError:
        return
    end = bench.now() + seconds
    while bench.now() < end:
        timing.wall(bench, work.call, 10)
    del work
    bench.release()


def soak(
    bench: Bench,
    sizes: Sizes,
    minutes: float,
    *,
    elapsed: Callable[[], float] = time.monotonic,
    on_window: Callable[[float, float], None] = lambda *_: None,
) -> Measurement:
    """16-bit products without a pause, the rate of every few seconds, and the result compared again each time."""
    tests = bench.tests()
    try:
        work = next(tests["matmul_bf16"](sizes))
    except NotRunError:
        work = next(tests["matmul_fp16"](sizes))
    timing.wall(bench, work.call, 1)  # loads and compiles
    each = max(timing.wall(bench, work.call, 3) / 3, 1e-6)
    calls = max(1, int(SOAK_WINDOW_S * min(1.0, 6 * minutes) / each))
    windows: list[Window] = []
    wrong, start_s = [], elapsed()
    first = work.check()
    while elapsed() < start_s + 60 * minutes or len(windows) < 2:
        value = arithmetic.rate(work.amount * calls, timing.wall(bench, work.call, calls), work.unit)
        check = work.check()
        windows.append(Window(round(elapsed(), 1), _rounded(value), check.passed))
        if not check.passed or check.error != first.error:
            wrong.append(check)
        on_window(elapsed() - start_s, value)
    is_right = not wrong and first.passed
    return Measurement(
        name="soak",
        outcome="measured",
        unit=work.unit,
        value=_rounded(arithmetic.percentile([window.value for window in windows], 0.5)),
        variant=f"{work.variant}, {minutes:g} minutes",
        windows=tuple(windows),
        wrong_results=len(wrong),
        correctness=replace(wrong[0] if wrong else first, passed=is_right),
        start_s=round(start_s, 3),
        end_s=round(elapsed(), 3),
    )
