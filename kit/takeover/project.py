"""Whether `project = true` can be in kit.toml: what a pyproject.toml says of how the project is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from kit.errors import BadInputError
from kit.takeover.tables import Toml, texts
from kit.takeover.texts import read_text

FILE = "pyproject.toml"


def why_not(folder: Path) -> str:
    """Why the project of a folder cannot be installed; empty when it can."""
    try:
        document = Toml(read_text(folder / FILE), folder / FILE).document
    except BadInputError as e:
        return e.message if (folder / FILE).exists() else f"there is no {FILE} in the folder, which says what it needs"
    return why_not_installed(document)


def why_not_installed(document: Mapping[str, Any]) -> str:
    """Why what a pyproject.toml says is not enough to lock the project; empty when it is. None of its code is run."""
    project, tool = document.get("project"), document.get("tool")
    uv = tool.get("uv") if isinstance(tool, dict) else None
    if not isinstance(project, dict) or not isinstance(project.get("name"), str):
        return f"{FILE} has no table [project] with a name, so what the project needs is not to be seen"
    if isinstance(uv, dict) and uv.get("package") is False:
        return "[tool.uv] says that it is no package"
    if "dependencies" in texts(project.get("dynamic")):
        return "its dependencies are dynamic: a program says them, and kit runs none"
    sources = uv.get("sources") if isinstance(uv, dict) else None
    elsewhere = {canonicalize_name(name) for name in sources} if isinstance(sources, dict) else set()
    for text in texts(project.get("dependencies")):
        try:
            needed = Requirement(text)
        except (InvalidRequirement, RecursionError):
            return f"`{text[:100]}` is not a requirement"
        if needed.url or canonicalize_name(needed.name) in elsewhere:
            return f"`{needed.name}` is from elsewhere than an index, and kit.lock names wheels of an index"
    return ""
