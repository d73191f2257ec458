"""pyproject.toml: the project itself, which is installed from its folder, and Poetry's own tables."""

from __future__ import annotations

import re
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from kit.takeover.found import Found
from kit.takeover.project import why_not_installed
from kit.takeover.tables import Toml, text_of, texts

NOT_OF_INDEX = "not of an index but by `{}`: kit.lock names wheels of an index"
DEV = "serves the development of the project: `kit add` takes what of it is wanted"


def read(text: str, found: Found) -> None:
    """The dependencies of a project."""
    file = Toml(text, found.folder / found.name)
    project, poetry = file.table("project"), file.table("tool", "poetry")
    reason = why_not_installed(file.document)
    if found.folder.resolve() != found.home.resolve():
        reason = "it lies in another folder than kit.toml"
    found.project = not reason
    if reason:
        found.left(0, found.name, f"the project itself is not installed: {reason}")
    _project(file, project, found, by_project=found.project)
    _poetry(file, poetry, found)
    _indexes(file, found)


def _project(file: Toml, project: dict[str, Any], found: Found, *, by_project: bool) -> None:
    if python := text_of(project.get("requires-python")):
        found.wish(file.line("project.requires-python"), f"requires-python = {python!r}", "python", python)
    sources: dict[str, Any] = {
        canonicalize_name(name): source for name, source in file.table("tool", "uv", "sources").items()
    }
    for text in texts(project.get("dependencies")):
        line = file.line("project.dependencies", text)
        try:
            name: str = canonicalize_name(Requirement(text).name)
        except (InvalidRequirement, RecursionError):
            name = ""
        source = sources.pop(name, None)
        if source is not None and not (isinstance(source, dict) and "index" in source):
            found.left(
                line,
                text,
                "[tool.uv.sources] has it from elsewhere than an index, and kit.lock names wheels of an index",
            )
            continue
        found.requirement(line, text, text, by_project=by_project)
    for name in sources:
        found.left(file.line(f"tool.uv.sources.{name}"), f"[tool.uv.sources] {name}", "only uv reads it")
    for key, table in (
        ("project.optional-dependencies", file.table("project", "optional-dependencies")),
        ("dependency-groups", file.table("dependency-groups")),
    ):
        for group, entries in table.items():
            for entry in entries if isinstance(entries, list) else ():
                said = f"{group}: {_other_group(entry)}"
                found.left(file.line(f"{key}.{group}", str(entry)), said, _group_reason(key, group))


def _other_group(entry: Any) -> str:
    return f"all of `{entry.get('include-group')}`" if isinstance(entry, dict) else str(entry)


def _group_reason(key: str, group: str) -> str:
    return (
        f"of the group `{group}`, which {DEV}"
        if key == "dependency-groups"
        else (f"of the extra `{group}`: `kit add` takes what of it is wanted")
    )


def _poetry(file: Toml, poetry: dict[str, Any], found: Found) -> None:
    dependencies = poetry.get("dependencies")
    for name, value in dependencies.items() if isinstance(dependencies, dict) else ():
        line, text = file.line(f"tool.poetry.dependencies.{name}"), f"{name} = {shown(value)}"
        if name == "python":
            found.wish(line, text, "python", caret(text_of(value)))
        else:
            for spec in requirement_of(found, line, text, name, value):
                found.requirement(line, text, spec)
    groups = {f"group.{name}.dependencies": group for name, group in file.table("tool", "poetry", "group").items()}
    groups["dev-dependencies"] = {"dependencies": poetry.get("dev-dependencies")}
    for key, group in groups.items():
        entries = group.get("dependencies") if isinstance(group, dict) else None
        for name, value in entries.items() if isinstance(entries, dict) else ():
            found.left(file.line(f"tool.poetry.{key}.{name}"), f"{name} = {shown(value)}", DEV)
    for extra, names in file.table("tool", "poetry", "extras").items():
        found.left(file.line(f"tool.poetry.extras.{extra}"), f"extra {extra}: {names}", f"of the extra `{extra}`")


