"""The two files of a lock: what they hold, and how they are read.

A lock may have a parent. Its requirements.lock then holds its own sections alone, after a line as pip knows it
(`-r ../torch2.7-cu126/requirements.lock`); what is installed, hashed and compared is the whole text.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from kit import files
from kit.catalog.rows import LAYERS, Image
from kit.errors import CatalogError, LockError, UnlockedError
from kit.frozen import dataclass

REQUIREMENTS_FILE = "requirements.lock"
LOCK_FILE = "lock.json"
SCHEMA = 1

# What lock.json says in `hashes` of a lock that was made of the rows of wheels.toml.
UNCONFIRMED = "from public lock files, not confirmed by the index"

_PARENT = re.compile(r"-r \.\./([^/\s]+)/requirements\.lock\n")
_SECTION = re.compile(r"# layer: (\S+)")
_ENTRY = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,99})==(?P<version>[A-Za-z0-9.+!_-]{1,99})(?:\s*;\s*(?P<marker>[^\\\n]+))?"
)
_END_OF_TIMES = 2**32  # in seconds: what gzip can write
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One locked package: a version for the environments its marker names, and the hashes of its wheels."""

    name: str
    version: str
    marker: str = ""
    hashes: tuple[str, ...]

    @property
    def pin(self) -> str:
        """`name==version ; marker`, as requirements and constraints have it."""
        return f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")

    def text(self) -> str:
        return " \\\n    ".join([self.pin, *(f"--hash={h}" for h in self.hashes)]) + "\n"


@dataclass(frozen=True, kw_only=True)
class LockedBase:
    """The base the lock was made for."""

    reference: str  # `nvidia/cuda:12.6.3-base-ubuntu24.04`
    digest: str
    digest_status: str


@dataclass(frozen=True, kw_only=True)
class Parent:
    """The lock that another one adds to, as it was then."""

    image: str
    requirements_hash: str


@dataclass(frozen=True, kw_only=True)
class LockFile:
    """What lock.json holds, in its order."""

    _: str
    schema: int
    image: str
    unlocked: str  # why there is no lock; empty when there is one
    hashes: str | None = None  # where those of the release's own index are from, when not from that index
    inputs_hash: str
    requirements_hash: str  # of the whole text, with a parent's sections
    parent: Parent | None = None
    base: LockedBase
    suites: tuple[str, ...]
    pythons: tuple[str, ...]
    uv: str
    snapshot: str  # the day it was solved, `2026-11-21`
    source_date_epoch: int  # a day's midnight in UTC: the time of all files in the image
    packages: int  # in its own sections, as `layers`
    layers: dict[str, str]  # each section's hash

    def text(self) -> str:
        values = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return json.dumps(values, indent=2) + "\n"


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The lock of one image, as it is on disk."""

    file: LockFile
    requirements: str  # the whole text, a parent's sections first
    layers: dict[str, str]  # the same by section, in order

    @property
    def lock_hash(self) -> str:
        """What two images must share to hold the same packages."""
        return self.file.requirements_hash

    @property
    def source_date_epoch(self) -> int:
        return self.file.source_date_epoch

    @property
    def packages(self) -> list[tuple[str, str]]:
        """(name, version) of every entry; a name is there twice when Pythons or platforms need different versions."""
        return [(r.name, r.version) for text in self.layers.values() for r in parse_requirements(text)]


def read_lock(folder: Path, image: Image) -> Lock:
    """The lock in an image's folder, its hash and its parents' checked; a parent's folder is beside it.

    Raises UnlockedError when the image has none on purpose, LockError when it is missing, unreadable, not what kit
    wrote, or made for another state of its parent.
    """
    return _read_lock(folder, image.name)


def hash_in(folder: Path) -> str:
    """The hash that the lock.json in an image's folder names, without a look at the packages: `kit run` asks for it.

    Raises LockError when the file cannot be read.
    """
    return _read_json(folder / LOCK_FILE).requirements_hash


def _read_lock(folder: Path, name: str) -> Lock:
    file = _read_json(folder / LOCK_FILE)
    if file.image != name:
        raise LockError(f"{folder / LOCK_FILE} is the lock of `{file.image}`, not of `{name}`", hint=_again(folder))
    if file.unlocked:
        raise UnlockedError(
            f"the image `{name}` has no lock: {file.unlocked}",
            hint=f"run `kit lock {name}` where that can be reached",
        )
    text, parents = read_requirements(folder)
    if file.parent and file.parent.image in parents:
        parent = _read_lock(folder.parent / file.parent.image, file.parent.image)
        if parent.lock_hash != file.parent.requirements_hash:
            raise LockError(
                f"the lock of `{name}` adds to that of `{file.parent.image}`, which has changed since",
                hint=f"`kit lock {name}` brings it up to date",
            )
    path = folder / REQUIREMENTS_FILE
    if sha256(text) != file.requirements_hash:
        raise LockError(
            f"{path} is not what kit wrote: its hash is not the one in {LOCK_FILE}",
            hint=f"it was edited or half updated; {_again(folder)}",
        )
    return Lock(file=file, requirements=text, layers=split_layers(text, str(path)))


def read_requirements(folder: Path) -> tuple[str, list[str]]:
    """The whole requirements of an image's folder, and the images whose locks it adds to, the nearest first.

    It checks no hash. Raises LockError when a file is missing or unreadable, or a lock adds to itself.
    """
    text = _read(folder / REQUIREMENTS_FILE)
    names = [folder.name]
    while found := _parent_line(text):
        if found[1] in names:
            raise LockError(f"{folder / REQUIREMENTS_FILE} adds to itself", hint=_again(folder))
        names.append(found[1])
        text = join(text, _read(folder.parent / found[1] / REQUIREMENTS_FILE))
    return text, names[1:]


def join(text: str, parent: str) -> str:
    """A requirements.lock with its parent's sections where it names the parent."""
    found = _parent_line(text)
    return text[: found.start()] + parent.partition("\n")[2] + text[found.end() :] if found else text


