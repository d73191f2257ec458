"""From a name to an image in the engine: check the lock, choose the base, build, label with the inputs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kit import paths, process
from kit.buildlog import BuildLog, Step
from kit.catalog import Catalog
from kit.catalog.model import Image
from kit.compat import archive_refusal
from kit.engine import Engine
from kit.engine.messages import REGISTRY, recognise, translate
from kit.errors import (
    BaseNotFoundError,
    BuildFailedError,
    CommandError,
    EngineError,
    IncompatibleError,
    KitError,
    LockError,
    NetworkError,
)
from kit.network import NetworkSettings

if TYPE_CHECKING:
    from kit.locks import Lock

BaseChoice = Literal["registry", "archive", "auto"]
# How long `--base auto` waits for a registry before it takes the archive.
REGISTRY_PATIENCE_S = 8
TRANSFER_NOTICE_S = 5.0
STEP_SCRIPTS = ("begin.sh", "end.sh")


@dataclass(frozen=True, kw_only=True)
class ChosenBase:
    """The base an image is built on: where it comes from, and the Python it has."""

    source: Literal["registry", "archive"]
    reference: str
    python: str
    identity: str  # what the fingerprint holds: the registry reference, or the suite


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to build; none of it changes what is in the image but `base` and `registry_mirror`'s choice of base."""

    base: BaseChoice = "auto"
    registry_mirror: str = ""
    apt_mirror: str = ""  # of the distribution, for a base made from its package archive
    network: NetworkSettings = field(default_factory=lambda: NetworkSettings(proxies={}))
    force: bool = False
    no_cache: bool = False


@dataclass(frozen=True, kw_only=True)
class Built:
    """An image in the engine."""

    image: str
    reference: str
    base: str
    fingerprint: str
    is_new: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a build reports while it runs."""

    message: Callable[[str], None]
    log: Callable[[BuildLog, list[Step]], None]


SILENT = Progress(message=lambda _: None, log=lambda *_: None)


def fingerprint(dockerfile: str, requirements: str, base_identity: str) -> str:
    """A hash of all that decides what is in the image: equal fingerprint, nothing to build."""
    digest = hashlib.sha256()
    for part in (dockerfile, step_scripts(), requirements, base_identity):
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The committed files an image is built from, checked against each other and the catalog."""

    folder: Path
    dockerfile: str
    lock: Lock


def read_inputs(catalog: Catalog, image: Image) -> Inputs:
    """The image's committed lock and Dockerfile.

    Raises UnlockedError, or LockError when the lock does not fit the catalog or the Dockerfile is not the templates'.
    """
    from kit.locks import is_stale, read_lock
    from kit.render import render_dockerfile

    folder = paths.images_dir() / image.name
    lock = read_lock(folder, image)
    if is_stale(lock, catalog, image):
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
    return Inputs(folder=folder, dockerfile=dockerfile, lock=lock)


def current(catalog: Catalog, image: Image, engine: Engine, options: BuildOptions) -> Built | None:
    """The image as the engine has it, if it is what its committed files say (and on the base that was asked for).

    Quick, for `kit run`: it compares fingerprints and checks nothing else, which `build` does.
    """
    labels = engine.image_labels(image.reference)
    if labels is None or "kit.fingerprint" not in labels or options.base not in ("auto", labels.get("kit.base-source")):
        return None
    folder = paths.images_dir() / image.name
    try:
        dockerfile = (folder / "Dockerfile").read_text(encoding="utf-8")
        requirements = (folder / "requirements.lock").read_text(encoding="utf-8")
    except OSError:
        return None
    identity = labels.get("kit.base-identity", "")
    # The base's identity is taken from the label, so it must be one this image can have today.
    mark = fingerprint(dockerfile, requirements, identity)
    if labels["kit.fingerprint"] != mark or identity not in _identities(catalog, image):
        return None
    return Built(
        image=image.name,
        reference=image.reference,
        base=labels.get("kit.base", ""),
        fingerprint=mark,
        is_new=False,
        seconds=0.0,
    )


def _identities(catalog: Catalog, image: Image) -> list[str]:
    return [catalog.base_for(image).reference, *(f"archive:{suite.name}" for suite in catalog.suites_for(image))]


