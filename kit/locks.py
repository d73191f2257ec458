"""Locks: read, solve, write and compare what exactly goes into an image; only solving runs a program (uv).

An image's folder has two files. `requirements.lock` is what uv solved, every wheel with its hashes, in one section per
layer. `lock.json` says what it was solved from (a hash over those inputs), for which base, and when.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from kit import paths
from kit.catalog import Catalog
from kit.catalog.model import LAYERS, Image, Layer, version_key
from kit.errors import CheckFailedError, CommandError, KitError, LockError, NetworkError, UnlockedError

REQUIREMENTS_FILE = "requirements.lock"
LOCK_FILE = "lock.json"
SCHEMA = 1

_SECTION = re.compile(r"# layer: (\S+)")
_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\\n]+))?")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")
# uv's names for docker's platforms, and the markers of that machine.
_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One locked package: a version for the environments its marker names, and the hashes of its wheels."""

    name: str
    version: str
    marker: str = ""
    hashes: tuple[str, ...]

    def text(self) -> str:
        head = f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")
        return " \\\n    ".join([head, *(f"--hash={h}" for h in self.hashes)]) + "\n"


@dataclass(frozen=True, kw_only=True)
class LockedBase:
    """The base the lock was made for."""

    reference: str  # `nvidia/cuda:12.6.3-base-ubuntu24.04`
    digest: str
    digest_status: str


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The lock of one image, as it is on disk."""

    image: str
    requirements: str  # the text of requirements.lock
    layers: dict[Layer, str]  # the same by layer; a `-devel` image has a fourth, `devel`
    inputs_hash: str
    requirements_hash: str
    base: LockedBase
    suites: tuple[str, ...]
    pythons: tuple[str, ...]
    uv: str
    snapshot: str  # the day it was solved, `2026-11-21`
    source_date_epoch: int  # that day's midnight in UTC

    @property
    def lock_hash(self) -> str:
        """What two images must share to hold the same packages."""
        return self.requirements_hash

    @property
    def packages(self) -> list[tuple[str, str]]:
        """(name, version) of every entry; a name is there twice when Pythons or platforms need different versions."""
        return [(r.name, r.version) for text in self.layers.values() for r in parse_requirements(text)]


# -- reading


def read_lock(folder: Path, image: Image) -> Lock:
    """The lock in an image's folder, its hash checked.

    Raises UnlockedError when the image has none on purpose, LockError when it is missing, unreadable, or not what
    kit wrote.
    """
    again = f"`kit lock {image.name}` writes it anew"
    data = _read_json(folder / LOCK_FILE, again)
    if data["image"] != image.name:
        raise LockError(f"{folder / LOCK_FILE} is the lock of `{data['image']}`, not of `{image.name}`", hint=again)
    if data["unlocked"]:
        raise UnlockedError(f"the image `{image.name}` has no lock: {data['unlocked']}",
                            hint=f"run `kit lock {image.name}` where that can be reached")
    path = folder / REQUIREMENTS_FILE
    text = _read(path, again)
    if sha256(text) != data["requirements_hash"]:
        raise LockError(f"{path} is not what kit wrote: its hash is not the one in {LOCK_FILE}",
                        hint=f"it was edited or half updated; {again}")
    epoch = data["source_date_epoch"]
    return Lock(image=image.name, requirements=text, layers=split_layers(text, str(path)),
                inputs_hash=data["inputs_hash"], requirements_hash=data["requirements_hash"],
                base=LockedBase(**data["base"]), suites=tuple(data["suites"]), pythons=tuple(data["pythons"]),
                uv=data["uv"], snapshot=data["snapshot"], source_date_epoch=epoch)


# What lock.json holds, and the type of each; read and written in this order.
_KEYS: dict[str, type] = {
    "_": str, "schema": int, "image": str, "unlocked": str, "inputs_hash": str, "requirements_hash": str, "base": dict,
    "suites": list, "pythons": list, "uv": str, "snapshot": str, "source_date_epoch": int, "packages": int,
    "layers": dict,
}


def _read(path: Path, again: str) -> str:
    try:
        # Bytes, not text mode: a line ending that git or an editor changed must change the hash.
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise LockError(f"{path} is missing", hint=again) from None
    except (OSError, UnicodeDecodeError) as e:
        raise LockError(f"{path} cannot be read: {e}", hint=again) from None


def _read_json(path: Path, again: str) -> dict[str, Any]:
    text = _read(path, again)
    try:
        data = json.loads(text)
    except ValueError as e:
        raise LockError(f"{path} is not valid JSON: {e}", hint=again) from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else None
        raise LockError(f"{path} has the schema {found!r}; this kit reads {SCHEMA}", hint=again)
    for key, kind in _KEYS.items():
        if type(data.get(key)) is not kind:
            raise LockError(f"{path}: the key `{key}` is missing or not of the right type", hint=again)
    if sorted(data["base"]) != sorted(f.name for f in dataclasses.fields(LockedBase)):
        raise LockError(f"{path}: the key `base` does not hold what it should", hint=again)
    return data


def split_layers(text: str, where: str = REQUIREMENTS_FILE) -> dict[Layer, str]:
    """The sections of a requirements.lock by layer, without their `# layer:` lines."""
    found: dict[Layer, str] = {}
    current: Layer | None = None
    for line in text.splitlines(keepends=True):
        if match := _SECTION.fullmatch(line.strip()):
            current = next((layer for layer in get_args(Layer) if layer == match[1]), None)
            if current is None or current in found:
                raise LockError(f"{where}: unexpected section `{line.strip()}`",
                                hint=f"sections are {', '.join(get_args(Layer))}, each once")
            found[current] = ""
        elif current is not None:
            found[current] += line
        elif line.strip() and not line.startswith("#"):
            raise LockError(f"{where}: `{line.strip()}` is before the first section",
                            hint="a section starts with `# layer: NAME`")
    if missing := [layer for layer in LAYERS if layer not in found]:
        raise LockError(f"{where}: no section for {', '.join(missing)}", hint="lock the image again")
    return found


def parse_requirements(text: str, where: str = REQUIREMENTS_FILE) -> list[Requirement]:
    """The entries of pip's hash-checked format; raises LockError for a line that is none."""
    found = []
    for entry in text.replace("\\\n", " ").splitlines():
        if not entry.strip() or entry.startswith("#"):
            continue
        head, *hashes = re.split(r"\s+(?=--hash=)", entry.strip())
        match = _ENTRY.fullmatch(head.strip())
        good = [m[1] for h in hashes if (m := _HASH.fullmatch(h.strip()))]
        if match is None or not good or len(good) != len(hashes):
            raise LockError(f"{where}: cannot read the entry `{head.strip()}`",
                            hint="an entry is `name==version ; marker` followed by its hashes")
        found.append(Requirement(name=match["name"], version=match["version"], marker=(match["marker"] or "").strip(),
                                 hashes=tuple(good)))
    return found


