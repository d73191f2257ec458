"""Guards: what no resolver sees of an environment, and what is said of it to people.

Some of it follows from locks alone and is said after a solve. The rest is in the files: templates/guards.py looks at
those in a build or a container, and what it writes becomes sentences here.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from kit.catalog import Catalog
from kit.catalog.rows import Image, Twins
from kit.environment.format import EnvironmentLock
from kit.frozen import dataclass
from kit.locks.format import Lock, parse_requirements
from kit.locks.format import Requirement as LockedRequirement
from kit.locks.held import bounds
from kit.locks.solver import marker_environments

PROGRAM = "guards.py"
_MARK = "kit-guard: "
_MOST_LINES = 200
# `nvidia-cudnn-cu12`, `cupy-cuda12x`, `spconv-cu118`; of a version, `+cu118`, `+pt27cu126`, `+cuda12.cudnn89`.
_CUDA_IN_NAME = re.compile(r"(?<![a-z0-9])cu(?:da)?(\d{2,3})(?=x?(?:-|$))")
_CUDA_IN_VERSION = re.compile(r"cu(?:da)?(\d{2,3})")
_OTHER_CHIP = re.compile(r"cpu|rocm|xpu")
_CHIPS = {"cpu": "the CPU", "rocm": "AMD's GPUs", "xpu": "Intel's GPUs"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a guard found, and the package that broke it."""

    guard: str  # `owners`, `cuda`, `cpu`, `libraries`, `numpy`, `import`
    package: str
    message: str
    hint: str
    stops: bool  # whether there is no environment with it; else it is a warning


@dataclass(frozen=True, kw_only=True)
class _Pin:
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def after_solve(catalog: Catalog, image: Image, lock: Lock, environment: EnvironmentLock | None) -> list[Finding]:
    """What is wrong with what a project adds to an image, from the locks alone, the worst first.

    Without an environment: what is wrong with the image's own packages.
    """
    own = [entry for text in lock.layers.values() for entry in parse_requirements(text)]
    entries = own if environment is None else [package.requirement for package in environment.packages]
    found = []
    # Two entries that no Python and machine of the image gets both of do not meet.
    for one in marker_environments(catalog.pythons_for(image), catalog.machines_for(image)):
        added = _pins(entries, one)
        replaced = {pin.name for pin in added}
        everything = [*(pin for pin in _pins(own, one) if pin.name not in replaced), *added]
        found += [
            *_cuda(catalog, image, added),
            *_cpu(catalog, image, added, everything),
            *_owners(catalog, image, added, everything),
            *_numpy(catalog, lock, added),
        ]
    once = {(finding.guard, finding.package): finding for finding in reversed(found)}
    return sorted(once.values(), key=lambda finding: (not finding.stops, finding.package, finding.guard))


def _pins(entries: list[LockedRequirement], environment: dict[str, str]) -> list[_Pin]:
    """What one environment gets of these entries."""
    return [
        _Pin(name=canonicalize_name(entry.name), version=entry.version)
        for entry in entries
        if not entry.marker or _marker(entry.marker).evaluate(environment)
    ]


@cache
def _marker(text: str) -> Marker:
    return Marker(text)


def _cuda(catalog: Catalog, image: Image, added: list[_Pin]) -> Iterator[Finding]:
    wanted = int(image.release.cuda.partition(".")[0] or 0)
    for pin in added:
        major = cuda_major(catalog, pin.name, pin.version)
        if not major or major == wanted:
            continue
        if not wanted:  # an image for the CPU: the first says which one it is
            wanted = major
            continue
        has = f"{image.name} has CUDA {image.release.cuda}" if image.is_gpu else f"another package is for CUDA {wanted}"
        yield Finding(
            guard="cuda",
            package=pin.name,
            message=f"{pin} is for CUDA {major}, and {has}: two of them do not go together",
            hint=_cuda_hint(pin, major, wanted, _is_numbered(catalog, pin.name)),
            stops=True,
        )


