"""A locked environment as files that other tools read: the packages of the image, and the project's in their place.

What such a file cannot say is in `Exported.left`: nothing is left out in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import paths
from kit.catalog import Catalog
from kit.config.files import parse
from kit.environment.format import BUILT, LOCK_NAME, EnvironmentLock, read
from kit.errors import LockError
from kit.frozen import dataclass
from kit.locks.format import Lock, Requirement, parse_requirements, read_lock
from kit.network import read_settings

if TYPE_CHECKING:
    from kit.catalog.rows import Image

FORMS = ("requirements", "environment.yml", "pylock")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The text of a file, and what it does not say of the environment."""

    text: str
    left: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Whole:
    """All packages of a project's image, and where they are from."""

    image: Image
    lock: EnvironmentLock
    packages: tuple[Requirement, ...]  # by name; a name is there twice where Pythons need different versions
    indexes: tuple[str, ...]  # beside PyPI
    python: str  # of the image's base in a registry
    left: tuple[str, ...]

    @property
    def requirements(self) -> str:
        """As pip with hash checking reads them."""
        return "".join(package.text() for package in self.packages)


def export(form: str, folder: Path, catalog: Catalog) -> Exported:
    """The locked environment of a project's folder in one of `FORMS`; only `pylock` asks the package index.

    Raises LockError when there is no lock, or it is of another state of its image; NetworkError when an index does not
    answer.
    """
    lock = read(folder)
    if lock is None:
        raise LockError(f"there is no {folder / LOCK_NAME}", hint="`kit lock` in that folder makes it")
    image = catalog.find(lock.image)
    of = whole(catalog, image, read_lock(paths.images_dir() / image.name, image), lock)
    if form == "requirements":
        return requirements(of)
    if form == "environment.yml":
        return environment_yml(of)
    from kit.locks.solver import addresses

    pins = "".join(f"{package.pin}\n" for package in of.packages)
    others = tuple(index for index in of.indexes if index != image.release.index)
    return pylock(of, parse(addresses(catalog, image, pins, others, read_settings()), Path("pylock.toml")))


def whole(catalog: Catalog, image: Image, image_lock: Lock, lock: EnvironmentLock) -> Whole:
    """The packages that are in a project's image. Raises LockError when the lock is not of that image."""
    if lock.image != image.name or lock.image_lock != image_lock.lock_hash:
        raise LockError(
            f"kit.lock is for another state of the image `{lock.image}`", hint="`kit lock` brings it up to date"
        )
    replaced = {(package.name, package.replaces) for package in lock.packages if package.replaces}
    found = [
        entry
        for text in image_lock.layers.values()
        for entry in parse_requirements(text)
        if (entry.name, entry.version) not in replaced
    ]
    left = []
    for package in lock.packages:
        if package.index == BUILT:
            left.append(f"{package.name} {package.version}: built by kit of {package.source}, no index has its wheel")
        else:
            found.append(package.requirement)
    if names := sorted({name for layer in lock.system for name in layer.wanted}):
        left.append(f"packages of the distribution: {', '.join(names)}")
    if image.is_gpu:
        left.append(f"the driver: CUDA {image.release.cuda} needs {catalog.min_driver(image)} or newer on the host")
    indexes = [image.release.index] if image.release.index else []
    indexes += [package.index for package in lock.packages if package.index not in ("", BUILT)]
    return Whole(
        image=image,
        lock=lock,
        packages=tuple(sorted(found, key=lambda entry: (entry.name, entry.version))),
        indexes=tuple(dict.fromkeys(indexes)),
        python=catalog.base_for(image).python,
        left=tuple(left),
    )


def requirements(of: Whole) -> Exported:
    """requirements.txt with hashes: `pip install --require-hashes --no-deps -r FILE`."""
    lines = _comments(of, "pip install --require-hashes --no-deps -r requirements.txt")
    lines += [_index_option(index) + "\n" for index in of.indexes]
    return Exported(text="".join(lines) + of.requirements, left=of.left)


def environment_yml(of: Whole) -> Exported:
    """environment.yml: Python from conda-forge, all else by pip at its version."""
    lines = _comments(of, "conda env create -f environment.yml")
    lines += ["channels:\n", "  - conda-forge\n", "  - nodefaults\n", "dependencies:\n"]
    lines += [f"  - python={of.python}\n", "  - pip\n", "  - pip:\n"]
    # A text of JSON is one of YAML.
    lines += [f"    - {json.dumps(_index_option(index))}\n" for index in of.indexes]
    lines += [f"    - {json.dumps(package.pin)}\n" for package in of.packages]
    return Exported(text="".join(lines), left=(*of.left, "the hashes: conda's files have no place for them"))


def pylock(of: Whole, answer: dict[str, Any]) -> Exported:
    """pylock.toml (PEP 751): `answer` is that file as uv makes one of the same packages, with the wheels' addresses.

    Of these only what the locks have the hash of is taken. Raises LockError when a package has none.
    """
    known: dict[tuple[str, str], set[str]] = {(p.name, p.version): set() for p in of.packages}
    markers: dict[tuple[str, str], list[str]] = {}
    for package in of.packages:
        known[package.name, package.version].update(package.hashes)
        markers.setdefault((package.name, package.version), []).append(package.marker)
    rows = {(str(row.get("name")), str(row.get("version"))): row for row in answer.get("packages", ())}
    text = _pairs({"lock-version": "1.0", "requires-python": f">={of.lock.pythons[0]}", "created-by": "kit"})
    for key, hashes in known.items():
        wheels = [
            wheel
            for wheel in rows.get(key, {}).get("wheels", ())
            if f"sha256:{wheel.get('hashes', {}).get('sha256', '')}" in hashes
        ]
        if not wheels:
            raise LockError(
                f"the package index has no wheel of {key[0]} {key[1]} with a hash that is locked",
                hint="was the release taken back? `kit lock --upgrade` takes another",
            )
        row = {"name": key[0], "version": key[1]}
        if all(markers[key]):
            row["marker"] = " or ".join(f"({m})" if len(markers[key]) > 1 else m for m in markers[key])
        if index := rows[key].get("index"):
            row["index"] = index
        text += f"\n[[packages]]\n{_pairs(row)}wheels = [\n"
        text += "".join(f"    {_wheel(wheel)},\n" for wheel in wheels) + "]\n"
    return Exported(text=text, left=of.left)


def _wheel(wheel: dict[str, Any]) -> str:
    digest = str(wheel["hashes"]["sha256"])
    name = str(wheel.get("name") or str(wheel["url"]).rpartition("/")[2].partition("#")[0])
    parts = {"name": name, "url": str(wheel["url"])}
    size = wheel.get("size")
    sized = f", size = {size}" if isinstance(size, int) else ""
    return (
        "{ "
        + ", ".join(f"{key} = {json.dumps(value)}" for key, value in parts.items())
        + sized
        + (f", hashes = {{ sha256 = {json.dumps(digest)} }} }}")
    )


def _pairs(values: dict[str, str]) -> str:
    # A text of JSON is one of TOML.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _index_option(index: str) -> str:
    return f"--find-links {index}" if index.endswith(".html") else f"--extra-index-url {index}"


def _comments(of: Whole, command: str) -> list[str]:
    lines = [
        f"# What kit.lock and the image {of.image.name} hold, for Python {' or '.join(of.lock.pythons)} on Linux:",
        f"#   {command}",
        *_not_in_it(of.left),
    ]
    return [f"{line}\n" for line in lines]


def _not_in_it(left: Iterable[str]) -> list[str]:
    return [f"# Not in it: {' '.join(line.split())}" for line in left]
