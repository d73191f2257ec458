"""Saved results as one HTML page with its plots in it: nothing is fetched, nothing is run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kit.bench import text
from kit.bench.results import Result
from kit.templates import environment


def page(results: Sequence[Result]) -> str:
    """The whole page: for each result its verdict, bars against the peak, the GPU over time, and a table."""
    template = environment().get_template("bench-report.html.j2")
    return template.render(results=results, text=text, facts=_facts, peak_bars=peak_bars, line_plots=_line_plots)


def _facts(result: Result) -> list[str]:
    device, framework = result.device, result.framework
    found = [result.started, f"{result.seconds:g} s"]
    if device.compute_capability:
        sm_count = "?" if device.sm_count is None else device.sm_count
        found.append(f"compute capability {device.compute_capability}, {sm_count} SMs")
    if device.driver:
        found.append(f"driver {device.driver}")
    if framework.cuda:
        found.append(f"CUDA {framework.cuda}, cuDNN {framework.cudnn or '?'}")
    if device.power_limit_w:
        found.append(f"{device.power_limit_w:g} W")
    if result.peak_memory_bytes:
        found.append(f"at most {result.peak_memory_bytes / 2**30:.1f} GiB of the GPU")
    return [*found, f"{result.host.cpus} CPUs"]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: a part of the peak, its label, and where the reference lies."""

    label: str
    fraction: float
    caption: str
    reference: float | None = None


def peak_bars(result: Result) -> list[Bar]:
    """A bar for each test whose peak is known."""
    tests = {test.name: test for test in result.tests}
    return [
        Bar(
            label=test.name,
            fraction=test.value / verdict.peak,
            caption=f"{test.value:.4g} of {verdict.peak:g} {test.unit}, {test.value / verdict.peak:.0%}",
            reference=verdict.reference / verdict.peak if verdict.reference else None,
        )
        for verdict in result.verdicts
        if verdict.gate == "throughput" and verdict.peak and (test := tests.get(verdict.test))
    ]


@dataclass(frozen=True, kw_only=True)
class LinePlot:
    """Values over seconds, and the time of every other test."""

    title: str
    unit: str
    points: Sequence[tuple[float, float]]
    shaded: Sequence[tuple[str, float, float]] = ()  # test, from, to

    @property
    def start(self) -> float:
        return self.points[0][0]

    @property
    def seconds(self) -> float:
        return max(self.points[-1][0] - self.start, 1e-9)

    @property
    def top(self) -> float:
        return round_up(max(value for _, value in self.points))


def _line_plots(result: Result) -> list[LinePlot]:
    found = []
    spans = [(t.name, t.start_s, t.end_s) for t in result.tests if t.start_s is not None and t.end_s is not None]
    for field, title, unit in (
        ("sm_mhz", "SM clock", "MHz"),
        ("power_w", "Power", "W"),
        ("temperature_c", "Temperature", "°C"),
    ):
        points = [(s.at_s, getattr(s, field)) for s in result.telemetry if getattr(s, field) is not None]
        if len(points) > 1:
            start, end = points[0][0], points[-1][0]
            shaded = [(name, max(first, start), min(last, end)) for name, first, last in spans[::2]]
            shaded = [span for span in shaded if span[1] < span[2]]
            found.append(LinePlot(title=title, unit=unit, points=points, shaded=shaded))
    for test in result.tests:
        if test.windows and len(test.windows) > 1:
            points = [(window.at_s, window.value) for window in test.windows]
            found.append(LinePlot(title="Sustained", unit=test.unit, points=points))
    return found


def round_up(value: float) -> float:
    """The next round number, for the end of an axis."""
    step = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(part * step for part in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if part * step >= value)
