"""One image: check its inputs, choose its base, have the engine build it, and say what went wrong."""

from __future__ import annotations

import json
import re
import tarfile
import time
from dataclasses import replace

from kit import files
from kit.catalog import Catalog
from kit.catalog.rows import Image
from kit.decide.compat import archive_refusal
from kit.engine import Engine
from kit.engine.messages import NO_HINTS, REGISTRY, Hints, recognise
from kit.errors import (
    BaseNotFoundError,
    BuildFailedError,
    EngineFeatureError,
    IncompatibleError,
    KitError,
    NetworkError,
)
from kit.image import base
from kit.image.build import buildkit, podman
from kit.image.build.inputs import Plan, current, plan_of, read_inputs
from kit.image.build.options import SILENT, BuildOptions, Built, ChosenBase, Progress
from kit.image.buildlog import Log, checked
from kit.network import FRAMEWORK_INDEX

# How long `--base auto` waits for a registry before it takes the archive.
REGISTRY_PATIENCE_S = 8
# Podman 4 reads the manifest of an image that is for one platform alone, and then refuses it: it is there.
ANSWERED = ("parsing manifest blob", "is not a manifest list")
# Begins what a step's script says of a failure.
SAID = "kit: "
WITHOUT_REGISTRY = "give a mirror with --registry-mirror, or build without a registry: --base archive"


def build(catalog: Catalog, image: Image, engine: Engine, options: BuildOptions, progress: Progress = SILENT) -> Built:
    """Build one image into the engine's store, unless it is up to date.

    Raises BuildFailedError with the failed step and its last lines, or the kind of error the engine's text stands for.
    """
    inputs = read_inputs(catalog, image)
    if not options.force and not options.no_cache and (done := current(catalog, image, engine, options)):
        return done
    started = time.monotonic()
    require_builder(engine)
    chosen = choose_base(catalog, image, engine, options, progress)
    return make(engine, plan_of(image, inputs, chosen, options, progress), started)


def require_builder(engine: Engine) -> None:
    """Raise EngineFeatureError for an engine that lacks the program it builds with."""
    if engine.features.has_buildkit:
        engine.require_buildx()


def make(engine: Engine, plan: Plan, started: float) -> Built:
    """Build what is planned into the engine's store; `started`: when that began, by the monotonic clock.

    Raises BuildFailedError with the failed step and its last lines, or the kind of error the engine's text stands for.
    """
    code, log = (buildkit if engine.features.has_buildkit else podman).run(engine, plan)
    if code != 0:
        raise build_error(plan.name, log, code, hints=engine.hints)
    engine.note_made(plan.reference)
    return Built(
        image=plan.name,
        reference=plan.reference,
        base=plan.base,
        fingerprint=plan.fingerprint,
        is_new=True,
        seconds=time.monotonic() - started,
    )


def build_digest(
    catalog: Catalog, image: Image, engine: Engine, options: BuildOptions, progress: Progress = SILENT
) -> str:
    """Build the image from nothing into an OCI archive and return its manifest's digest; the store is untouched.

    Raises EngineFeatureError where the engine has no BuildKit, and what `build` does.
    """
    inputs = read_inputs(catalog, image)
    require_equal_digests(engine)
    chosen = choose_base(catalog, image, engine, options, progress)
    return digest_of(engine, plan_of(image, inputs, chosen, options, progress))


def require_equal_digests(engine: Engine) -> None:
    """Raise EngineFeatureError for an engine whose builds are not compared."""
    if not engine.features.has_equal_digests:
        raise EngineFeatureError(
            f"{engine.features.title} does not promise the same digest twice, so two of its builds are not compared",
            hint="compare them where BuildKit is: `--host local`, or a machine with Docker",
        )
    engine.require_buildx()


def digest_of(engine: Engine, plan: Plan) -> str:
    """Build what is planned from nothing into an OCI archive and return its manifest's digest. It raises what `make`
    raises.
    """
    plan = replace(plan, options=replace(plan.options, no_cache=True))
    with files.scratch("oci") as folder:
        archive = folder / "image.tar"
        output = f"type=oci,dest={archive},compression=zstd"
        code, log = buildkit.run(engine, plan, ["--output", output])
        if code != 0:
            raise build_error(plan.name, log, code)
        with tarfile.open(archive) as tar:
            index = tar.extractfile("index.json")
            assert index is not None
            found: str = json.load(index)["manifests"][0]["digest"]
            return found


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
    suite = suites[0]
    made = base.ensure(suite.name, engine, mirror=options.apt_mirror, on_message=progress.message)
    return ChosenBase(source="archive", reference=made.reference, python=suite.python, identity=f"archive:{suite.name}")


def _registry_problem(engine: Engine, reference: str, digest_status: str) -> KitError | None:
    """None when the registry has this base, else what to tell the user."""
    try:
        engine.call(engine.manifest_command(reference), timeout_s=REGISTRY_PATIENCE_S)
    except KitError as e:
        if any(part in line for part in ANSWERED for line in e.details):
            return None
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
            hint=WITHOUT_REGISTRY,
        )
    return None


def build_error(name: str, log: Log, code: int, *, hints: Hints = NO_HINTS) -> KitError:
    """What a failed build is reported as: the kind its text stands for, else the failed step and its last lines.

    `hints`: what to do about some kinds with this engine.
    """
    step = log.failed
    lines = [line for line in (step.lines if step else log.other) if line.strip()]
    text = [*(lines if step else []), step.error if step else "", *log.other]
    if step and lines and (command := checked(step.name)):
        # Whatever it printed is its own.
        return BuildFailedError(
            f"the check of {name} failed in the new image: {command}",
            details=tuple(lines[-15:]),
            hint="it is `check` in [environment] of the project's kit.toml",
        )
    if known := recognise(text, hints=hints):
        return known
    if mismatch := re.search(r"Hash mismatch for `([^`]+)`", "\n".join(lines)):
        return BuildFailedError(
            f"the build of {name} failed: hash mismatch, the index sent another {mismatch[1]} than is locked",
            details=tuple(lines[-15:]),
            hint="a mirror that is out of date or changed does that: set PIP_INDEX_URL to another index, or "
            f"{FRAMEWORK_INDEX} for what is from PyTorch's own",
        )
    # A sentence of a step's own script: it knows why better than its last lines show.
    if said := next((line.removeprefix(SAID) for line in reversed(lines) if line.startswith(SAID)), ""):
        return BuildFailedError(
            f"the build of {name} failed: {said}",
            details=tuple(line for line in lines[-15:] if not line.startswith(SAID)),
        )
    if step and re.search(r"^\[[^]]*\] (FROM|load metadata) ", step.name) and (known := recognise(text, REGISTRY)):
        hint = "`kit update` asks the registry for the present digests; `--base archive` needs none"
        if isinstance(known, NetworkError):
            hint = WITHOUT_REGISTRY
        return type(known)(known.message, details=known.details, hint=hint)
    where = f'in the step "{step.title}"' if step else f"with exit code {code}"
    details = lines[-15:] or ([step.error] if step else [])
    return BuildFailedError(
        f"the build of {name} failed {where}",
        details=tuple(details),
        hint="the same command goes on from the last finished step; -vv shows every command",
    )
