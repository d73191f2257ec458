"""Solves a project's packages beside what its image holds.

Every package of the image is a requirement of the solve. Those that are held (kit/locks/held.py) are exact; the others
keep their version as long as the newest of what was asked for goes with it. An older release of what was asked for, so
that a package of the image can stay, would be taken without a word and may be years old.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from packaging.requirements import Requirement as Wanted
from packaging.utils import canonicalize_name
from packaging.version import Version

from kit import __version__, paths, process
from kit.catalog import Catalog
from kit.catalog.rows import Image, version_key
from kit.environment import conflicts, pyproject
from kit.environment.current import differences as differences
from kit.environment.current import inputs_hash as inputs_hash
from kit.environment.declared import FILE, Declared
from kit.environment.format import LOCK_NAME, EnvironmentLock, Package
from kit.errors import BadInputError, CommandError, KitError, LockError, NetworkError
from kit.frozen import dataclass
from kit.locks import known_wheels
from kit.locks.format import Lock, Requirement, parse_requirements, read_lock, sha256
from kit.locks.held import bounds, is_held
from kit.locks.solver import (
    Target,
    evaluate,
    find_wheels,
    is_unreachable,
    marker_environments,
    newest_alone,
    solution,
    targets,
)
from kit.locks.uv import uv_program
from kit.network import INDEX_VARIABLES, NetworkSettings, read_settings

# How often another version is tried where the one that uv chose has no wheel for one of the bases.
_TRIES = 5
# What finding out what would have fitted may take.
_ADVICE_S = 60.0


def solve(
    catalog: Catalog,
    declared: Declared,
    image: Image,
    *,
    present: EnvironmentLock | None,
    upgrade: bool = False,
    upgrade_packages: frozenset[str] = frozenset(),
    network: NetworkSettings | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> EnvironmentLock:
    """The lock of what a project declares on an image: what the image lacks, or has in another version.

    Versions of `present` stay while they fit, but with `upgrade`, or for `upgrade_packages`; so does what it has of the
    distribution. `say` is told of packages of the image that another version takes the place of.

    Raises LockError when nothing fits, with what would; BadInputError for requirements that kit cannot lock;
    NetworkError when an index does not answer; UnlockedError for an image without a lock.
    """
    lock = read_lock(paths.images_dir() / image.name, image)
    asked = requested(declared)
    beside = _Beside(catalog, declared, image, lock, network or read_settings())
    if unknown := upgrade_packages - {p.name for p in (present.packages if present else ())} - asked.keys():
        raise BadInputError(
            f"nothing to upgrade: no package of this project is `{min(unknown)}`",
            hint="it takes the name of one in kit.toml or kit.lock",
        )
    packages: tuple[Package, ...] = ()
    if asked:
        kept = () if upgrade or present is None else present.packages
        packages = beside.solve(asked, [p for p in kept if p.name not in upgrade_packages and not p.source], say)
    text = "".join(package.requirement.text() for package in packages)
    new = EnvironmentLock(
        kit=__version__,
        uv=catalog.uv_version,
        inputs_hash=inputs_hash(declared),
        image=image.name,
        image_lock=lock.lock_hash,
        pythons=tuple(catalog.pythons_for(image)),
        source_date_epoch=lock.source_date_epoch,
        requirements_hash=sha256(text),
        packages=packages,
        system=present.system if present else (),
    )
    if present:
        # Another kit that comes to the same changes no line of the file.
        same = dataclasses.replace(new, kit=present.kit, uv=present.uv)
        return present if same == present else new
    return new


def requested(declared: Declared) -> dict[str, list[Wanted]]:
    """What the project asks for by itself, by name; a name is there more than once for several environments.

    Raises BadInputError for what is not from an index.
    """
    own = pyproject.dependencies(declared.folder) if declared.project else ()
    found: dict[str, list[Wanted]] = {}
    for text in (*declared.packages, *own):
        wanted = Wanted(text)
        name = canonicalize_name(wanted.name)
        if wanted.url:
            what = "a source, which would have to be built" if wanted.url.startswith("git+") else "an address"
            raise BadInputError(
                f"`{text}` is {what}; kit.lock names wheels of an index",
                hint=f"write a release of it, as `{name}` or `{name}==1.0`",
            )
        found.setdefault(name, []).append(wanted)
    return found


@dataclass(frozen=True, kw_only=True)
class _Lack:
    """A package, and the bases of the image for which it has no wheel."""

    package: Package
    targets: tuple[Target, ...]

    @property
    def text(self) -> str:
        pythons: dict[str, list[str]] = {}
        for target in self.targets:
            pythons.setdefault(target.machine, []).append(target.python)
        machines: dict[str, list[str]] = {}
        for machine, found in pythons.items():
            machines.setdefault(", ".join(found), []).append(machine)
        places = [f"Python {these} on linux {' and '.join(found)}" for these, found in machines.items()]
        return f"{self.package.name} {self.package.version} has no wheel for {' and '.join(places)}"


class _Beside:
    """What an image holds, and questions to uv about what else goes with it."""

    def __init__(
        self, catalog: Catalog, declared: Declared, image: Image, lock: Lock, network: NetworkSettings
    ) -> None:
        self.catalog, self.declared, self.image, self.lock, self.network = catalog, declared, image, lock, network
        self.entries = parse_requirements(lock.requirements)
        self.held = [entry for entry in self.entries if is_held(catalog, image, entry.name)]
        plain = Image(release=image.release)
        own = read_lock(paths.images_dir() / plain.name, plain) if image.flavor else lock
        self.wheels = known_wheels(catalog, own)
        self.bounds = bounds(catalog, lock)
        # Not the caps of packages.toml: they keep images close to what most packages take, and one that takes more
        # may have it.
        self.constraints = (*image.release.constraints, *self.bounds)
        self.environments = marker_environments(catalog.pythons_for(image), catalog.machines_for(image))
        self.indexes: dict[str, str] = {}  # of what the usual index lacks

    @cached_property
    def versions(self) -> dict[str, list[str]]:
        """The versions of each package of the image: one, or several where its Pythons differ in that."""
        found: dict[str, list[str]] = {}
        for entry in self.entries:
            found.setdefault(entry.name, []).append(entry.version)
        return found

    def solve(
        self, asked: Mapping[str, list[Wanted]], kept: list[Package], say: Callable[[str], None]
    ) -> tuple[Package, ...]:
        self._refuse_what_is_held(asked)
        kept_from = {package.name: package.index for package in kept if package.index in self.declared.indexes}
        self.indexes = {name: index for name, index in kept_from.items() if name in asked}
        # Of a name that is there twice uv takes the first that fits: the image's own.
        present = self.lock.requirements + "".join(package.requirement.text() for package in kept)
        # What was asked for comes first: uv settles what stands first before what stands behind.
        wanted = [text for each in asked.values() for text in map(_text, each)]
        excluded: list[str] = []  # versions that have no wheel for one of the bases
        lacking: dict[str, _Lack] = {}  # of the first of each
        newest = self._newest({name: each for name, each in asked.items() if name not in {p.name for p in kept}})
        while True:
            said = [f"{lack.text}: another release is taken" for lack in lacking.values()]
            try:
                entries = self._ask([*wanted, *self._rest()], present, constraints=excluded)
                entries = self._newer(entries, newest(), lacking, [*wanted, *self._rest()], present, excluded)
                if moved := self._moved(entries):
                    entries = self._as_little_moved(asked, entries, moved, present, excluded, said.append)
            except CommandError as e:
                # Where no other version fits, the first one is what there is to say.
                error = next((self._no_wheel(lack, newest()) for lack in lacking.values()), None)
                raise error or self._conflict(e, asked, present) from None
            added = self._added(entries)
            older = [p for p in added if p.name not in lacking and _is_older(p, newest())]
            for package in added:
                if (first := lacking.get(package.name)) and not _is_near(first.package.version, package.version):
                    raise self._no_wheel(first, newest())
            found = self._without_wheels(added)
            if not found:
                for package in older:
                    why, want = self._why_not(package.name, newest()[package.name])
                    if not _is_near(newest()[package.name], package.version):
                        fits = [f"`{package.name}=={package.version}` is the newest that fits"]
                        raise LockError(why, hint=_either([*fits, self._other_image(want) if want else ""]))
                    said.append(f"{why}: {package.version} is taken")
                for line in dict.fromkeys(said):
                    say(line)
                return tuple(added)
            for lack in found:
                first = lacking.setdefault(lack.package.name, lack)
                if len(excluded) >= _TRIES or not _is_free(asked, lack.package):
                    raise self._no_wheel(first, newest())
                excluded.append(f"{lack.package.name}!={lack.package.version}")

    def _newest(self, asked: Mapping[str, list[Wanted]]) -> Callable[[], dict[str, str]]:
        """What is the newest release of packages whatever else there is: found out beside the solve, so that an older
        one is not taken without a word.
        """
        texts = [_text(w) for name, each in asked.items() if name not in self.versions for w in each if not w.marker]
        if not texts:
            return dict
        uv, (target, *_) = uv_program(self.catalog.uv_version), targets(self.catalog, self.image)
        pool = ThreadPoolExecutor(max_workers=1)
        future = pool.submit(newest_alone, uv, texts, target, self.network)
        pool.shutdown(wait=False)
        return future.result

    def _newer(
        self,
        entries: list[Requirement],
        newest: Mapping[str, str],
        lacking: Mapping[str, _Lack],
        wanted: list[str],
        present: str,
        excluded: Iterable[str],
    ) -> list[Requirement]:
        """The solution with the newest releases of what was asked for, where there is one: uv rather takes an older one
        than to move what the image has for the sake of something that only comes along.
        """
        older = [p.name for p in self._added(entries) if p.name not in lacking and _is_older(p, newest)]
        if not older:
            return entries
        try:
            return self._ask([*(f"{name}=={newest[name]}" for name in older), *wanted], present, constraints=excluded)
        except CommandError:
            return entries

    def _why_not(self, name: str, version: str) -> tuple[str, conflicts.Want | None]:
        """Why a release of a package was not taken, as words, and what of the image is in its way."""
        try:
            self._ask([f"{name}=={version}", *self._rest()], self.lock.requirements, timeout_s=_ADVICE_S)
        except CommandError as e:
            held = {entry.name: self.versions[entry.name] for entry in self.held}
            if want := conflicts.against(conflicts.wants(e.stderr), held):
                by = "" if want.who == name else f" needs {want.who}, which"
                holds = f"the image `{self.image.name}` holds {want.what} {self._holds(want.what)}"
                return f"{name} {version}{by} wants {want.text}, and {holds}", want
            if lack := next((one for one in conflicts.unusable(e.stderr) if one.why == conflicts.NO_WHEEL), None):
                return f"{name} {version} needs {lack.name}, which has no wheel", None
        return f"{name} {version} does not go with what the image and {FILE} have", None

    def _refuse_what_is_held(self, asked: Mapping[str, list[Wanted]]) -> None:
        for entry in self.held:
            for wanted in asked.get(entry.name, ()):
                if not wanted.specifier.contains(entry.version, prereleases=True) and self._both(entry, wanted):
                    want = conflicts.Want(who=FILE, what=entry.name, specifier=str(wanted.specifier))
                    raise LockError(
                        f"{FILE} asks for {entry.name}{wanted.specifier}, and the image `{self.image.name}` holds "
                        f"{entry.name} {self._holds(entry.name)}, which it is built around",
                        hint=_either([self._other_image(want)], "no image of the catalog has it"),
                    )

    def _both(self, entry: Requirement, wanted: Wanted) -> bool:
        """Whether there is an environment for which the image holds an entry and the project asks for it."""
        marker = str(wanted.marker or "")
        return any(
            a and b
            for a, b in zip(evaluate(entry.marker, self.environments), evaluate(marker, self.environments), strict=True)
        )

    def _pins(self) -> list[str]:
        return [entry.pin for entry in self.held]

    def _holds(self, name: str) -> str:
        return " or ".join(self.versions[name])

    def _ask(
        self, requirements: Iterable[str], present: str, *, constraints: Iterable[str] = (), timeout_s: float = 900
    ) -> list[Requirement]:
        """uv's answer. What the usual index lacks is from the first of the project's own that has it, and no package is
        from there that the usual one has: under its name a stranger could offer another.

        Raises CommandError when there is no solution, NetworkError when an index does not answer.
        """
        wanted = list(dict.fromkeys(requirements))
        while True:
            elsewhere: dict[str, tuple[str, ...]] = {}
            for name, index in self.indexes.items():
                elsewhere[index] = (*elsewhere.get(index, ()), name)
            try:
                return solution(
                    self.catalog,
                    self.image,
                    # An index is for what is asked for by name alone.
                    (*wanted, *(name for name in self.indexes if name not in wanted)),
                    present,
                    constraints=(*self.constraints, *constraints),
                    wheels=self.wheels,
                    elsewhere=elsewhere,
                    network=self.network,
                    timeout_s=timeout_s,
                )
            except CommandError as e:
                if is_unreachable(e):
                    raise self._unreachable(e) from None
                if not self._try_elsewhere(e):
                    raise

    def _try_elsewhere(self, error: CommandError) -> bool:
        """Take a package that was not found from the next of the project's indexes; False when there is none left."""
        for lack in conflicts.unusable(error.stderr):
            if lack.why == conflicts.ON_NO_INDEX:
                tried = self.indexes.pop(lack.name, "")
                rest = self.declared.indexes[self.declared.indexes.index(tried) + 1 if tried else 0 :]
                if rest:
                    self.indexes[lack.name] = rest[0]
                    return True
        return False

    def _moved(self, entries: Iterable[Requirement]) -> dict[str, str]:
        """The packages of the image that are in another version in a solution, and that version."""
        return {p.name: p.version for p in self._added(entries) if p.replaces}

    def _as_little_moved(
        self,
        asked: Mapping[str, list[Wanted]],
        entries: list[Requirement],
        moved: Mapping[str, str],
        present: str,
        excluded: Iterable[str],
        say: Callable[[str], None],
    ) -> list[Requirement]:
        """The same releases of what was asked for with all of the image as it is, if that can be; else what moves is
        said, with who needs it as far as uv says so.
        """
        chosen = [entry.pin for entry in entries if entry.name in asked and entry.name not in self.versions]
        texts = [text for each in asked.values() for text in map(_text, each)]
        try:
            return self._ask([*texts, *chosen, *(e.pin for e in self.entries)], present, constraints=excluded)
        except CommandError as e:
            needs = {want.what: want for want in reversed(conflicts.wants(e.stderr)) if want.who not in self.versions}
        for name, version in moved.items():
            need = needs.get(name)
            place = f"{name} {version} takes the place of the image's {self._holds(name)}"
            if name in asked:
                say(f"{place}, as {FILE} asks for it")
            else:
                say(f"{need.who} needs {need.text}: {place}" if need else f"{place}, so that all fit together")
        return entries

    def _added(self, entries: Iterable[Requirement]) -> list[Package]:
        """What of a solution the image lacks, or has in another version."""
        image: dict[str, list[str]] = {}
        for entry in self.entries:
            there = image.setdefault(entry.name, [""] * len(self.environments))
            for number, is_there in enumerate(evaluate(entry.marker, self.environments)):
                there[number] = entry.version if is_there else there[number]
        found = []
        for entry in entries:
            there = image.get(entry.name, [""] * len(self.environments))
            applies = evaluate(entry.marker, self.environments)
            others = [v for v, is_wanted in zip(there, applies, strict=True) if is_wanted and v != entry.version]
            if others:
                package = Package(
                    name=entry.name,
                    version=entry.version,
                    marker=entry.marker,
                    index=self.indexes.get(entry.name, ""),
                    replaces=" or ".join(dict.fromkeys(filter(None, others))),
                    hashes=entry.hashes,
                )
                found.append(package)
        return sorted(found, key=lambda p: (p.name, Version(p.version), p.marker))

    def _without_wheels(self, packages: list[Package]) -> list[_Lack]:
        """Those of which a base on which the image can stand finds no wheel. Raises NetworkError."""
        uv = uv_program(self.catalog.uv_version)
        texts: dict[str, str] = {}
        for package in packages:
            texts[package.index] = texts.get(package.index, "") + package.requirement.text()
        jobs = [(target, index, text) for target in targets(self.catalog, self.image) for index, text in texts.items()]

        def look(job: tuple[Target, str, str]) -> list[tuple[Package, Target]]:
            target, index, text = job
            try:
                find_wheels(uv, target, text, index=index, network=self.network)
            except CommandError as e:
                if is_unreachable(e):
                    raise self._unreachable(e) from None
                names = {lack.name for lack in conflicts.unusable(e.stderr)}
                found = [(package, target) for package in packages if package.name in names]
                if not found:
                    raise self._unclear(e) from None
                return found
            return []

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            try:
                pairs = [pair for found in pool.map(look, jobs) for pair in found]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                process.end_running()
                raise
        lacking: dict[Package, list[Target]] = {}
        for package, target in pairs:
            lacking.setdefault(package, []).append(target)
        return [_Lack(package=package, targets=tuple(found)) for package, found in lacking.items()]

    # What went wrong.

    def _unreachable(self, error: CommandError) -> NetworkError:
        return NetworkError(
            f"a package index does not answer as it should, so {self.declared.folder / LOCK_NAME} was not written",
            details=tuple(line for line in error.details if line.strip())[-4:],
            hint=f"try again, or set {INDEX_VARIABLES[1]} to a mirror that can be reached from here",
        )

    def _unclear(self, error: CommandError) -> LockError:
        return LockError(
            f"what {FILE} asks for does not go with what the image `{self.image.name}` holds",
            details=error.details,
            hint="loosen or leave out what of it is named there; nothing was written",
        )

    def _no_wheel(self, lack: _Lack, newest: Mapping[str, str]) -> LockError:
        if _is_older(lack.package, newest):
            # It is only there because no newer one fits.
            why, want = self._why_not(lack.package.name, newest[lack.package.name])
            fits = [self._other_image(want)] if want else []
            return LockError(f"{why}; {lack.text}", hint=_either(fits, "leave it out, or take another image"))
        machines = {target.machine for target in lack.targets}
        all_of_them = [target for target in targets(self.catalog, self.image) if target.machine in machines]
        others = [m for m in self.catalog.machines_for(self.image) if m not in machines]
        hint = "leave it out, or take a release that has them"
        if others and len(lack.targets) == len(all_of_them):
            only = f"{lack.package.name} ; platform_machine == '{others[0]}'"
            hint = f'a project that needs it on {others[0]} alone writes "{only}"'
        return LockError(
            f"{lack.text}, where the image `{self.image.name}` can run, too", hint=f"{hint}; nothing was written"
        )

    def _conflict(self, error: CommandError, asked: Mapping[str, list[Wanted]], present: str) -> KitError:
        """Why there is no solution, in two sentences: who wants what and what is there; what would fit."""
        said = error.stderr
        needs = conflicts.wants(said)
        held = {entry.name: self.versions[entry.name] for entry in self.held}
        if want := conflicts.against(needs, held):
            return self._against_image(want, needs, asked, present)
        if sentence := self._unusable(said, needs, asked):
            return sentence
        for need in needs:
            own = next((str(w.specifier) for w in asked.get(need.what, ()) if w.specifier), "")
            if own and need.who in self.versions:
                fits = [self._what_fits(need.what, asked, present)]
                fits.append(self._other_image(conflicts.Want(who=FILE, what=need.what, specifier=own)))
                return LockError(
                    f"{FILE} asks for {need.what}{own}, and {need.who} of the image `{self.image.name}` wants "
                    f"{need.text}",
                    hint=_either(fits),
                )
            if own:
                return LockError(
                    f"`{need.who}` wants {need.text}, and {FILE} asks for {need.what}{own}",
                    hint=_either([self._what_fits(conflicts.asker(needs, asked, need.who), asked, present)]),
                )
        if two := conflicts.pair([need for need in needs if need.what not in held]):
            one, other = two
            there = [w.who for w in two if w.who in self.versions]
            who = f"`{other.who}`" if not there else f"{other.who} of the image `{self.image.name}`"
            if one.who in there:
                one, other = other, one
                who = f"{other.who} of the image `{self.image.name}`"
            return LockError(
                f"`{one.who}` wants {one.text}, and {who} wants {other.text}",
                hint=_either([self._what_fits(conflicts.asker(needs, asked, one.who), asked, present)]),
            )
        if tied := [text for text in self.bounds if Wanted(text).name in asked]:
            name = Wanted(tied[0]).name
            return LockError(
                f"{FILE} asks for {name}{asked[name][0].specifier}, and beside what the image `{self.image.name}` "
                f"holds only {tied[0]} runs",
                hint="older ones are compiled for another NumPy; nothing was written",
            )
        culprit = self._alone(asked, present)
        if culprit:
            return LockError(
                f"`{_text(asked[culprit][0])}` does not go with what the image `{self.image.name}` holds",
                details=error.details,
                hint=_either([self._what_fits(culprit, asked, present)]),
            )
        return self._unclear(error)

    def _against_image(
        self, want: conflicts.Want, needs: list[conflicts.Want], asked: Mapping[str, list[Wanted]], present: str
    ) -> LockError:
        culprit = conflicts.asker(needs, asked, want.who) or self._alone(asked, present)
        first = f"`{_text(asked[culprit][0])}`" if culprit else f"`{want.who}`"
        chain = "" if culprit in ("", want.who) else f" needs {want.who}, which"
        none = f"no release of {culprit or want.who} and no image of the catalog goes with it"
        fits = _either([self._what_fits(culprit, asked, present), self._other_image(want)], none)
        return LockError(
            f"{first}{chain} wants {want.text}, and the image `{self.image.name}` holds {want.what} "
            f"{self._holds(want.what)}",
            hint=fits,
        )

    def _unusable(self, said: str, needs: list[conflicts.Want], asked: Mapping[str, list[Wanted]]) -> LockError | None:
        if python := conflicts.python_wanted(said):
            name, wanted = python
            pythons = ", ".join(self.catalog.pythons_for(self.image))
            own = [p for p in self.catalog.pythons_for(self.image) if not conflicts.contains(wanted, f"{p}.99")]
            return LockError(
                f"`{name}` wants Python {wanted}, and the image `{self.image.name}` can have Python {pythons}",
                hint=f"an older release of it may take Python {', '.join(own)}; nothing was written",
            )
        for lack in conflicts.unusable(said):
            if lack.name in self.versions and lack.name not in asked:
                continue
            who = conflicts.asker(needs, asked, lack.name)
            by = "" if lack.name in asked or not who else f", which `{who}` needs,"
            name = f"`{lack.name}{lack.specifier}`"
            match lack.why:
                case conflicts.ON_NO_INDEX:
                    also = f" nor {' nor '.join(self.declared.indexes)}" if self.declared.indexes else ""
                    return LockError(
                        f"there is no package `{lack.name}`{by.rstrip(',')}: the package index{also} does not have it",
                        hint="is it spelled right? The name to install may be another than the one to import",
                    )
                case conflicts.NO_RELEASE:
                    return LockError(
                        f"the package index has no release {name}{by.rstrip(',')}",
                        hint=f"`{lack.name}` alone takes the newest that fits; nothing was written",
                    )
                case conflicts.WITHDRAWN:
                    because = conflicts.withdrawn_because(said, lack.name)
                    return LockError(
                        f"{name}{by} was withdrawn by its authors{f': {because}' if because else ''}",
                        hint=f"take another release; `{lack.name}==VERSION` takes one all the same",
                    )
            machines = " and ".join(self.catalog.machines_for(self.image))
            pythons = ", ".join(self.catalog.pythons_for(self.image))
            return LockError(
                f"{name}{by} has no wheel for Python {pythons} on linux {machines}",
                hint="it would have to be built from source, which `kit lock` does not do; nothing was written",
            )
        return None

    def _alone(self, asked: Mapping[str, list[Wanted]], present: str) -> str:
        """The one of several packages that does not go with the image by itself; empty when each of them does."""
        if len(asked) == 1:
            return next(iter(asked))
        for name, each in asked.items():
            try:
                self._ask([*map(_text, each), *self._rest()], present, timeout_s=_ADVICE_S)
            except CommandError:
                return name
        return ""

    def _rest(self) -> list[str]:
        """What the image holds, as a solve takes it."""
        return [*self._pins(), *(_by_name(entry) for entry in self.entries if entry not in self.held)]

    def _what_fits(self, culprit: str, asked: Mapping[str, list[Wanted]], present: str) -> str:
        """The newest release of a package that goes with the image, as words; empty when there is none."""
        # Of one that any version of was asked for uv has tried all.
        if not culprit or not any(str(wanted.specifier) for wanted in asked[culprit]):
            return ""
        texts = [_text(wanted, any_version=name == culprit) for name, each in asked.items() for wanted in each]
        try:
            found = self._ask([*texts, *self._rest()], present, timeout_s=_ADVICE_S)
        except KitError:
            return ""
        version = next((entry.version for entry in found if entry.name == culprit), "")
        return f"`{culprit}=={version}` is the newest that fits" if version else ""

    def _other_image(self, want: conflicts.Want) -> str:
        """The image of the catalog that has what a package wants, as words; empty when none has."""
        if not want.specifier:
            return ""
        release = self.image.release
        found: list[tuple[tuple[object, ...], str, str]] = []
        for image in self.catalog.images():
            if image.framework != release.framework or image.flavor != self.image.flavor or image == self.image:
                continue
            try:
                packages = read_lock(paths.images_dir() / image.name, image).packages
            except KitError:  # it has no lock
                continue
            versions = [version for name, version in packages if name == want.what]
            if versions and all(conflicts.contains(want.specifier, version) for version in versions):
                near = (
                    image.is_gpu == self.image.is_gpu,
                    image.release.cuda_tag == release.cuda_tag,
                    version_key(image.release.version),
                    version_key(image.release.cuda or "0"),
                )
                found.append((near, image.name, " or ".join(versions)))
        if not found:
            return ""
        _, name, versions_there = max(found)
        return f"the image `{name}` has {want.what} {versions_there}"


