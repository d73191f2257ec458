"""What people have already, as the table `[environment]` of a kit.toml: one file a format, and one for the choice.

A reader takes lines apart and hands them on (`Found`); `image.decide` chooses the image, and says of each line that
kit.toml cannot have why not. Nothing of a file is run or fetched, and no file outside of its folder is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from kit.catalog import Catalog, load_catalog
from kit.errors import BadInputError
from kit.takeover import (
    cog,
    conda,
    dockerfile,
    envd,
    image,
    locks,
    notebook,
    pipfile,
    pyproject,
    requirements,
)
from kit.takeover.found import Found
from kit.takeover.found import Left as Left
from kit.takeover.found import TakenOver as TakenOver
from kit.takeover.texts import read_text

# Plots are in it as text.
_NOTEBOOK_BYTES = 2**25
_Reader = Callable[[str, Found], None]
_FORMATS: tuple[tuple[str, _Reader], ...] = (
    (r"pyproject\.toml", pyproject.read),
    (r"uv\.lock", locks.read_uv),
    (r"poetry\.lock", locks.read_poetry),
    (r"pylock(\.[^.]+)?\.toml", locks.read_pylock),
    (r"pipfile", pipfile.read),
    (r"pipfile\.lock", pipfile.read_lock),
    (r"cog\.ya?ml", cog.read),
    (r".*\.envd", envd.read),
    (r"((dockerfile|containerfile)([.-].*)?|.*\.(dockerfile|containerfile))", dockerfile.read),
    (r".*\.ipynb", notebook.read),
    (r".*\.ya?ml", conda.read),
    (r".*\.(txt|in|pip)", requirements.read),
)
KNOWN = (
    "requirements.txt, environment.yml, pyproject.toml, uv.lock, pylock.toml, poetry.lock, Pipfile, cog.yaml, "
    "build.envd, a Dockerfile and a notebook (.ipynb)"
)


def read(path: Path, catalog: Catalog | None = None, *, folder: Path | None = None) -> TakenOver:
    """What a file asks for, by its name, and all that kit.toml cannot have of it. That is to be in `folder`: by default
    the file's own.

    Raises BadInputError for a file that cannot be read, is of no format that kit knows, or is not what its name says.
    """
    reader = next((r for pattern, r in _FORMATS if re.fullmatch(pattern, path.name, re.IGNORECASE)), None)
    if reader is None:
        raise BadInputError(f"{path}: kit knows no file of that name", hint=f"it takes over {KNOWN}")
    text = read_text(path, _NOTEBOOK_BYTES) if reader is notebook.read else read_text(path)
    found = Found(path, catalog or load_catalog(), folder or path.parent)
    found.reading.append(path)
    reader(text, found)
    return image.decide(found)
