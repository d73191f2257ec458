"""The base an image is built on: of a container registry, or made from the distribution's package archive."""

from __future__ import annotations

from kit import base
from kit.build.model import BuildOptions, ChosenBase, Progress
from kit.catalog import Catalog
from kit.catalog.model import Image
from kit.compat import archive_refusal
from kit.engine import Engine
from kit.engine.messages import REGISTRY, recognise
from kit.errors import BaseNotFoundError, IncompatibleError, KitError, NetworkError

# How long `--base auto` waits for a registry before it takes the archive.
REGISTRY_PATIENCE_S = 8
# Podman 4 reads the manifest of an image that is for one platform alone, and then refuses it: it is there.
ANSWERED = ("parsing manifest blob", "is not a manifest list")


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
            hint="give a mirror with --registry-mirror, or build without a registry: --base archive",
        )
    return None