def _cuda_hint(pin: _Pin, major: int, wanted: int, by_version: bool) -> str:
    if by_version:
        return f"`kit add '{pin.name}<{wanted + 1}'` holds it to CUDA {wanted}"
    if match := _CUDA_IN_NAME.search(pin.name):
        other = str(wanted) if len(match[1]) == 2 else f"{wanted}…"
        return f"take `{pin.name[: match.start(1)]}{other}{pin.name[match.end(1) :]}`, or an image of CUDA {major}"
    return f"take its build for CUDA {wanted}, or an image of CUDA {major} (`kit list`)"


def cuda_major(catalog: Catalog, name: str, version: str) -> int:
    """The major of the CUDA that a package says it is built for, by its name or version; 0 when it says none."""
    match = _CUDA_IN_NAME.search(name) or _CUDA_IN_VERSION.search(version.partition("+")[2])
    if match:  # `12`, `126`, and `92` for CUDA 9.2
        return int(match[1][:2]) if match[1].startswith("1") else int(match[1][:1])
    first = version.partition(".")[0]
    return int(first) if _is_numbered(catalog, name) and first.isdecimal() else 0


def _is_numbered(catalog: Catalog, name: str) -> bool:
    return not _CUDA_IN_NAME.search(name) and any(_matches(name, row.patterns) for row in catalog.cuda_numbered)


def _cpu(catalog: Catalog, image: Image, added: list[_Pin], everything: list[_Pin]) -> Iterator[Finding]:
    if not image.is_gpu:
        return
    major = image.release.cuda.partition(".")[0]
    for pin in added:
        if match := _OTHER_CHIP.search(pin.version.partition("+")[2]):
            yield Finding(
                guard="cpu",
                package=pin.name,
                message=f"{pin} is the build for {_CHIPS[match[0]]}, and {image.name} is for CUDA {image.release.cuda}",
                hint=f"take its build for CUDA {major}, or an image for the CPU (`kit list`)",
                stops=True,
            )
        for row in catalog.twins:
            if not _matches(pin.name, row.cpu):
                continue
            others = [p for p in _members(row, everything) if not _matches(p.name, row.cpu)]
            instead = row.gpu.format(major=major)
            yield Finding(
                guard="cpu",
                package=pin.name,
                message=f"{pin} computes on the CPU"
                + (f", and takes the place of {others[0]}: both are `{row.module}`" if others else " alone"),
                hint=f"keep one of them: {row.reason}" if others else f"`{instead}` is the build for the GPU",
                stops=bool(others),
            )


def _owners(catalog: Catalog, image: Image, added: list[_Pin], everything: list[_Pin]) -> Iterator[Finding]:
    for row in catalog.twins:
        members = _members(row, everything)
        for pin in _members(row, added):
            other = next((p for p in members if p.name != pin.name), None)
            if other is None or (image.is_gpu and any(_matches(p.name, row.cpu) for p in (pin, other))):
                continue
            shared = _matches(pin.name, row.share) and _matches(other.name, row.share)
            together = shared and pin.version == other.version
            hint = row.reason if together else f"keep one of them: {row.reason}"
            if shared and not together:
                hint = f"they go together at one version: `kit add {pin.name}=={other.version}`"
            yield Finding(
                guard="owners",
                package=pin.name,
                message=f"{pin} and {other} are both `{row.module}`, and write the same files",
                hint=hint,
                stops=not together,
            )


def _numpy(catalog: Catalog, lock: Lock, added: list[_Pin]) -> Iterator[Finding]:
    needed = {canonicalize_name(r.name): r for r in map(Requirement, bounds(catalog, lock))}
    for pin in added:
        requirement = needed.get(canonicalize_name(pin.name))
        if requirement and not requirement.specifier.contains(pin.version, prereleases=True):
            yield Finding(
                guard="numpy",
                package=pin.name,
                message=f"{pin} is compiled for another NumPy than the image's",
                hint=f"`kit add '{requirement}'`",
                stops=True,
            )


