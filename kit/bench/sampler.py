"""Clocks, heat, power and throttling, sampled while the tests run; and what they say of one stretch of time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kit.bench.results import Sample

INTERVAL_S = 0.2
# NVML's clocks are coarse; a sample taken while the GPU rests says nothing of the loop.
BUSY_PERCENT = 90


class Sampler:
    """Samples a GPU from another thread between `start` and `stop`; without one it stays empty."""

    def __init__(
        self, read: Callable[[float], Sample] | None, *, interval_s: float = INTERVAL_S, start_s: float | None = None
    ) -> None:
        self.samples: list[Sample] = []
        self._read, self._interval_s = read, interval_s
        self._start_s = time.monotonic() if start_s is None else start_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        if self._read:
            self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        assert self._read is not None
        while not self._is_over.is_set():
            self.samples.append(self._read(round(time.monotonic() - self._start_s, 3)))
            self._is_over.wait(self._interval_s)


@dataclass(frozen=True)
class Stretch:
    """A stretch of time: mean SM clock and power, the highest of the rest, and every slow-down reason."""

    samples: int = 0
    sm_mhz: float | None = None
    power_w: float | None = None
    temperature_c: int | None = None
    pcie_generation: int | None = None
    pcie_lanes: int | None = None
    slow_reasons: tuple[str, ...] = ()


def during(samples: Sequence[Sample], start_s: float | None, end_s: float | None) -> Stretch:
    """What the samples between two moments say.

    Empty when none was taken while the GPU was busy. Where utilisation is not told (MIG) every sample counts.
    """
    chosen = [
        sample
        for sample in samples
        if (start_s or 0.0) <= sample.at_s <= (end_s or 0.0)
        and (sample.utilisation_percent is None or sample.utilisation_percent >= BUSY_PERCENT)
    ]

    def known(name: str) -> list[Any]:
        return [value for sample in chosen if (value := getattr(sample, name)) is not None]

    def mean(name: str, digits: int) -> float | None:
        values = known(name)
        return round(sum(values) / len(values), digits) if values else None

    return Stretch(
        samples=len(chosen),
        sm_mhz=mean("sm_mhz", 0),
        power_w=mean("power_w", 1),
        temperature_c=max(known("temperature_c"), default=None),
        pcie_generation=max(known("pcie_generation"), default=None),
        pcie_lanes=max(known("pcie_lanes"), default=None),
        slow_reasons=tuple(sorted({reason for sample in chosen for reason in sample.slow_reasons or ()})),
    )