def requirement_of(found: Found, line: int, text: str, name: str, value: Any) -> list[str]:
    """A package as Poetry and Pipenv write it, `"^1.2"` or a table, as requirements; what has none is left."""
    entries = value if isinstance(value, list) else [value]
    specs = []
    for entry in entries:
        table = entry if isinstance(entry, dict) else {"version": entry}
        if elsewhere := next((key for key in ("git", "path", "url", "file", "hg", "svn") if key in table), ""):
            if elsewhere in ("path", "file") and table[elsewhere] in (".", "./"):
                found.is_project(line, text, ".")
            else:
                found.left(line, text, NOT_OF_INDEX.format(elsewhere))
            continue
        if table.get("optional") is True:
            found.left(line, text, "of an extra: `kit add` takes what is wanted")
            continue
        markers = [text_of(table.get("markers"))] if table.get("markers") else []
        markers += [
            f"{key} {table[key]}"
            for key in ("sys_platform", "platform_machine", "platform_system", "os_name", "python_version")
            if isinstance(table.get(key), str)
        ]
        if python := text_of(table.get("python")):
            markers += [
                f"python_version {part}"
                for part in re.sub(r"([<>=!~]+)\s*([\d.*]+)", r"\1 '\2'", caret(python)).split(",")
                if part
            ]
        if platform := text_of(table.get("platform")):
            markers.append(f"sys_platform == '{platform}'")
        extras = f"[{','.join(texts(table.get('extras')))}]" if table.get("extras") else ""
        marker = f" ; {' and '.join(f'({m})' for m in markers)}" if markers else ""
        version = caret(text_of(table.get("version")))
        specs.append(f"{name}{extras}{version}{marker}")
    return specs


def caret(text: str) -> str:
    """Poetry's version as a specifier of pip's: `^1.2` is `>=1.2,<2`, `~1.2` is `>=1.2,<1.3`, `1.2` is `==1.2`."""
    parts = []
    for part in (
        text.replace(" ", ",").split(",") if not re.search(r"[<>=!~^]\s", text) else text.replace(" ", "").split(",")
    ):
        match = re.fullmatch(r"(\^|~(?!=))([0-9]+(?:\.[0-9]+)*)(\S*)", part)
        if part in ("", "*"):
            continue
        if match is None:
            parts.append(f"=={part}" if part[0].isdigit() else part)
            continue
        numbers = [int(n[:9]) for n in match[2].split(".")]
        place = (
            next((i for i, n in enumerate(numbers) if n), len(numbers) - 1)
            if match[1] == "^"
            else min(1, len(numbers) - 1)
        )
        end = [*numbers[:place], numbers[place] + 1]
        parts.append(f">={match[2]}{match[3]},<{'.'.join(map(str, end))}")
    return ",".join(parts)


def _indexes(file: Toml, found: Found) -> None:
    for keys in (("tool", "uv", "index"), ("tool", "poetry", "source")):
        header = ".".join(keys)
        for line, row in zip(_padded(file.line_of_rows(header)), file.rows(*keys), strict=False):
            if url := text_of(row.get("url")):
                found.index(line, url, url)
            elif text_of(row.get("name")).lower() != "pypi":
                found.left(line, f"[[{header}]] {text_of(row.get('name'))}", "it has no address")
    uv = file.table("tool", "uv")
    for key in ("index-url", "extra-index-url", "find-links"):
        urls = uv.get(key)
        for url in [urls] if isinstance(urls, str) else texts(urls):
            found.index(file.line(f"tool.uv.{key}"), url, url)
    for key in ("constraint-dependencies", "override-dependencies"):
        for text in texts(uv.get(key)):
            if key.startswith("constraint"):
                found.requirement(file.line(f"tool.uv.{key}", text), text, text, limit=True)
            else:
                found.left(
                    file.line(f"tool.uv.{key}", text),
                    text,
                    "an override of what other packages ask for, which kit has none of",
                )


def _padded(lines: list[int]) -> list[int]:
    return [*lines, *([0] * 1000)]


def shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
