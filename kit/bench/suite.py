"""Runs the tests one after another and writes down what each gave; decides nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kit.bench import arithmetic, timing
from kit.bench.work import NotRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.bench.work import Bench, Check, Sizes, Work

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
    on_test: Callable[[dict[str, Any]], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Every test of the framework, or the ones named, each as a dictionary; a test that fails does not stop the rest.

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
) -> dict[str, Any]:
    """One test in all its variants; the best one by its median is the result."""
    budget_s = BUDGETS_S[name] * sizes.budget_part
    if name.startswith("matmul"):
        budget_s /= 2 * len(sizes.matmul)
    start_s, variants = elapsed(), []
    try:
        for work in make(sizes):
            variants.append(_measured(bench, work, budget_s, elapsed))
            del work
            bench.release()
    except NotRunError as e:
        return {"name": name, "outcome": "not_run", "reason": str(e)}
    except Exception as e:
        kind = type(e).__name__
        text = (str(e).strip().splitlines() or [""])[0][:300]
        outcome = "not_run" if kind in OUT_OF_MEMORY else "failed"
        return {"name": name, "outcome": outcome, "reason": f"{kind}: {text}"}
    best = variants[0]
    for variant in variants[1:]:
        if arithmetic.is_better(variant["value"], best["value"], best["unit"]):
            best = variant
    wrong = next((v for v in variants if not v["correctness"]["passed"]), best)
    return {
        "name": name,
        "outcome": "measured",
        **best,
        "correctness": wrong["correctness"],
        "variants": [{"variant": v["variant"], "value": v["value"]} for v in variants],
        "test_start_s": round(start_s, 3),
        "test_end_s": round(elapsed(), 3),
    }


def _measured(bench: Bench, work: Work, budget_s: float, elapsed: Callable[[], float]) -> dict[str, Any]:
    start_s = elapsed()
    taken = timing.measure(bench, work.call, budget_s, before=work.before, calls=work.calls)
    end_s = elapsed()
    values = [arithmetic.rate(work.amount, seconds, work.unit) for seconds in taken.seconds]
    middle = arithmetic.spread(values)
    return {
        "unit": work.unit,
        "value": _rounded(middle.median),
        "p20": _rounded(middle.p20),
        "p80": _rounded(middle.p80),
        "jitter_percent": round(middle.jitter_percent, 2),
        "n": middle.n,
        "samples": [_rounded(value) for value in values[:MAX_KEPT_SAMPLES]],
        "calls_per_sample": taken.calls,
        "work_per_call": work.amount,
        "first_call_s": round(taken.first_s, 3),
        "variant": work.variant,
        "details": work.details,
        "correctness": _correctness(work.check()),
        "start_s": round(start_s, 3),
        "end_s": round(end_s, 3),
    }


def _correctness(check: Check) -> dict[str, Any]:
    # JSON has no infinity: no error at all is known of what is not a number.
    error = check.error if check.error < float("inf") else None
    return {
        "measure": check.measure,
        "error": error,
        "limit": check.limit,
        "repeatable": check.is_repeatable,
        "passed": check.is_passed,
    }


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
) -> dict[str, Any]:
    """16-bit products without a pause, the rate of every few seconds, and the result compared again each time."""
    tests = bench.tests()
    try:
        work = next(tests["matmul_bf16"](sizes))
    except NotRunError:
        work = next(tests["matmul_fp16"](sizes))
    timing.wall(bench, work.call, 1)  # loads and compiles
    each = max(timing.wall(bench, work.call, 3) / 3, 1e-6)
    calls = max(1, int(SOAK_WINDOW_S * min(1.0, 6 * minutes) / each))
    windows: list[dict[str, Any]] = []
    wrong, start_s = [], elapsed()
    first = work.check()
    while elapsed() < start_s + 60 * minutes or len(windows) < 2:
        value = arithmetic.rate(work.amount * calls, timing.wall(bench, work.call, calls), work.unit)
        check = work.check()
        windows.append({"at_s": round(elapsed(), 1), "value": _rounded(value), "passed": check.is_passed})
        if not check.is_passed or check.error != first.error:
            wrong.append(check)
        on_window(elapsed() - start_s, value)
    return {
        "name": "soak",
        "outcome": "measured",
        "unit": work.unit,
        "variant": f"{work.variant}, {minutes:g} minutes",
        "value": _rounded(arithmetic.percentile([w["value"] for w in windows], 0.5)),
        "windows": windows,
        "wrong_results": len(wrong),
        "correctness": {**_correctness(wrong[0] if wrong else first), "passed": not wrong and first.is_passed},
        "start_s": round(start_s, 3),
        "end_s": round(elapsed(), 3),
    }
