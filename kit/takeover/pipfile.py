"""Pipfile and Pipfile.lock."""

from __future__ import annotations

from typing import Any

from kit.takeover.found import Found
from kit.takeover.pyproject import DEV, requirement_of, shown
from kit.takeover.tables import Json, Toml, text_of


def read(text: str, found: Found) -> None:
    """Pipfile."""
    file = Toml(text, found.folder / found.name)
    _sources(found, file.document.get("source"), file.line("source"))
    for key, table in file.document.items():
        for name, value in table.items() if isinstance(table, dict) else ():
            line, said = file.line(f"{key}.{name}"), f"{name} = {shown(value)}"
            if key == "requires":
                _python(found, line, said, name, value)
            elif key == "packages":
                for spec in requirement_of(found, line, said, name, _version(value)):
                    found.requirement(line, said, spec)
            elif key == "dev-packages":
                found.left(line, said, DEV)
            elif key not in ("source", "pipenv"):
                found.left(line, f"[{key}] {said}", "kit.toml has no key for it")


def read_lock(text: str, found: Found) -> None:
    """Pipfile.lock."""
    file = Json(text, str(found.folder / found.name))
    meta = file.table("_meta")
    _sources(found, meta.get("sources"), file.line("sources"))
    requires = meta.get("requires")
    for name, value in requires.items() if isinstance(requires, dict) else ():
        _python(found, file.line(name), f"{name} = {shown(value)}", name, value)
    for key in file.document:
        if key == "_meta":
            continue
        for name, value in file.table(key).items():
            version = text_of(value.get("version")) if isinstance(value, dict) else ""
            line, said = file.line(name), f"{name}{version}"
            if key == "default":
                for spec in requirement_of(found, line, said, name, _version(value)):
                    found.requirement(line, said, spec)
            else:
                found.left(
                    line, said, DEV if key == "develop" else f"of the category `{key}`: `kit add` takes what is wanted"
                )


def _version(value: Any) -> Any:
    """A package whose version, `*` for any, is one as pip takes it."""
    if isinstance(value, dict):
        return {**value, "version": "" if value.get("version") == "*" else value.get("version", "")}
    return value


def _python(found: Found, line: int, said: str, name: str, value: Any) -> None:
    version = text_of(value)
    if name == "python_version" and version != "*":
        found.wish(line, said, "python", f"=={version}.*")
    elif name == "python_full_version":
        found.wish(line, said, "python", f"=={'.'.join(version.split('.')[:2])}.*")
    elif version != "*":
        found.left(line, said, "kit.toml has no key for it")


def _sources(found: Found, rows: Any, line: int) -> None:
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and (url := text_of(row.get("url"))):
            found.index(line, f"url = {shown(url)}", url)
