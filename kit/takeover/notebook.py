"""A notebook: its `%pip install` lines and the like, else what it imports."""

from __future__ import annotations

import ast
import re
import sys
from typing import Any

from packaging.utils import canonicalize_name

from kit.errors import BadInputError
from kit.takeover import literals, names, shell
from kit.takeover.found import Found
from kit.takeover.tables import Json

_INSTALLS = re.compile(
    r"\s*[!%]{1,2}\s*((pip|pip3|conda|mamba|apt|apt-get|sudo|uv|\{sys\.executable\}|python3?|npm|git|wget|curl|gdown|make|bash|sh)(?=\s|$).*)",
    re.DOTALL,
)
_COMMANDS = "a command, which kit does not run: it stays in the notebook"


def read(text: str, found: Found) -> None:
    """The cells of a notebook, none of which is run. Lines are counted in their cell."""
    file = Json(text, str(found.folder / found.name))
    cells = file.document.get("cells")
    if not isinstance(cells, list):
        raise BadInputError(
            f"{found.folder / found.name} has no cells",
            hint="Jupyter writes notebooks of format 4: open and save it there",
        )
    before = found.prefix
    imported: dict[str, tuple[int, str, str]] = {}
    for number, cell in enumerate(cells, 1):
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            found.prefix = f"cell {number}: "
            _cell(found, _source(cell.get("source")), imported, found.prefix)
    # What other cells import is in the image or comes by their lines; without such lines it is what is asked for.
    has_lines = bool(found.asked)
    for module, (line, said, prefix) in imported.items():
        found.prefix = prefix
        _module(found, line, said, module, only_frameworks=has_lines)
    found.prefix = before


def _source(source: Any) -> str:
    if isinstance(source, list):
        return "".join(part for part in source if isinstance(part, str))
    return source if isinstance(source, str) else ""


def _cell(found: Found, source: str, imported: dict[str, tuple[int, str, str]], prefix: str) -> None:
    if len(source) > literals.LIMIT:
        return found.left(1, source, "a cell of more than 200,000 characters is not read")
    if match := re.match(r"\s*%%(bash|sh|script bash)\b[^\n]*\n", source):
        return shell.read(found, 2, source[match.end() :].replace("\\\n", " "), others=_COMMANDS)
    if re.match(r"\s*%%(?!time|capture)\w+", source):
        return None  # of another language, or a file's text
    kept: list[str] = []
    lines = source.splitlines()
    place = 0
    while place < len(lines):
        first, line = place, lines[place]
        place += 1
        if not line.lstrip().startswith(("!", "%")) and not re.match(r"\s*\w+\s*=\s*[!%]\w", line):
            kept.append(line)
            continue
        while line.endswith("\\") and place < len(lines):
            line = line[:-1] + " " + lines[place]
            place += 1
        # A line of the same depth takes its place, so that `if IN_COLAB:` above it has a body.
        kept += [re.match(r"\s*", line)[0] + "pass", *([""] * (place - first - 1))]  # type: ignore[index]
        if match := _INSTALLS.fullmatch(line):
            shell.read(found, first + 1, match[1], others=_COMMANDS)
    tree = literals.parse("\n".join(kept))
    if tree is None:
        return found.left(1, source, "the cell is not Python that can be read, so what it imports is not known")
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
        for module in modules:
            line_number = getattr(node, "lineno", 0)
            said = kept[line_number - 1].strip() if 0 < line_number <= len(kept) else module
            imported.setdefault(module.partition(".")[0], (line_number, said, prefix))
    return None


def _module(found: Found, line: int, said: str, module: str, *, only_frameworks: bool) -> None:
    catalog = found.catalog
    if module in sys.stdlib_module_names or module in ("google", "__main__", "pip"):
        # `google.colab` and the like are of the place a notebook was written in.
        return (
            found.left(line, said, "`google` is many packages' folder: name yours with `kit add`")
            if module == "google" and not only_frameworks
            else None
        )
    if (found.folder / f"{module}.py").is_file() or (found.folder / module).is_dir():
        return None  # beside the notebook
    package = names.module_to_pypi(catalog).get(module)
    name = canonicalize_name(package if package is not None else module)
    is_framework = any(name in row.main for row in catalog.framework_packages)
    if only_frameworks:
        asked = {canonicalize_name(a.requirement.name) for a in found.asked}
        return found.requirement(line, said, name) if is_framework and name not in asked else None
    if package or (package is None and name in names.known_packages(catalog)):
        return found.requirement(line, said, package or name)
    return found.left(line, said, f"which package the module `{module}` is of is not known: `kit add` it by its name")
