"""Locks: read, solve, write and compare what exactly goes into an image; only solving runs a program (uv).

An image's folder has two files. `requirements.lock` is what uv solved, every wheel with its hashes, in one section per
layer. `lock.json` says what it was solved from (a hash over those inputs), for which base, and when. The lock of a
`-devel` image has its plain image's as its parent: it holds what it adds, and the parent's hash.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kit import paths
from kit.catalog import Catalog
from kit.catalog.rows import LAYERS, Image, Wheel
from kit.errors import CheckFailedError, KitError, LockError, NetworkError, UnlockedError
from kit.locks.format import (
    LOCK_FILE,
    REQUIREMENTS_FILE,
    SCHEMA,
    UNCONFIRMED,
    Lock,
    LockedBase,
    LockFile,
    Parent,
    Requirement,
    join,
    own_sections,
    parse_requirements,
    read_lock,
    sha256,
    split_layers,
)


def inputs(catalog: Catalog, image: Image) -> dict[str, Any]:
    """Everything the solver is told about an image: what changes here needs another lock, anything else does not."""
    release = image.release
    found: dict[str, Any] = {
        "name": image.name,
        "requirements": list(release.requirements),
        "constraints": list(catalog.constraints_for(image)),
        "overrides": list(release.overrides),
        "index": release.index,
        "index_packages": list(release.index_packages),
        "platforms": list(release.platforms),
        "packages": [p.requirement or p.name for p in catalog.packages_for(image)],
        "layers": {rule.name: list(rule.patterns) for rule in catalog.layer_rules},
        "devel": list(devel_requirements(catalog, image)),
        "pythons": catalog.pythons_for(image),
    }
    if wheels := catalog.wheels_for(release):
        # Only where there are rows: what is not there changes no lock of another image.
        versions = {(wheel.package, wheel.version) for wheel in wheels}
        found["wheels"] = {wheel.file: wheel.sha256 for wheel in wheels}
        found["metadata"] = [
            [row.package, row.version, *row.requires]
            for row in catalog.wheel_metadata
            if (row.package, row.version) in versions
        ]
    return found


def inputs_hash(catalog: Catalog, image: Image) -> str:
    return sha256(json.dumps(inputs(catalog, image), sort_keys=True, separators=(",", ":")))


def devel_requirements(catalog: Catalog, image: Image) -> tuple[str, ...]:
    """The wheels that bring nvcc to a `-devel` image on a registry-free base; empty when none do."""
    return catalog.toolkit(image.release.cuda).nvcc_wheels if image.flavor == "devel" else ()


def locked_base(catalog: Catalog, image: Image) -> LockedBase:
    base = catalog.base_for(image)
    return LockedBase(reference=f"{base.repository}:{base.tag}", digest=base.digest, digest_status=base.digest_status)


def differences(lock: Lock, catalog: Catalog, image: Image) -> list[str]:
    """What the catalog says otherwise now than when the lock was made, one line each."""
    found = []
    if lock.file.inputs_hash != inputs_hash(catalog, image):
        found.append("what it was solved from has changed (requirements, constraints, packages or Pythons)")
    now, then = locked_base(catalog, image), lock.file.base
    if then != now:
        found.append(
            f"the base is {now.reference} {now.digest or 'without a digest'} ({now.digest_status}) now, "
            f"and was {then.reference} {then.digest or 'without one'} ({then.digest_status})"
        )
    if lock.file.suites != image.release.suites:
        found.append("the suites have changed")
    return found


def check(catalog: Catalog, image: Image, folder: Path | None = None) -> None:
    """Compare an image's lock with the catalog, without a network; raises CheckFailedError or LockError.

    An image that is unlocked on purpose passes when its lock.json says so with the catalog's reason.
    """
    folder = folder or paths.images_dir() / image.name
    again = f"`kit lock {image.name}` brings it up to date"
    written = folder / LOCK_FILE
    try:
        lock = read_lock(folder, image)
    except UnlockedError:
        reason = catalog.unlocked_reason(image)
        if not reason:
            raise CheckFailedError(
                f"`{image.name}` has no lock, and the catalog says it must have one", hint=again
            ) from None
        if written.read_text(encoding="utf-8") != _lock_file(catalog, image, unlocked=reason).text():
            raise CheckFailedError(f"the lock of `{image.name}` is out of date", hint=again) from None
        return
    if found := differences(lock, catalog, image):
        raise CheckFailedError(f"the lock of `{image.name}` is out of date", details=tuple(found), hint=again)
    plain = read_lock(folder.parent / image.release.name, _plain(image)) if image.flavor else None
    file = lock.file
    expected = _lock_file(
        catalog,
        image,
        lock.requirements,
        plain,
        wheels=catalog.wheels_for(image.release) if file.hashes else (),
        uv=file.uv,
        snapshot=file.snapshot,
        epoch=file.source_date_epoch,
    )
    is_a_day = file.source_date_epoch % 86400 == 0 and file.source_date_epoch <= _midnight(file.snapshot)
    if written.read_text(encoding="utf-8") != expected.text() or not is_a_day:
        raise LockError(f"{written} is not what kit wrote", hint=f"it was edited; {again}")
    _compare_wheels(catalog, image, lock, again)
    for layer in LAYERS:
        for entry in parse_requirements(lock.layers[layer], str(folder / REQUIREMENTS_FILE)):
            if catalog.layer_of(entry.name) != layer:
                raise LockError(
                    f"{folder / REQUIREMENTS_FILE}: `{entry.name}` is in the layer `{layer}` and belongs "
                    f"to `{catalog.layer_of(entry.name)}`",
                    hint=again,
                )


def solve(catalog: Catalog, image: Image, *, upgrade: bool = False, today: datetime.date | None = None) -> bool:
    """Solve an image with uv and write its lock; returns whether anything changed.

    Versions that are locked already stay while they fit, unless `upgrade`; a lock that is up to date and of another uv
    stays as it is. Nothing is written when anything fails. The lock that a `-devel` image adds to is brought up to date
    first where it is not.
    """
    from kit.locks.solver import require_wheels

    if not upgrade and other_uv(catalog, image):
        return False
    folder = paths.images_dir() / image.name
    before = _present(folder)
    plain = _plain_lock(catalog, _plain(image), upgrade=upgrade) if image.flavor else None
    entries, wheels = _solve(catalog, image, "" if upgrade else before.get(REQUIREMENTS_FILE, ""), plain)
    own = _requirements_text(image, entries, plain)
    requirements = join(own, plain.requirements) if plain else own
    require_wheels(catalog, image, requirements, known_wheels(catalog, plain) if plain else wheels)
    uv = plain.file.uv if plain else catalog.uv_version
    snapshot = (today or datetime.datetime.now(datetime.timezone.utc).date()).isoformat()
    present = {} if upgrade else _values(before.get(LOCK_FILE, ""))
    if sha256(requirements) == present.get("requirements_hash"):
        # Nothing else is installed than before, so the image keeps its date, and with it its digest.
        snapshot, uv = present.get("snapshot") or snapshot, present.get("uv") or uv
    # The time of all files in the image. It stays while the lock grows: a new one would change every layer, and one
    # more package would ship all of them again.
    epoch = present.get("source_date_epoch") or _midnight(snapshot)
    file = _lock_file(catalog, image, requirements, plain, wheels=wheels, uv=uv, snapshot=snapshot, epoch=epoch)
    return _write(folder, before, {REQUIREMENTS_FILE: own, LOCK_FILE: file.text()})


def write_unlocked(catalog: Catalog, image: Image) -> bool:
    """Write the lock.json of an image that has no lock on purpose; returns whether anything changed."""
    folder = paths.images_dir() / image.name
    file = _lock_file(catalog, image, unlocked=catalog.unlocked_reason(image))
    return _write(folder, _present(folder), {LOCK_FILE: file.text()})


def unconfirmed(catalog: Catalog, image: Image) -> str:
    """Where the hashes of an image's lock are from, when its own index has not confirmed them; else ""."""
    if not image.release.index or catalog.unlocked_reason(image):
        return ""
    try:
        # Not the image's own: that of a `-devel` image is in the lock that it adds to.
        return read_lock(paths.images_dir() / image.release.name, _plain(image)).file.hashes or ""
    except KitError:
        return ""


