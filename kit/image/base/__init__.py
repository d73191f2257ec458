"""Registry-free bases: a Debian root file system made from the package archive, as an image in the engine.

The same packages from the same mirror give the same bytes and the same image ID, on whichever engine.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from kit import apt, files, paths, redact
from kit.catalog import load_catalog
from kit.engine import Engine
from kit.errors import BadInputError, DiskFullError, EngineError
from kit.frozen import dataclass
from kit.image.base import bootstrap, image, root
from kit.image.base.mirror import choose_mirror
from kit.labels import BASE_PACKAGES, BASE_SUITE

REPOSITORY = "kit/base"


@dataclass(frozen=True, kw_only=True)
class BaseImage:
    """A base in the engine: how to name it in FROM, and the hash of the packages that are in it."""

    reference: str
    content_hash: str
    suite: str


def reference(suite: str) -> str:
    return f"{REPOSITORY}:{suite}"


def find(suite: str, engine: Engine) -> BaseImage | None:
    """The base of that suite in the engine; None when it has none. Raises NoEngineError when no engine answers."""
    labels = engine.made_labels(reference(suite))
    if not labels or labels.get(BASE_SUITE) != suite or BASE_PACKAGES not in labels:
        return None
    return BaseImage(reference=reference(suite), content_hash=labels[BASE_PACKAGES], suite=suite)


def ensure(
    suite: str,
    engine: Engine,
    *,
    mirror: str = "",
    force: bool = False,
    on_message: Callable[[str], None] = lambda _: None,
) -> BaseImage:
    """The base of that suite in the engine: the one that is there, else one kept on disk, else a new one.

    `force` makes a new one with today's packages. Raises BadInputError for a suite kit does not know, NetworkError when
    the mirror does not answer, DiskFullError.
    """
    known = sorted(row.name for row in load_catalog().suites)
    if suite not in known:
        raise BadInputError(f"no base can be made of the suite `{suite}`", hint=f"one of: {', '.join(known)}")
    # First, so that nothing is made for an engine that is not there.
    present = find(suite, engine)
    if present and not force:
        on_message(
            f"{present.reference} ({present.content_hash[:12]}) is there already; "
            "`kit base make --force` takes newer packages"
        )
        return present
    folder = paths.cache_folder("base")
    with files.locked(folder / f"{suite}.lock", say=on_message):
        archive = archive_of(suite)
        made = None
        if archive.is_file() and not force and not mirror:
            on_message(f"loading {reference(suite)} as it was made before")
            # An archive that was damaged on disk is no reason to fail: it can be made again.
            with contextlib.suppress(EngineError):
                made = _load(suite, archive, engine)
        if made is None:
            make(suite, archive, engine, mirror=mirror, on_message=on_message)
            for other in folder.glob(f"{suite}-{apt.architecture()}*.tar"):
                if other != archive:
                    other.unlink(missing_ok=True)
            made = _load(suite, archive, engine)
    if made is None:
        raise EngineError(
            f"the engine took {archive} and has no {reference(suite)} now", hint=f"run `kit base make {suite} --force`"
        )
    return made


def archive_of(suite: str) -> Path:
    """Where the base of a suite is kept on disk. Its name has a hash of what makes one: another version of kit may make
    another base of the same packages, and images on the two would differ.
    """
    maker = hashlib.sha256()
    for file in sorted(paths.base_dir().glob("*.*")):
        maker.update(file.read_bytes())
    return paths.cache_folder("base") / f"{suite}-{apt.architecture()}-{maker.hexdigest()[:8]}.tar"


def _load(suite: str, archive: Path, engine: Engine) -> BaseImage | None:
    engine.load_image(archive)
    engine.note_made(reference(suite))
    return find(suite, engine)


def make(
    suite: str, archive: Path, engine: Engine, *, mirror: str = "", on_message: Callable[[str], None] = lambda _: None
) -> str:
    """Write the base of a suite as an image archive that `docker load` takes; returns the hash of its packages.

    `engine` configures them. The archive appears whole or not at all. Two calls that find the same packages write the
    same bytes.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    for stale in archive.parent.glob(f".{archive.stem}.*"):
        shutil.rmtree(stale, ignore_errors=True)
    work = Path(tempfile.mkdtemp(dir=archive.parent, prefix=f".{archive.stem}."))
    try:
        with _disk_full(archive.parent):
            where = choose_mirror(suite, mirror, work, on_message)
            on_message(f"making {reference(suite)} from {redact.without_users(where.uri)}")
            made = work / "root.tar"
            bootstrap.make_root(engine, suite, where, made, on_message)
            architecture = apt.architecture()
            content_hash = image.packages_hash(root.dpkg_status(made), architecture)
            beside = work / "image.tar"
            image.write_image(
                beside,
                made,
                reference=reference(suite),
                created_by=f"kit base make {suite}",
                labels=image.base_labels(suite, content_hash, where.epoch),
                architecture=architecture,
                epoch=where.epoch,
            )
            beside.replace(archive)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return content_hash


@contextlib.contextmanager
def _disk_full(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno not in paths.FULL:
            raise
        raise DiskFullError(
            f"no space left in {folder} for making a base image",
            hint="free about 1 GB, or set XDG_CACHE_HOME to a folder on a larger disk",
        ) from None
