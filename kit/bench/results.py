"""What a measurement gave, from its facts to its verdicts, and as the JSON it is saved as.

A field without a default is in every file, as null where nothing is known; one that has its default is left out.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["FAIL", "INCONCLUSIVE", "WARN", "UNRATED", "PASS", "NOT_APPLICABLE"]  # the worst first
# Keys that files have always had ahead of their place in the class, by the name of a test or framework.
FIRST_KEYS = {
    "tensorflow": ("name", "version", "cuda", "cudnn", "switches"),
    "soak": ("name", "outcome", "unit", "variant"),
    "all_reduce": (
        *("name", "outcome", "unit", "value", "p20", "p80", "jitter_percent"),
        *("n", "samples", "variant", "variants", "correctness"),
    ),
}


@dataclass(frozen=True)
class Framework:
    """Versions, what is compiled in, and the switches that change numbers."""

    name: str
    version: str
    cuda: str | None = None
    cudnn: str | None = None
    nccl: str | None = None
    arch_list: tuple[str, ...] | None = None  # what the wheel has code for: sm_90, compute_90
    switches: str | None = None


@dataclass(frozen=True)
class Device:
    """What was measured: a GPU as its driver describes it, or the CPU."""

    kind: str  # cuda or cpu
    index: int | None = None
    name: str | None = None
    memory_bytes: int | None = None
    pci_address: str | None = None
    uuid: str | None = None  # without GPU- or MIG-
    compute_capability: str | None = None
    sm_count: int | None = None
    cache_bytes: int | None = None
    driver: str | None = None
    is_mig: bool | None = None
    has_ecc: bool | None = None
    power_limit_w: float | None = None
    power_default_w: float | None = None
    sm_clock_max_mhz: int | None = None
    memory_clock_max_mhz: int | None = None
    pcie_generation_max: int | None = None
    pcie_lanes_max: int | None = None
    used_bytes: int | None = None  # by others, before the framework started
    utilisation_percent: int | None = None

    @property
    def capability(self) -> tuple[int, ...]:
        """The compute capability as numbers that compare; 0.0 where there is none."""
        return tuple(int(part) for part in (self.compute_capability or "0.0").split("."))


@dataclass(frozen=True)
class Host:
    """What of the machine or container can make a number differ."""

    platform: str
    python: str
    machine: str
    cpus: int | None
    is_container: bool
    shm_bytes: int | None
    cpu_quota: float | None


@dataclass(frozen=True)
class MeasuredImage:
    """What the engine knows of the image that was measured."""

    name: str
    reference: str
    id: str
    base: str
    fingerprint: str
    kit: str


@dataclass(frozen=True)
class Peak:
    """The most a GPU can give in a test."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Rate:
    """Fused multiply-adds per SM and clock."""

    value: int
    source: str


@dataclass(frozen=True)
class Reference:
    """What a test was measured to give on the same GPU."""

    value: float
    unit: str
    n: int
    date: str
    tool: str
    is_own: bool
    source: str


@dataclass(frozen=True)
class Expectations:
    """What a device should do, by test."""

    gpu: str | None
    peaks: dict[str, Peak]
    rates: dict[str, Rate]
    references: dict[str, Reference]


@dataclass(frozen=True)
class Correctness:
    """Whether what a test computed is right."""

    measure: str
    error: float | None  # None: not a number, or no error is known of it
    limit: float
    repeatable: bool
    passed: bool


@dataclass(frozen=True)
class Variant:
    """What one variant of a test gave."""

    variant: str
    value: float


@dataclass(frozen=True)
class Window:
    """A few seconds of a soak."""

    at_s: float
    value: float
    passed: bool


@dataclass(frozen=True)
class Details:
    """What else is known of a test's work."""

    buffer_sets: int | None = None
    parameters: int | None = None
    model_flops_per_token: int | None = None
    note: str | None = None
    product_tflops: tuple[float, ...] | None = None  # of each GPU


@dataclass(frozen=True)
class Measurement:
    """What one test gave. One that was measured has at least a unit, a value above 0, a variant and its correctness;
    any other one has the reason."""

    name: str
    outcome: Literal["measured", "not_run", "failed"]
    reason: str = ""
    unit: str = ""
    value: float = 0.0
    p20: float | None = None
    p80: float | None = None
    jitter_percent: float | None = None
    n: int | None = None
    samples: tuple[float, ...] | None = None
    calls_per_sample: int | None = None
    work_per_call: int | None = None
    first_call_s: float | None = None
    variant: str = ""
    windows: tuple[Window, ...] | None = None
    wrong_results: int | None = None
    details: Details | None = None
    correctness: Correctness | None = None
    start_s: float | None = None
    end_s: float | None = None
    variants: tuple[Variant, ...] | None = None
    test_start_s: float | None = None
    test_end_s: float | None = None

    @property
    def is_measured(self) -> bool:
        return self.outcome == "measured"


@dataclass(frozen=True)
class Sample:
    """The GPU at one moment."""

    at_s: float
    sm_mhz: int | None = None
    memory_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    utilisation_percent: int | None = None
    pcie_generation: int | None = None
    pcie_lanes: int | None = None
    slow_reasons: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Verdict:
    """What one gate says of one test, and the numbers it says it by."""

    gate: str
    test: str
    outcome: Outcome
    text: str
    error: float | None = None
    clock_efficiency: float | None = None
    peak_fraction: float | None = None
    peak: float | None = None
    sm_mhz: float | None = None
    reference: float | None = None
    reference_ratio: float | None = None
    value: float | None = None


@dataclass(frozen=True)
class Summary:
    """All verdicts in one."""

    outcome: Outcome
    software: Outcome
    machine: Outcome
    text: str


@dataclass(frozen=True)
class Result:
    """One measurement, whole."""

    schema: int
    method: int
    started: str
    framework: Framework
    device: Device
    device_count: int
    host: Host
    image: MeasuredImage | None
    expectations: Expectations | None
    tests: tuple[Measurement, ...]
    telemetry: tuple[Sample, ...]
    peak_memory_bytes: int | None
    seconds: float
    verdicts: tuple[Verdict, ...]
    summary: Summary


def as_json(part: Any) -> Any:
    """A result, or a part of one, as the dictionaries, lists and values of its JSON."""
    if dataclasses.is_dataclass(part):
        values = {field.name: (getattr(part, field.name), field.default) for field in dataclasses.fields(part)}
        known = {name: as_json(value) for name, (value, default) in values.items() if value != default}
        first = FIRST_KEYS.get(known.get("name", ""), ())
        return {name: known[name] for name in (*first, *known) if name in known}
    if isinstance(part, dict):
        return {name: as_json(value) for name, value in part.items()}
    return [as_json(value) for value in part] if isinstance(part, tuple) else part
