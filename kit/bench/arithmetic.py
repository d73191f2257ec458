"""The arithmetic of a benchmark: operations and bytes of each piece of work, spreads, peaks. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Scale of each unit a result can have; times are the other way round, smaller is better.
UNITS = {"TFLOP/s": 1e12, "GB/s": 1e9, "images/s": 1.0, "tokens/s": 1.0}
TIME_UNIT = "us"
# GB/s of one PCIe lane in one direction, after the line code: transfers per second x (8b/10b until generation 2,
# 128b/130b from 3 on) / 8. Generation 6 has no line code, but a fixed-size unit with 242 of 256 bytes for data.
PCIE_LANE_GBS = {
    1: 2.5 * 8 / 10 / 8,
    2: 5.0 * 8 / 10 / 8,
    3: 8.0 * 128 / 130 / 8,
    4: 16.0 * 128 / 130 / 8,
    5: 32.0 * 128 / 130 / 8,
    6: 64.0 * 242 / 256 / 8,
}
# Of a normal distribution, median absolute deviation x this is the standard deviation.
MAD_TO_SIGMA = 1.4826


def matmul_flops(m: int, n: int, k: int) -> int:
    """Operations of a matrix product: one multiplication and one addition per term."""
    return 2 * m * n * k


def copy_bytes(size: int) -> int:
    """Bytes a copy moves: each is read and written."""
    return 2 * size


def triad_bytes(size: int) -> int:
    """Bytes of a = b + s * c for arrays of `size` bytes: two are read, one is written."""
    return 3 * size


def conv_flops(batch: int, channels: int, size: int, kernel: int) -> int:
    """Operations of a convolution forward and backward, `channels` in and out, same size out.

    The backward pass has two products of the forward one's size: for the input, and for the weights.
    """
    return 3 * 2 * batch * size * size * channels * channels * kernel * kernel


def transformer_flops_per_token(layers: int, width: int, context: int, vocabulary: int) -> int:
    """Model FLOPs of one training step per token: 6 per weight in a matrix product, 12 x layers x width x context for
    attention (arXiv 2204.02311, appendix B), the embedding look-up not counted, the output layer counted.
    """
    weights = layers * 12 * width * width + width * vocabulary
    return 6 * weights + 12 * layers * width * context


def bus_bandwidth(size: int, seconds: float, ranks: int) -> float:
    """Bytes per second on the wire of an all-reduce of `size` bytes, as nccl-tests counts it.

    Above the wire's own speed where the switch reduces (NVLS): never an error.
    """
    return size / seconds * 2 * (ranks - 1) / ranks


def pcie_gbs(generation: int, lanes: int) -> float | None:
    """What a PCIe link can carry in one direction; None for a generation nobody has told us of."""
    lane = PCIE_LANE_GBS.get(generation)
    return None if lane is None else lane * lanes


def peak_tflops(sm_count: int, fma_per_sm_clock: float, clock_mhz: float) -> float:
    """What the silicon can do at a clock: a fused multiply-add is two operations."""
    return sm_count * fma_per_sm_clock * 2 * clock_mhz * 1e6 / 1e12


def rotating_sets(bytes_per_set: int, cache_bytes: int, limit_bytes: int) -> int:
    """How many sets of buffers to take in turn, so that none is still in the cache when its turn comes again.

    At least two caches' worth beside the set in use, at most what fits into `limit_bytes`, at least one.
    """
    wanted = 1 + math.ceil(2 * cache_bytes / bytes_per_set)
    return max(1, min(wanted, limit_bytes // bytes_per_set))


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value below which a fraction lies, interpolated between neighbours."""
    ordered = sorted(values)
    place = fraction * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True)
class Spread:
    """The middle of some samples and how far they scatter; the largest is never a headline."""

    median: float
    p20: float
    p80: float
    jitter_percent: float  # 1.4826 x median absolute deviation, of the median
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Median, 20th and 80th percentile and jitter of at least one sample."""
    middle = percentile(values, 0.5)
    deviation = percentile([abs(value - middle) for value in values], 0.5)
    return Spread(
        median=middle,
        p20=percentile(values, 0.2),
        p80=percentile(values, 0.8),
        jitter_percent=100 * MAD_TO_SIGMA * deviation / middle if middle else 0.0,
        n=len(values),
    )


def rate(work: float, seconds: float, unit: str) -> float:
    """A rate in its unit, or for the time unit the microseconds of one piece of work."""
    return seconds / work * 1e6 if unit == TIME_UNIT else work / seconds / UNITS[unit]


def is_better(value: float, than: float, unit: str) -> bool:
    """Whether one value beats another: a shorter time, a higher rate."""
    return value < than if unit == TIME_UNIT else value > than


def relative_error(difference_squared: float, reference_squared: float) -> float:
    """Relative Frobenius error from the sums of squares; infinite when the reference is zero or anything is NaN."""
    if not reference_squared > 0 or math.isnan(difference_squared):
        return math.inf
    return math.sqrt(difference_squared / reference_squared)
