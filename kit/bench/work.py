"""What a framework gives the suite to measure: pieces of work, each with its own check; and how large they are."""

from __future__ import annotations

import abc
import gc
import importlib
import math
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from kit.bench.results import Correctness, Details

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.bench.results import Framework

    Call = Callable[[int], object]
    Before = Callable[[], object] | None

GIB = 2**30
MIB = 2**20
# A laptop GPU of 8 GB must do, and what draws the screen needs some of it.
MEMORY_LIMIT = 7 * GIB
MEMORY_PART = 0.75

# Relative Frobenius error that a right result stays under. fp32 and half precision: rounding of inputs and of the sum;
# fp8: the inputs are rounded before the reference is taken.
ERROR_LIMITS = {"fp32_ieee": 1e-5, "tf32": 2e-3, "fp16": 2e-2, "bf16": 2e-2, "fp8": 1e-1}
SEED = 20261121
# Rows and columns of a product that are compared with float64.
CHECKED = 64
# Steps on the same data, beside those that were timed, after which the loss must be lower than the first one.
LEARNING_STEPS = 6


class NotRunError(Exception):
    """A test that this device or framework cannot do; the message says why."""


def check(measure: str, error: float, limit: float = 0.0, *, is_repeatable: bool = True) -> Correctness:
    """Whether a result is right: near enough to what it should be, and the same when the same input comes twice."""
    is_right = is_repeatable and math.isfinite(error) and error <= limit
    # JSON has no infinity: no error at all is known of what is not a number.
    return Correctness(measure, error if error < math.inf else None, limit, is_repeatable, is_right)


def check_copy(is_same: bool) -> Correctness:
    """Whether a copy is right."""
    return check("the copy equals the original", 0.0 if is_same else math.inf)


@dataclass(frozen=True)
class Work:
    """One piece of work, ready to run: its buffers are on the device."""

    variant: str
    unit: str
    amount: int  # operations, bytes, images, tokens or launches of one call
    call: Call
    check: Callable[[], Correctness]
    before: Before = None
    calls: int = 0  # in a sample; 0: as many as make it long enough
    details: Details = field(default_factory=Details)


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


class Bench(abc.ABC):
    """A framework on a device, as the suite sees it. Its tests give their variants one after another; the last one's
    buffers are freed in between. Each raises NotRunError where the device or framework cannot do it."""

    sample_s: float  # a sample this long makes the cost of taking it negligible
    # What each framework does in its own way: a product in the layout `nn`, or `nt` where B is transposed; copies and
    # sums within the device; 3x3 forward and backward, with or without AMP; training steps.
    product: Callable[[str, int, int, int, str, Sizes], Work]
    memory_copy: Callable[[Sizes], Iterator[Work]]
    memory_triad: Callable[[Sizes], Iterator[Work]]
    convolution: Callable[..., Iterator[Work]]
    resnet_step: Callable[[Sizes], Iterator[Work]]
    transformer_step: Callable[[Sizes], Iterator[Work]]

    def __init__(self, module: str, kind: str, capability: tuple[int, ...]) -> None:
        """Imports the framework; raises ImportError."""
        self.library: Any = importlib.import_module(module)
        self.kind, self.capability = kind, capability
        self.is_gpu = kind == "cuda"
        self._last: Any = None

    def now(self) -> float:
        """Seconds of the host's clock."""
        return time.perf_counter()

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""

    def timed(self, call: Call, samples: int, calls: int, before: Before) -> list[float]:
        """Seconds per call of each sample of `calls` calls; `before` runs ahead of each sample, outside the time."""
        found = []
        for sample in range(samples):
            if before:
                before()
            self.synchronize()
            start = time.perf_counter()
            for number in range(calls):
                self._last = call(sample * calls + number)
            self.synchronize()
            found.append((time.perf_counter() - start) / calls)
        return found

    def release(self) -> None:
        """Give freed memory back."""
        self._last = None
        gc.collect()

    @abc.abstractmethod
    def peak_memory_bytes(self) -> int | None:
        """The most memory of the device that was in use at once; None where nobody counts."""

    @abc.abstractmethod
    def facts(self) -> Framework:
        """What the framework says of itself."""

    def tests(self) -> dict[str, Callable[[Sizes], Iterator[Work]]]:
        """The tests that every framework has."""
        return {
            **{f"matmul_{kind}": partial(self.matmul, kind) for kind in ERROR_LIMITS},
            "memory_copy": self.memory_copy,
            "memory_triad": self.memory_triad,
            "conv_fp32": partial(self.convolution, with_amp=False),
            "conv_amp": partial(self.convolution, with_amp=True),
            "resnet50_step": self.resnet_step,
            "transformer_step": self.transformer_step,
        }

    def require(self, capability: tuple[int, int], what: str) -> None:
        """Raise NotRunError on an older GPU, or on the CPU."""
        if not self.is_gpu:
            raise NotRunError(f"{what} is a matter of the GPU")
        if self.capability < capability:
            needed, this = (".".join(map(str, numbers)) for numbers in (capability, self.capability))
            raise NotRunError(f"{what} exists from compute capability {needed} on, this is {this}")

    @abc.abstractmethod
    def set_tf32(self, allowed: bool) -> None:
        """Whether fp32 products and convolutions may round their inputs to TF32: set both ways, never left alone."""

    def half(self) -> Any:
        """The 16-bit type to compute in: bfloat16 where the GPU computes in it."""
        return self.library.bfloat16 if not self.is_gpu or self.capability >= (8, 0) else self.library.float16

    def matmul(self, kind: str, sizes: Sizes) -> Iterator[Work]:
        """A x B per shape, B in both memory layouts, since the library's kernels differ by layout."""
        # On the CPU bf16 only tests the code; tf32 and fp8 it does not have.
        if kind in ("tf32", "fp8") or (kind == "bf16" and self.is_gpu):
            self.require((8, 9) if kind == "fp8" else (8, 0), kind)
        self.set_tf32(kind == "tf32")
        layouts = ("nt",) if kind == "fp8" else ("nn", "nt")
        for m, n, k in sizes.matmul:
            for layout in layouts:
                yield self.product(kind, m, n, k, layout, sizes)


def learning(step: Callable[[int], Any]) -> tuple[Call, Callable[[], Correctness]]:
    """A training step that keeps its first loss, and the check that the last one is finite and lower than that.

    The data is the same in every step, so a network that learns at all gets better at it.
    """
    losses: list[float] = []

    def call(number: int) -> object:
        loss = step(number)
        if not losses:
            losses.append(float(loss))
        return loss

    def check_loss() -> Correctness:
        for number in range(LEARNING_STEPS):
            last = float(call(number))  # type: ignore[arg-type]
        falls = math.isfinite(losses[0]) and math.isfinite(last) and last < losses[0]
        return check("the loss is finite and falls on data seen again", 0.0 if falls else math.inf)

    return call, check_loss