def other_uv(catalog: Catalog, image: Image) -> str:
    """The version of the uv that solved an image's lock, where that is up to date and this kit has another; else ""."""
    try:
        lock = read_lock(paths.images_dir() / image.name, image)
    except KitError:
        return ""
    is_other = lock.file.uv != catalog.uv_version and not differences(lock, catalog, image)
    return lock.file.uv if is_other else ""


def resolves_the_same(catalog: Catalog, image: Image) -> bool:
    """Solve again, over the network, and say whether the lock on disk is what comes out; writes nothing."""
    before = _present(paths.images_dir() / image.name).get(REQUIREMENTS_FILE, "")
    plain = read_lock(paths.images_dir() / image.release.name, _plain(image)) if image.flavor else None
    return _requirements_text(image, _solve(catalog, image, before, plain)[0], plain) == before


def _present(folder: Path) -> dict[str, str]:
    files = (folder / name for name in (REQUIREMENTS_FILE, LOCK_FILE))
    return {file.name: file.read_bytes().decode("utf-8", errors="replace") for file in files if file.is_file()}


def _write(folder: Path, before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Make the folder's files these; returns whether anything changed."""
    # requirements.lock first: if the second write fails, the hash in the old lock.json says that they do not belong
    # together.
    for name, text in after.items():
        if before.get(name) != text:
            paths.write_text(folder / name, text)
    for name in before:
        if name not in after:
            (folder / name).unlink()
    return before != after


def _values(lock_json: str) -> dict[str, Any]:
    try:
        data = json.loads(lock_json)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _lock_file(
    catalog: Catalog,
    image: Image,
    requirements: str = "",
    parent: Lock | None = None,
    *,
    unlocked: str = "",
    wheels: tuple[Wheel, ...] = (),
    uv: str = "",
    snapshot: str = "",
    epoch: int = 0,
) -> LockFile:
    """The lock.json of an image with these requirements, a parent's included; `wheels`: the rows it was made of."""
    layers = split_layers(requirements) if requirements else {}
    own = {layer: text for layer, text in layers.items() if not parent or layer not in parent.layers}
    return LockFile(
        _=f"Generated by `kit lock {image.name}`; do not edit.",
        schema=SCHEMA,
        image=image.name,
        unlocked=unlocked,
        hashes=UNCONFIRMED if wheels else None,
        inputs_hash=inputs_hash(catalog, image),
        requirements_hash=sha256(requirements) if requirements else "",
        parent=Parent(image=parent.file.image, requirements_hash=parent.lock_hash) if parent else None,
        base=locked_base(catalog, image),
        suites=image.release.suites,
        pythons=tuple(catalog.pythons_for(image)),
        uv=uv,
        snapshot=snapshot,
        source_date_epoch=epoch,
        packages=sum(len(parse_requirements(text)) for text in own.values()),
        layers={layer: sha256(text) for layer, text in own.items()},
    )


def _midnight(day: str) -> int:
    return int(datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.timezone.utc).timestamp())


