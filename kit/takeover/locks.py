"""uv.lock, poetry.lock and pylock.toml: each package at the version that is locked, if an image can have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from packaging.markers import InvalidMarker, Marker
from packaging.utils import canonicalize_name

from kit.errors import BadInputError
from kit.takeover.found import Found
from kit.takeover.pyproject import DEV, NOT_OF_INDEX, caret
from kit.takeover.tables import Toml, text_of, texts

_ELSEWHERE = "only for another system, which no image is"


def read_uv(text: str, found: Found) -> None:
    """uv.lock: what the project needs, and what that needs, without its groups and extras."""
    file = Toml(text, found.folder / found.name)
    _require_packages(file, found, "package")
    if python := text_of(file.document.get("requires-python")):
        found.wish(file.line("requires-python"), f"requires-python = {python!r}", "python", python)
    rows = list(zip([*file.line_of_rows("package"), *([0] * 10**5)], file.rows("package"), strict=False))
    own = [row for _, row in rows if _source(row) in ("virtual", "editable")]
    reached = _reached(rows, own, groups=False) if own else None
    with_groups = _reached(rows, own, groups=True) if own else None
    is_alone = len(own) == 1
    for line, row in rows:
        name, version = text_of(row.get("name")), text_of(row.get("version"))
        said = f"{name} {version}".strip()
        if row in own:
            # The project's own entry: kit takes its pyproject.toml, which is beside it.
            if _source(row) == "editable" and is_alone and row["source"].get("editable") == ".":
                found.is_project(line, said, ".")
            elif not is_alone:
                found.left(line, said, "a member of a workspace: kit installs one project, of kit.toml's own folder")
        elif _source(row) not in ("registry", ""):
            found.left(line, said, NOT_OF_INDEX.format(_source(row)))
        elif reached is not None and id(row) not in reached:
            is_of_group = with_groups is not None and id(row) in with_groups
            found.left(line, said, f"of a group or an extra, which {DEV}" if is_of_group else _ELSEWHERE)
        else:
            markers = texts(row.get("resolution-markers"))
            marker = f" ; {' or '.join(f'({m})' for m in markers)}" if markers else ""
            found.requirement(line, said, f"{name}=={version}{marker}")
            _index(found, line, row)


def _source(row: dict[str, Any]) -> str:
    source = row.get("source")
    return next(iter(source), "") if isinstance(source, dict) else ""


def _index(found: Found, line: int, row: dict[str, Any]) -> None:
    url = text_of(row["source"].get("registry")) if isinstance(row.get("source"), dict) else ""
    if url and url not in found.indexes:
        if url.startswith(("http://", "https://")):
            found.index(line, url, url)
        else:
            found.left(line, url, "a folder of one machine")


def _reached(rows: list[tuple[int, dict[str, Any]]], own: list[dict[str, Any]], *, groups: bool) -> set[int]:
    """The packages (by `id`) that a project needs on Linux, directly or not; of several versions of one all."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for _, row in rows:
        by_name.setdefault(canonicalize_name(text_of(row.get("name"))), []).append(row)
    seen: set[int] = set()
    waiting = [(row, ()) for row in own]
    done: set[tuple[int, str]] = set()
    while waiting:
        row, extras = waiting.pop()
        seen.add(id(row))
        for edge in _edges(row, extras, everything=groups and any(row is o for o in own)):
            for other in by_name.get(canonicalize_name(text_of(edge.get("name"))), []):
                wanted = text_of(edge.get("version"))
                if wanted and wanted != text_of(other.get("version")):
                    continue
                key = (id(other), ",".join(sorted(texts(edge.get("extra")))))
                if key not in done:
                    done.add(key)
                    waiting.append((other, tuple(texts(edge.get("extra")))))  # type: ignore[arg-type]
    return seen


def _edges(row: dict[str, Any], extras: tuple[str, ...], *, everything: bool) -> Iterator[dict[str, Any]]:
    optional = row.get("optional-dependencies")
    groups = row.get("dev-dependencies")
    lists = [row.get("dependencies")]
    if isinstance(optional, dict):
        lists += [optional.get(extra) for extra in (optional if everything else extras)]
    if isinstance(groups, dict) and everything:
        lists += list(groups.values())
    for edges in lists:
        for edge in edges if isinstance(edges, list) else ():
            if isinstance(edge, dict) and _on_linux(text_of(edge.get("marker"))):
                yield edge