def choose_base(
    catalog: Catalog, image: Image, engine: Engine, options: BuildOptions, progress: Progress
) -> ChosenBase:
    """The base to build on, made first when it comes from the archive.

    Raises BaseNotFoundError when the registry answers and does not have it, NetworkError when it does not answer and
    was asked for, IncompatibleError when no base can carry the image.
    """
    row = catalog.base_for(image)
    reference = row.reference
    if options.registry_mirror:
        # Docker Hub's own images have no owner in their name there, and `library` everywhere else.
        host = options.registry_mirror.partition("://")[2] or options.registry_mirror
        reference = f"{host.rstrip('/')}/{'' if '/' in row.repository else 'library/'}{reference}"
    suites = catalog.suites_for(image)
    if refusal := archive_refusal(catalog, image):
        suites = []
        if options.base == "archive":
            raise IncompatibleError(
                f"{image.name} cannot be built on a registry-free base: {refusal}",
                hint="build it where a container registry can be reached, with --base registry",
            )
    if options.base != "archive":
        problem = _registry_problem(engine, reference, row.digest_status)
        if problem is None:
            return ChosenBase(source="registry", reference=reference, python=row.python, identity=row.reference)
        if options.base == "registry" or not suites or isinstance(problem, BaseNotFoundError):
            raise problem
        progress.message(f"the container registry does not answer: building on a registry-free {suites[0].distro} base")
    from kit import base

    suite = suites[0]
    made = base.ensure(suite.name, engine, mirror=options.apt_mirror, on_message=progress.message)
    return ChosenBase(source="archive", reference=made.reference, python=suite.python, identity=f"archive:{suite.name}")


def _registry_problem(engine: Engine, reference: str, digest_status: str) -> KitError | None:
    """None when the registry has this base, else what to tell the user."""
    try:
        engine.call(["buildx", "imagetools", "inspect", reference], timeout_s=REGISTRY_PATIENCE_S)
    except KitError as e:
        found = recognise((e.message, *e.details), REGISTRY)
        if isinstance(found, BaseNotFoundError):
            hint = "NVIDIA rebuilds and deletes tags: `kit update` asks for the present digests"
            if digest_status != "confirmed":
                hint += f" (this one is {digest_status})"
            return BaseNotFoundError(
                f"the registry does not have the base {reference}", hint=hint, details=found.details
            )
        return NetworkError(
            f"the registry of {reference} does not answer",
            details=e.details[-1:],
            hint="give a mirror with --registry-mirror, or build without a registry: --base archive",
        )
    return None


def build(catalog: Catalog, image: Image, engine: Engine, options: BuildOptions, progress: Progress = SILENT) -> Built:
    """Build one image into the engine's store, unless it is up to date.

    Raises BuildFailedError with the failed step and its last lines, or the kind of error the engine's text stands for.
    """
    inputs = read_inputs(catalog, image)
    if not options.force and not options.no_cache and (done := current(catalog, image, engine, options)):
        return done
    started = time.monotonic()
    engine.require_buildx()
    chosen = choose_base(catalog, image, engine, options, progress)
    mark = fingerprint(inputs.dockerfile, inputs.lock.requirements, chosen.identity)
    output = ["--tag", image.reference]
    if engine.info.is_containerd_store:
        output = ["--output", f"type=image,name={image.reference},unpack=true,compression=zstd,oci-mediatypes=true"]
    _buildx(image, engine, inputs, chosen, mark, options, progress, output)
    return Built(
        image=image.name,
        reference=image.reference,
        base=chosen.reference,
        fingerprint=mark,
        is_new=True,
        seconds=time.monotonic() - started,
    )


def build_digest(
    catalog: Catalog, image: Image, engine: Engine, options: BuildOptions, progress: Progress = SILENT
) -> str:
    """Build the image from nothing into an OCI archive and return its manifest's digest; the store is untouched."""
    inputs = read_inputs(catalog, image)
    engine.require_buildx()
    chosen = choose_base(catalog, image, engine, options, progress)
    mark = fingerprint(inputs.dockerfile, inputs.lock.requirements, chosen.identity)
    import tarfile
    import tempfile

    with tempfile.TemporaryDirectory(prefix="kit-oci-") as folder:
        archive = Path(folder) / "image.tar"
        _buildx(
            image,
            engine,
            inputs,
            chosen,
            mark,
            options,
            progress,
            ["--no-cache", "--output", f"type=oci,dest={archive},rewrite-timestamp=true,compression=zstd"],
        )
        with tarfile.open(archive) as tar:
            index = tar.extractfile("index.json")
            assert index is not None
            digest: str = json.load(index)["manifests"][0]["digest"]
            return digest


def _buildx(
    image: Image,
    engine: Engine,
    inputs: Inputs,
    chosen: ChosenBase,
    mark: str,
    options: BuildOptions,
    progress: Progress,
    output: list[str],
) -> None:
    labels = {
        "kit.fingerprint": mark,
        "kit.base": chosen.reference,
        "kit.base-source": chosen.source,
        "kit.base-identity": chosen.identity,
        "kit.python": chosen.python,
    }
    log = BuildLog()
    with _contexts(options.network) as extra:
        code = engine.stream(
            [
                "buildx",
                "build",
                "--progress=rawjson",
                "--provenance=false",
                "--sbom=false",
                f"--build-arg=BASE={chosen.reference}",
                f"--build-arg=SOURCE_DATE_EPOCH={inputs.lock.source_date_epoch}",
                *(f"--label={name}={value}" for name, value in labels.items()),
                *(["--no-cache"] if options.no_cache and "--no-cache" not in output else []),
                *extra,
                *output,
                str(inputs.folder),
            ],
            lambda line: progress.log(log, log.feed(line)),
        )
    if code != 0:
        raise build_error(image.name, log, code)


