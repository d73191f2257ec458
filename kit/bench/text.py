"""A result as lines of text: a table, then what to make of it."""

from __future__ import annotations

from typing import Any

HEADER = ("test", "result", "spread", "of peak", "at its clock", "verdict")


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per test, in the order of HEADER."""
    throughput = {v["test"]: v for v in result["verdicts"] if v["gate"] == "throughput"}
    wrong = {v["test"]: v for v in result["verdicts"] if v["gate"] == "correctness" and v["outcome"] == "FAIL"}
    found: list[tuple[str, ...]] = []
    for test in result["tests"]:
        name = test["name"]
        verdict = wrong.get(name) or throughput.get(name, {"outcome": "NOT_APPLICABLE"})
        if test["outcome"] != "measured":
            found.append((name, test["outcome"].replace("_", " "), "", "", "", verdict["outcome"]))
            continue
        found.append(
            (
                name,
                f"{test['value']:.4g} {test['unit']}",
                f"{test['jitter_percent']:.1f} %" if "jitter_percent" in test else "",
                _percent(verdict.get("peak_fraction")),
                _percent(verdict.get("clock_efficiency")),
                verdict["outcome"],
            )
        )
    return found


def notes(result: dict[str, Any]) -> list[str]:
    """What the verdicts say beyond their outcome, the summary last."""
    found = []
    for verdict in result["verdicts"]:
        is_rated = verdict["gate"] == "throughput" and "reference" in verdict
        if verdict["outcome"] in ("FAIL", "WARN", "INCONCLUSIVE") or is_rated:
            found.append(f"{verdict['outcome']} {verdict['gate']}, {verdict['test']}: {verdict['text']}")
    # One line for all tests that did not run for the same reason.
    reasons: dict[str, list[str]] = {}
    for test in result["tests"]:
        if test["outcome"] == "not_run":
            reasons.setdefault(test["reason"], []).append(test["name"])
    found += [f"not run: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return [*found, f"{result['summary']['outcome']}: {result['summary']['text']}"]


def title(result: dict[str, Any]) -> str:
    """What was measured with what."""
    framework, device = result["framework"], result["device"]
    image = (
        result["image"]["name"] if result.get("image") else "no container" if not _is_inside(result) else "container"
    )
    return f"{device.get('name', device['kind'])}, {framework['name']} {framework['version']}, {image}"


def _is_inside(result: dict[str, Any]) -> bool:
    return bool(result["host"].get("is_container"))


def lines(result: dict[str, Any]) -> list[str]:
    """Everything for a terminal."""
    table = [HEADER, *rows(result)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADER))]
    printed = ["  ".join(cell.ljust(widths[column]) for column, cell in enumerate(row)).rstrip() for row in table]
    return [title(result), "", *printed, "", *notes(result)]


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{fraction:.0%}"
