"""Results of GPUs that are not here, as `kit bench` would have written them, for the tests of what is made of them."""

from __future__ import annotations

from typing import Any

from kit.bench import METHOD, SCHEMA, verdicts
from kit.bench.results import (
    Correctness,
    Device,
    Expectations,
    Framework,
    Host,
    MeasuredImage,
    Measurement,
    Reference,
    Result,
    Sample,
)

RIGHT = Correctness(measure="error against float64", error=0.001, limit=0.02, repeatable=True, passed=True)
H200 = Device(
    kind="cuda",
    index=0,
    name="NVIDIA H200",
    uuid="12345678-1234-1234-1234-123456789abc",
    compute_capability="9.0",
    sm_count=132,
    memory_bytes=150_000_000_000,
    cache_bytes=60 * 2**20,
    used_bytes=500 * 2**20,
    utilisation_percent=0,
    is_mig=False,
    power_limit_w=700.0,
    power_default_w=700.0,
    driver="580.159.03",
    pcie_generation_max=5,
    pcie_lanes_max=16,
)
ARCHITECTURES = ("sm_80", "sm_90")


def measured(name: str, value: float, unit: str = "TFLOP/s", *, at_s: float = 0.0, **more: Any) -> Measurement:
    """A test that was measured between `at_s` and a second later."""
    return Measurement(
        name=name,
        outcome="measured",
        unit=unit,
        value=value,
        p20=value * 0.99,
        p80=value * 1.01,
        jitter_percent=1.0,
        n=3,
        samples=(value * 0.99, value, value * 1.01),
        variant="8192x8192x8192 nt",
        correctness=RIGHT,
        start_s=at_s,
        end_s=at_s + 1.0,
        **more,
    )


def not_run(name: str, reason: str) -> Measurement:
    return Measurement(name=name, outcome="not_run", reason=reason)


def sample(at_s: float, *, sm_mhz: int = 1500, reasons: tuple[str, ...] = (), **more: Any) -> Sample:
    """The GPU's state at a moment, busy."""
    state = {"power_w": 690.0, "temperature_c": 60, "utilisation_percent": 100, "pcie_generation": 5, "pcie_lanes": 16}
    return Sample(at_s=at_s, sm_mhz=sm_mhz, slow_reasons=reasons, **{**state, **more})


def result_of(
    *tests: Measurement,
    device: Device = H200,
    telemetry: tuple[Sample, ...] | None = None,
    expectations: Expectations | None = None,
    arch_list: tuple[str, ...] = ARCHITECTURES,
) -> Result:
    """A whole result, not yet judged."""
    return Result(
        schema=SCHEMA,
        method=METHOD,
        started="2026-11-21T12:00:00Z",
        framework=Framework(name="torch", version="2.11.0+cu130", cuda="13.0", cudnn="91900", arch_list=arch_list),
        device=device,
        device_count=1,
        host=Host(
            platform="Linux",
            python="3.12.3",
            machine="x86_64",
            cpus=16,
            is_container=True,
            shm_bytes=2**34,
            cpu_quota=None,
        ),
        image=MeasuredImage(
            name="torch2.14-cu130",
            reference="kit/torch2.14-cu130:latest",
            id="sha256:0",
            base="",
            fingerprint="",
            kit="0.1.0",
        ),
        expectations=expectations,
        tests=tests,
        telemetry=(sample(0.5),) if telemetry is None else telemetry,
        peak_memory_bytes=6 * 2**30,
        seconds=48.0,
        verdicts=(),
        summary=verdicts.UNJUDGED,
    )


def reference_of(value: float, unit: str = "TFLOP/s", *, is_own: bool = False) -> Reference:
    """A measured reference, as the catalog's table gives it."""
    return Reference(value=value, unit=unit, n=3, date="2026", tool="t", is_own=is_own, source="s")
