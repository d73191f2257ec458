"""What a check sees and what it finds; how the engine of a machine passes GPUs into containers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

from kit.catalog import Catalog
from kit.catalog.rows import EngineMinimum, version_key
from kit.facts.engine import EngineFacts, GpuForm
from kit.facts.host import VM_DRIVER, Host, HostGpu

# What it does to a GPU run on this host: it cannot work, it may go wrong, or it is good to know.
Severity = Literal["block", "warn", "note"]
SEVERITIES: tuple[Severity, ...] = ("block", "warn", "note")

# A GPU image of PyTorch 2.7 takes 9 GB in the engine's store, and 15 to 20 GB with the cache of its build (measured).
IMAGE_BYTES = 9 * 10**9
BUILD_FACTOR = 20 / 9


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong or good to know, with the one thing to do about it."""

    check: str = ""  # which check it is of; `examine` says it
    severity: Severity
    message: str
    fix: str


def finding(severity: Severity, message: str, fix: str) -> Finding:
    return Finding(severity=severity, message=message, fix=fix)


block, warn, note = partial(finding, "block"), partial(finding, "warn"), partial(finding, "note")


@dataclass(frozen=True)
class HostReport:
    """What the checks look at: a machine, the catalog, and the size of the image that is wanted."""

    host: Host
    catalog: Catalog
    image_bytes: int = IMAGE_BYTES

    @property
    def engine(self) -> EngineFacts:
        return self.host.engine

    @property
    def has_engine(self) -> bool:
        """True when an engine answers."""
        return self.engine.program != "" and self.engine.problem == ""

    @property
    def has_gpu(self) -> bool:
        """True when an NVIDIA GPU is there for this machine, or a driver that would not be loaded without one."""
        host = self.host
        return bool(host.gpus or host.driver or any(gpu.driver != VM_DRIVER for gpu in host.pci_gpus))

    @property
    def usable_gpus(self) -> tuple[HostGpu, ...]:
        return tuple(gpu for gpu in self.host.gpus if not gpu.problem)

    @property
    def passes_gpus(self) -> bool:
        """True when what passes GPUs through is this machine's to set up: Docker Desktop's VM has its own."""
        return self.has_gpu and self.has_engine and not self.engine.is_desktop

    @cached_property
    def has_cdi(self) -> bool:
        """True when the engine resolves CDI devices at all."""
        return bool(self.engine.cdi_folders) and not self.is_older("cdi")

    @cached_property
    def injection(self) -> GpuForm | None:
        """How the engine passes GPUs through now, as kit asks it to; None: not at all."""
        form = self.engine.gpu_form
        return form if form != "cdi" or self.has_cdi else None

    def minimum(self, feature: Literal["build", "cdi"]) -> EngineMinimum | None:
        """The row that says which version of this engine brought a feature."""
        rows = self.catalog.engine_minimums
        return next((row for row in rows if (row.engine, row.feature) == (self.engine.program, feature)), None)

    def is_older(self, feature: Literal["build", "cdi"]) -> bool:
        """True when the engine is known to be too old for a feature."""
        row, have = self.minimum(feature), parse_version(self.engine.version)
        return row is not None and have is not None and have < version_key(row.version)


Check = Callable[[HostReport], Iterator[Finding]]


def parse_version(text: str) -> tuple[int, ...] | None:
    """To compare by, the version a text starts with, `20.10.24` of `20.10.24+dfsg1`; None when it has none."""
    match = re.match(r"\d+(\.\d+)*", text, re.ASCII)
    return version_key(match[0]) if match else None


def in_gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def joined(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
