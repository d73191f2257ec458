"""Saved results: read and refused unless whole and of this schema, written whole or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from kit import paths
from kit.bench import SCHEMA
from kit.bench.verdicts import OUTCOMES
from kit.errors import BadInputError

# What a result must have, and the types each part may be of.
PARTS: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "method": (int,),
    "started": (str,),
    "framework": (dict,),
    "device": (dict,),
    "device_count": (int,),
    "host": (dict,),
    "image": (dict, type(None)),
    "expectations": (dict, type(None)),
    "tests": (list,),
    "telemetry": (list,),
    "peak_memory_bytes": (int, type(None)),
    "seconds": (int, float),
    "verdicts": (list,),
    "summary": (dict,),
}
TEST_OUTCOMES = ("measured", "not_run", "failed")
HINT = "`kit bench NAME --save FILE` writes one"


def save(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, beside its place first. Raises BadInputError when it cannot be written."""
    try:
        paths.write_text(path, json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as e:
        raise BadInputError(f"{path} cannot be written: {e.strerror}") from None


def read(path: Path) -> dict[str, Any]:
    """A saved result. Raises BadInputError when it cannot be read, does not parse, or is of another schema."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise BadInputError(f"{path} cannot be read: {e}", hint=HINT) from None
    return parse(text, str(path))


def parse(text: str, name: str) -> dict[str, Any]:
    """A result from its text; `name` is for the error. Raises BadInputError."""
    try:
        result = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as e:
        raise BadInputError(f"{name} is no saved result: {e}", hint=HINT) from None
    if not isinstance(result, dict) or "schema" not in result:
        raise BadInputError(f"{name} is no saved result: it has no `schema`", hint=HINT)
    if result["schema"] != SCHEMA:
        raise BadInputError(
            f"{name} is of schema {result['schema']!r}, this kit reads {SCHEMA}",
            hint="measure again, or use the kit that wrote it",
        )
    if found := problems(result):
        raise BadInputError(f"{name} is no whole result", details=tuple(found[:10]), hint=HINT)
    return result


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def problems(result: dict[str, Any]) -> list[str]:
    """What is missing in a result or not what it should be; empty when it is whole."""
    found = [
        f"`{name}` is missing" if name not in result else f"`{name}` is {type(result[name]).__name__}"
        for name, types in PARTS.items()
        if name not in result or not isinstance(result[name], types) or isinstance(result[name], bool)
    ]
    if found:
        return found
    for part, names in (("framework", ("name", "version")), ("device", ("kind",)), ("summary", ("outcome", "text"))):
        found += [f"`{part}.{name}` is no text" for name in names if not isinstance(result[part].get(name), str)]
    if not isinstance(result["host"].get("is_container"), bool):
        found.append("`host.is_container` is missing")
    if result["image"] is not None and not isinstance(result["image"].get("name"), str):
        found.append("`image.name` is no text")
    for index, test in enumerate(result["tests"]):
        found += [f"tests[{index}]: {problem}" for problem in _test_problems(test)]
    for index, sample in enumerate(result["telemetry"]):
        if not isinstance(sample, dict) or not _is_number(sample.get("at_s")):
            found.append(f"telemetry[{index}]: `at_s` is no number")
    for index, verdict in enumerate(result["verdicts"]):
        is_whole = isinstance(verdict, dict) and all(isinstance(verdict.get(n), str) for n in ("gate", "test", "text"))
        if not is_whole or verdict.get("outcome") not in OUTCOMES:
            found.append(f"verdicts[{index}] is not whole")
    if result["summary"].get("outcome") not in OUTCOMES:
        found.append("`summary.outcome` is none of " + ", ".join(OUTCOMES))
    return found


def _test_problems(test: Any) -> list[str]:
    if not isinstance(test, dict) or not isinstance(test.get("name"), str):
        return ["it has no name"]
    if test.get("outcome") not in TEST_OUTCOMES:
        return [f"`outcome` is none of {', '.join(TEST_OUTCOMES)}"]
    if test["outcome"] != "measured":
        return [] if isinstance(test.get("reason"), str) else ["`reason` is missing"]
    found = [f"`{name}` is no text" for name in ("unit", "variant") if not isinstance(test.get(name), str)]
    if not _is_number(test.get("value")) or test["value"] <= 0:
        found.append("`value` is no number above 0")
    samples = test.get("samples", [])
    if not isinstance(samples, list) or not all(map(_is_number, samples)):
        found.append("`samples` are no numbers")
    if not isinstance(test.get("correctness"), dict) or not isinstance(test["correctness"].get("passed"), bool):
        found.append("`correctness` is missing")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
