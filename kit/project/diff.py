"""What `kit diff` does: what `pip install` has put beside a project's environment, and kit.lock has not."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from kit import labels, layout, paths, redact
from kit.catalog import load_catalog
from kit.engine import Engine, connect
from kit.engine.answers import items, mapping, text
from kit.environment import format
from kit.errors import BadInputError, CheckFailedError, LockError, NoSuchContainerError
from kit.frozen import dataclass
from kit.project.add import versions_in
from kit.run.containers import find, is_own, require_own, user_inside
from kit.spec.container import ContainerSpec, Mount, project_of, volume_mounts

if TYPE_CHECKING:
    from kit.engine import Container
    from kit.environment.declared import Declared
    from kit.environment.format import EnvironmentLock

PROGRAM = "added.py"
PATIENCE_S = 120
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_LIMIT = 10_000  # packages


@dataclass(frozen=True, kw_only=True)
class Added:
    """A package that is there and not in the lock, or in another version."""

    name: str  # as it calls itself
    version: str
    is_requested: bool = False  # by its name, and not because another one needs it
    origin: str = ""  # where it is from, when that is no package index
    locked: tuple[str, ...] = ()  # the versions of the lock; none: it has no such package


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What a container of a project, or the volume of its home folder, has beyond the lock."""

    image: str
    container: str = ""  # that was asked; empty where none runs, and the volume was looked at
    volume: str = ""  # empty also where there is none, since nothing was installed yet
    packages: tuple[Added, ...] = ()


def diff(declared: Declared, name: str = "", *, target: str = "", user: str = "") -> Difference:
    """What the running container of a project has beyond kit.lock: the one with this name, or the one that runs with
    the project's folder; where none runs, what it left in its home folder.

    Raises NoSuchContainerError for a name that is none, BadInputError when several could be meant, LockError where
    there is no lock, and what reaching a machine raises.
    """
    lock = format.read(declared.folder)
    engine = connect(target)
    there = _folder_on(engine, declared.folder)
    container = _named(engine, name) if name else _running(engine, there, lock)
    image = lock.image if lock else container.labels.get(labels.IMAGE, "") if container else ""
    if not image:
        raise LockError(
            f"{declared.folder} has no {format.LOCK_NAME}, and no container of it runs",
            hint="`kit lock` writes the one; `kit run` starts the other",
        )
    if container:
        words = ["exec", "--interactive", container.name, *_command()]
        said = engine.call(words, input=_program(), timeout_s=PATIENCE_S)
        return Difference(image=image, container=container.name, packages=beyond(said, locked(image, lock)))
    uid = (user or user_inside(engine, declared.folder)).partition(":")[0]
    mounts = volume_mounts(image, uid, project_of(there))
    volume = next(mount.source for mount in mounts if mount.target == f"{layout.HOME}/.local")
    if not engine.has_volume(volume):
        return Difference(image=image)
    said = _in_volume(engine, volume, image, user or user_inside(engine, declared.folder))
    return Difference(image=image, volume=volume, packages=beyond(said, locked(image, lock)))


def locked(image: str, lock: EnvironmentLock | None) -> dict[str, tuple[str, ...]]:
    """The versions of each package of an environment: several where they differ between Pythons."""
    found = {name: list(versions) for name, versions in versions_in(image).items()}
    for package in lock.packages if lock else ():
        name = canonicalize_name(package.name)
        kept = [version for version in found.get(name, []) if version not in (package.replaces, package.version)]
        found[name] = [*kept, package.version]
    return {name: tuple(versions) for name, versions in found.items()}