def _on_linux(marker: str) -> bool:
    """Whether a marker may hold on Linux, whatever the Python."""
    if not marker:
        return True
    there = {
        "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "extra": "",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }  # fmt: skip
    try:
        parsed = Marker(marker)
        return any(
            parsed.evaluate(
                {
                    **there,
                    "platform_machine": machine,
                    "python_version": f"3.{minor}",
                    "python_full_version": f"3.{minor}.{patch}",
                }
            )
            for machine in ("x86_64", "aarch64")
            for minor in range(8, 16)
            for patch in (0, 99)
        )
    except (InvalidMarker, ValueError, RecursionError, KeyError):
        return True


def read_poetry(text: str, found: Found) -> None:
    """poetry.lock: the packages of the group `main`."""
    file = Toml(text, found.folder / found.name)
    _require_packages(file, found, "package")
    if (python := text_of(file.table("metadata").get("python-versions"))) and python != "*":
        found.wish(file.line("metadata.python-versions"), f"python-versions = {python!r}", "python", caret(python))
    rows = list(zip([*file.line_of_rows("package"), *([0] * 10**5)], file.rows("package"), strict=False))
    elsewhere = _only_elsewhere([row for _, row in rows])
    for line, row in rows:
        name, version = text_of(row.get("name")), text_of(row.get("version"))
        said = f"{name} {version}".strip()
        groups = texts(row.get("groups")) or [text_of(row.get("category")) or "main"]
        source = row.get("source") if isinstance(row.get("source"), dict) else {}
        kind = text_of(source.get("type")) if isinstance(source, dict) else ""
        markers = row.get("markers")
        marker = text_of(markers.get("main") if isinstance(markers, dict) else markers)
        if "main" not in groups:
            found.left(line, said, f"of the group `{', '.join(groups)}`, which {DEV}")
        elif row.get("optional") is True:
            found.left(line, said, "of an extra: `kit add` takes what is wanted")
        elif kind in ("git", "directory", "file", "url"):
            found.left(line, said, NOT_OF_INDEX.format(kind))
        elif not marker and canonicalize_name(name) in elsewhere:
            found.left(line, said, _ELSEWHERE)
        else:
            found.requirement(line, said, f"{name}=={version}" + (f" ; {marker}" if marker else ""))
            url = text_of(source.get("url")) if isinstance(source, dict) else ""
            if url and url not in found.indexes:
                found.index(line, url, url)


def _only_elsewhere(rows: list[dict[str, Any]]) -> set[str]:
    """Packages that others need on other systems alone, or that only such packages need."""
    needed_by: dict[str, list[tuple[str, bool]]] = {}
    for row in rows:
        dependencies = row.get("dependencies")
        for name, value in dependencies.items() if isinstance(dependencies, dict) else ():
            for entry in value if isinstance(value, list) else [value]:
                marker = text_of(entry.get("markers")) if isinstance(entry, dict) else ""
                edge = (canonicalize_name(text_of(row.get("name"))), _on_linux(marker))
                needed_by.setdefault(canonicalize_name(name), []).append(edge)
    found: set[str] = set()
    while True:
        more = {
            name
            for name, edges in needed_by.items()
            if name not in found and all(not holds or by in found for by, holds in edges)
        }
        if not more:
            return found
        found |= more


def read_pylock(text: str, found: Found) -> None:
    """pylock.toml (PEP 751)."""
    file = Toml(text, found.folder / found.name)
    _require_packages(file, found, "packages")
    if python := text_of(file.document.get("requires-python")):
        found.wish(file.line("requires-python"), f"requires-python = {python!r}", "python", python)
    for line, row in zip([*file.line_of_rows("packages"), *([0] * 10**5)], file.rows("packages"), strict=False):
        name, version, marker = (text_of(row.get(key)) for key in ("name", "version", "marker"))
        said = f"{name} {version}".strip()
        if kind := next((key for key in ("vcs", "directory", "archive") if key in row), ""):
            found.left(line, said, NOT_OF_INDEX.format(kind))
            continue
        if " in extras" in marker or " in dependency_groups" in marker:
            found.left(line, said, f"of a group or an extra ({marker}): `kit add` takes what is wanted")
            continue
        spec = f"{name}=={version}" if version else name
        found.requirement(line, said, spec + (f" ; {marker}" if marker else ""))
        if (index := text_of(row.get("index"))) and index not in found.indexes:
            found.index(line, index, index)


def _require_packages(file: Toml, found: Found, key: str) -> None:
    if not file.rows(key):
        raise BadInputError(f"{found.folder / found.name}: no [[{key}]] in it", hint="is it the file you mean?")