def _either(fits: Iterable[str], none: str = "loosen one of the two, or leave one out") -> str:
    """What would fit, as a hint."""
    return f"{'; or '.join(filter(None, fits)) or none}; nothing was written"


def _text(wanted: Wanted, *, any_version: bool = False) -> str:
    """A requirement as kit/locks/solver.py takes it: its marker after ` ; `."""
    extras = f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
    marker = f" ; {wanted.marker}" if wanted.marker else ""
    return f"{canonicalize_name(wanted.name)}{extras}{'' if any_version else wanted.specifier}{marker}"


def _by_name(entry: Requirement) -> str:
    return entry.name + (f" ; {entry.marker}" if entry.marker else "")


def _is_older(package: Package, newest: Mapping[str, str]) -> bool:
    return package.name in newest and Version(package.version) < Version(newest[package.name])


def _is_near(before: str, after: str) -> bool:
    """Whether a version may be taken for a newer one without a question: what is older by more does other things."""
    one, other = Version(before), Version(after)
    upto = 1 if one.major else 2
    return one.release[:upto] == other.release[:upto] and (one.is_prerelease or not other.is_prerelease)


def _is_free(asked: Mapping[str, list[Wanted]], package: Package) -> bool:
    """Whether another version of a package may be tried: nobody has asked for just this one."""
    return not any(clause.operator in ("==", "===") for w in asked.get(package.name, ()) for clause in w.specifier)