def beyond(said: str, locked: Mapping[str, tuple[str, ...]]) -> tuple[Added, ...]:
    """What the program found that is not locked so, by name. Raises CheckFailedError for an answer that is none."""
    try:
        answer = json.loads(said.strip().splitlines()[-1])
    except (IndexError, ValueError, RecursionError):
        raise CheckFailedError(
            "what was installed could not be read: the container gave no answer", details=(said.strip()[-200:],)
        ) from None
    found = []
    for raw in map(mapping, items(answer)[:_LIMIT]):
        name, version = text(raw.get("name")), text(raw.get("version"))
        if not _NAME.fullmatch(name) or not _is_version(version):
            raise CheckFailedError(f"a package in the container is called {name[:100]!r} {version[:100]!r}")
        versions = locked.get(canonicalize_name(name), ())
        if version not in versions:
            found.append(
                Added(
                    name=name,
                    version=version,
                    is_requested=raw.get("requested") is True,
                    origin=_origin(mapping(raw.get("origin"))),
                    locked=versions,
                )
            )
    return tuple(sorted(found, key=lambda package: canonicalize_name(package.name)))


def _is_version(version: str) -> bool:
    try:
        return len(version) < 100 and bool(Version(version))
    except InvalidVersion:
        return False


def _origin(raw: Mapping[str, object]) -> str:
    """Where a package is from, by its direct_url.json (PyPA's "Recording the direct URL origin")."""
    url = redact.text(text(raw.get("url")))[:300]
    if not url:
        return ""
    if "vcs_info" in raw:
        commit = text(mapping(raw["vcs_info"]).get("commit_id"))[:12]
        return f"{url} at {commit}" if commit else url
    return url.removeprefix("file://")


def _program() -> str:
    return (paths.templates_dir() / PROGRAM).read_text(encoding="utf-8")


def _command() -> tuple[str, ...]:
    return ("python", "-", layout.USER_VENV)


def _folder_on(engine: Engine, folder: Path) -> Path:
    if engine.connection is None:
        return folder
    from kit.remote import sync

    return Path(sync.remote_folder(engine.connection, folder, ""))


def _named(engine: Engine, name: str) -> Container:
    container = find(engine, name)
    require_own([container], engine, action="look into", hint="ask them")
    if container.status != "running":
        raise NoSuchContainerError(
            f"{container.name} does not run (status: {container.status})",
            hint=f"`kit start {container.name}` starts it again",
        )
    return container


def _running(engine: Engine, folder: Path, lock: EnvironmentLock | None) -> Container | None:
    """The caller's container that runs with the project's folder, or a part of it. Those of one image share what is
    installed in them.
    """
    found = [
        container
        for container in engine.listed(label=labels.CLIENT)
        if container.status == "running"
        and container.folder
        and Path(container.folder).is_relative_to(folder)
        and (lock is None or container.labels.get(labels.IMAGE) == lock.image)
        and is_own(container, engine)
    ]
    kinds = {(container.labels.get(labels.IMAGE), container.folder) for container in found}
    if len(kinds) > 1:
        raise BadInputError(
            f"{len(found)} containers run in {folder}",
            details=tuple(f"{c.name} ({c.labels.get(labels.IMAGE)}, in {c.folder})" for c in found),
            hint="name the one that is meant",
        )
    return found[0] if found else None


def _in_volume(engine: Engine, volume: str, image: str, user: str) -> str:
    """What the program says of a volume, in a container of its own: any image with that Python can look."""
    plain = load_catalog().find(image).reference
    there = engine.tags()
    own = [tag for tag in there if tag.startswith(f"kit/env-{image}:")]
    reference = plain if plain in there else next(iter(own), "")
    if not reference:
        raise BadInputError(
            f"something was installed into {image}, and that image is not there to look at it",
            hint=f"`kit build {image}` makes it",
        )
    spec = ContainerSpec(
        image=reference,
        name=f"kit-diff-{secrets.token_hex(4)}",
        command=_command(),
        user=user,
        mounts=(Mount(source=volume, target=f"{layout.HOME}/.local", is_volume=True, read_only=True),),
        labels={labels.USER: user},
        network=layout.NO_NETWORK,
        remove=True,
        interactive=True,
    )
    try:
        return engine.call(["run", "--pull=never", *engine.arguments(spec)], input=_program(), timeout_s=PATIENCE_S)
    except BaseException:
        engine.remove(spec.name, force=True)
        raise
