"""Tables of TOML files as rows of frozen dataclasses; a row that breaks its form is refused with where it stands."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
import typing
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from kit.errors import CatalogError

# The standard library's, or what it was made of where Python is older.
toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

Row = TypeVar("Row")

# The tables each file may have: a misspelt [[relese]] must not be silently ignored.
TABLES: dict[str, tuple[str, ...]] = {
    "frameworks.toml": ("release",),
    "packages.toml": ("package", "system_package", "layer"),
    "bases.toml": ("base", "suite"),
    "cuda.toml": ("toolkit", "minor_compatibility", "architecture"),
    "gpus.toml": ("gpu", "rate"),
    "references.toml": ("reference",),
    "toolkit.toml": ("known_bad", "engine_minimum"),
    "problems.toml": ("problem",),
}


def parse_file(path: Path) -> dict[str, Any]:
    """The tables of one file. Raises CatalogError when it cannot be read, or has a table it may not have."""
    try:
        document: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CatalogError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError) as e:
        raise CatalogError(f"{path} cannot be read: {e}") from None
    except toml.TOMLDecodeError as e:
        raise CatalogError(f"{path} is not valid TOML: {e}", hint="correct the line that is named") from None
    for table in document:
        if table not in TABLES[path.name]:
            raise CatalogError(f"{path.name}: unknown table `{table}`", hint=_suggest(table, TABLES[path.name]))
    return document


@cache
def _hints(row_type: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(row_type)


def make_row(file: str, table: str, row_type: type[Row], values: Any, index: int) -> Row:
    """One row as its dataclass; an unknown key, a missing one or a wrong type raises CatalogError."""
    if not isinstance(values, dict):
        raise CatalogError(f"{file}: row {index + 1} of `{table}` is not a table")
    label = next(
        (
            str(values[key])
            for key in ("name", "tag", "id", "cuda", "major", "compute_capability", "names")
            if key in values
        ),
        "",
    )
    where = f"{file}: [[{table}]] row {index + 1}" + (f" (`{label}`)" if label else "")
    return make(where, row_type, values)


def make(where: str, row_type: type[Row], values: dict[str, Any]) -> Row:
    """Named values as their dataclass; an unknown key, a missing one or a wrong type raises CatalogError."""
    kind: Any = row_type
    hints = _hints(kind)
    for key in values:
        if key not in hints:
            raise CatalogError(f"{where}: unknown key `{key}`", hint=_suggest(key, tuple(hints)))
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in values:
            arguments[field.name] = _convert(f"{where}: key `{field.name}`", hints[field.name], values[field.name])
        elif field.default is dataclasses.MISSING:
            raise CatalogError(
                f"{where}: the key `{field.name}` is missing",
                hint="every row says where it is from" if field.name == "source" else "",
            )
    return row_type(**arguments)


def _convert(where: str, hint: Any, value: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in args:
            raise CatalogError(f"{where}: `{value}` is not one of {', '.join(repr(a) for a in args)}")
        return value
    if value is None and type(None) in args:  # JSON's null; TOML has none
        return None
    if origin in (typing.Union, types.UnionType):  # `float | None`: a key that is written has a value
        return _convert(where, next(a for a in args if a is not type(None)), value)
    if origin is tuple:
        if typing.get_origin(args[0]) is tuple and isinstance(value, dict):  # pairs are written as a table
            return tuple((_convert(where, str, k), _convert(where, str, v)) for k, v in value.items())
        if not isinstance(value, list) or typing.get_origin(args[0]) is tuple:
            raise CatalogError(
                f"{where}: expected a {'table' if typing.get_origin(args[0]) is tuple else 'list'}, not {value!r}"
            )
        return tuple(_convert(f"{where}[{index}]", args[0], item) for index, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _convert(f"{where}: key `{key}`", args[1], item) for key, item in value.items()}
    if isinstance(value, dict) and isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return make(where, hint, value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise CatalogError(
            f"{where}: expected {_TYPE_NAMES.get(hint, 'a table')}, not {value!r}",
            hint="versions are written in quotes" if hint is str else "",
        )
    return value


_TYPE_NAMES: dict[Any, str] = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


def _suggest(word: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(known)}"


def refuse_duplicates(file: str, table: str, keys: list[str]) -> None:
    """Raises CatalogError when two rows have the same key."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise CatalogError(f"{file}: [[{table}]]: `{key}` is there twice", hint="remove or rename one of the rows")
        seen.add(key)