@contextlib.contextmanager
def _contexts(network: NetworkSettings) -> Iterator[list[str]]:
    """The arguments for what a build gets beside its folder: uv, and as secrets the CA, proxies and index."""
    import tempfile

    arguments = [f"--build-context=kit={_kit_context()}"]
    if network.ca_file:
        arguments.append(f"--secret=id=ca,src={network.ca_file}")
    if network.needs_host_network:
        arguments += ["--allow=network.host", "--network=host"]
    with tempfile.TemporaryDirectory(prefix="kit-build-") as folder:
        if script := network.shell_script():
            file = Path(folder) / "environment"
            paths.write_text(file, script, mode=0o600)
            arguments.append(f"--secret=id=environment,src={file}")
        yield arguments


def _kit_context() -> Path:
    """A folder with what the steps of a build mount: the uv program, and the scripts that open and close a step."""
    import shutil
    import tempfile

    import uv

    program = Path(uv.find_uv_bin())
    stat = program.stat()
    mark = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns} {step_scripts()}".encode()).hexdigest()[:16]
    folder = paths.cache_dir() / "build-context" / mark
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder.parent))
        shutil.copy(program, beside / "uv")
        for name in STEP_SCRIPTS:
            shutil.copy(paths.templates_dir() / name, beside / name)
        # Another kit process may have been faster: then its folder is as good as this one.
        try:
            beside.rename(folder)
        except OSError:
            shutil.rmtree(beside)
    return folder


def step_scripts() -> str:
    """The text of the scripts that every step sources: what they do is part of what an image is."""
    return "".join((paths.templates_dir() / name).read_text(encoding="utf-8") for name in STEP_SCRIPTS)


def build_error(name: str, log: BuildLog, code: int) -> KitError:
    """What a failed build is reported as: the kind its text stands for, else the failed step and its last lines."""
    step = log.failed
    lines = [line for line in (step.lines if step else log.other) if line.strip()]
    text = [*(lines if step else []), step.error if step else "", *log.other]
    if known := recognise(text):
        return known
    if step and re.search(r"^\[[^]]*\] (FROM|load metadata) ", step.name) and (known := recognise(text, REGISTRY)):
        hint = "`kit update` asks the registry for the present digests; `--base archive` needs none"
        if isinstance(known, NetworkError):
            hint = "give a mirror with --registry-mirror, or build without a registry: --base archive"
        return type(known)(known.message, details=known.details, hint=hint)
    where = f'in the step "{step.title}"' if step else f"with exit code {code}"
    details = lines[-15:] or ([step.error] if step else [])
    return BuildFailedError(
        f"the build of {name} failed {where}",
        details=tuple(details),
        hint="the same command goes on from the last finished step; -vv shows every command",
    )


def push(engine: Engine, built: Built, repository: str, progress: Progress = SILENT) -> str:
    """Push a built image to `repository/NAME`; returns the reference. Layers the registry has are not sent again."""
    reference = f"{repository.rstrip('/')}/{built.image}:latest"
    engine.call(["tag", built.reference, reference])
    lines: list[str] = []
    if engine.stream(["push", reference], lines.append) != 0:
        known = recognise(lines, REGISTRY)
        raise known or BuildFailedError(
            f"{reference} could not be pushed",
            details=tuple(lines[-5:]),
            hint=f"log in first: `docker login {reference.split('/')[0]}`",
        )
    progress.message(f"pushed {reference}")
    return reference


def pull(engine: Engine, image: Image, repository: str, progress: Progress = SILENT) -> None:
    """Pull an image that `push` pushed, on the engine's own machine."""
    reference = f"{repository.rstrip('/')}/{image.name}:latest"
    progress.message(f"pulling {reference}")
    lines: list[str] = []
    if engine.stream(["pull", reference], lines.append) != 0:
        raise recognise(lines, REGISTRY) or EngineError(
            f"{reference} could not be pulled",
            details=tuple(lines[-5:]),
            hint=f"can that machine reach {reference.split('/')[0]}, and is it logged in there (`docker login`)?",
        )
    engine.call(["tag", reference, image.reference])


def transfer(source: Engine, engine: Engine, image: Image, progress: Progress = SILENT) -> int:
    """Send an image from one engine to another, and say how many bytes that took.

    Raises the kind of error that the text of the engine that failed stands for.
    """
    started = told = time.monotonic()
    sent = 0

    def on_bytes(total: int) -> None:
        nonlocal sent, told
        sent = total
        if time.monotonic() - told > TRANSFER_NOTICE_S:
            told = time.monotonic()
            progress.message(f"  {total / 1e6:.0f} MB sent in {told - started:.0f} s")

    try:
        process.pipe(
            [source.program, "image", "save", image.reference],
            [engine.program, "image", "load", "--quiet"],
            source_env=source.environment,
            sink_env=engine.environment,
            on_bytes=on_bytes,
        )
    except CommandError as e:
        raise translate(e) from e
    return sent