def own_sections(text: str) -> str:
    """A requirements.lock without the line that names its parent."""
    return join(text, "")


def _parent_line(text: str) -> re.Match[str] | None:
    return _PARENT.match(text, text.find("\n") + 1)


def _again(folder: Path) -> str:
    return f"`kit lock {folder.name}` writes it anew"


def _read(path: Path) -> str:
    try:
        # Bytes, not text mode: a line ending that git or an editor changed must change the hash.
        return files.read_text(path)
    except FileNotFoundError:
        raise LockError(f"{path} is missing", hint=_again(path.parent)) from None
    except (OSError, UnicodeDecodeError) as e:
        raise LockError(f"{path} cannot be read: {e}", hint=_again(path.parent)) from None


def _read_json(path: Path) -> LockFile:
    # Not for `kit run`, which reads no lock.json when the image is up to date.
    from kit.catalog.tables import make

    again = _again(path.parent)
    try:
        data: Any = json.loads(_read(path))
    except (ValueError, RecursionError) as e:
        raise LockError(f"{path} is not valid JSON: {e}", hint=again) from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise LockError(f"{path} has the schema {schema!r}; this kit reads {SCHEMA}", hint=again)
    try:
        file = make(str(path), LockFile, data)
    except CatalogError as e:
        raise LockError(e.message, hint=again) from None
    if not (file.unlocked or is_day(file.snapshot)):
        raise LockError(f"{path}: `snapshot` is `{file.snapshot}`, which is not a day", hint=again)
    if not 0 <= file.source_date_epoch < _END_OF_TIMES:
        raise LockError(
            f"{path}: `source_date_epoch` is {str(file.source_date_epoch)[:20]}, which is not a time", hint=again
        )
    return file


def is_day(text: str) -> bool:
    """Whether a text is a day, `2026-11-21`."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def split_layers(text: str, where: str = REQUIREMENTS_FILE) -> dict[str, str]:
    """The sections of a whole requirements.lock by layer, in order, without their `# layer:` lines."""
    found: dict[str, str] = {}
    current = ""
    for line in text.splitlines(keepends=True):
        if match := _SECTION.fullmatch(line.strip()):
            current = match[1]
            if not current.isidentifier() or current in found:
                raise LockError(
                    f"{where}: unexpected section `{line.strip()}`", hint="a section's name is one word, and there once"
                )
            found[current] = ""
        elif current:
            found[current] += line
        elif line.strip() and not line.startswith("#"):
            raise LockError(
                f"{where}: `{line.strip()}` is before the first section", hint="a section starts with `# layer: NAME`"
            )
    if missing := [layer for layer in LAYERS if layer not in found]:
        raise LockError(f"{where}: no section for {', '.join(missing)}", hint="lock the image again")
    # Blank lines between sections belong to none of them: a layer's text is the same whatever follows it.
    return {layer: text.strip("\n") + "\n" if text.strip("\n") else "" for layer, text in found.items()}


def parse_requirements(text: str, where: str = REQUIREMENTS_FILE) -> list[Requirement]:
    """The entries of pip's hash-checked format; raises LockError for a line that is none."""
    found = []
    for entry in text.replace("\\\n", " ").splitlines():
        if not entry.strip() or entry.startswith("#"):
            continue
        head, *hashes = re.split(r"\s+(?=--hash=)", entry.strip())
        match = _ENTRY.fullmatch(head.strip())
        good = [m[1] for h in hashes if (m := _HASH.fullmatch(h.strip()))]
        if match is None or not good or len(good) != len(hashes):
            raise LockError(
                f"{where}: cannot read the entry `{head.strip()}`",
                hint="an entry is `name==version ; marker` followed by its hashes",
            )
        marker = (match["marker"] or "").strip()
        if marker and not _is_marker(marker):
            raise LockError(f"{where}: the marker of `{match['name']}` is not one: `{marker[:100]}`")
        found.append(Requirement(name=match["name"], version=match["version"], marker=marker, hashes=tuple(good)))
    return found


@cache
def _is_marker(text: str) -> bool:
    from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName  # which `kit run` need not import

    try:
        Marker(text).evaluate({"extra": ""})
    except (InvalidMarker, UndefinedEnvironmentName, ValueError, RecursionError):
        return False
    return True


def sha256(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
