"""What `kit lock` does in a project's folder, and what every command that changes what a project declares ends with."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import TYPE_CHECKING

from kit import paths
from kit.catalog import load_catalog
from kit.decide import compat
from kit.engine import connect
from kit.environment import format, wish
from kit.environment.current import differences
from kit.environment.guards import after_solve
from kit.environment.solve import solve
from kit.errors import CheckFailedError, LockError, NoEngineError
from kit.frozen import dataclass
from kit.host import read_gpus
from kit.image.build.ensure import ImageOptions
from kit.image.build.options import BuildOptions
from kit.locks.format import read_lock
from kit.network import read_settings
from kit.project.system import lock_system
from kit.project.turn import turn

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.catalog.rows import Image
    from kit.environment.declared import Declared
    from kit.environment.format import EnvironmentLock, SystemLayer
    from kit.facts.host import Host
    from kit.screen import Screen


@dataclass(frozen=True, kw_only=True)
class LockAsk:
    """How a project is to be locked."""

    target: str = ""  # the machine that a wish becomes an image for; empty: this one
    # How to reach the network, and to get at the image where packages of the distribution are asked for.
    image: ImageOptions = field(default_factory=lambda: ImageOptions(build=BuildOptions(network=read_settings())))
    upgrade: bool = False  # let go of all versions, and choose the image again
    upgrade_packages: frozenset[str] = frozenset()  # let go of the versions of these


@dataclass(frozen=True, kw_only=True)
class Change:
    """A package of kit.lock that was another one before, or is."""

    name: str
    before: str = ""  # its versions, several where Pythons differ in that; empty: it was not there
    after: str = ""


@dataclass(frozen=True, kw_only=True)
class Locked:
    """What locking a project came to."""

    lock: EnvironmentLock
    before: EnvironmentLock | None
    is_new: bool  # another file than was there

    @property
    def changes(self) -> tuple[Change, ...]:
        """What is otherwise than before, by name."""
        before, after = self.before.versions if self.before else {}, self.lock.versions
        return tuple(
            Change(name=name, before=" or ".join(before.get(name, ())), after=" or ".join(after.get(name, ())))
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        )


def lock_project(declared: Declared, ask: LockAsk, screen: Screen) -> EnvironmentLock:
    """As `lock`, for who needs the lock alone."""
    return lock(declared, ask, screen).lock


def lock(declared: Declared, ask: LockAsk, screen: Screen) -> Locked:
    """Solve what a project declares, and write kit.lock beside its kit.toml; one command at a time.

    Raises LockError when nothing fits, IncompatibleError when no image fits the machine, NetworkError when an index
    does not answer, and what reading the declaration raises; kit.lock is then what it was.
    """
    with turn(declared.folder, screen.say):
        catalog = load_catalog()
        present = _present(declared, screen)
        image = _image(catalog, declared, present, ask, screen)
        new = solve(
            catalog,
            declared,
            image,
            present=present,
            upgrade=ask.upgrade,
            upgrade_packages=ask.upgrade_packages,
            network=ask.image.build.network,
            say=screen.say,
        )
        _guard(catalog, image, new, screen)
        new = dataclasses.replace(new, system=_system(catalog, declared, image, present, ask, screen))
        return Locked(lock=new, before=present, is_new=format.write(declared.folder, new))


def _guard(catalog: Catalog, image: Image, new: EnvironmentLock, screen: Screen) -> None:
    """Say what no resolver sees of a solution; raises LockError for what there is no environment with."""
    found = after_solve(catalog, image, read_lock(paths.images_dir() / image.name, image), new)
    if stopping := [finding for finding in found if finding.stops]:
        first, *others = stopping
        raise LockError(
            f"kit.lock is not written: {first.message}",
            details=tuple(finding.message for finding in others),
            hint=first.hint,
        )
    for finding in found:
        screen.say(f"warning: {finding.message}" + (f"; {finding.hint}" if finding.hint else ""))


def check(declared: Declared) -> EnvironmentLock:
    """Compare a project's kit.lock with what its kit.toml asks for; asks nobody.

    Raises CheckFailedError when it is missing or out of date, LockError when it is not what kit wrote.
    """
    found = format.read(declared.folder)
    path = declared.folder / format.LOCK_NAME
    if found is None:
        raise CheckFailedError(f"{path} is missing", hint="`kit lock` writes it; commit it")
    if lines := differences(load_catalog(), declared, found):
        raise CheckFailedError(f"{path} is out of date", details=tuple(lines), hint=format.LOCK_AGAIN)
    return found


def _present(declared: Declared, screen: Screen) -> EnvironmentLock | None:
    """The lock that is there; one that kit did not write holds nothing, and its place is taken."""
    try:
        return format.read(declared.folder)
    except LockError as e:
        screen.say(f"{e.message}: it is written anew, with the newest versions")
        return None


def _image(
    catalog: Catalog, declared: Declared, present: EnvironmentLock | None, ask: LockAsk, screen: Screen
) -> Image:
    """The image for what is wished for: the one that is locked as long as the wish admits it, so that a lock is the
    same whoever renews it; else the one for the machine, which is said.
    """
    if present and not ask.upgrade:
        locked = next((image for image in catalog.images() if image.name == present.image), None)
        if locked and wish.admits(declared.image, locked):
            return locked
    seen: list[Host] = []

    def host() -> Host:
        seen.append(compat.with_pci_gpus(catalog, read_gpus(ask.target)))
        return seen[0]

    image, found = wish.choose_for(catalog, declared.image, host)
    if found:
        screen.say(f"{declared.image}: {image.name} ({compat.describe(seen[0])})")
        for warning in found.warnings:
            screen.say(f"warning: {warning}")
        other = None if image.is_gpu else wish.newest_for_gpus(catalog, declared.image)
        if other:
            screen.say(
                f'for a machine with a GPU write `image = "{other.name}"`, or lock with --host for one that has it'
            )
    return image


def _system(
    catalog: Catalog,
    declared: Declared,
    image: Image,
    present: EnvironmentLock | None,
    ask: LockAsk,
    screen: Screen,
) -> tuple[SystemLayer, ...]:
    """The packages of the distribution. Where no engine can be asked, those that are locked stay."""
    if not declared.system:
        return ()
    wanted = tuple(sorted(set(declared.system)))
    kept = present.system if present and present.image == image.name and not ask.upgrade else ()
    try:
        engine = connect(ask.target)
    except NoEngineError:
        if not kept or any(layer.wanted != wanted for layer in kept):
            raise
        screen.say("no engine answers: packages of the distribution stay as they are locked")
        return kept
    return lock_system(catalog, declared, image, engine, ask.image, present, screen, upgrade=ask.upgrade)
