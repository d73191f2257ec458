"""From all that a file asks for: the image, and what kit.toml says beside it. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from kit import paths
from kit.catalog import Catalog
from kit.catalog.rows import SHORT_NAMES, FrameworkPackages, Image, Release, version_key
from kit.errors import KitError
from kit.locks.format import read_lock
from kit.locks.held import bounds, held
from kit.takeover import names
from kit.takeover.found import Asked, Found, TakenOver, Wish


def decide(found: Found) -> TakenOver:
    """What was found as a project's environment: each line in one of its parts, or in `left`."""
    catalog = found.catalog
    for asked in list(found.asked):
        if reason := _not_on_linux(catalog, asked.requirement):
            found.asked.remove(asked)
            if not asked.by_project:
                found.leave(asked, reason)
    row = _framework(found)
    if row is None:
        for wish in found.wishes:
            found.leave(wish, "no framework is asked for, so this chooses no image")
        release, image_name = None, ""
    else:
        release, image_name = _Choice(found, row).made()
    packages = _packages(found, row, release)
    return TakenOver(
        image=image_name,
        packages=packages,
        system=tuple(dict.fromkeys(found.systems)),
        indexes=tuple(dict.fromkeys(found.indexes)),
        project=found.project,
        env=tuple(found.env.items()),
        left=tuple(dict.fromkeys(left for _, left in sorted(found.lefts, key=lambda pair: pair[0]))),
    )


def _name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)


