"""Saved results: read and refused unless whole and of this schema, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from kit import files, paths
from kit.bench import SCHEMA
from kit.bench.results import Measurement, Result, as_json
from kit.catalog.tables import make
from kit.errors import BadInputError, CatalogError

HINT = "`kit bench NAME --save FILE` writes one"


def save(path: Path, result: Result) -> None:
    """Write a result as JSON, beside its place first. Raises BadInputError when it cannot be written."""
    try:
        paths.write_text(path, json.dumps(as_json(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as e:
        if e.errno in paths.FULL:
            raise
        raise BadInputError(f"{path} cannot be written: {e.strerror}") from None


def read(path: Path) -> Result:
    """A saved result. Raises BadInputError when it cannot be read, does not parse, or is of another schema."""
    try:
        text = files.read_text(path, limit=64 * files.MIB)  # an hour's soak has some MB
    except (OSError, UnicodeDecodeError) as e:
        raise BadInputError(f"{path} cannot be read: {e}", hint=HINT) from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Result:
    """A result from its text; `name` is for the error. Raises BadInputError."""
    try:
        raw = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_integer)
        json.dumps(raw, ensure_ascii=False).encode()  # half a character cannot be shown
    except (ValueError, RecursionError) as e:
        raise BadInputError(f"{name} is no saved result: {e}", hint=HINT) from None
    if not isinstance(raw, dict) or "schema" not in raw:
        raise BadInputError(f"{name} is no saved result: it has no `schema`", hint=HINT)
    if raw["schema"] != SCHEMA:
        raise BadInputError(
            f"{name} is of schema {raw['schema']!r}, this kit reads {SCHEMA}",
            hint="measure again, or use the kit that wrote it",
        )
    try:
        result = make("result", Result, raw)
        for index, test in enumerate(result.tests):
            _refuse_half(f"result: key `tests`[{index}]", test)
    except CatalogError as e:
        raise BadInputError(f"{name} is no whole result", details=(e.message,), hint=HINT) from None
    return result


def _number(text: str) -> float:
    number = float(text)
    # Beyond these nothing was measured, and what is made of them would overflow.
    if number and not 1e-30 < abs(number) < 1e30:
        raise ValueError(f"{text[:40]} is not a number that was measured")
    return number


def _integer(text: str) -> int:
    _number(text)
    return int(text)


def _refuse_half(where: str, test: Measurement) -> None:
    """Raise CatalogError when a test lacks what its outcome promises."""
    needed = ("unit", "variant", "correctness") if test.is_measured else ("reason",)
    for name in needed:
        if not getattr(test, name):
            raise CatalogError(f"{where}: the key `{name}` is missing")
    if test.is_measured and not test.value > 0:
        raise CatalogError(f"{where}: key `value` is no number above 0")
