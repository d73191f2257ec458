"""The project itself in its environment: what of pyproject.toml makes it a package, read without running any of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit import layout
from kit.config import files
from kit.environment.pyproject import PYPROJECT
from kit.errors import BadInputError
from kit.frozen import dataclass

# Of a project whose version only its build would find out. As other tools write it.
UNKNOWN_VERSION = "0+unknown"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z.!+_-]{1,100}")
_COMMAND = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_GROUP = re.compile(r"\w+(\.\w+)*")
_OBJECT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?")


@dataclass(frozen=True, kw_only=True)
class Editable:
    """A project as a package that is installed editable: templates/project.py writes it into the image."""

    name: str
    version: str
    path: str  # in a container, where its modules are
    requires_python: str = ""
    requires: tuple[str, ...] = ()
    entry_points: Mapping[str, Mapping[str, str]]  # by group: `console_scripts` are its commands


def read(folder: Path) -> Editable:
    """The project of a folder. Raises BadInputError when its pyproject.toml is missing, wrong, or names no package."""
    file = folder / PYPROJECT
    if not files.is_there(file):
        raise BadInputError(f"kit.toml says `project = true`, and there is no {file}", hint="add one, or leave it out")
    _, document, _ = files.read(file, os.environ)
    project = _table(document, "project")
    name, version = project.get("name"), project.get("version")

    def wrong(what: str) -> BadInputError:
        return BadInputError(f"{file}: {what}")

    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise wrong("`name` of [project] is missing, or is no name of a package")
    if version is not None and (not isinstance(version, str) or not _VERSION.fullmatch(version)):
        raise wrong("`version` of [project] is no version")
    groups = {group: _table(_table(project, "entry-points"), group) for group in _table(project, "entry-points")}
    groups["console_scripts"] = _table(project, "scripts")
    groups["gui_scripts"] = _table(project, "gui-scripts")
    for group, entries in groups.items():
        for key, value in entries.items():
            is_command = group in ("console_scripts", "gui_scripts")
            is_right = _COMMAND.fullmatch(key) if is_command else key.isprintable() and "=" not in key
            if not (_GROUP.fullmatch(group) and is_right and isinstance(value, str) and _OBJECT.fullmatch(value)):
                raise wrong(f"an entry point of {group!a} is none: {str(key)[:100]!a}")
            if is_command and ":" not in value:
                raise wrong(f"the command {key!a} names no function: MODULE:FUNCTION")
    requires = project.get("dependencies", [])
    wanted = project.get("requires-python", "")
    texts = [*requires, wanted] if isinstance(requires, list) else [None]
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise wrong("`dependencies` and `requires-python` of [project] are texts of one line")
    return Editable(
        name=name,
        version=version or UNKNOWN_VERSION,
        path=f"{layout.WORKSPACE}/src" if _has_src(folder, name) else layout.WORKSPACE,
        requires_python=wanted,
        requires=tuple(requires),
        entry_points={group: dict(entries) for group, entries in sorted(groups.items()) if entries},
    )


def _has_src(folder: Path, name: str) -> bool:
    """Whether the modules of a project are in `src`: where it has one of its own name there, or none beside it."""
    module = re.sub(r"[-.]+", "_", name).lower()
    src = folder / "src"
    if (src / module).is_dir() or (src / f"{module}.py").is_file():
        return True
    beside = (folder / module).is_dir() or (folder / f"{module}.py").is_file()
    return not beside and any(src.glob("*/__init__.py"))


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    return found if isinstance(found, Mapping) else {}
