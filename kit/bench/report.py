"""Saved results as one HTML page with its plots in it: nothing is fetched, nothing is run. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from kit.bench import text

WIDTH, LABELS, BAR, GAP = 860, 190, 18, 8
PLOT_HEIGHT, MARGIN = 150, 46
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #667; --paper: #fff; --line: #d5d9df; --bar: #3b6fb6;
  --mark: #b3541e; --good: #1a7f37; --bad: #b3261e; --warn: #9a6700; --band: #00000010; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --dim: #9aa4b2; --paper: #14171c; --line: #333a44;
  --bar: #6c9fe0; --mark: #e59b5f; --good: #4ac26b; --bad: #ff8a80; --warn: #e3b341; --band: #ffffff14; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 900px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin-bottom: .3rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .dim { fill: var(--dim); } .axis { stroke: var(--line); } .bar { fill: var(--bar); } .band { fill: var(--band); }
.mark { stroke: var(--mark); stroke-width: 2; } .curve { fill: none; stroke: var(--bar); stroke-width: 1.5; }
.PASS { color: var(--good); } .FAIL { color: var(--bad); } .WARN, .INCONCLUSIVE { color: var(--warn); }
.UNRATED, .NOT_APPLICABLE, .dim { color: var(--dim); }
"""


def page(results: Sequence[dict[str, Any]]) -> str:
    """The whole page: for each result its verdict, bars against the peak, the GPU over time, and a table."""
    sections = "\n".join(_section(result) for result in results)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Not even by mistake: no script, no address outside the page.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>kit bench</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>kit bench</h1>\n{sections}\n"
        "</body>\n</html>\n"
    )


def _section(result: dict[str, Any]) -> str:
    summary = result["summary"]
    parts = [
        f"<section>\n<h2>{escape(text.title(result))}</h2>",
        f'<p><strong class="{summary["outcome"]}">{summary["outcome"]}</strong> {escape(summary["text"])}<br>'
        f'<span class="dim">{escape(_facts(result))}</span></p>',
    ]
    bars = peak_bars(result)
    if bars:
        parts += ["<h3>Of the GPU's peak</h3>", bar_plot(bars)]
    for field, title, unit in (
        ("sm_mhz", "SM clock", "MHz"),
        ("power_w", "Power", "W"),
        ("temperature_c", "Temperature", "°C"),
    ):
        points = [(s["at_s"], s[field]) for s in result["telemetry"] if field in s]
        if len(points) > 1:
            parts += [f"<h3>{title}</h3>", line_plot(points, unit, _spans(result))]
    for test in result["tests"]:
        if test["name"] == "soak" and test["outcome"] == "measured" and len(test.get("windows", ())) > 1:
            points = [(window["at_s"], window["value"]) for window in test["windows"]]
            parts += ["<h3>Sustained</h3>", line_plot(points, test["unit"], [])]
    parts += ["<h3>All tests</h3>", _table(text.HEADER, text.rows(result), last_is_outcome=True)]
    notes = text.notes(result)[:-1]
    if notes:
        parts.append("<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>")
    return "\n".join((*parts, "</section>"))


