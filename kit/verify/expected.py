"""What an image must be, from its row and its lock, and how it differs: pure functions."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence

from packaging.markers import Marker
from packaging.requirements import Requirement as Constraint
from packaging.utils import canonicalize_name
from packaging.version import Version

from kit import redact
from kit.catalog.rows import Release
from kit.environment.editable import Editable
from kit.locks.format import Lock, Requirement, parse_requirements

# Where a `devel` base keeps the CUDA Toolkit: for nvcc, beside the libraries that the framework loads.
TOOLKIT_FOLDER = re.compile(r"/usr/local/cuda[^/]*/|/usr/lib/[^/]*-linux-gnu/")


def packages(
    lock: Lock, environment: Mapping[str, str], added: Iterable[Requirement] = (), own: Editable | None = None
) -> dict[str, str]:
    """The version of every package that belongs into an image with this Python and platform; with what a project adds
    to it or puts in the place of the image's, and the project itself.
    """
    found: dict[str, str] = {}
    entries = [entry for text in lock.layers.values() for entry in parse_requirements(text)]
    for entry in (*entries, *added):
        if not entry.marker or Marker(entry.marker).evaluate(dict(environment)):
            found[canonicalize_name(entry.name)] = entry.version
    if own:
        found[canonicalize_name(own.name)] = own.version
    return found


def missing(expected: Mapping[str, str], installed: Iterable[Sequence[str]]) -> list[str]:
    """The locked packages that are not there, or at another version, one line each."""
    versions: dict[str, list[str]] = {}
    for name, version in installed:
        versions.setdefault(canonicalize_name(name), []).append(version)
    lines = []
    for name, version in expected.items():
        there = versions.get(canonicalize_name(name), [])
        if not any(is_same_version(version, other) for other in there):
            lines.append(f"{name} {version} is locked, {' and '.join(there) or 'none'} is there")
    return lines


def matching(locked: Mapping[str, str], patterns: Iterable[str]) -> dict[str, str]:
    """The locked packages that these names and shell patterns stand for."""
    return {n: v for n, v in locked.items() if any(fnmatch.fnmatchcase(n, pattern) for pattern in patterns)}


def broken(locked: Mapping[str, str], constraints: Iterable[str]) -> list[str]:
    """The constraints that a locked version does not meet: with such a line pip would have to replace it."""
    found = []
    for requirement in map(Constraint, constraints):
        version = locked.get(canonicalize_name(requirement.name))
        if version and not requirement.specifier.contains(version, prereleases=True):
            found.append(str(requirement))
    return found


def besides(expected: Mapping[str, str], installed: Iterable[Sequence[str]]) -> list[str]:
    """What is installed and not locked: other packages, and second copies of locked ones."""
    lines, seen = [], set()
    for name, version in installed:
        key = canonicalize_name(name)
        if key not in expected:
            lines.append(f"{name} {version}")
        elif key in seen:
            lines.append(f"{name} {version}, a second time")
        seen.add(key)
    return lines


def is_same_version(locked: str, found: str) -> bool:
    """Equal as versions; a wheel may write its own with a local part that the index does not have (`2.7.1+cu126`)."""
    try:
        ours, theirs = Version(locked), Version(found)
    except ValueError:  # packaging's own kind of it, or a number with too many digits
        return locked == found
    return ours == theirs or (ours.local is None and ours.public == theirs.public)


def locked_version(lock: Lock, component: str) -> str:
    """The version of NVIDIA's wheel of a component (`cudnn`, `cuda-runtime`); empty when the lock has none."""
    for name, version in lock.packages:
        if re.fullmatch(rf"nvidia-{component}(-cu\d+)?", name):
            return version
    return ""


def cuda_version(release: Release, lock: Lock) -> str:
    """The CUDA version (`12.6`) that must be loaded: the locked wheel's, else the row's."""
    version = locked_version(lock, "cuda-runtime") or release.cuda
    return ".".join(version.split(".")[:2])


def cuda_number(version: str) -> int:
    """`12.6` as the CUDA runtime says it, 12060."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return major * 1000 + minor * 10


def cudnn_number(version: str) -> int:
    """`9.5.1.17` as cuDNN says it, 90501; before cuDNN 9 with one digit less: `8.9.7.29` is 8907."""
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    return major * (10000 if major >= 9 else 1000) + minor * 100 + patch


def architectures(release: Release, platform: str) -> set[str]:
    """What the framework must be compiled for: machine code (`sm_90`) and PTX (`compute_90`)."""
    native = {f"sm_{cc.replace('.', '')}" for cc in release.capabilities(platform)}
    return native | {f"compute_{cc.replace('.', '')}" for cc in release.ptx}


def copies(libraries: Iterable[str], *, is_devel: bool) -> dict[str, list[str]]:
    """The CUDA libraries that can be loaded by name from more than one place.

    Files a wheel brought under a name of its own (`libcudart.45e7f3ed.so.12`) are nobody else's and do not count; nor,
    in a `-devel` image, does the toolkit's own folder, which is for nvcc.
    """
    found: dict[str, list[str]] = {}
    for path in libraries:
        if not (is_devel and TOOLKIT_FOLDER.match(path)):
            found.setdefault(path.rpartition("/")[2].partition(".so")[0], []).append(path)
    return {name: paths for name, paths in found.items() if len(paths) > 1}


def secret_variables(environment: Mapping[str, str]) -> list[str]:
    """The variables whose name or value says that they hold a secret."""
    return [
        name
        for name, value in environment.items()
        if value and (redact.is_secret_name(name) or redact.text(value) != value)
    ]


def variables(config: Mapping[str, object]) -> dict[str, str]:
    """The variables an image sets, from the engine's description of it."""
    entries = config.get("Env")
    return dict(str(entry).partition("=")[::2] for entry in entries) if isinstance(entries, list) else {}
