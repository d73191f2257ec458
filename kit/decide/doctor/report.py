"""What a check sees and what it finds; how the engine of a machine passes GPUs into containers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

from kit.catalog import Catalog
from kit.catalog.rows import EngineMinimum, version_key
from kit.decide.compat import capability_of, first_driver, last_branch, modules_for, with_pci_gpus
from kit.decide.doctor.fixes import DriverNeed
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
    def driver(self) -> str:
        """The driver that is loaded, else the one on disk, which may not load because it knows none of the GPUs."""
        host = self.host
        on_disk = "" if host.is_wsl or host.driver is None or host.has_nouveau else host.driver_library
        return host.driver or on_disk

    @cached_property
    def unlisted_gpus(self) -> tuple[HostGpu, ...]:
        """The GPUs on the bus that the loaded driver does not show, as far as their PCI IDs are known."""
        shown = {gpu.pci_address for gpu in self.host.gpus}
        hidden = tuple(gpu for gpu in self.host.pci_gpus if gpu.address not in shown)
        is_told = self.driver and (all(shown) or not self.host.gpus)
        return with_pci_gpus(self.catalog, replace(self.host, gpus=(), pci_gpus=hidden)).gpus if is_told else ()

    @cached_property
    def driver_need(self) -> DriverNeed:
        """The driver that all GPUs of the machine work with."""
        host, catalog = with_pci_gpus(self.catalog, self.host), self.catalog
        known = [c for gpu in (*host.gpus, *self.unlisted_gpus) if (c := capability_of(catalog, gpu))]
        ends = [end for c in known if (end := last_branch(catalog, c))]
        flavors = [modules for c in known if (modules := modules_for(catalog, c))]
        return DriverNeed(
            first=max((d for c in known if (d := first_driver(catalog, c))), key=version_key, default=""),
            last=min(ends, default=None),
            modules=flavors[0] if flavors else "",
            packaged=next((row.newest for row in catalog.driver_packages if row.os_id == host.os_id), None),
        )

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
