"""What a framework gives the suite to measure: pieces of work, each with its own check; and how large they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from kit.bench.timing import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.bench.timing import Before, Call

GIB = 2**30
MIB = 2**20
# A laptop GPU of 8 GB must do, and what draws the screen needs some of it.
MEMORY_LIMIT = 7 * GIB
MEMORY_PART = 0.75

# Relative Frobenius error that a right result stays under. fp32 and half precision: rounding of inputs and of the sum;
# fp8: the inputs are rounded before the reference is taken.
ERROR_LIMITS = {"fp32_ieee": 1e-5, "tf32": 2e-3, "fp16": 2e-2, "bf16": 2e-2, "fp8": 1e-1}
# Steps on the same data, beside those that were timed, after which the loss must be lower than the first one.
LEARNING_STEPS = 6


class NotRunError(Exception):
    """A test that this device or framework cannot do; the message says why."""


@dataclass(frozen=True)
class Check:
    """Whether a result is right."""

    measure: str  # what was compared
    error: float
    limit: float
    is_repeatable: bool = True  # the same input twice gave the same result

    @property
    def is_passed(self) -> bool:
        return self.is_repeatable and math.isfinite(self.error) and self.error <= self.limit


@dataclass(frozen=True)
class Work:
    """One piece of work, ready to run: its buffers are on the device."""

    variant: str
    unit: str
    amount: float  # operations, bytes, images, tokens or launches of one call
    call: Call
    check: Callable[[], Check]
    before: Before = None
    calls: int = 0  # in a sample; 0: as many as make it long enough
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """How large the work is."""

    matmul: tuple[tuple[int, int, int], ...]
    copy_bytes: int
    host_bytes: int
    launches: int
    conv: tuple[int, int, int]  # batch, channels, height and width
    resnet: tuple[int, int, int, tuple[int, ...]]  # batch, image, width, blocks in each of the four stages
    transformer: tuple[int, int, int, int, int, int]  # batch, context, layers, width, heads, vocabulary
    all_reduce_bytes: tuple[int, ...]
    memory_bytes: int  # what all buffers of one test may take together
    cache_bytes: int  # of the device's last-level cache
    budget_part: float = 1.0  # of each test's seconds


RESNET_50 = (3, 4, 6, 3)
GPT_2_SMALL = (1024, 12, 768, 12, 50257)


def gpu_sizes(free_bytes: int, cache_bytes: int, shapes: tuple[tuple[int, int, int], ...] = ()) -> Sizes:
    """Sizes that fill a GPU and fit into its free memory, at most 7 GiB at a time."""
    memory = min(MEMORY_LIMIT, int(free_bytes * MEMORY_PART))
    small, large = (4096, 4096, 4096), (8192, 8192, 8192)
    # Estimates of what a step takes: 55 MiB for each image; for each sequence 1 GiB, and 2.5 GiB for the weights with
    # their gradients and the optimizer's two copies.
    batch = 64 if memory >= 5 * GIB else 32 if memory >= 3 * GIB else 16
    sequences = 4 if memory >= 6.8 * GIB else 2 if memory >= 4.8 * GIB else 1
    return Sizes(
        matmul=shapes or ((small, large) if memory >= 2 * GIB else (small,)),
        copy_bytes=min(max(GIB, 8 * cache_bytes), memory // 4) // MIB * MIB,
        host_bytes=256 * MIB,
        launches=1000,
        conv=(batch, 256, 56),
        resnet=(batch, 224, 64, RESNET_50),
        transformer=(sequences, *GPT_2_SMALL),
        all_reduce_bytes=(MIB, 64 * MIB, 512 * MIB),
        memory_bytes=memory,
        cache_bytes=cache_bytes,
    )


def cpu_sizes(shapes: tuple[tuple[int, int, int], ...] = ()) -> Sizes:
    """Sizes at which the same code runs in seconds on two cores. Nothing is learnt of speed."""
    return Sizes(
        matmul=shapes or ((256, 256, 256),),
        copy_bytes=16 * MIB,
        host_bytes=8 * MIB,
        launches=200,
        conv=(2, 16, 16),
        resnet=(2, 32, 8, (1, 1, 1, 1)),
        transformer=(2, 64, 2, 64, 4, 512),
        all_reduce_bytes=(MIB,),
        memory_bytes=GIB,
        cache_bytes=0,
        budget_part=0.1,
    )


def parse_shapes(text: str) -> tuple[tuple[int, int, int], ...]:
    """`4096x4096x8192,…` as M, N and K of matrix products. Raises ValueError."""
    shapes = []
    for part in filter(None, text.split(",")):
        numbers = tuple(int(number) for number in part.lower().split("x"))
        if len(numbers) != 3 or min(numbers) < 16 or any(number % 16 for number in numbers):
            raise ValueError(f"'{part}' is not MxNxK in multiples of 16")
        shapes.append(numbers)
    return tuple(shapes)


class Bench(Clock, Protocol):
    """A framework on a device, as the suite sees it."""

    def facts(self) -> dict[str, Any]:
        """Versions, what is compiled in, and the switches that change numbers."""

    def tests(self) -> dict[str, Callable[[Sizes], Iterator[Work]]]:
        """The tests it has. Each gives its variants one after another; the last one's buffers are freed in between.

        Raises NotRunError.
        """

    def release(self) -> None:
        """Give freed memory back."""

    def peak_memory_bytes(self) -> int | None:
        """The most memory of the device that was in use at once; None where nobody counts."""


def learning(step: Callable[[int], Any]) -> tuple[Call, Callable[[], Check]]:
    """A training step that keeps its first loss, and the check that the last one is finite and lower than that.

    The data is the same in every step, so a network that learns at all gets better at it.
    """
    losses: list[float] = []

    def call(number: int) -> object:
        loss = step(number)
        if not losses:
            losses.append(float(loss))
        return loss

    def check() -> Check:
        for number in range(LEARNING_STEPS):
            last = float(call(number))  # type: ignore[arg-type]
        falls = math.isfinite(losses[0]) and math.isfinite(last) and last < losses[0]
        return Check("the loss is finite and falls on data seen again", 0.0 if falls else math.inf, 0.0)

    return call, check
