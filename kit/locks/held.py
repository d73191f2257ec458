"""What `pip install` in a container is held to: the framework, its CUDA, and what both are built for. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from kit.catalog import Catalog
from kit.catalog.rows import Image
from kit.locks.format import Lock, parse_requirements


def held(catalog: Catalog, image: Image) -> tuple[str, ...]:
    """The packages that stay at the version of the lock, by name or shell pattern; not all of them are in every image.

    What these ask of other packages in their metadata holds too; that is read where they are installed.
    """
    found: list[str] = [canonicalize_name(Requirement(text).name) for text in image.release.requirements]
    found += [pattern for row in catalog.held for pattern in row.patterns]
    if image.is_gpu:
        found += [pattern for rule in catalog.layer_rules if rule.name == "cuda" for pattern in rule.patterns]
    return tuple(dict.fromkeys(found))


def is_held(catalog: Catalog, image: Image, package: str) -> bool:
    """Whether a package of the image is one of those."""
    return any(fnmatchcase(package, pattern) for pattern in held(catalog, image))


def bounds(catalog: Catalog, lock: Lock) -> tuple[str, ...]:
    """The requirements (`pandas>=2.2.2`) that packages must meet to run with what the lock holds."""
    versions: dict[str, list[str]] = {}
    for text in lock.layers.values():
        for entry in parse_requirements(text):
            versions.setdefault(entry.name, []).append(entry.version)
    return tuple(
        requirement
        for row in catalog.built_for
        for requirement in row.requirements
        if versions.get(row.package) and all(v in SpecifierSet(row.versions) for v in versions[row.package])
    )
