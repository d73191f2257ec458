"""What the project's own pyproject.toml asks for; read as text, no code of the project runs."""

from __future__ import annotations

import os
from pathlib import Path

from kit.config import files
from kit.environment.declared import wrong_package
from kit.errors import BadInputError

PYPROJECT = "pyproject.toml"
_OFF = "or write `project = false` into kit.toml"


def dependencies(folder: Path) -> tuple[str, ...]:
    """The packages that the project in a folder needs to run, as they are written.

    Raises BadInputError when there is no such file, when it does not list them itself, or takes some from places that
    a lock cannot name.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    path = folder / PYPROJECT
    if not files.is_there(path):
        raise BadInputError(f"kit.toml says `project = true`, and there is no {path}", hint=f"add one, {_OFF}")
    _, document, _ = files.read(path, os.environ)
    project = document.get("project")
    if not isinstance(project, dict):
        raise BadInputError(
            f"{path} has no table [project], so what the project needs is not to be seen",
            hint=f"list its packages in [environment] of kit.toml, {_OFF}",
        )
    if "dependencies" in project.get("dynamic", ()):
        raise BadInputError(
            f"{path}: the dependencies are dynamic: only the project's own build code knows them, and kit runs none",
            hint=f"list them in [project] dependencies or in [environment] of kit.toml, {_OFF}",
        )
    found = project.get("dependencies", [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise BadInputError(f"{path}: [project] dependencies is not a list of texts")
    for text in found:
        if problem := wrong_package(text):
            raise BadInputError(f"{path}: {problem}")
    tool = document.get("tool")
    uv = tool.get("uv") if isinstance(tool, dict) else None
    sources = uv.get("sources") if isinstance(uv, dict) else None
    elsewhere = {canonicalize_name(name) for name in sources} if isinstance(sources, dict) else set()
    for text in found:
        # Under the same name the index may have what somebody else wrote.
        if (name := canonicalize_name(Requirement(text).name)) in elsewhere:
            raise BadInputError(
                f"{path}: `{name}` is not from the package index but from a place in [tool.uv.sources]",
                hint=f"kit locks wheels of an index: write a release that one has, {_OFF}",
            )
    return tuple(found)