def _members(row: Twins, pins: list[_Pin]) -> list[_Pin]:
    return [pin for pin in pins if _matches(pin.name, row.packages)]


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def arguments(catalog: Catalog, environment: EnvironmentLock) -> tuple[str, ...]:
    """What templates/guards.py is told of an environment: the packages that it adds, and what is known of them."""
    names = sorted({canonicalize_name(package.name) for package in environment.packages})
    share = [f"--share={','.join(row.share)}" for row in catalog.twins if any(_matches(n, row.share) for n in names)]
    optional = [
        f"--optional={name}:{pattern}"
        for name in names
        for row in catalog.optional_parts
        if fnmatch.fnmatchcase(name, row.package)
        for pattern in row.patterns
    ]
    return (*share, *optional, *names)


def sentences_of(catalog: Catalog, lines: Iterable[str]) -> list[Finding]:
    """What templates/guards.py found, from the lines of a build's log or of its stderr.

    A line that is not one of its own, or is cut off, says nothing.
    """
    found: dict[tuple[str, str], Finding] = {}
    for line in lines:
        _, mark, text = line.partition(_MARK)
        if not mark or len(found) >= _MOST_LINES:
            continue
        try:
            facts = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(facts, dict) and (finding := _sentence(catalog, facts)):
            # Builders print the last lines of a step that failed twice.
            found.setdefault((finding.guard, finding.message), finding)
    return list(found.values())


def _sentence(catalog: Catalog, facts: dict[str, Any]) -> Finding | None:
    """The sentence of one finding; None for what the program does not write."""

    def text(key: str) -> str:
        value = facts.get(key, "")
        return " ".join(str(value).split())[:200] if isinstance(value, (str, int)) else ""

    guard, package, count = text("guard"), text("package"), text("count")
    files = text("file") + (f" and {int(count) - 1} more" if count.isdecimal() and int(count) > 1 else "")
    if not package:
        return None
    if guard == "owners":
        rows = [row for row in catalog.twins if _matches(package, row.packages)]
        row = next((row for row in rows if _matches(text("other"), row.packages)), None)
        message = f"{package} and {text('other')} both write {files}, each something else"
        hint = f"keep one of them: {row.reason if row else 'what is installed later takes the place of the other'}"
    elif guard == "libraries":
        message = f"{package} needs {text('library')}, which the image lacks" + (f" ({files})" if files else "")
        hint = _library_hint(catalog, text("library"))
    elif guard == "cuda":
        major, has = text("brings") or text("needs"), f"and the image has CUDA {text('image')}"
        message = f"{package} is built for CUDA {major}: it needs {text('library')}, {has}"
        if text("brings"):
            message = f"{package} brings CUDA {major} ({files}), {has}"
        hint = f"take a build or release of it for CUDA {text('image')}, or an image of CUDA {major} (`kit list`)"
    elif guard == "numpy":
        message = f"{package} is compiled for another NumPy than the image's {text('numpy')}"
        message += f" ({files})" if files else ""
        hint = _numpy_hint(catalog, package, text("numpy"))
    elif guard == "import":
        message = f"{package} cannot be loaded: {text('text')}"
        hint = "it is compiled against another release of what it stands on: take its build for this image's"
        if not facts.get("stops"):
            message, hint = f"importing {package} {text('text')}", "does it load where it is to run?"
    else:
        return None
    return Finding(guard=guard, package=package, message=message, hint=hint, stops=bool(facts.get("stops")))


def _library_hint(catalog: Catalog, library: str) -> str:
    for row in catalog.library_packages:
        for package, libraries in row.packages:
            if _matches(library, libraries):
                return f"`kit add --system {package}`"
    return f"`apt-file search {library}` names the distribution's package that has it: `kit add --system PACKAGE`"


def _numpy_hint(catalog: Catalog, package: str, numpy: str) -> str:
    for row in catalog.built_for:
        for requirement in row.requirements:
            if Requirement(requirement).name == package and row.package == "numpy" and _is_in(numpy, row.versions):
                return f"`kit add '{requirement}'`"
    return "take another release of it, or an image with the other NumPy"


def _is_in(version: str, versions: str) -> bool:
    try:
        return SpecifierSet(versions).contains(version, prereleases=True)
    except InvalidVersion:
        return False
