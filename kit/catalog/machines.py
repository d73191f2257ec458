"""What a row of the catalog is that says something of machines: their GPUs, their engines, what goes wrong on them.

Apart from `model`, because few commands need them, and making a dataclass takes half a millisecond.
"""

from __future__ import annotations

from typing import Literal

from kit.catalog.model import Framework
from kit.frozen import dataclass


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A GPU architecture: when the toolkit learned it and when it dropped it."""

    compute_capability: str
    name: str = ""
    first_toolkit: str = ""
    dropped_in: str = ""
    note: str = ""
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU as nvidia-smi names it. Rates are dense TFLOP/s, memory in GB, bandwidth in GB/s, all from the source."""

    names: tuple[str, ...]
    gpu_class: str
    architecture: str
    compute_capability: str
    memory_gb: float | None = None
    bandwidth_gbs: float | None = None
    pcie_gen: int | None = None
    pcie_lanes: int | None = None
    fp32_tflops: float | None = None
    tf32_tensor_tflops: float | None = None
    fp16_tensor_tflops: float | None = None
    bf16_tensor_tflops: float | None = None
    fp8_tensor_tflops: float | None = None
    fp16_non_tensor_tflops: float | None = None
    sm_count: int | None = None
    boost_mhz: int | None = None
    tensor_boost_mhz: int | None = None  # where tensor cores have a clock of their own
    sm_source: str = ""
    tensor_source: str = ""
    tensor_verified: str = ""
    laptop: bool = False
    note: str = ""
    conflicts: tuple[str, ...] = ()  # what other sources say where they differ
    fields_verified: tuple[tuple[str, str], ...] = ()  # (field, how well it is known)
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Fused multiply-adds per SM and clock of an architecture, dense."""

    compute_capability: str
    gpu_classes: tuple[str, ...] = ()  # empty: all
    fp32: int
    tf32: int | None = None
    fp16: int | None = None
    bf16: int | None = None
    fp8: int | None = None
    source: str


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a test of `kit bench` was measured to give on a GPU."""

    gpu: str  # its name
    memory_gb: float | None = None  # where cards of one name differ
    framework: Framework
    test: str
    value: float  # median over `n` machines
    unit: str
    n: int
    date: str
    tool: str
    is_own: bool  # measured by kit bench itself
    source: str


@dataclass(frozen=True, kw_only=True)
class KnownBadToolkit:
    """Versions of the NVIDIA Container Toolkit that fail, and with what; a condition that is empty always holds."""

    first: str = ""  # inclusive
    last: str = ""  # inclusive
    engine: Literal["docker", "podman", ""] = ""
    engine_below: str = ""  # the first engine version that works with it
    injection: Literal["cdi", "runtime", ""] = ""  # how the engine passes GPUs
    severity: Literal["block", "warn", "note"]
    problem: str
    fix: str
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class EngineMinimum:
    """The engine version that brought something kit needs."""

    engine: Literal["docker", "podman", "compose"]
    feature: Literal["build", "cdi", "inline-config", "raw-env-file"]
    version: str
    needs: str  # in words
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error as logs print it, and what is known about it."""

    id: str
    priority: int  # what is nearer to the root cause has the smaller number
    hints: tuple[str, ...]  # in lower case; a line that matches a pattern has one of them, which is quicker to look for
    patterns: tuple[str, ...]  # regular expressions, found anywhere in a line, upper and lower case alike
    examples: tuple[str, ...]  # lines as they were printed
    cause: str
    fix: str
    check: str = ""  # the check of `kit doctor` that finds it; empty: none can
    source: str
    verified: str