def _requirements_text(image: Image, entries: Mapping[str, Iterable[Requirement]], parent: Lock | None) -> str:
    from packaging.version import Version  # which `kit run`, that reads locks, need not import

    parts = [f"# Generated by `kit lock {image.name}`; do not edit.\n"]
    if parent:
        parts.append(f"-r ../{parent.file.image}/{REQUIREMENTS_FILE}\n")
    for layer, found in entries.items():
        parts.append(f"\n# layer: {layer}\n")
        parts += [r.text() for r in sorted(found, key=lambda r: (r.name, Version(r.version), r.marker))]
    return "".join(parts)


def _solve(
    catalog: Catalog, image: Image, present: str, plain: Lock | None
) -> tuple[dict[str, list[Requirement]], tuple[Wheel, ...]]:
    """The entries of each layer, of a `-devel` image of the one that it adds to the plain lock; and the rows of
    wheels.toml that they were made of, where the release's own index does not answer.

    Where it does, it has to have the hashes of these rows: else LockError.
    """
    from kit.locks.solver import compile_requirements

    present = own_sections(present)
    if plain:
        wanted = devel_requirements(catalog, image)
        if not wanted:
            return {image.flavor: []}, ()
        # The plain image's packages are constraints: a compiler must not move what the framework was solved with.
        below = parse_requirements(plain.requirements)
        pins = tuple(entry.pin for entry in below)
        entries = compile_requirements(catalog, image, wanted, present, more_constraints=pins)
        names = {e.name for e in below}
        return {image.flavor: [e for e in entries if e.name not in names]}, ()
    packages = tuple(p.requirement or p.name for p in catalog.packages_for(image))
    wanted = image.release.requirements + packages
    known = catalog.wheels_for(image.release)
    used: tuple[Wheel, ...] = ()
    if known:
        # For what is locked already uv takes the hashes that are there, whatever an index says.
        own = {wheel.package for wheel in known}
        present = "".join(entry.text() for entry in parse_requirements(present) if entry.name not in own)
    try:
        entries = compile_requirements(catalog, image, wanted, present)
    except NetworkError:
        # A lock that the index has confirmed once is not replaced by one that it has not.
        if not known or _is_confirmed(catalog, image):
            raise
        entries, used = compile_requirements(catalog, image, wanted, present, wheels=known), known
    else:
        _confirm(image, known, entries)
    by_layer: dict[str, list[Requirement]] = {layer: [] for layer in LAYERS}
    for entry in entries:
        by_layer[catalog.layer_of(entry.name)].append(entry)
    return by_layer, used


