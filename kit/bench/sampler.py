"""Clocks, heat, power and throttling, sampled while the tests run; and what they say of one stretch of time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S = 0.2
# NVML's clocks are coarse; a sample taken while the GPU rests says nothing of the loop.
BUSY_PERCENT = 90


class Sampler:
    """Samples a GPU from another thread between `start` and `stop`; without one it stays empty."""

    def __init__(
        self, read: Callable[[], dict[str, Any]] | None, *, interval_s: float = INTERVAL_S, start_s: float | None = None
    ) -> None:
        self.samples: list[dict[str, Any]] = []
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
            self.samples.append({"at_s": round(time.monotonic() - self._start_s, 3), **self._read()})
            self._is_over.wait(self._interval_s)


def during(samples: list[dict[str, Any]], start_s: float, end_s: float) -> dict[str, Any]:
    """Mean SM clock, highest temperature, mean power and every slow-down reason between two moments.

    Empty when no sample was taken while the GPU was busy. Where utilisation is not told (MIG) every sample counts.
    """
    chosen = [
        sample
        for sample in samples
        if start_s <= sample["at_s"] <= end_s and sample.get("utilisation_percent", 100) >= BUSY_PERCENT
    ]
    if not chosen:
        return {}
    found: dict[str, Any] = {"samples": len(chosen)}
    for name, result, digits in (("sm_mhz", "sm_mhz", 0), ("power_w", "power_w", 1)):
        values = [sample[name] for sample in chosen if name in sample]
        if values:
            found[result] = round(sum(values) / len(values), digits)
    for name in ("temperature_c", "pcie_generation", "pcie_lanes"):
        values = [sample[name] for sample in chosen if name in sample]
        if values:
            found[name] = max(values)
    found["slow_reasons"] = sorted({reason for sample in chosen for reason in sample.get("slow_reasons", ())})
    return found
