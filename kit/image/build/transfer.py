"""Bring an image that is built already to where it is needed: to a registry, from one, or from engine to engine."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from kit import process
from kit.catalog.rows import Image
from kit.engine import Engine
from kit.engine.messages import REGISTRY, recognise
from kit.errors import BadInputError, BuildFailedError, CommandError, EngineError
from kit.image.build.options import SILENT, Built, Progress

# Never an option of the engine's, whatever a file says.
REPOSITORY = r"[A-Za-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?"
TRANSFER_NOTICE_S = 5.0


def push_image(engine: Engine, built: Built, repository: str, progress: Progress = SILENT) -> str:
    """Push a built image to `repository/NAME`, under the tag that it has here; returns the reference. Layers the
    registry has are not sent again.
    """
    reference = f"{repository.rstrip('/')}/{built.image}:{built.reference.rpartition(':')[2]}"
    engine.call(["tag", engine.full_name(built.reference), engine.full_name(reference)])
    lines: list[str] = []
    if engine.stream(["push", engine.full_name(reference)], lines.append) != 0:
        known = recognise(lines, REGISTRY)
        raise known or BuildFailedError(
            f"{reference} could not be pushed",
            details=tuple(lines[-5:]),
            hint=f"log in first: `{engine.kind} login {reference.split('/')[0]}`",
        )
    digest = engine.image_digest(reference)
    progress.message(
        f"pushed {reference}" + (f": --pull {repository.rstrip('/')}@{digest} is this one" if digest else "")
    )
    return reference


def pulled(engine: Engine, image: Image, repository: str, is_wanted: Callable[[str], bool], progress: Progress) -> str:
    """The reference, by its digest, of an image that `push_image` pushed to `REPOSITORY` (`REPOSITORY@DIGEST`: exactly
    that one), pulled on the engine's own machine unless one is there and, by that reference, `is_wanted`.

    It keeps its own name: what a registry has is kit's only because its labels say so, which anybody can write.
    Raises BadInputError for what is no repository, and what pulling raises.
    """
    if not re.fullmatch(REPOSITORY, repository):
        raise BadInputError(
            f"--pull {repository}: not a repository", hint="give REGISTRY/NAME, or REGISTRY/NAME@sha256:… for one image"
        )
    folder, _, digest = repository.partition("@")
    name = f"{folder.rstrip('/')}/{image.name}"
    reference = f"{name}@{digest}" if digest else f"{name}:latest"
    if not engine.image_digest(reference) or not (digest or is_wanted(reference)):
        _pull(engine, reference, progress)
    return f"{name}@{digest or engine.image_digest(reference)}"


def _pull(engine: Engine, reference: str, progress: Progress) -> None:
    progress.message(f"pulling {reference}")
    lines: list[str] = []
    if engine.stream(["pull", engine.full_name(reference)], lines.append) != 0:
        raise recognise(lines, REGISTRY) or EngineError(
            f"{reference} could not be pulled",
            details=tuple(lines[-5:]),
            hint=f"can that machine reach {reference.split('/')[0]}, and is it logged in (`{engine.kind} login`)?",
        )


def transfer_image(source: Engine, engine: Engine, reference: str, progress: Progress = SILENT) -> int:
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

    with (
        source.prepared(["image", "save", source.full_name(reference)]) as (save, save_variables),
        engine.prepared(["image", "load", "--quiet"]) as (load, load_variables),
    ):
        try:
            process.pipe(save, load, source_env=save_variables, sink_env=load_variables, on_bytes=on_bytes)
        except CommandError as e:
            raise (source if e.command == tuple(save) else engine).failure(e) from e
    engine.note_made(reference)
    return sent