def _facts(result: dict[str, Any]) -> str:
    device, framework, host = result["device"], result["framework"], result["host"]
    found = [result["started"], f"{result['seconds']:g} s"]
    if device.get("compute_capability"):
        found.append(f"compute capability {device['compute_capability']}, {device.get('sm_count', '?')} SMs")
    if device.get("driver"):
        found.append(f"driver {device['driver']}")
    if framework.get("cuda"):
        found.append(f"CUDA {framework['cuda']}, cuDNN {framework.get('cudnn') or '?'}")
    if device.get("power_limit_w"):
        found.append(f"{device['power_limit_w']:g} W")
    if result["peak_memory_bytes"]:
        found.append(f"at most {result['peak_memory_bytes'] / 2**30:.1f} GiB of the GPU")
    found.append(f"{host.get('cpus', '?')} CPUs")
    return " · ".join(found)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: a part of the peak, its label, and where the reference lies."""

    label: str
    fraction: float
    caption: str
    reference: float | None = None


def peak_bars(result: dict[str, Any]) -> list[Bar]:
    """A bar for each test whose peak is known."""
    tests = {test["name"]: test for test in result["tests"]}
    found = []
    for verdict in result["verdicts"]:
        test = tests.get(verdict["test"])
        if verdict["gate"] != "throughput" or not test or not verdict.get("peak"):
            continue
        peak, reference = verdict["peak"], verdict.get("reference")
        found.append(
            Bar(
                label=test["name"],
                fraction=test["value"] / peak,
                caption=f"{test['value']:.4g} of {peak:g} {test['unit']}, {test['value'] / peak:.0%}",
                reference=reference / peak if reference else None,
            )
        )
    return found


def bar_plot(bars: Sequence[Bar]) -> str:
    """Horizontal bars on an axis that reaches to the peak, or to the longest bar beyond it; a mark for references."""
    longest = max(1.0, *(bar.fraction for bar in bars), *(bar.reference or 0 for bar in bars))
    scale = (WIDTH - LABELS - 190) / longest
    height = len(bars) * (BAR + GAP) + 24
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Results as a part of the peak">']
    for index, bar in enumerate(bars):
        top = index * (BAR + GAP)
        width = bar.fraction * scale
        parts += [
            f'<text x="{LABELS - 8}" y="{top + 13}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="bar" x="{LABELS}" y="{top}" width="{width:.1f}" height="{BAR}"/>',
            f'<text class="dim" x="{LABELS + longest * scale + 8:.1f}" y="{top + 13}">{escape(bar.caption)}</text>',
        ]
        if bar.reference:
            x = LABELS + bar.reference * scale
            parts.append(
                f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 2}" y2="{top + BAR + 2}">'
                "<title>measured reference</title></line>"
            )
    bottom, peak = height - 20, LABELS + scale
    parts += [
        f'<line class="axis" x1="{peak:.1f}" x2="{peak:.1f}" y1="0" y2="{bottom}"/>',
        f'<text class="dim" x="{peak:.1f}" y="{bottom + 15}" text-anchor="middle">peak</text>',
    ]
    return "\n".join((*parts, "</svg>"))


def line_plot(points: Sequence[tuple[float, float]], unit: str, spans: Sequence[tuple[str, float, float]]) -> str:
    """Values over seconds from zero up, the time of each test shaded."""
    start, end = points[0][0], max(points[-1][0], points[0][0] + 1e-9)
    top = round_up(max(value for _, value in points))

    def x(at_s: float) -> float:
        return MARGIN + (at_s - start) / (end - start) * (WIDTH - MARGIN - 4)

    def y(value: float) -> float:
        return PLOT_HEIGHT * (1 - value / top)

    parts = [f'<svg viewBox="0 0 {WIDTH} {PLOT_HEIGHT + 22}" role="img" aria-label="{escape(unit)} over time">']
    for index, (name, first, last) in enumerate(spans):
        left, right = x(max(first, start)), x(min(last, end))
        if index % 2 == 0 and right > left:
            parts.append(
                f'<rect class="band" x="{left:.1f}" y="0" width="{right - left:.1f}" height="{PLOT_HEIGHT}">'
                f"<title>{escape(name)}</title></rect>"
            )
    for value in (0.0, top / 2, top):
        parts += [
            f'<line class="axis" x1="{MARGIN}" x2="{WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>',
            f'<text class="dim" x="{MARGIN - 6}" y="{min(max(y(value) + 4, 11), PLOT_HEIGHT):.1f}" '
            f'text-anchor="end">{value:.4g}</text>',
        ]
    curve = " ".join(f"{x(at_s):.1f},{y(value):.1f}" for at_s, value in points)
    parts += [
        f'<polyline class="curve" points="{curve}"/>',
        f'<text class="dim" x="{WIDTH}" y="{PLOT_HEIGHT + 16}" text-anchor="end">{end - start:.0f} s</text>',
        f'<text class="dim" x="{MARGIN}" y="{PLOT_HEIGHT + 16}">{escape(unit)}</text>',
    ]
    return "\n".join((*parts, "</svg>"))


def round_up(value: float) -> float:
    """The next round number, for the end of an axis."""
    step = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(part * step for part in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if part * step >= value)


def _spans(result: dict[str, Any]) -> list[tuple[str, float, float]]:
    return [(t["name"], t["start_s"], t["end_s"]) for t in result["tests"] if "start_s" in t and "end_s" in t]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, last_is_outcome: bool) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = ""
    for row in rows:
        *cells, last = row
        kind = f' class="{escape(last)}"' if last_is_outcome else ""
        body += "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + f"<td{kind}>{escape(last)}</td></tr>\n"
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"
