"""Tables of TOML files as rows of frozen dataclasses; a row that breaks its form is refused with where it stands."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import sys
import types
import typing
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from kit import paths
from kit.errors import BadInputError, CatalogError

Row = TypeVar("Row")

# The tables each file may have: a misspelt [[relese]] must not be silently ignored.
TABLES: dict[str, tuple[str, ...]] = {
    "frameworks.toml": ("release", "elsewhere"),
    "wheels.toml": ("wheel", "metadata"),
    "packages.toml": ("package", "system_package", "layer", "cap", "held", "built_for", "tool"),
    "bases.toml": ("base", "suite", "codename", "snapshot", "privileged"),
    "popular.toml": ("popular", "known"),
    "guards.toml": ("twins", "cuda_numbered", "optional_part", "libraries"),
    "platforms.toml": ("platform",),
    "engine.toml": ("engine_package", "engine_suite"),
    "cuda.toml": ("toolkit", "architecture", "open_only", "limit"),
    "gpus.toml": ("gpu", "rate"),
    "chips.toml": ("chip", "vgpu", "listed", "tegra"),
    "references.toml": ("reference",),
    "toolkit.toml": ("known_bad", "engine_minimum", "driver_package"),
    "problems.toml": ("problem",),
    "statuses.toml": ("status", "action", "translation"),
    "takeover.toml": (
        *("conda_name", "conda_system", "conda_image", "debian_name", "import_name", "framework_package", "instead"),
        *("known_index", "docker_image", "left_variable"),
    ),
}


def parse_file(path: Path) -> dict[str, Any]:
    """The tables of one file. Raises CatalogError when it cannot be read, or has a table it may not have."""
    try:
        text = path.read_text(encoding="utf-8")
        document = _remembered(path.name, text) if path.parent == paths.catalog_dir() else _parse(text)
    except FileNotFoundError:
        raise CatalogError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError) as e:
        raise CatalogError(f"{path} cannot be read: {e}") from None
    except ValueError as e:  # TOML's own kind of it
        raise CatalogError(f"{path} is not valid TOML: {e}", hint="correct the line that is named") from None
    for table in document:
        if table not in TABLES[path.name]:
            raise CatalogError(f"{path.name}: unknown table `{table}`", hint=_suggest(table, TABLES[path.name]))
    return document


def _parse(text: str) -> dict[str, Any]:
    # The standard library's, or what it was made of where Python is older.
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    document: dict[str, Any] = toml.loads(text)
    return document


def _remembered(name: str, text: str) -> dict[str, Any]:
    """What a text of TOML says, from the user's cache when it was parsed before: JSON is read forty times as fast.

    The text lies in the cache beside what it says, so that no other text's can be taken for it. Whatever is wrong with
    the cache, the text is parsed again.
    """
    # BadInputError: there is no home; RuntimeError: JSON without end.
    problems = (OSError, BadInputError, RuntimeError, TypeError, ValueError)
    with contextlib.suppress(*problems):
        parsed, document = json.loads((paths.cache_dir() / "catalog" / f"{name}.json").read_bytes())
        if parsed == text and isinstance(document, dict):
            return document
    document = _parse(text)
    with contextlib.suppress(*problems):
        paths.write_text(paths.cache_folder("catalog") / f"{name}.json", json.dumps([text, document]), mode=0o600)
    return document


@cache
def _keys(kind: type[Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The type of each key of a row, and the keys that every row has."""
    required = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    return typing.get_type_hints(kind), tuple(required)


def make_row(file: str, table: str, row_type: type[Row], values: Any, index: int) -> Row:
    """One row as its dataclass; an unknown key, a missing one or a wrong type raises CatalogError."""
    if not isinstance(values, dict):
        raise CatalogError(f"{file}: row {index + 1} of `{table}` is not a table")
    names = ("name", "file", "package", "tag", "id", "cuda", "major", "compute_capability", "names", "boards")
    label = next((f" (`{values[key]}`)" for key in names if key in values), "")
    return make(f"{file}: [[{table}]] row {index + 1}{label}", row_type, values)


def make(where: str, row_type: type[Row], values: dict[str, Any]) -> Row:
    """Named values as their dataclass; an unknown key, a missing one or a wrong type raises CatalogError."""
    kind: Any = row_type
    hints, required = _keys(kind)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise CatalogError(f"{where}: unknown key `{key}`", hint=_suggest(key, tuple(hints)))
        arguments[key] = _convert((where, key), hints[key], value)
    for key in required:
        if key not in arguments:
            raise CatalogError(
                f"{where}: the key `{key}` is missing",
                hint="every row says where it is from" if key == "source" else "",
            )
    return row_type(**arguments)


def _convert(path: tuple[Any, ...], hint: Any, value: Any) -> Any:
    """A value as its type; `path` is where it stands: a text, then keys and places in lists."""
    if type(value) is hint:
        return value
    if hint is float and type(value) is int:
        return float(value)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):  # `float | None`; JSON has a null, TOML none
        return None if value is None else _convert(path, args[0], value)
    if origin is Literal:
        if value not in args:
            raise CatalogError(f"{_where(path)}: `{value}` is not one of {', '.join(repr(a) for a in args)}")
        return value
    if origin is tuple and typing.get_origin(args[0]) is tuple:  # pairs are written as a table
        if not isinstance(value, dict):
            raise CatalogError(f"{_where(path)}: expected a table, not {value!r}")
        return tuple((key, _convert(path, typing.get_args(args[0])[1], item)) for key, item in value.items())
    if origin is tuple:
        if not isinstance(value, list):
            raise CatalogError(f"{_where(path)}: expected a list, not {value!r}")
        return tuple([_convert((*path, index), args[0], item) for index, item in enumerate(value)])
    if origin is dict and isinstance(value, dict):
        return {key: _convert((*path, key), args[1], item) for key, item in value.items()}
    if isinstance(value, dict) and isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return make(_where(path), hint, value)
    raise CatalogError(
        f"{_where(path)}: expected {_TYPE_NAMES.get(hint, 'a table')}, not {value!r}",
        hint="versions are written in quotes" if hint is str else "",
    )


def _where(path: tuple[Any, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f": key `{part}`" for part in path[1:])
    return "".join((path[0], *parts))


_TYPE_NAMES: dict[Any, str] = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


def _suggest(word: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(known)}"


def refuse_duplicates(file: str, table: str, keys: Iterable[str]) -> None:
    """Raises CatalogError when two rows have the same key."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise CatalogError(f"{file}: [[{table}]]: `{key}` is there twice", hint="remove or rename one of the rows")
        seen.add(key)