def _not_on_linux(catalog: Catalog, requirement: Requirement) -> str:
    """Why a marker never holds in an image; empty when it does in one."""
    if requirement.marker is None:
        return ""
    pythons = {python for image in catalog.images() for python in catalog.pythons_for(image)}
    base = {
        "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "extra": "",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }  # fmt: skip
    try:
        for python in pythons:
            for row in catalog.platforms:
                # Any patch release: a marker that asks for one is about the minor release before and after it.
                for patch in ("0", "99"):
                    there = {"python_version": python, "python_full_version": f"{python}.{patch}"}
                    if requirement.marker.evaluate({**base, **there, "platform_machine": row.machine}):
                        return ""
    except (ValueError, RecursionError, KeyError):
        return "its marker cannot be read"
    return f"only where `{requirement.marker}`, which no image is"


def _framework(found: Found) -> FrameworkPackages | None:
    """The framework that the file is for: the first that it names, else the first that a package of it is for."""
    rows = found.catalog.framework_packages
    for asked in found.asked:
        for row in rows:
            if _name(asked.requirement) in (*row.main, *row.companions):
                return row
    for wish in found.wishes:
        for row in rows:
            if wish.framework == row.framework:
                return row
    for asked in found.asked:
        for row in rows:
            if any(fnmatchcase(_name(asked.requirement), pattern) for pattern in row.implied):
                return row
    return None


def _pinned(spec: SpecifierSet) -> str:
    """The version that a specifier pins, `2.7.1` or `2.7` of `==2.7.*`; empty for one that leaves a choice."""
    pins = [s.version for s in spec if s.operator in ("==", "===")]
    return pins[0].partition("+")[0].removesuffix(".*") if pins else ""


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _public(requirement: Requirement) -> SpecifierSet:
    """The specifier without local versions: `==2.6.0+cu124` is 2.6.0."""
    return SpecifierSet(",".join(re.sub(r"\+[\w.]+", "", str(s)) for s in requirement.specifier))


def _required(release: Release) -> dict[str, str]:
    """The versions of the packages that a release requires, by name."""
    parsed = (Requirement(text) for text in release.requirements)
    return {_name(r): _pinned(_public(r)) for r in parsed}


class _Choice:
    """The choice of the image: what the lines ask for, one after the other, narrows what there is."""

    def __init__(self, found: Found, row: FrameworkPackages) -> None:
        self.found = found
        self.row = row
        self.catalog = found.catalog
        self.short = SHORT_NAMES[row.framework]
        self.main = [a for a in found.asked if _name(a.requirement) in row.main]
        self.releases = [r for r in self.catalog.releases if r.framework == row.framework]
        self.locked = [r for r in self.releases if not self.catalog.unlocked_reason(Image(release=r))]
        self.is_cpu = any(w.kind == "cpu" for w in found.wishes) or any(
            _name(a.requirement).endswith("-cpu") or "+cpu" in str(a.requirement.specifier) for a in self.main
        )
        self.specific = False  # whether more than the framework's own specifier chose

    def made(self) -> tuple[Release, str]:
        """The release, and the wish that stands for it in kit.toml; what was asked for and is not so is left."""
        wishes = [w for w in self.found.wishes if w.kind == "framework" and w.framework == self.row.framework]
        for wish in self.found.wishes:
            if wish.kind == "framework" and wish.framework not in ("", self.row.framework):
                self.found.leave(wish, f"an image has one framework: {self.row.framework}")
        spec = SpecifierSet(",".join(str(_public(a.requirement)) for a in [*self.main, *self._limits()]))
        pinned = _pinned(spec)
        if not pinned and (versions := [w.value for w in wishes if w.value]) and not str(spec):
            pinned, spec = versions[-1], SpecifierSet(f"=={versions[-1]}")
        fitting, how = self._by_version(spec, pinned)
        is_exact = bool(how != "nearest")
        fitting = self._by_companions(fitting)
        fitting, tag = self._by_cuda(fitting)
        fitting = self._by_python(fitting)
        chosen = max(fitting, key=lambda r: (version_key(r.version), version_key(r.cuda or "0")))
        self._say_of_main(chosen, how, pinned)
        for wish in wishes:
            if wish.value and not _fits_minor(wish.value, chosen):
                self.found.leave(wish, self._nearest_reason(wish.value, chosen))
        if pinned or self.specific or not is_exact or (str(spec) and (self.is_cpu or tag)):
            name = f"{self.short}{_minor(chosen.version)}"
        elif str(spec):
            return chosen, f"{self.short}{','.join(sorted(map(str, spec), reverse=True))}"
        else:
            name = self.short
        if self.is_cpu and not chosen.cuda:
            name += "-cpu"
        elif tag:
            name += f"-{tag}"
        return chosen, name if self._finds(name, chosen) else chosen.name

    def _finds(self, name: str, release: Release) -> bool:
        """Whether a name means the release on some host; without a CUDA in it, the host chooses among its releases."""
        try:
            return self.catalog.find(name).release == release or name == self.short
        except KitError:
            return False

    def _limits(self) -> list[Asked]:
        return [a for a in self.found.limits if _name(a.requirement) in self.row.main]

    def _by_version(self, spec: SpecifierSet, pinned: str) -> tuple[list[Release], str]:
        """The releases that the framework's own specifier admits, and how: `exact`, `minor`, `nearest`."""
        pools = [[r for r in self.locked if not r.cuda], self.locked] if self.is_cpu else []
        pools.append([r for r in self.locked if r.cuda] or self.locked)
        for pool in pools:
            if fitting := [r for r in pool if spec.contains(r.version, prereleases=True)]:
                return fitting, "exact"
        for pool in pools:
            if pinned and (fitting := [r for r in pool if _fits_minor(pinned, r)]):
                return fitting, "minor"
        wanted = pinned or next((s.version for s in spec), "")
        return self._nearest(pools[-1], wanted), "nearest"

    def _nearest(self, pool: Sequence[Release], version: str) -> list[Release]:
        """The oldest release that is not older, of the same major one if there is one; else the newest."""
        try:
            wanted = Version(version.removesuffix(".*")).release
        except InvalidVersion:
            return list(pool)
        newer = [r for r in pool if Version(r.version).release >= wanted]
        same = [r for r in newer if Version(r.version).release[0] == wanted[0]]
        if found := same or ([] if any(Version(r.version).release[0] == wanted[0] for r in pool) else newer):
            version = min((r.version for r in found), key=version_key)
        else:
            version = max((r.version for r in pool), key=version_key)
        return [r for r in pool if r.version == version]

    def _by_companions(self, fitting: list[Release]) -> list[Release]:
        for asked in self.found.asked:
            name = _name(asked.requirement)
            if name not in self.row.companions or not asked.requirement.specifier:
                continue
            narrowed = [r for r in fitting if _admits(asked.requirement, _required(r).get(name, ""))]
            if narrowed and len(narrowed) < len(fitting):
                fitting, self.specific = narrowed, self.specific or bool(_pinned(_public(asked.requirement)))
                if not self.specific:
                    self.specific = max(r.version for r in narrowed) != max(r.version for r in fitting)
        return fitting

    def _by_cuda(self, fitting: list[Release]) -> tuple[list[Release], str]:
        """Those of the CUDA that was asked for, else of its major release; and the tag when it is that very CUDA."""
        wanted: list[tuple[Asked | Wish, str]] = [(w, w.value) for w in self.found.wishes if w.kind == "cuda"]
        local: list[tuple[Asked | Wish, str]] = [
            (a, f"{m[1]}.{m[2]}")
            for a in self.main
            for s in a.requirement.specifier
            if (m := re.search(r"\+cu(\d+)(\d)$", s.version))
        ]
        tag = ""
        for line, version in [*local, *wanted]:
            major, minor = version.split(".")[0], _minor(version)
            exact = [
                r
                for r in fitting
                if r.cuda and (r.cuda == minor or ("." not in version and r.cuda.startswith(f"{major}.")))
            ]
            if exact:
                fitting, tag = exact, exact[-1].cuda_tag if "." in version else tag
                continue
            near = [r for r in fitting if r.cuda.startswith(f"{major}.")]
            if near and near != fitting:
                fitting, self.specific = near, True
            have = max(fitting, key=lambda r: (version_key(r.version), version_key(r.cuda or "0")))
            what = f"has CUDA {have.cuda}" if have.cuda else "is for the CPU"
            self.found.leave(line, f"no image of this framework's release has CUDA {minor}: `{have.name}` {what}")
        return fitting, tag

    def _by_python(self, fitting: list[Release]) -> list[Release]:
        for wish in (w for w in self.found.wishes if w.kind == "python"):
            narrowed = [r for r in fitting if any(_python_admits(wish.value, p) for p in self._pythons(r))]
            best = max(narrowed or fitting, key=lambda r: version_key(r.version))
            have = " or ".join(self._pythons(best))
            if not narrowed:
                self.found.leave(wish, f"no image that fits has it: `{best.name}` has Python {have}")
                continue
            if version_key(best.version) != max(version_key(r.version) for r in fitting):
                fitting, self.specific = narrowed, True
            if not all(_python_admits(wish.value, p) for p in self._pythons(best)):
                self.found.leave(
                    wish, f"Python is the distribution's in an image: {have} in `{best.name}`, by its base"
                )
        return fitting

    def _pythons(self, release: Release) -> list[str]:
        return self.catalog.pythons_for(Image(release=release))

    def _say_of_main(self, chosen: Release, how: str, pinned: str) -> None:
        for asked in self.main:
            if _admits(asked.requirement, chosen.version):
                continue
            if how == "minor" and pinned:
                self.found.leave(asked, f"the image has {self.row.framework} {chosen.version}")
            else:
                self.found.leave(asked, self._nearest_reason(str(_public(asked.requirement)), chosen))

    def _nearest_reason(self, wanted: str, chosen: Release) -> str:
        wanted = wanted.removeprefix("==")
        title = f"{self.row.framework} {wanted}"
        unlocked = [r for r in self.releases if r not in self.locked and _fits_minor(wanted, r)]
        if unlocked:
            return (
                f"the image of {title}, `{unlocked[0].name}`, has no lock and cannot be built; "
                f"`{chosen.name}` is the nearest"
            )
        major = (
            "; a program for another major release may not run with it"
            if (wanted[:1].isdigit() and wanted.split(".")[0] != chosen.version.split(".")[0])
            else ""
        )
        return f"no image has {title}: `{chosen.name}` with {chosen.version} is the nearest{major}"


def _fits_minor(version: str, release: Release) -> bool:
    return _minor(version.removesuffix(".*")) == _minor(release.version)


def _admits(requirement: Requirement, version: str) -> bool:
    return bool(version) and _public(requirement).contains(version.partition("+")[0], prereleases=True)


def _python_admits(spec: str, python: str) -> bool:
    specifier = SpecifierSet(spec)
    return any(specifier.contains(f"{python}.{patch}", prereleases=True) for patch in range(30))


class _Held:
    """What the chosen image has, and holds to."""

    def __init__(self, catalog: Catalog, row: FrameworkPackages, release: Release) -> None:
        image = Image(release=release)
        lock = read_lock(paths.images_dir() / image.name, image)
        self.row, self.release = row, release
        self.holds = held(catalog, image)
        self.bounds = [Requirement(text) for text in bounds(catalog, lock)]
        self.versions: dict[str, list[str]] = {}
        for name, version in lock.packages:
            self.versions.setdefault(name, []).append(version)

    def why_left(self, requirement: Requirement) -> tuple[str, bool]:
        """(why a package is not for kit.toml to name, empty for one that is; whether the image has what it asks for)"""
        name = _name(requirement)
        if name in self.row.main:
            return "", _admits(requirement, self.release.version)
        have = " or ".join(dict.fromkeys(self.versions.get(name, ())))
        fits = any(_admits(requirement, version) for version in self.versions.get(name, ()))
        is_held = any(fnmatchcase(name, pattern) for pattern in self.holds)
        if have and fits and (name in self.row.companions or is_held):
            return f"the image has it: {have}", True
        if have and (name in self.row.companions or is_held):
            return f"the image holds {have}, which its framework is built with", False
        if name in self.row.companions:
            return f"it belongs to releases of {self.row.framework} that the image has not", False
        if re.search(r"-cu\d+$", name) and is_held:
            return "CUDA and its libraries are the image's", False
        pinned = _pinned(requirement.specifier)
        for bound in self.bounds if pinned else ():
            if _name(bound) == name and not bound.specifier.contains(pinned, prereleases=True):
                return f"the image's NumPy needs {bound}: earlier releases are compiled for another", False
        return "", True


def _packages(found: Found, row: FrameworkPackages | None, release: Release | None) -> tuple[str, ...]:
    """The packages that kit.toml names: not those that an image holds, which are left with the version it has."""
    catalog = found.catalog
    image = _Held(catalog, row, release) if row and release else None
    others = {name: other.framework for other in catalog.framework_packages if other is not row for name in other.main}

    def why_left(requirement: Requirement) -> tuple[str, bool]:
        if row and _name(requirement) in others:
            return f"an image has one framework, and this one is for {row.framework}", False
        return image.why_left(requirement) if image else ("", True)

    if found.project and (unmet := [a for a in found.asked if a.by_project and not why_left(a.requirement)[1]]):
        found.project = False
        found.asked = [dataclasses.replace(a, by_project=False) for a in found.asked]
        what = ", ".join(str(a.requirement) for a in unmet)
        found.left(
            0,
            found.name,
            f"the project itself is not installed, since no image has {what}: its packages are named one by one; "
            "with a wider range there `project = true` installs it",
        )
    limits: dict[str, list[Asked]] = {}
    for limit in found.limits:
        limits.setdefault(_name(limit.requirement), []).append(limit)
    kept: list[str] = []
    for asked in found.asked:
        name = _name(asked.requirement)
        reason, _ = why_left(asked.requirement)
        if asked.by_project or (row and name in row.main):
            continue
        if reason:
            found.leave(asked, reason)
            continue
        other, why = names.instead(catalog, name)
        if why:
            found.leave(asked, f"taken as `{other}`: {why}" if other else why)
        if why and not other:
            continue
        narrower = [limit.requirement for limit in limits.get(name, ())]
        kept.append(_text(asked.requirement, other or asked.requirement.name, narrower))
    for name in limits.keys() - {_name(asked.requirement) for asked in found.asked}:
        for limit in limits[name]:
            found.leave(limit, "a limit for a package that the file does not ask for: kit.toml has no such lines")
    return tuple(dict.fromkeys(kept))


def _text(requirement: Requirement, name: str, limits: Sequence[Requirement]) -> str:
    """A requirement as kit.toml has it, with what constraints say of it."""
    spec = ",".join(dict.fromkeys(str(s) for r in (requirement, *limits) for s in r.specifier))
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{name}{extras}{spec}" + (f" ; {requirement.marker}" if requirement.marker else "")
