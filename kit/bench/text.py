"""A result as lines of text: a table, then what to make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.bench.results import Result

HEADER = ("test", "result", "spread", "of peak", "at its clock", "verdict")


def rows(result: Result) -> list[tuple[str, ...]]:
    """One row per test, in the order of HEADER."""
    throughput = {v.test: v for v in result.verdicts if v.gate == "throughput"}
    wrong = {v.test: v for v in result.verdicts if v.gate == "correctness" and v.outcome == "FAIL"}
    found: list[tuple[str, ...]] = []
    for test in result.tests:
        verdict = wrong.get(test.name) or throughput.get(test.name)
        outcome = verdict.outcome if verdict else "NOT_APPLICABLE"
        if not test.is_measured:
            found.append((test.name, test.outcome.replace("_", " "), "", "", "", outcome))
            continue
        found.append(
            (
                test.name,
                f"{test.value:.4g} {test.unit}",
                "" if test.jitter_percent is None else f"{test.jitter_percent:.1f} %",
                _percent(verdict.peak_fraction if verdict else None),
                _percent(verdict.clock_efficiency if verdict else None),
                outcome,
            )
        )
    return found


def notes(result: Result) -> list[str]:
    """What the verdicts say beyond their outcome, the summary last."""
    found = []
    for verdict in result.verdicts:
        is_rated = verdict.gate == "throughput" and verdict.reference is not None
        if verdict.outcome in ("FAIL", "WARN", "INCONCLUSIVE") or is_rated:
            found.append(f"{verdict.outcome} {verdict.gate}, {verdict.test}: {verdict.text}")
    # One line for all tests that did not run for the same reason.
    reasons: dict[str, list[str]] = {}
    for test in result.tests:
        if test.outcome == "not_run":
            reasons.setdefault(test.reason, []).append(test.name)
    found += [f"not run: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return [*found, f"{result.summary.outcome}: {result.summary.text}"]


def title(result: Result) -> str:
    """What was measured with what."""
    framework, device = result.framework, result.device
    where = result.image.name if result.image else "container" if result.host.is_container else "no container"
    return f"{device.name or device.kind}, {framework.name} {framework.version}, {where}"


def lines(result: Result) -> list[str]:
    """Everything for a terminal."""
    table = [HEADER, *rows(result)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADER))]
    printed = ["  ".join(cell.ljust(widths[column]) for column, cell in enumerate(row)).rstrip() for row in table]
    return [title(result), "", *printed, "", *notes(result)]


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{fraction:.0%}"