def _is_confirmed(catalog: Catalog, image: Image) -> bool:
    """Whether there is a lock of what the catalog asks for, made of the release's own index."""
    try:
        lock = read_lock(paths.images_dir() / image.name, image)
    except (LockError, UnlockedError):
        return False
    return not lock.file.hashes and lock.file.inputs_hash == inputs_hash(catalog, image)


def known_wheels(catalog: Catalog, lock: Lock) -> tuple[Wheel, ...]:
    """The rows of wheels.toml that a lock was made of; for a `-devel` image ask with the lock it adds to."""
    return catalog.wheels_for(catalog.find(lock.file.image).release) if lock.file.hashes else ()


def _confirm(image: Image, known: Iterable[Wheel], entries: Iterable[Requirement]) -> None:
    """Raises LockError when the index has other hashes than the rows of wheels.toml."""
    found = {(entry.name, entry.version): entry.hashes for entry in entries}
    wrong = [wheel for wheel in known if wheel.hash not in found.get((wheel.package, wheel.version), ())]
    if wrong:
        raise LockError(
            f"{image.release.index} has other hashes than kit/catalog/wheels.toml says: "
            f"{', '.join(wheel.file for wheel in wrong)}",
            details=tuple(f"{wheel.file}: {wheel.sha256} in {'; '.join(wheel.sources)}" for wheel in wrong),
            hint="one of them is wrong, or the index has changed a file: find out which before correcting the rows",
        )


def _compare_wheels(catalog: Catalog, image: Image, lock: Lock, again: str) -> None:
    """Raises LockError when a lock lacks the hash of a row of wheels.toml, or, made of the rows alone, has another."""
    known = catalog.wheels_for(image.release)
    if image.flavor or not known:
        return
    packages = {wheel.package for wheel in known}
    entries = parse_requirements("".join(lock.layers[layer] for layer in LAYERS))
    locked = {h for entry in entries if entry.name in packages for h in entry.hashes}
    missing = [wheel.file for wheel in known if wheel.hash not in locked]
    more = locked - {wheel.hash for wheel in known} if lock.file.hashes else set()
    if missing or more:
        raise LockError(
            f"the lock of `{image.name}` has other hashes than kit/catalog/wheels.toml says: "
            f"{', '.join([*missing, *sorted(more)])}",
            hint=again,
        )


def _plain(image: Image) -> Image:
    return Image(release=image.release)


def _plain_lock(catalog: Catalog, image: Image, *, upgrade: bool) -> Lock:
    """The lock that a `-devel` image adds to, up to date."""
    folder = paths.images_dir() / image.name
    try:
        lock = read_lock(folder, image)
    except LockError:
        lock = None
    if lock is None or differences(lock, catalog, image):
        solve(catalog, image, upgrade=upgrade)
        lock = read_lock(folder, image)
    return lock


def chosen_images(catalog: Catalog, names: Iterable[str]) -> list[Image]:
    """The images that names stand for, each once; all when there are no names."""
    chosen = list(names)
    return list(dict.fromkeys(catalog.find(name) for name in chosen)) if chosen else catalog.images()