def sha256(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


# -- comparing


def inputs(catalog: Catalog, image: Image) -> dict[str, Any]:
    """Everything the solver is told about an image: what changes here needs another lock, anything else does not."""
    release = image.release
    return {
        "name": image.name,
        "requirements": list(release.requirements),
        "constraints": list(release.constraints),
        "overrides": list(release.overrides),
        "index": release.index,
        "index_packages": list(release.index_packages),
        "platforms": list(release.platforms),
        "packages": [p.requirement or p.name for p in catalog.packages_for(image)],
        "layers": {rule.name: list(rule.patterns) for rule in catalog.layer_rules},
        "devel": list(devel_requirements(catalog, image)),
        "pythons": catalog.pythons_for(image),
    }


def inputs_hash(catalog: Catalog, image: Image) -> str:
    return sha256(json.dumps(inputs(catalog, image), sort_keys=True, separators=(",", ":")))


def devel_requirements(catalog: Catalog, image: Image) -> tuple[str, ...]:
    """The wheels that bring nvcc to a `-devel` image on a registry-free base; empty when none do."""
    return catalog.toolkit(image.release.cuda).nvcc_wheels if image.flavor == "devel" else ()


def locked_base(catalog: Catalog, image: Image) -> LockedBase:
    base = catalog.base_for(image)
    return LockedBase(reference=f"{base.repository}:{base.tag}", digest=base.digest, digest_status=base.digest_status)


def is_stale(lock: Lock, catalog: Catalog, image: Image) -> bool:
    """True when the catalog says something else now than when the lock was made."""
    return bool(differences(lock, catalog, image))


def differences(lock: Lock, catalog: Catalog, image: Image) -> list[str]:
    """What the catalog says otherwise now than when the lock was made, one line each."""
    found = []
    if lock.inputs_hash != inputs_hash(catalog, image):
        found.append("what it was solved from has changed (requirements, constraints, packages or Pythons)")
    now = locked_base(catalog, image)
    if lock.base != now:
        found.append(f"the base is {now.reference} {now.digest or 'without a digest'} ({now.digest_status}) now, "
                     f"and was {lock.base.reference} {lock.base.digest or 'without one'} ({lock.base.digest_status})")
    if list(lock.suites) != list(image.release.suites):
        found.append("the suites have changed")
    return found


def check(catalog: Catalog, image: Image, folder: Path | None = None) -> None:
    """Compare an image's lock with the catalog, without a network; raises CheckFailedError or LockError.

    An image that is unlocked on purpose passes when its lock.json says so with the catalog's reason.
    """
    folder = folder or paths.images_dir() / image.name
    again = f"`kit lock {image.name}` brings it up to date"
    try:
        lock = read_lock(folder, image)
    except UnlockedError:
        reason = catalog.unlocked_reason(image)
        expected = _lock_json(catalog, image, unlocked=reason, requirements="", uv="", snapshot="")
        if not reason:
            raise CheckFailedError(f"`{image.name}` has no lock, and the catalog says it must have one",
                                   hint=again) from None
        if (folder / LOCK_FILE).read_text(encoding="utf-8") != expected:
            raise CheckFailedError(f"the lock of `{image.name}` is out of date", hint=again) from None
        return
    if found := differences(lock, catalog, image):
        raise CheckFailedError(f"the lock of `{image.name}` is out of date", details=tuple(found), hint=again)
    expected = _lock_json(catalog, image, unlocked="", requirements=lock.requirements, uv=lock.uv,
                          snapshot=lock.snapshot)
    if (folder / LOCK_FILE).read_text(encoding="utf-8") != expected:
        raise LockError(f"{folder / LOCK_FILE} is not what kit wrote", hint=f"it was edited; {again}")
    if image.flavor:
        plain = read_lock(folder.parent / image.release.name, Image(release=image.release))
        if any(plain.layers[layer] != lock.layers[layer] for layer in LAYERS):
            raise CheckFailedError(f"the lock of `{image.name}` does not hold the packages of `{plain.image}`",
                                   hint=again)
    for layer, text in lock.layers.items():
        for entry in parse_requirements(text, str(folder / REQUIREMENTS_FILE)):
            if layer != "devel" and catalog.layer_of(entry.name) != layer:
                raise LockError(f"{folder / REQUIREMENTS_FILE}: `{entry.name}` is in the layer `{layer}` and belongs "
                                f"to `{catalog.layer_of(entry.name)}`", hint=again)


# -- solving


def solve(catalog: Catalog, image: Image, *, upgrade: bool = False, today: datetime.date | None = None) -> bool:
    """Solve an image with uv and write its lock; returns whether anything changed.

    Versions that are locked already stay while they fit, unless `upgrade`. Nothing is written when anything fails.
    """
    folder = paths.images_dir() / image.name
    before = _present(folder)
    uv, entries = _solve(catalog, image, "" if upgrade else before.get(REQUIREMENTS_FILE, ""), upgrade=upgrade)
    requirements = _requirements_text(catalog, image, entries)
    _require_wheels(catalog, image, requirements)
    snapshot = (today or datetime.datetime.now(datetime.timezone.utc).date()).isoformat()
    if requirements == before.get(REQUIREMENTS_FILE):
        # Nothing else is installed than before, so the image keeps its date, and with it its digest.
        snapshot, uv = _kept(before.get(LOCK_FILE, ""), snapshot, uv)
    after = {REQUIREMENTS_FILE: requirements,
             LOCK_FILE: _lock_json(catalog, image, unlocked="", requirements=requirements, uv=uv, snapshot=snapshot)}
    _write(folder, before, after)
    return before != after


def write_unlocked(catalog: Catalog, image: Image) -> bool:
    """Write the lock.json of an image that has no lock on purpose; returns whether anything changed."""
    folder = paths.images_dir() / image.name
    before = _present(folder)
    after = {LOCK_FILE: _lock_json(catalog, image, unlocked=catalog.unlocked_reason(image), requirements="", uv="",
                                   snapshot="")}
    _write(folder, before, after)
    return before != after


def resolves_the_same(catalog: Catalog, image: Image) -> bool:
    """Solve again, over the network, and say whether the lock on disk is what comes out; writes nothing."""
    before = _present(paths.images_dir() / image.name).get(REQUIREMENTS_FILE, "")
    return _requirements_text(catalog, image, _solve(catalog, image, before)[1]) == before


def _present(folder: Path) -> dict[str, str]:
    found = {}
    for name in (REQUIREMENTS_FILE, LOCK_FILE):
        try:
            found[name] = (folder / name).read_bytes().decode("utf-8", errors="replace")
        except FileNotFoundError:
            continue
    return found


def _write(folder: Path, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    # requirements.lock first: if the second write fails, the hash in the old lock.json says that they do not belong
    # together.
    for name, text in after.items():
        if before.get(name) != text:
            paths.write_text(folder / name, text)
    for name in before:
        if name not in after:
            (folder / name).unlink()


def _kept(lock_json: str, snapshot: str, uv: str) -> tuple[str, str]:
    try:
        data = json.loads(lock_json)
        return str(data["snapshot"]) or snapshot, str(data["uv"]) or uv
    except (ValueError, KeyError, TypeError):
        return snapshot, uv


def _lock_json(catalog: Catalog, image: Image, *, unlocked: str, requirements: str, uv: str, snapshot: str) -> str:
    layers = split_layers(requirements) if requirements else {}
    values: dict[str, Any] = {
        "_": f"Generated by `kit lock {image.name}`; do not edit.",
        "schema": SCHEMA,
        "image": image.name,
        "unlocked": unlocked,
        "inputs_hash": inputs_hash(catalog, image),
        "requirements_hash": sha256(requirements) if requirements else "",
        "base": dataclasses.asdict(locked_base(catalog, image)),
        "suites": list(image.release.suites),
        "pythons": catalog.pythons_for(image),
        "uv": uv,
        "snapshot": snapshot,
        "source_date_epoch": _midnight(snapshot) if snapshot else 0,
        "packages": sum(len(parse_requirements(text)) for text in layers.values()),
        "layers": {layer: sha256(text) for layer, text in layers.items()},
    }
    return json.dumps({key: values[key] for key in _KEYS}, indent=2) + "\n"


def _midnight(day: str) -> int:
    return int(datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.timezone.utc).timestamp())


def _requirements_text(catalog: Catalog, image: Image, entries: Mapping[Layer, Iterable[Requirement]]) -> str:
    parts = [f"# Generated by `kit lock {image.name}`; do not edit.\n"]
    for layer, found in entries.items():
        parts.append(f"\n# layer: {layer}\n")
        parts += [r.text() for r in sorted(found, key=lambda r: (r.name, version_key(r.version), r.marker))]
    return "".join(parts)


def _solve(catalog: Catalog, image: Image, present: str, *,
           upgrade: bool = False) -> tuple[str, dict[Layer, list[Requirement]]]:
    """uv's version, and the entries of each layer."""
    with tempfile.TemporaryDirectory(prefix="kit-lock-") as temporary:
        folder = Path(temporary)
        if image.flavor:
            plain = _plain_lock(catalog, Image(release=image.release), upgrade=upgrade)
            by_layer = {layer: parse_requirements(text) for layer, text in plain.layers.items()}
            by_layer["devel"] = _solve_devel(folder, catalog, image, by_layer, present)
            return plain.uv, by_layer
        uv, entries = _compile(folder, catalog, image, tuple(image.release.requirements) + tuple(
            p.requirement or p.name for p in catalog.packages_for(image)), present)
        by_layer = {layer: [] for layer in LAYERS}
        for entry in entries:
            by_layer[catalog.layer_of(entry.name)].append(entry)
        return uv, by_layer


def _plain_lock(catalog: Catalog, image: Image, *, upgrade: bool) -> Lock:
    """The lock that a `-devel` image adds to; brought up to date first where it is not."""
    folder = paths.images_dir() / image.name
    try:
        lock = read_lock(folder, image)
    except LockError:
        lock = None
    if lock is None or is_stale(lock, catalog, image):
        solve(catalog, image, upgrade=upgrade)
        lock = read_lock(folder, image)
    return lock


def _solve_devel(folder: Path, catalog: Catalog, image: Image, plain: Mapping[Layer, list[Requirement]],
                 present: str) -> list[Requirement]:
    wanted = devel_requirements(catalog, image)
    if not wanted:
        return []
    # The plain image's packages are constraints: a compiler must not move what the framework was solved with.
    entries = [e for layer in LAYERS for e in plain[layer]]
    pinned = tuple(f"{e.name}=={e.version}" + (f" ; {e.marker}" if e.marker else "") for e in entries)
    _, found = _compile(folder, catalog, image, wanted, present, more_constraints=pinned)
    names = {e.name for e in entries}
    return [e for e in found if e.name not in names]


def _compile(folder: Path, catalog: Catalog, image: Image, requirements: tuple[str, ...], present: str,
             more_constraints: tuple[str, ...] = ()) -> tuple[str, list[Requirement]]:
    from kit import process

    release = image.release
    pythons = catalog.pythons_for(image)
    machines = [_MACHINES[p] for p in release.platforms]
    (folder / "pyproject.toml").write_text(_pyproject(image, requirements, pythons, machines), encoding="utf-8")
    (folder / "constraints.txt").write_text(_lines(release.constraints + more_constraints), encoding="utf-8")
    (folder / "overrides.txt").write_text(_lines(release.overrides), encoding="utf-8")
    # uv takes the versions of an output file that is already there as its preferences.
    (folder / "solved.txt").write_text(present, encoding="utf-8")
    version = process.run([_uv(), "--version"]).stdout.split()[1]
    try:
        process.run([*_clean_environment(), _uv(), "--no-config", "pip", "compile", "pyproject.toml",
                     "--universal", "--python-version", pythons[0], "--generate-hashes", "--only-binary", ":all:",
                     "--constraint", "constraints.txt", "--override", "overrides.txt", "--no-annotate", "--no-header",
                     "--no-emit-index-url", "--no-emit-find-links", "--quiet", "--output-file", "solved.txt"],
                    cwd=folder, timeout_s=900)
    except CommandError as e:
        raise _solve_error(image, e) from None
    text = (folder / "solved.txt").read_text(encoding="utf-8")
    environments = marker_environments(pythons, machines)
    entries = [_for_these(entry, environments) for entry in parse_requirements(text, f"uv's answer for {image.name}")]
    return version, [entry for entry in entries if entry is not None]


def _for_these(entry: Requirement, environments: list[dict[str, str]]) -> Requirement | None:
    """The entry with the shortest marker that says the same in these environments; None when it is for none of them."""
    if not entry.marker:
        return entry
    wanted = _evaluate(entry.marker, environments)
    if not any(wanted):
        return None
    if all(wanted):
        return dataclasses.replace(entry, marker="")
    # uv repeats the environment a requirement was solved for in every marker (`… and sys_platform == 'linux'`).
    clauses = entry.marker.split(" and ")
    if "(" not in entry.marker and " or " not in entry.marker:
        for clause in list(clauses):
            fewer = [c for c in clauses if c != clause]
            if fewer and _evaluate(" and ".join(fewer), environments) == wanted:
                clauses = fewer
    return dataclasses.replace(entry, marker=" and ".join(clauses))


def _evaluate(marker: str, environments: list[dict[str, str]]) -> list[bool]:
    from packaging.markers import Marker

    parsed = Marker(marker)
    return [parsed.evaluate(environment) for environment in environments]


def _require_wheels(catalog: Catalog, image: Image, requirements: str) -> None:
    """Ask uv whether every base the image can stand on finds a wheel for every entry.

    A universal solution promises versions that fit together, not that each has a wheel for each Python and glibc.
    """
    from kit import process

    base = catalog.base_for(image)
    bases = {(base.python, base.glibc), *((suite.python, suite.glibc) for suite in catalog.suites_for(image))}
    for python, glibc in sorted(bases):
        for machine in (_MACHINES[p] for p in image.release.platforms):
            platform = f"{machine}-manylinux_2_{min(int(glibc.split('.')[1]), _UV_NEWEST_GLIBC)}"
            with tempfile.TemporaryDirectory(prefix="kit-lock-") as temporary:
                (Path(temporary) / REQUIREMENTS_FILE).write_text(requirements, encoding="utf-8")
                try:
                    process.run([*_clean_environment(), _uv(), "--no-config", "pip", "install", "--dry-run", "--quiet",
                                 "--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", "target",
                                 "--python-version", python, "--python-platform", platform, *_index_arguments(image),
                                 "--requirements", REQUIREMENTS_FILE], cwd=Path(temporary), timeout_s=600)
                except CommandError as e:
                    error = _solve_error(image, e)
                    error.message += f" (wheels for Python {python}, {platform})"
                    raise error from None


# uv knows no `--python-platform` for a newer glibc; a wheel that needs one would be reported here as missing.
_UV_NEWEST_GLIBC = 40


def _index_arguments(image: Image) -> list[str]:
    if not image.release.index:
        return []
    return ["--find-links" if image.release.index.endswith(".html") else "--index", image.release.index]


def _uv() -> str:
    import uv

    return os.fspath(uv.find_uv_bin())


def _solve_error(image: Image, error: CommandError) -> KitError:
    last = error.details
    text = error.stderr.lower()
    if any(sign in text for sign in ("failed to fetch", "dns error", "connection", "timed out", "error sending request",
                                     "could not connect")):
        return NetworkError(f"the package index does not answer, so `{image.name}` cannot be locked", details=last,
                            hint="set UV_DEFAULT_INDEX to a PyPI mirror that can be reached from here")
    return LockError(f"no set of packages fits the rows of `{image.name}`", details=last,
                     hint="loosen a requirement or add a constraint in kit/catalog; nothing was written")


def marker_environments(pythons: Iterable[str], machines: Iterable[str]) -> list[dict[str, str]]:
    """The environments a lock must serve, as markers see them: each Python at its first and at a late patch release."""
    return [{"python_version": python, "python_full_version": f"{python}.{patch}", "implementation_name": "cpython",
             "implementation_version": f"{python}.{patch}", "platform_python_implementation": "CPython",
             "os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine,
             "platform_release": "", "platform_version": "", "extra": ""}
            for python, patch, machine in itertools.product(pythons, ("0", "99"), machines)]


def _pyproject(image: Image, requirements: tuple[str, ...], pythons: list[str], machines: list[str]) -> str:
    lines = ["[project]", 'name = "kit-lock"', 'version = "0"', f'requires-python = ">={pythons[0]}"']
    lines += ["dependencies = ["]
    lines += [f"  {json.dumps(_for_environments(r, pythons, machines))}," for r in requirements]
    lines += ["]"]
    if image.release.index:
        # `explicit`: nothing but the packages named may come from this index, whatever else it carries.
        lines += ["[[tool.uv.index]]", 'name = "framework"', f'url = "{image.release.index}"', "explicit = true"]
        lines += ['format = "flat"'] if image.release.index.endswith(".html") else []
        lines += ["[tool.uv.sources]", *(f'{p} = {{ index = "framework" }}' for p in image.release.index_packages)]
    return "\n".join(lines) + "\n"


def _for_environments(requirement: str, pythons: list[str], machines: list[str]) -> str:
    """The requirement for Linux on the image's machines, up to its highest Python.

    What hangs on it inherits the marker, so nothing is solved that could never be installed. (uv's `environments`
    setting would do the same, but uv reads it together with the user's own configuration, which must have no say.)
    """
    head, _, own = requirement.partition(" ; ")
    major, minor = pythons[-1].split(".")
    machine = " or ".join(f"platform_machine == '{m}'" for m in machines)
    marker = f"sys_platform == 'linux' and ({machine}) and python_full_version < '{major}.{int(minor) + 1}'"
    return f"{head} ; {marker}" + (f" and ({own})" if own else "")


def _clean_environment() -> list[str]:
    """`env` without the UV_ variables that would change what is solved; those that say how to reach PyPI stay."""
    stay = {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INSECURE_HOST", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS",
            "UV_HTTP_TIMEOUT", "UV_HTTP_RETRIES", "UV_CACHE_DIR", "UV_CONCURRENT_DOWNLOADS", "UV_OFFLINE"}
    drop = sorted(name for name in os.environ if name.startswith("UV_") and name not in stay)
    return ["env", *itertools.chain.from_iterable(("-u", name) for name in drop)]


def _lines(items: Iterable[str]) -> str:
    return "".join(f"{item}\n" for item in items)


def chosen_images(catalog: Catalog, names: Iterable[str]) -> list[Image]:
    """The images that names stand for, each once; all when there are no names."""
    chosen = list(names)
    return list(dict.fromkeys(catalog.find(name) for name in chosen)) if chosen else catalog.images()
