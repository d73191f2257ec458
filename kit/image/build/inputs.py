"""What an image is built from, and whether the engine's image still is what that says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from kit import paths
from kit.catalog import Catalog
from kit.catalog.rows import Image
from kit.engine import Engine
from kit.errors import LockError
from kit.frozen import dataclass
from kit.image.build.options import BuildOptions, Built, ChosenBase, Progress
from kit.labels import BASE, BASE_IDENTITY, BASE_SOURCE, FINGERPRINT, PYTHON

if TYPE_CHECKING:
    from kit.locks.format import Lock

# What steps of a build take from templates/: they open and close each, make the user's layer, and start a container's
# command.
STEP_SCRIPTS = ("begin.sh", "end.sh", "hold.py", "pip_python.py", "run.py", "user_layer.py")


def step_scripts(names: Iterable[str] = STEP_SCRIPTS) -> str:
    """The text of the scripts that steps use: what they do is part of what an image is."""
    return "".join((paths.templates_dir() / name).read_text(encoding="utf-8") for name in names)


def kit_context(uv: str, scripts: Sequence[str] = STEP_SCRIPTS) -> Path:
    """A folder with the uv program, of this version, and the scripts that steps use."""
    import shutil
    import tempfile

    from kit.locks.uv import uv_program

    program = uv_program(uv)
    stat = program.stat()
    mark = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns} {step_scripts(scripts)}".encode()).hexdigest()[:16]
    folder = paths.usable_folder(paths.cache_folder, "build-context") / mark
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as beside:
            shutil.copy(program, Path(beside) / "uv")
            for name in scripts:
                shutil.copy(paths.templates_dir() / name, beside)
            try:
                Path(beside).rename(folder)
            except OSError:
                # Another kit process may have been faster: then its folder is as good as this one.
                if not folder.is_dir():
                    raise
    return folder


def hash_of(*parts: str) -> str:
    """A hash of these texts that tells where each ends."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


def fingerprint(dockerfile: str, requirements: str, base_identity: str) -> str:
    """A hash of all that decides what is in the image: equal fingerprint, nothing to build."""
    return hash_of(dockerfile, step_scripts(), requirements, base_identity)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The committed files an image is built from, checked against each other and the catalog."""

    dockerfile: str
    lock: Lock
    uv: str  # its version


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One build, decided in full: what a builder is told."""

    name: str  # of what is built, for people
    reference: str  # the engine's name for it
    dockerfile: str
    requirements: str  # the whole text of its lock
    layers: Mapping[str, str]  # the same by section
    files: Mapping[str, str] = field(default_factory=dict)  # beside the Dockerfile
    netrc: str = ""  # logins for indexes, a secret
    scripts: Sequence[str] = STEP_SCRIPTS
    uv: str  # its version
    source_date_epoch: int
    base: str  # what FROM names
    is_local: bool  # the engine has the base, and no registry is asked
    fingerprint: str
    labels: Mapping[str, str]  # what it is built from, beside those of the Dockerfile
    options: BuildOptions
    progress: Progress

    @property
    def arguments(self) -> list[str]:
        """What every builder is told."""
        labels = {FINGERPRINT: self.fingerprint, **self.labels}
        return [
            f"--build-arg=SOURCE_DATE_EPOCH={self.source_date_epoch}",
            *(f"--label={name}={value}" for name, value in labels.items()),
            *(["--network=host"] if self.options.network.needs_host_network else []),
            *(["--no-cache"] if self.options.no_cache else []),
        ]


def plan_of(image: Image, inputs: Inputs, base: ChosenBase, options: BuildOptions, progress: Progress) -> Plan:
    """The build of an image of the catalog on a base."""
    return Plan(
        name=image.name,
        reference=image.reference,
        dockerfile=inputs.dockerfile,
        requirements=inputs.lock.requirements,
        layers=inputs.lock.layers,
        uv=inputs.uv,
        source_date_epoch=inputs.lock.source_date_epoch,
        base=base.reference,
        is_local=base.source == "archive",
        fingerprint=fingerprint(inputs.dockerfile, inputs.lock.requirements, base.identity),
        labels={
            BASE: base.reference,
            BASE_SOURCE: base.source,
            BASE_IDENTITY: base.identity,
            PYTHON: base.python,
        },
        options=options,
        progress=progress,
    )


