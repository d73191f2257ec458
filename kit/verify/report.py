"""What is verified and what came of it: frozen dataclasses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from kit.catalog.rows import Image
from kit.engine import Engine
from kit.environment.editable import Editable
from kit.frozen import dataclass
from kit.locks.format import Lock, Requirement
from kit.run.gpu_check import Asked
from kit.spec.request import Service, Started

Outcome = Literal["passed", "failed", "not_run"]

SCRIPTS = "/run/kit/verify"  # where the container that is verified has what runs inside
PROJECT = "/run/kit/project"  # and the project's folder, for its own check


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check and what came of it."""

    name: str  # `packages.locked`
    outcome: Outcome
    detail: str = ""  # what was found, why it failed, or why it was not run
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """All checks of one image."""

    image: str
    reference: str  # the engine's name for what was verified
    checks: tuple[Check, ...]

    def count(self, outcome: Outcome) -> int:
        return sum(check.outcome == outcome for check in self.checks)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A running container of the image that is verified, and what the catalog and the lock promise of it."""

    name: str = ""  # for people, where it is not the image's
    image: Image
    lock: Lock
    engine: Engine
    reference: str
    container: str
    config: Mapping[str, Any]  # the image's own configuration, as the engine has it
    platform: str  # in docker's spelling
    labels: Mapping[str, str]  # those the image must have
    environment: Mapping[str, str]  # the variables it must set
    held: tuple[str, ...]  # the packages that pip must leave alone, by name or shell pattern
    privileged: Collection[str]  # files that may have setuid or setgid, `/bin/su 4755`: without `/usr`, with their mode
    scripts: str  # on the engine's machine, what is at SCRIPTS inside
    asked: Asked | None  # the GPUs the container was given; None: none
    no_gpu: str  # why there is none; empty when there is one
    shm_bytes: int
    added: tuple[Requirement, ...] = ()  # to the image, by a project's own environment; or instead of the image's
    own: Editable | None = None  # the project itself, where it is a package of the environment
    own_check: str = ""  # the project's own, a command
    no_project: str = ""  # why the container has not the project's folder; empty when it has
    start_service: Callable[[Service], tuple[Started, str]]  # as `kit run` does, and its token; gone with the subject
