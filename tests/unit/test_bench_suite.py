"""The timing loop and the runner, with a clock and a device that do what they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from bench import peers
from kit.bench import all_reduce, suite, timing
from kit.bench.results import Correctness, Variant
from kit.bench.work import NotRunError, Sizes, Work, check, cpu_sizes, gpu_sizes, learning

if TYPE_CHECKING:
    from kit.bench.work import Before, Call


class FakeBench:
    """A device on which a call costs so many seconds, on a clock of its own."""

    sample_s = 0.01

    def __init__(self, cost_s: float = 0.001, first_s: float = 0.5) -> None:
        self.time, self.cost_s, self.first_s = 100.0, cost_s, first_s
        self.calls: list[int] = []
        self.befores = 0
        self.released = 0
        self.made: dict[str, Callable[[Sizes], Iterator[Work]]] = {}

    def now(self) -> float:
        return self.time

    def synchronize(self) -> None:
        pass

    def call(self, number: int) -> None:
        self.time += self.cost_s + (self.first_s if not self.calls else 0)
        self.calls.append(number)

    def before(self) -> None:
        self.befores += 1
        self.time += 0.002

    def timed(self, call: Call, samples: int, calls: int, before: Before) -> list[float]:
        found = []
        for sample in range(samples):
            if before:
                before()
            start = self.time
            for number in range(calls):
                call(sample * calls + number)
            found.append((self.time - start) / calls)
        return found

    def facts(self) -> dict[str, Any]:
        return {}

    def tests(self) -> dict[str, Callable[[Sizes], Iterator[Work]]]:
        return self.made

    def release(self) -> None:
        self.released += 1

    def peak_memory_bytes(self) -> int | None:
        return None


def right() -> Correctness:
    return check("checked", 0.001, 0.01)


def test_first_call_is_not_in_the_samples_and_the_budget_is_kept() -> None:
    bench = FakeBench()
    found = timing.measure(bench, bench.call, 1.0)
    assert found.first_s == pytest.approx(0.501)
    assert set(map(lambda s: round(s, 9), found.seconds)) == {0.001}
    assert found.calls == 10  # so that a sample takes sample_s
    assert 84 <= len(found.seconds) <= 85  # what is left of the budget after the warm-up
    assert bench.time - 100 == pytest.approx(0.5 + 1.0, rel=0.05)


def test_what_comes_before_a_sample_is_outside_its_time() -> None:
    bench = FakeBench(cost_s=0.02)
    found = timing.measure(bench, bench.call, 1.0, before=bench.before)
    assert bench.befores == len(found.seconds)
    assert found.seconds == pytest.approx([0.02] * len(found.seconds))


def test_slow_calls_still_give_enough_samples_and_fast_ones_not_too_many() -> None:
    slow = FakeBench(cost_s=5.0)
    assert len(timing.measure(slow, slow.call, 1.0).seconds) == timing.MIN_SAMPLES
    fast = FakeBench(cost_s=0.02)
    assert len(timing.measure(fast, fast.call, 3600.0).seconds) == timing.MAX_SAMPLES


def test_calls_are_numbered_so_that_buffers_can_take_turns() -> None:
    bench = FakeBench()
    found = timing.measure(bench, bench.call, 0.1, calls=4)
    timed = bench.calls[-len(found.seconds) * 4 :]
    assert timed == list(range(len(found.seconds) * 4))


def works(bench: FakeBench, *parts: tuple[str, float, Correctness]) -> Callable[[Sizes], Iterator[Work]]:
    def make(_: Sizes) -> Iterator[Work]:
        for variant, amount, found in parts:
            yield Work(variant, "TFLOP/s", amount, bench.call, lambda found=found: found)  # type: ignore[misc]

    return make


def test_the_best_variant_is_the_result() -> None:
    bench = FakeBench()
    bench.made = {"matmul_bf16": works(bench, ("small", 1e9, right()), ("large", 4e9, right()))}
    (found,) = suite.run(bench, cpu_sizes(), elapsed=bench.now)
    assert found.variant == "large"
    assert found.value == pytest.approx(4.0)  # 4e9 operations in a millisecond
    assert found.variants == (Variant("small", 1.0), Variant("large", 4.0))
    assert found.correctness.passed is True
    assert 100 < found.start_s < found.end_s


def test_a_wrong_variant_is_not_hidden_by_a_right_one() -> None:
    bench = FakeBench()
    wrong = check("checked", 0.5, 0.01)
    bench.made = {"matmul_bf16": works(bench, ("small", 1e9, wrong), ("large", 4e9, right()))}
    (found,) = suite.run(bench, cpu_sizes(), elapsed=bench.now)
    assert found.value == pytest.approx(4.0)
    assert found.correctness == Correctness(measure="checked", error=0.5, limit=0.01, repeatable=True, passed=False)


@pytest.mark.parametrize(
    "found", [check("c", float("nan"), 1.0), check("c", float("inf"), 1.0), check("c", 0.0, 1.0, is_repeatable=False)]
)
def test_not_a_number_and_not_twice_the_same_are_failures(found: Correctness) -> None:
    assert not found.passed


def test_a_test_that_breaks_does_not_stop_the_others() -> None:
    bench = FakeBench()

    def breaks(_: Sizes) -> Iterator[Work]:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")
        yield

    def cannot(_: Sizes) -> Iterator[Work]:
        raise NotRunError("fp8 is for others")
        yield

    class OutOfMemoryError(RuntimeError):
        pass

    def too_large(_: Sizes) -> Iterator[Work]:
        raise OutOfMemoryError("CUDA out of memory.")
        yield

    bench.made = {
        "matmul_fp16": breaks,
        "matmul_fp8": cannot,
        "conv_amp": too_large,
        "memory_copy": works(bench, ("copy", 1e9, right())),
    }
    told: list[str] = []
    found = suite.run(bench, cpu_sizes(), elapsed=bench.now, on_test=lambda test: told.append(test.name))
    assert [(test.name, test.outcome) for test in found] == [
        ("matmul_fp16", "failed"),
        ("matmul_fp8", "not_run"),
        ("memory_copy", "measured"),
        ("conv_amp", "not_run"),
    ]
    assert found[0].reason.startswith("RuntimeError: CUDA error: no kernel image")
    assert "more" not in found[0].reason
    assert "out of memory" in found[3].reason
    assert told == [test.name for test in found]


def test_only_the_tests_that_were_named() -> None:
    bench = FakeBench()
    bench.made = {name: works(bench, ("x", 1e9, right())) for name in ("memory_copy", "memory_triad")}
    found = suite.run(bench, cpu_sizes(), only=("memory_triad",), elapsed=bench.now)
    assert [test.name for test in found] == ["memory_triad"]


def test_budgets_leave_room_in_a_minute() -> None:
    assert sum(suite.BUDGETS_S.values()) + suite.WARM_UP_S < 45


def test_soak_runs_for_its_time_and_compares_every_result() -> None:
    bench = FakeBench(cost_s=0.01)
    bench.made = {"matmul_bf16": works(bench, ("big", 1e10, right()))}
    found = suite.soak(bench, cpu_sizes(), 2.0, elapsed=bench.now)
    assert bench.time - 100 >= 120
    assert 24 <= len(found.windows) <= 25  # of five seconds
    assert {window.value for window in found.windows} == {1.0}
    assert found.wrong_results == 0
    assert found.correctness.passed


def test_soak_counts_results_that_changed() -> None:
    bench = FakeBench(cost_s=0.01)
    checks = iter([right(), right(), check("checked", 0.002, 0.01), *[right()] * 100])

    def make(_: Sizes) -> Iterator[Work]:
        yield Work("big", "TFLOP/s", 1e10, bench.call, lambda: next(checks))

    bench.made = {"matmul_bf16": make}
    found = suite.soak(bench, cpu_sizes(), 1.0, elapsed=bench.now)
    assert found.wrong_results == 1
    assert not found.correctness.passed


@pytest.mark.parametrize(
    ("losses", "passes"),
    [([5.0, 4, 3, 2, 1, 1, 1, 1], True), ([5.0, 5, 5, 5, 5, 5, 6, 6], False), ([float("nan")] * 8, False)],
)
def test_a_network_must_learn(losses: list[float], passes: bool) -> None:
    values = iter(losses)
    call, is_right = learning(lambda _: next(values))
    call(0)
    assert is_right().passed is passes


def answer(seconds: float, *, right: bool = True, rate: float = 700.0) -> all_reduce.Answer:
    return all_reduce.Answer([[seconds] * all_reduce.ROUNDS] * 2, right, rate)


def test_all_reduce_is_as_slow_as_its_slowest_rank() -> None:
    sizes = (2**20, 2**30)
    found = all_reduce.summary(4, sizes, [answer(0.01), answer(0.02), answer(0.01), answer(0.01, rate=600.0)])
    assert found.value == pytest.approx(2**30 / 0.02 * 1.5 / 1e9, rel=1e-4)
    assert found.variants[0].variant == "1 MiB"
    assert found.details.product_tflops == (700.0, 700.0, 700.0, 600.0)
    assert found.correctness.passed


def test_one_wrong_sum_fails_the_all_reduce() -> None:
    found = all_reduce.summary(2, (2**20, 2**21), [answer(0.01), answer(0.01, right=False)])
    assert not found.correctness.passed


def test_peers_are_compared_on_the_same_work() -> None:
    class Products(FakeBench):
        def matmul(self, kind: str, sizes: Sizes) -> Iterator[Work]:
            assert kind == "bf16"
            yield Work("big", "TFLOP/s", 1e10, self.call, right)

    def do_bench(call: Callable[[], object], *, warmup: int, rep: int, return_mode: str) -> float:
        assert return_mode == "median"
        call()
        return 1.25  # milliseconds

    (found,) = peers.compare(Products(cost_s=0.001), cpu_sizes(), "bf16", do_bench)
    assert found["do_bench"] == pytest.approx(8.0)
    assert found["kit"] == pytest.approx(10.0)
    assert found["ratio"] == pytest.approx(1.25)


@pytest.mark.parametrize(("gib", "images", "sequences"), [(140, 64, 4), (7.4, 64, 2), (5.5, 32, 1), (3.0, 16, 1)])
def test_training_steps_shrink_with_the_card(gib: float, images: int, sequences: int) -> None:
    sizes = gpu_sizes(int(gib * 2**30), 2**20)
    assert (sizes.resnet[0], sizes.transformer[0]) == (images, sequences)
