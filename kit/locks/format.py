"""The two files of a lock: what they hold, and how they are read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from kit.catalog.model import LAYERS, Image, Layer
from kit.errors import LockError, UnlockedError

REQUIREMENTS_FILE = "requirements.lock"
LOCK_FILE = "lock.json"
SCHEMA = 1

_SECTION = re.compile(r"# layer: (\S+)")
_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\\n]+))?")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One locked package: a version for the environments its marker names, and the hashes of its wheels."""

    name: str
    version: str
    marker: str = ""
    hashes: tuple[str, ...]

    def text(self) -> str:
        head = f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")
        return " \\\n    ".join([head, *(f"--hash={h}" for h in self.hashes)]) + "\n"


@dataclass(frozen=True, kw_only=True)
class LockedBase:
    """The base the lock was made for."""

    reference: str  # `nvidia/cuda:12.6.3-base-ubuntu24.04`
    digest: str
    digest_status: str


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The lock of one image, as it is on disk."""

    image: str
    requirements: str  # the text of requirements.lock
    layers: dict[Layer, str]  # the same by layer; a `-devel` image has a fourth, `devel`
    inputs_hash: str
    requirements_hash: str
    base: LockedBase
    suites: tuple[str, ...]
    pythons: tuple[str, ...]
    uv: str
    snapshot: str  # the day it was solved, `2026-11-21`
    source_date_epoch: int  # that day's midnight in UTC

    @property
    def lock_hash(self) -> str:
        """What two images must share to hold the same packages."""
        return self.requirements_hash

    @property
    def packages(self) -> list[tuple[str, str]]:
        """(name, version) of every entry; a name is there twice when Pythons or platforms need different versions."""
        return [(r.name, r.version) for text in self.layers.values() for r in parse_requirements(text)]


def read_lock(folder: Path, image: Image) -> Lock:
    """The lock in an image's folder, its hash checked.

    Raises UnlockedError when the image has none on purpose, LockError when it is missing, unreadable, or not what
    kit wrote.
    """
    again = f"`kit lock {image.name}` writes it anew"
    data = _read_json(folder / LOCK_FILE, again)
    if data["image"] != image.name:
        raise LockError(f"{folder / LOCK_FILE} is the lock of `{data['image']}`, not of `{image.name}`", hint=again)
    if data["unlocked"]:
        raise UnlockedError(
            f"the image `{image.name}` has no lock: {data['unlocked']}",
            hint=f"run `kit lock {image.name}` where that can be reached",
        )
    path = folder / REQUIREMENTS_FILE
    text = _read(path, again)
    if sha256(text) != data["requirements_hash"]:
        raise LockError(
            f"{path} is not what kit wrote: its hash is not the one in {LOCK_FILE}",
            hint=f"it was edited or half updated; {again}",
        )
    epoch = data["source_date_epoch"]
    return Lock(
        image=image.name,
        requirements=text,
        layers=split_layers(text, str(path)),
        inputs_hash=data["inputs_hash"],
        requirements_hash=data["requirements_hash"],
        base=LockedBase(**data["base"]),
        suites=tuple(data["suites"]),
        pythons=tuple(data["pythons"]),
        uv=data["uv"],
        snapshot=data["snapshot"],
        source_date_epoch=epoch,
    )


# What lock.json holds, and the type of each; read and written in this order.
KEYS: dict[str, type] = {
    "_": str,
    "schema": int,
    "image": str,
    "unlocked": str,
    "inputs_hash": str,
    "requirements_hash": str,
    "base": dict,
    "suites": list,
    "pythons": list,
    "uv": str,
    "snapshot": str,
    "source_date_epoch": int,
    "packages": int,
    "layers": dict,
}


def _read(path: Path, again: str) -> str:
    try:
        # Bytes, not text mode: a line ending that git or an editor changed must change the hash.
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise LockError(f"{path} is missing", hint=again) from None
    except (OSError, UnicodeDecodeError) as e:
        raise LockError(f"{path} cannot be read: {e}", hint=again) from None


def _read_json(path: Path, again: str) -> dict[str, Any]:
    text = _read(path, again)
    try:
        data = json.loads(text)
    except ValueError as e:
        raise LockError(f"{path} is not valid JSON: {e}", hint=again) from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else None
        raise LockError(f"{path} has the schema {found!r}; this kit reads {SCHEMA}", hint=again)
    for key, kind in KEYS.items():
        if type(data.get(key)) is not kind:
            raise LockError(f"{path}: the key `{key}` is missing or not of the right type", hint=again)
    if sorted(data["base"]) != sorted(f.name for f in dataclasses.fields(LockedBase)):
        raise LockError(f"{path}: the key `base` does not hold what it should", hint=again)
    return data


def split_layers(text: str, where: str = REQUIREMENTS_FILE) -> dict[Layer, str]:
    """The sections of a requirements.lock by layer, without their `# layer:` lines."""
    found: dict[Layer, str] = {}
    current: Layer | None = None
    for line in text.splitlines(keepends=True):
        if match := _SECTION.fullmatch(line.strip()):
            current = next((layer for layer in get_args(Layer) if layer == match[1]), None)
            if current is None or current in found:
                raise LockError(
                    f"{where}: unexpected section `{line.strip()}`",
                    hint=f"sections are {', '.join(get_args(Layer))}, each once",
                )
            found[current] = ""
        elif current is not None:
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
        found.append(
            Requirement(
                name=match["name"], version=match["version"], marker=(match["marker"] or "").strip(), hashes=tuple(good)
            )
        )
    return found


def sha256(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
