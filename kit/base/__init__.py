"""Registry-free bases: a Debian root file system made from the package archive, as an image in the engine.

The same packages from the same mirror, laid out by the same mmdebstrap, give the same bytes and the same image ID.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from kit import apt, mounts, paths, process
from kit.base import bootstrap, image
from kit.base.image import PACKAGES_LABEL, SUITE_LABEL
from kit.errors import (
    BadInputError,
    CommandError,
    DiskFullError,
    EngineError,
    KitError,
    MissingProgramError,
    NoEngineError,
)

Suite = Literal["bookworm", "bullseye", "trixie"]
SUITES: tuple[Suite, ...] = get_args(Suite)
REPOSITORY = "kit/base"


@dataclass(frozen=True, kw_only=True)
class BaseImage:
    """A base in the engine: how to name it in FROM, and the hash of the packages that are in it."""

    reference: str
    content_hash: str
    suite: str


def _silent(_: str) -> None:
    pass


def reference(suite: str) -> str:
    return f"{REPOSITORY}:{suite}"


def find(suite: str, environment: Mapping[str, str] | None = None) -> BaseImage | None:
    """The base of that suite in the engine; None when it has none. Raises NoEngineError when no engine answers."""
    found = _docker(
        "image",
        "inspect",
        "--format",
        "{{json .Config.Labels}}",
        reference(suite),
        environment=environment,
        missing_is_fine=True,
    )
    labels = json.loads(found) if found else None
    if not labels or labels.get(SUITE_LABEL) != suite or PACKAGES_LABEL not in labels:
        return None
    return BaseImage(reference=reference(suite), content_hash=labels[PACKAGES_LABEL], suite=suite)


def ensure(
    suite: str,
    environment: Mapping[str, str] | None = None,
    *,
    mirror: str = "",
    force: bool = False,
    on_message: Callable[[str], None] = _silent,
) -> BaseImage:
    """The base of that suite in the engine: the one that is there, else one kept on disk, else a new one.

    `force` makes a new one with today's packages. `environment` says which engine, as the docker CLI's variables.
    Raises BadInputError for a suite kit does not know, NetworkError when the mirror does not answer, DiskFullError.
    """
    if suite not in SUITES:
        raise BadInputError(f"no base can be made of the suite `{suite}`", hint=f"one of: {', '.join(SUITES)}")
    # First, so that nothing is made for an engine that is not there.
    present = find(suite, environment)
    if present and not force:
        on_message(
            f"{present.reference} ({present.content_hash[:12]}) is there already; "
            "`kit base make --force` takes newer packages"
        )
        return present
    folder = paths.cache_dir() / "base"
    with paths.locked(folder / f"{suite}.lock"):
        archive = folder / f"{suite}-{apt.architecture()}.tar"
        made = None
        if archive.is_file() and not force and not mirror:
            on_message(f"loading {reference(suite)} as it was made before")
            # An archive that was damaged on disk is no reason to fail: it can be made again.
            with contextlib.suppress(EngineError):
                made = _load(suite, archive, environment)
        if made is None:
            make(suite, archive, mirror=mirror, on_message=on_message)
            made = _load(suite, archive, environment)
    if made is None:
        raise EngineError(
            f"the engine took {archive} and has no {reference(suite)} now", hint=f"run `kit base make {suite} --force`"
        )
    return made


def _load(suite: str, archive: Path, environment: Mapping[str, str] | None) -> BaseImage | None:
    _docker("image", "load", "--quiet", "--input", str(archive), environment=environment)
    return find(suite, environment)


def make(suite: str, archive: Path, *, mirror: str = "", on_message: Callable[[str], None] = _silent) -> str:
    """Write the base of a suite as an image archive that `docker load` takes; returns the hash of its packages.

    The archive appears whole or not at all. Two calls that find the same packages write the same bytes.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    for stale in archive.parent.glob(f".{archive.stem}.*"):
        mounts.remove_tree(stale)
    work = Path(tempfile.mkdtemp(dir=archive.parent, prefix=f".{archive.stem}."))
    # apt downloads as a user of its own, who must get in here.
    work.chmod(0o755)
    try:
        with _disk_full(archive.parent):
            program = bootstrap.mmdebstrap(work, on_message)
            where = bootstrap.choose_mirror(suite, mirror, work, program)
            on_message(f"making {reference(suite)} from {apt.without_credentials(where.uri)}")
            root = work / "root.tar"
            bootstrap.make_root(program, suite, where, root, on_message)
            architecture = apt.architecture()
            content_hash = image.packages_hash(bootstrap.dpkg_status(root), architecture)
            beside = work / "image.tar"
            image.write_image(
                beside,
                root,
                reference=reference(suite),
                suite=suite,
                architecture=architecture,
                content_hash=content_hash,
                epoch=where.epoch,
            )
            beside.replace(archive)
    finally:
        mounts.remove_tree(work)
    return content_hash


@contextlib.contextmanager
def _disk_full(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            f"no space left in {folder} for making a base image",
            hint="free about 1 GB, or set XDG_CACHE_HOME to a folder on a larger disk",
        ) from None


def _docker(*args: str, environment: Mapping[str, str] | None, missing_is_fine: bool = False) -> str:
    """One call of the docker CLI; what went wrong comes as the kind of error it is."""
    try:
        path = (environment or {}).get("PATH") or os.environ.get("PATH")
        program = shutil.which("docker", path=path) or "docker"
        return process.run([program, *args], timeout_s=900, env=environment).stdout.strip()
    except MissingProgramError:
        raise NoEngineError("the docker program is not there", hint="run `kit engine up`") from None
    except CommandError as e:
        if missing_is_fine and re.search(r"no such (image|object)", e.stderr, re.IGNORECASE):
            return ""
        raise _engine_error(e) from None


def _engine_error(error: CommandError) -> KitError:
    if re.search(
        r"cannot connect to the docker daemon|connection refused|permission denied while trying to connect",
        error.stderr,
        re.IGNORECASE,
    ):
        return NoEngineError(
            "no container engine answers",
            details=error.details,
            hint="run `kit engine up`, or start the Docker service",
        )
    if "no space left" in error.stderr.lower():
        return DiskFullError(
            "no space left where the engine keeps its images",
            details=error.details,
            hint="free some space, or remove images with `docker image prune`",
        )
    return EngineError(
        "the engine refused the base image", details=error.details, hint="run the command again with -vv"
    )
