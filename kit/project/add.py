"""What `kit add` and `kit remove` do: kit.toml and kit.lock change together, once what is asked for has a solution."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from kit import paths
from kit.catalog import load_catalog
from kit.environment import format, manifest
from kit.environment.current import inputs_hash
from kit.environment.declared import Declared
from kit.errors import BadInputError
from kit.frozen import dataclass
from kit.locks.format import read_lock
from kit.project.turn import turn

if TYPE_CHECKING:
    from kit.environment.format import EnvironmentLock
    from kit.environment.manifest import Edited
    from kit.screen import Screen

# What the project declares, as its file says now: read again when it is this command's turn.
Read = Callable[[], Declared]
# The lock for what is declared; raises where that has no solution.
Solve = Callable[[Declared], "EnvironmentLock"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A package of kit.toml after a change of it."""

    name: str
    text: str  # as it stands there
    versions: tuple[str, ...] = ()  # in the environment: several where they differ between Pythons
    is_in_image: bool = False  # which has it already


@dataclass(frozen=True, kw_only=True)
class Changed:
    """What a change of a project's environment came to."""

    folder: Path
    image: str
    added: tuple[Entry, ...] = ()  # new ones, and those that are written otherwise now
    removed: tuple[str, ...] = ()
    system_added: tuple[str, ...] = ()
    system_removed: tuple[str, ...] = ()
    packages: int = 0  # how many kit.lock has beside the image's

    @property
    def is_any(self) -> bool:
        """Whether kit.toml is another one."""
        return bool(self.added or self.removed or self.system_added or self.system_removed)


def add(read: Read, packages: tuple[str, ...], system: tuple[str, ...], solve: Solve, screen: Screen) -> Changed:
    """Add packages to a project and lock it. Raises BadInputError for what is none, and what solving raises; then both
    files are as they were.
    """
    return change(read, lambda text: manifest.add(text, packages, system), solve, screen)


def remove(read: Read, packages: tuple[str, ...], system: tuple[str, ...], solve: Solve, screen: Screen) -> Changed:
    """Take packages out of a project and lock it. Raises BadInputError for one that is not there, and as `add`."""
    return change(read, lambda text: manifest.remove(text, packages, system), solve, screen)


def change(
    read: Read,
    edit: Callable[[str], Edited],
    solve: Solve,
    screen: Screen,
    *,
    exact: Mapping[str, str] = MappingProxyType({}),
) -> Changed:
    """Change the lists of a project's kit.toml and lock it; `exact` are versions (by name) that the lock is to have."""
    with turn(read().folder, screen.say):
        # Whoever had the turn may have changed the file.
        declared = read()
        path = manifest.place(declared.folder)
        text = manifest.read(path)
        edited = edit(text)
        pins = tuple(f"{name}=={version}" for name, version in exact.items())
        with _lock_stays(declared.folder):
            lock = solve(replace(declared, packages=edited.packages + pins, system=edited.system))
            edited = manifest.with_bounds(edited.text, _unbounded(declared.packages, edited.packages, lock))
            after = replace(declared, packages=edited.packages, system=edited.system)
            lock = replace(lock, inputs_hash=inputs_hash(after))
            if manifest.read(path) != text:
                raise BadInputError(f"{path} was changed meanwhile", hint="run the command again")
            format.write(declared.folder, lock)
            if edited.text != text:
                paths.write_text(path, edited.text, mode=stat.S_IMODE(path.stat().st_mode))
    return _changed(declared, after, lock)


@contextmanager
def _lock_stays(folder: Path) -> Iterator[None]:
    """Put kit.lock back as it was when the block fails, or is interrupted."""
    path = folder / format.LOCK_NAME
    before = path.read_bytes() if path.is_file() else None
    try:
        yield
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        elif not path.is_file() or path.read_bytes() != before:
            paths.write_text(path, before.decode())
        raise


def _names(packages: tuple[str, ...]) -> set[str]:
    return {canonicalize_name(Requirement(entry).name) for entry in packages}


def _unbounded(before: tuple[str, ...], after: tuple[str, ...], lock: EnvironmentLock) -> dict[str, str]:
    """The versions of packages that are new in the list. What the image has goes with it, and needs no bound."""
    new = _names(after) - _names(before)
    return {name: min(versions, key=Version) for name, versions in lock.versions.items() if name in new}


def _changed(before: Declared, after: Declared, lock: EnvironmentLock) -> Changed:
    added = tuple(text for text in after.packages if text not in before.packages)
    mine = lock.versions
    images = versions_in(lock.image) if _names(added) - mine.keys() else {}

    def entry(text: str) -> Entry:
        name = canonicalize_name(Requirement(text).name)
        versions = mine.get(name) or images.get(name, ())
        return Entry(name=name, text=text, versions=versions, is_in_image=name not in mine and name in images)

    return Changed(
        folder=after.folder,
        image=lock.image,
        added=tuple(map(entry, added)),
        removed=tuple(text for text in before.packages if _names((text,)).isdisjoint(_names(after.packages))),
        system_added=tuple(text for text in after.system if text not in before.system),
        system_removed=tuple(text for text in before.system if text not in after.system),
        packages=len(lock.packages),
    )


def versions_in(image: str) -> dict[str, tuple[str, ...]]:
    """The versions that an image's lock has of each package: several where they differ between Pythons."""
    found: dict[str, list[str]] = {}
    for package, version in read_lock(paths.images_dir() / image, load_catalog().find(image)).packages:
        found.setdefault(canonicalize_name(package), []).append(version)
    return {name: tuple(dict.fromkeys(versions)) for name, versions in found.items()}