def read_inputs(catalog: Catalog, image: Image) -> Inputs:
    """The image's committed lock and Dockerfile.

    Raises UnlockedError, or LockError when the lock does not fit the catalog or the Dockerfile is not the templates'.
    """
    from kit.locks import differences
    from kit.locks.format import read_lock
    from kit.render import render_dockerfile

    folder = paths.images_dir() / image.name
    lock = read_lock(folder, image)
    if differences(lock, catalog, image):
        raise LockError(
            f"the lock of {image.name} is stale: the catalog has changed since it was solved",
            hint=f"solve it again: `kit lock {image.name}`",
        )
    dockerfile = render_dockerfile(catalog, image, lock)
    file = folder / "Dockerfile"
    if not file.is_file() or file.read_text(encoding="utf-8") != dockerfile:
        raise LockError(
            f"{file} is not what the templates and the catalog say", hint=f"write it again: `kit render {image.name}`"
        )
    return Inputs(dockerfile=dockerfile, lock=lock, uv=catalog.uv_version)


def current(catalog: Catalog, image: Image, engine: Engine, options: BuildOptions) -> Built | None:
    """The image as the engine has it, if kit made it there, of what its committed files say (and on the base that was
    asked for).

    Quick, for `kit run`: it compares fingerprints and checks nothing else, which `build` does.
    """
    return labelled_so(catalog, image, engine.made_labels(image.reference), options)


def labelled_so(
    catalog: Catalog, image: Image, labels: Mapping[str, str] | None, options: BuildOptions
) -> Built | None:
    """What these labels say was built, if that is what the image's committed files say; whoever made it wrote them."""
    if labels is None or FINGERPRINT not in labels or options.base not in ("auto", labels.get(BASE_SOURCE)):
        return None
    folder = paths.images_dir() / image.name
    try:
        dockerfile = (folder / "Dockerfile").read_text(encoding="utf-8")
        requirements = _requirements(image, folder)
    except (OSError, LockError):
        return None
    identity = labels.get(BASE_IDENTITY, "")
    # The base's identity is taken from the label, so it must be one this image can have today.
    mark = fingerprint(dockerfile, requirements, identity)
    if labels[FINGERPRINT] != mark or identity not in _identities(catalog, image):
        return None
    return Built(
        image=image.name,
        reference=image.reference,
        base=labels.get(BASE, ""),
        fingerprint=mark,
        is_new=False,
        seconds=0.0,
    )


def fingerprints(catalog: Catalog, image: Image) -> Iterator[tuple[str, str]]:
    """Each base that the image can stand on today, by its identity, and the fingerprint that the image then has.

    Raises LockError when the image's files cannot be read.
    """
    folder = paths.images_dir() / image.name
    try:
        dockerfile = (folder / "Dockerfile").read_text(encoding="utf-8")
        requirements = _requirements(image, folder)
    except OSError as e:
        raise LockError(f"{folder} cannot be read: {e.strerror}", hint=f"`kit lock {image.name}` writes it") from None
    for identity in _identities(catalog, image):
        yield identity, fingerprint(dockerfile, requirements, identity)


def _requirements(image: Image, folder: Path) -> str:
    """The whole text of an image's lock. Raises OSError and LockError."""
    if not image.flavor:
        # Nothing is added to another's lock: what reads those takes as long to import as all the rest of this.
        return (folder / "requirements.lock").read_text(encoding="utf-8")
    from kit.locks.format import read_requirements

    return read_requirements(folder)[0]


def _identities(catalog: Catalog, image: Image) -> list[str]:
    return [catalog.base_for(image).reference, *(f"archive:{suite.name}" for suite in catalog.suites_for(image))]
