"""Packages of the distribution: what apt says of them becomes an entry of kit.lock, and that entry a build step's list.

Each release of a distribution has versions of its own, so a lock has an entry for each that its image stood on.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote

from kit.environment.format import EnvironmentLock, SystemLayer, SystemPackage
from kit.errors import CatalogError, LockError
from kit.frozen import dataclass

if TYPE_CHECKING:
    from kit.catalog import Catalog

ARCHIVE = "archive:"  # begins the identity of a base that was made from the package archive
# `'URL' NAME_VERSION_ARCHITECTURE.deb SIZE SHA256:HASH`, as `apt-get --print-uris` writes it.
_URI = re.compile(r"'(\S+)' ([a-z0-9][a-z0-9+.-]+)_([^_\s]+)_([a-z0-9]+)\.deb [0-9]+ SHA256:([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """A package of the image's that another version takes the place of, because what was asked for needs it."""

    name: str
    old: str
    new: str


def layer_of(suite: str, architecture: str, wanted: Sequence[str], lines: Sequence[str]) -> SystemLayer:
    """The entry of kit.lock for what `resolve` in kit/project/system.sh printed.

    Raises LockError for a line that is not as apt writes it: a package without a hash cannot be locked.
    """
    said = _by_word(lines)
    repositories = sorted({f"{url.rstrip('/')}/" for url in said["repository"]}, key=len, reverse=True)
    found = {}
    for line in said["package"]:
        match = _URI.fullmatch(line.strip())
        url = match[1] if match else ""
        repository = next((address for address in repositories if url.startswith(address)), "")
        if match is None or not repository:
            raise LockError(f"apt says of a package what kit cannot lock: {line[:300]}")
        package = SystemPackage(
            name=match[2],
            version=unquote(match[3]),
            architecture=match[4],
            file=unquote(url.removeprefix(repository)).removeprefix("./"),
            sha256=match[5],
        )
        found[package.name, package.architecture] = package
    return SystemLayer(
        suite=suite,
        architecture=architecture,
        wanted=tuple(wanted),
        snapshot=_newest(said["date"]),
        packages=tuple(found[key] for key in sorted(found)),
    )


def replaced(layer: SystemLayer, lines: Sequence[str]) -> list[Replaced]:
    """Which of a layer's packages the image has in another version, of the same output."""
    there = {}
    for words in map(str.split, _by_word(lines)["installed"]):
        if len(words) == 3:
            there[words[0], words[1]] = words[2]
    return [
        Replaced(name=p.name, old=there[p.name, p.architecture], new=p.version)
        for p in layer.packages
        if (p.name, p.architecture) in there
    ]


def _by_word(lines: Sequence[str]) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {word: [] for word in ("installed", "repository", "date", "package", "missing")}
    for line in lines:
        word, _, rest = line.partition(" ")
        if word in said:
            said[word].append(rest)
    return said


def missing(lines: Sequence[str]) -> list[str]:
    """The names that the distribution has no package of, of what `resolve` printed."""
    return _by_word(lines)["missing"]


def _newest(dates: Sequence[str]) -> str:
    """The newest of the times at which the lists were made, as snapshot archives name one; empty without any."""
    times = []
    for text in dates:
        try:
            times.append(parsedate_to_datetime(text.replace("UTC", "+0000")).astimezone(datetime.timezone.utc))
        except (ValueError, OverflowError):
            continue
    return max(times).strftime("%Y%m%dT%H%M%SZ") if times else ""


def suite_of(catalog: Catalog, identity: str) -> str:
    """The release of the distribution that an image stands on, by its label `kit.base-identity`: `bookworm`, `jammy`.

    Raises LockError for an identity that no base of the catalog has.
    """
    if identity.startswith(ARCHIVE):
        return identity.removeprefix(ARCHIVE)
    distro = next((base.distro for base in catalog.bases if base.reference == identity), "")
    if not distro:
        raise LockError(
            f"the image stands on `{identity}`, which is no base of this kit's catalog", hint="build it again"
        )
    names = {distro: name for name, distro in _distros(catalog).items()}
    if distro not in names:
        raise CatalogError(f"bases.toml: there is no [[codename]] of {distro}")
    return names[distro]


def _distros(catalog: Catalog) -> dict[str, str]:
    """The distribution releases of the catalog by what their archives call them: `bookworm` is `debian12`."""
    return {**{row.name: row.distro for row in catalog.suites}, **{row.name: row.distro for row in catalog.codenames}}


def layer_for(lock: EnvironmentLock, suite: str, architecture: str) -> SystemLayer:
    """The entry of a lock for an image on that release. Raises LockError when it has none."""
    for layer in lock.system:
        if (layer.suite, layer.architecture) == (suite, architecture):
            return layer
    had = ", ".join(f"{layer.suite} {layer.architecture}" for layer in lock.system) or "none"
    raise LockError(
        f"kit.lock has system packages for {had}, and {lock.image} stands on {suite} {architecture} here",
        hint="`kit lock` in the project's folder, on this machine, adds them; what it has stays",
    )


def step_list(catalog: Catalog, layer: SystemLayer) -> str:
    """What the build step is given, which templates/system.sh reads."""
    lines = [f"suite {layer.suite} {layer.architecture}"]
    if layer.snapshot:
        distro = _distros(catalog).get(layer.suite, "")
        lines += [
            f"snapshot {row.uri.format(time=layer.snapshot)}"
            for row in catalog.snapshots
            if distro.startswith(row.family) and layer.architecture in row.architectures
        ]
    lines += [f"package {p.sha256} {p.name} {p.version} {p.architecture} {p.file}" for p in layer.packages]
    return "".join(f"{line}\n" for line in lines)
