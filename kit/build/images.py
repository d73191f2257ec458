"""One image: check its inputs, choose its base, and have the engine build it."""

from __future__ import annotations

import time

from kit.build import buildkit, podman
from kit.build.bases import choose_base
from kit.build.inputs import Inputs, Plan, current, fingerprint, read_inputs
from kit.build.model import SILENT, BuildOptions, Built, ChosenBase, Progress
from kit.catalog import Catalog
from kit.catalog.model import Image
from kit.engine import Engine
from kit.errors import EngineFeatureError


def build(catalog: Catalog, image: Image, engine: Engine, options: BuildOptions, progress: Progress = SILENT) -> Built:
    """Build one image into the engine's store, unless it is up to date.

    Raises BuildFailedError with the failed step and its last lines, or the kind of error the engine's text stands for.
    """
    inputs = read_inputs(catalog, image)
    if not options.force and not options.no_cache and (done := current(catalog, image, engine, options)):
        return done
    started = time.monotonic()
    if engine.features.has_buildkit:
        engine.require_buildx()
    chosen = choose_base(catalog, image, engine, options, progress)
    plan = _plan(image, inputs, chosen, options, progress)
    (buildkit if engine.features.has_buildkit else podman).run(engine, plan)
    return Built(
        image=image.name,
        reference=image.reference,
        base=chosen.reference,
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
    if not engine.features.has_equal_digests:
        raise EngineFeatureError(
            f"{engine.features.title} does not promise the same digest twice, so two of its builds are not compared",
            hint="compare them where BuildKit is: `--host local`, or a machine with Docker",
        )
    engine.require_buildx()
    chosen = choose_base(catalog, image, engine, options, progress)
    return buildkit.digest(engine, _plan(image, inputs, chosen, options, progress))


def _plan(image: Image, inputs: Inputs, chosen: ChosenBase, options: BuildOptions, progress: Progress) -> Plan:
    return Plan(
        image=image,
        inputs=inputs,
        base=chosen,
        fingerprint=fingerprint(inputs.dockerfile, inputs.lock.requirements, chosen.identity),
        options=options,
        progress=progress,
    )
