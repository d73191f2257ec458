"""What `kit init` does: a kit.toml for a folder, or the table of the environment for one that is there."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kit import config, host, paths
from kit.catalog import load_catalog
from kit.config.files import home
from kit.environment import manifest
from kit.environment.declared import FILE
from kit.environment.manifest import Contents
from kit.environment.wish import choose_for
from kit.errors import BadInputError
from kit.frozen import dataclass
from kit.project.turn import turn
from kit.takeover import Left, read

if TYPE_CHECKING:
    from kit.screen import Screen

# What is asked for by whoever asks for nothing.
WISH = "torch"


@dataclass(frozen=True, kw_only=True)
class Made:
    """A kit.toml that has an environment now."""

    file: Path
    is_new: bool  # else the table was added to it
    image: str  # as it is written
    chosen: str  # the image that this is on the host
    above: Path | None = None  # the kit.toml that counted in this folder before
    left: tuple[Left, ...] = ()  # of another tool's file, what could not be taken over


def init(folder: Path, wish: str, screen: Screen, *, target: str = "", source: Path | None = None) -> Made:
    """Write a kit.toml with an environment into a folder; where there is one without, the table is added to it.

    Without a wish the image is the one that `source`, a file of another tool's, asks for, or that `kit resolve torch`
    names for the host, and stays that. Raises BadInputError where there is an environment already or the source cannot
    be read, and what choosing an image raises.
    """
    folder = folder.resolve()
    taken = read(source, folder=folder) if source else None
    path, own = folder / FILE, home()
    if own and folder == own.resolve():
        raise BadInputError(
            f"{folder} is the home folder, which is no project: kit reads no {FILE} there",
            hint="make a folder for the project, and run it there",
        )
    with turn(folder, screen.say):
        known = config.load(folder)
        is_there = os.path.lexists(path)
        if is_there and known.project_file != path:
            raise BadInputError(f"kit does not read {path}", details=known.passed_over, hint="move it away")
        real = manifest.place(folder)
        text = manifest.read(real) if is_there else ""
        says_image = next((str(s.value) for s in known.project if s.key == "image"), "") if is_there else ""
        asked = wish or (taken.image if taken else "") or says_image
        image, _ = choose_for(load_catalog(), asked or WISH, lambda: host.read_gpus(target))
        written = asked or image.name
        contents = Contents(image="" if written == says_image else written)
        if taken:
            same = ("packages", "system", "indexes", "project", "env")
            contents = replace(contents, **{name: getattr(taken, name) for name in same})
        made = manifest.with_table(text, contents) if is_there else manifest.create(contents)
        paths.write_text(real, made, mode=stat.S_IMODE(real.stat().st_mode) if is_there else 0o644)
    above = None if is_there else known.project_file
    left = taken.left if taken else ()
    return Made(file=path, is_new=not is_there, image=written, chosen=image.name, above=above, left=left)
