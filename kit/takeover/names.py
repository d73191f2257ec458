"""What a name of conda's, Debian's, a module or an index is called in kit.toml, by the rows of takeover.toml."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache

from packaging.utils import canonicalize_name

from kit.catalog import Catalog


@cache
def conda_to_pypi(catalog: Catalog) -> dict[str, str]:
    """PyPI's name of each of conda's that is another, or known to be the same."""
    return {conda: pypi for row in catalog.conda_names for conda, pypi in row.names}


@cache
def conda_to_debian(catalog: Catalog) -> dict[str, str]:
    """The distribution's package for each of conda's that is no Python package."""
    return {conda: debian for row in catalog.conda_system for conda, debian in row.names}


def conda_of_image(catalog: Catalog, name: str) -> tuple[str, str]:
    """(what of the image it chooses: `cuda`, `python`, `cpu` or nothing; why it is left) for what an image brings;
    both empty for other packages.
    """
    for row in catalog.conda_images:
        if any(fnmatchcase(name, pattern) for pattern in row.patterns):
            return row.chooses, row.reason
    return "", ""


@cache
def module_to_pypi(catalog: Catalog) -> dict[str, str]:
    """The package of each module that is called otherwise, or is known to be called the same."""
    return {module: package for row in catalog.import_names for module, package in row.names}


@cache
def known_packages(catalog: Catalog) -> frozenset[str]:
    """Packages of PyPI that the catalog names: an unknown module or conda package of that name is this one."""
    rows = [name for row in catalog.popular for name in row.packages] + [row.name for row in catalog.packages]
    tables = (catalog.conda_names, catalog.import_names)
    return frozenset(
        map(canonicalize_name, [*rows, *(pypi for rows in tables for row in rows for _, pypi in row.names)])
    )


def debian(catalog: Catalog, name: str) -> tuple[str, str]:
    """(the distribution's package, why it is another one or none) for a name in an `apt-get install`."""
    if any(row.name == name and "" in row.flavors for row in catalog.system_packages):
        return "", "the image has it"
    for row in catalog.debian_names:
        for pattern, package in row.names:
            if fnmatchcase(name, pattern):
                return package, row.reason if not package else f"taken as `{package}`: {row.reason}"
    return name, ""


def variable(catalog: Catalog, name: str) -> str:
    """Why a variable is not taken over; empty for one that is."""
    rows = (row for row in catalog.left_variables if any(fnmatchcase(name, pattern) for pattern in row.patterns))
    return next((row.reason for row in rows), "")


def instead(catalog: Catalog, name: str) -> tuple[str, str]:
    """(the package that takes another's place, if one does; why); no reason for one that stays."""
    return next(((row.instead, row.reason) for row in catalog.instead if row.package == name), ("", ""))


def is_pypi(catalog: Catalog, url: str) -> bool:
    """Whether an address is that of PyPI's own index."""
    return any(
        re.fullmatch(row.pattern, url.rstrip("/"), re.IGNORECASE) for row in catalog.known_indexes if row.is_pypi
    )


def framework_index(catalog: Catalog, url: str) -> str:
    """What an index of a framework's own is for: `cu124`, `cpu`, or `any`; empty for another index."""
    for row in catalog.known_indexes:
        if not row.is_pypi and (match := re.match(row.pattern, url, re.IGNORECASE)):
            return match.groupdict().get("tag") or "any"
    return ""
