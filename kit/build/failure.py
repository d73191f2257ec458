"""What went wrong with a build, from its log."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from kit.buildlog import Log
from kit.engine.messages import REGISTRY, recognise
from kit.errors import BuildFailedError, KitError, NetworkError


def build_error(
    name: str, log: Log, code: int, *, hints: Mapping[type[KitError], str] = MappingProxyType({})
) -> KitError:
    """What a failed build is reported as: the kind its text stands for, else the failed step and its last lines.

    `hints`: what to do about some kinds with this engine.
    """
    step = log.failed
    lines = [line for line in (step.lines if step else log.other) if line.strip()]
    text = [*(lines if step else []), step.error if step else "", *log.other]
    if known := recognise(text):
        if hint := hints.get(type(known)):
            return type(known)(known.message, details=known.details, hint=hint)
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
