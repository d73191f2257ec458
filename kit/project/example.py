"""The examples that come with kit: whole projects, small enough to read."""

from __future__ import annotations

from pathlib import Path

from kit import paths
from kit.errors import BadInputError

# Of an example's folder; what running it left there is in folders of its own.
SUFFIXES = (".toml", ".lock", ".py", ".ipynb", ".json")
FIRST = "kit.toml"


def example_names() -> list[str]:
    """The examples there are."""
    return sorted(file.parent.name for file in paths.examples_dir().glob(f"*/{FIRST}"))


def copy_example(name: str, folder: Path) -> list[Path]:
    """Copy an example's files into a folder; returns them, kit.toml first.

    Raises BadInputError for a name that no example has, and when a file of its own would be written over: nothing is
    copied then.
    """
    names = example_names()
    if name not in names:
        raise BadInputError(f"there is no example `{name}`", hint=f"there are: {', '.join(names)}")
    sources = [file for file in (paths.examples_dir() / name).iterdir() if file.is_file() and file.suffix in SUFFIXES]
    sources.sort(key=lambda file: (file.name != FIRST, file.name))
    taken = [file.name for file in sources if (folder / file.name).exists() or (folder / file.name).is_symlink()]
    if taken:
        raise BadInputError(
            f"{folder} has {', '.join(taken)} already, which the example would write over",
            hint="copy it into an empty folder: `mkdir example && cd example`",
        )
    for source in sources:
        paths.write_text(folder / source.name, source.read_text(encoding="utf-8"))
    return [folder / source.name for source in sources]
