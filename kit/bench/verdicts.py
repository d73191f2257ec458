"""What the numbers mean: three gates that do not lean on each other, and why a number is low. Pure.

1. Correctness: against float64; what the wheel has machine code for. Holds on the CPU too.
2. Ratios inside one run: is the tensor-core path used at all? Needs no table and no clock.
3. Throughput: the rate by the clock it ran at (the software's part), of the peak (the machine's part), and against what
   was measured on the same GPU before. A peak alone fails nobody: healthy cards reach from a third of it to more than
   all of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from kit.bench import arithmetic, sampler
from kit.bench.results import Outcome, Summary, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.bench.results import Device, Expectations, Measurement, Result
    from kit.bench.sampler import Stretch

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)  # the worst first
# NVIDIA's DCGM fails a GPU below 0.75 of what a healthy one was measured at.
FAIL_BELOW, WARN_BELOW = 0.75, 0.90
# Over some 90 GPUs with tensor cores in the table that references.toml names, the smallest ratios of healthy ones were
# 2.64 (fp16 to fp32) and 1.32 (tf32 to fp32). (faster, slower, at least, from compute capability, counts as failure)
RATIOS = (
    ("matmul_fp16", "matmul_fp32_ieee", 2.0, (7, 0), True),
    ("matmul_tf32", "matmul_fp32_ieee", 1.15, (8, 0), True),
    ("matmul_bf16", "matmul_fp16", 0.6, (8, 0), True),
    # These three are sound in principle and untried on many GPUs: they warn.
    ("h2d_pinned", "h2d_pageable", 0.9, (0, 0), False),
    ("memory_copy", "h2d_pinned", 4.0, (0, 0), False),
    ("conv_amp", "conv_fp32", 1.3, (7, 0), False),
)
# Their product is 7.5 and they have no tensor cores.
NO_TENSOR_CORES = "GTX 16"
# What DCGM takes for a fault of the machine. A software power cap is how most cards run, and only noted.
FAULTS = ("hw_slowdown", "hw_thermal", "sw_thermal", "hw_power_brake")
BUSY_PERCENT, BUSY_BYTES = 10, 2**30
PEERS_AT_LEAST = 0.93
SOAK_AT_LEAST = 0.9
FUNCTIONAL_ONLY = "functional only, GPU not tested"


UNJUDGED = Summary("NOT_APPLICABLE", "NOT_APPLICABLE", "NOT_APPLICABLE", "not judged")


def judged(result: Result) -> Result:
    """A result with the verdicts and the summary that follow from its other parts."""
    tests = {test.name: test for test in result.tests}
    is_gpu = result.device.kind == "cuda"
    verdicts = [_correctness(test) for test in result.tests if test.outcome != "not_run"]
    if is_gpu:
        verdicts += [*_code(result), *_ratios(result.device, tests), *_peers(tests)]
    for test in result.tests:
        if test.outcome == "not_run" or (test.is_measured and not is_gpu):
            verdicts.append(Verdict("throughput", test.name, "NOT_APPLICABLE", test.reason or FUNCTIONAL_ONLY))
        elif test.is_measured:
            verdicts.append(_soak(test, result) if test.windows else _throughput(test, result))
    return replace(result, verdicts=tuple(verdicts), summary=_summary(verdicts, result))


def _correctness(test: Measurement) -> Verdict:
    check = test.correctness
    if check is None:
        return Verdict("correctness", test.name, "FAIL", test.reason)
    if check.passed:
        return Verdict("correctness", test.name, "PASS", check.measure, error=check.error)
    what = f"error {check.error:.2g}" if check.error is not None else "not a number, or the wrong result"
    what = what if check.repeatable else "the same input twice gave different results"
    return Verdict("correctness", test.name, "FAIL", f"{check.measure}: {what}, allowed {check.limit:g}")


def code_for(arch_list: Iterable[str], capability: str) -> str:
    """How a wheel serves a compute capability: `binary`, `ptx` (compiled at first use) or `none`.

    Machine code runs on the same major and an equal or higher minor number, PTX on everything newer.
    """
    major, minor = (int(part) for part in capability.split("."))
    kinds = set()
    for entry in arch_list:
        kind, _, digits = entry.partition("_")
        is_specific, digits = digits[-1:].isalpha(), digits.rstrip("af")
        if not digits.isdigit() or len(digits) < 2:
            continue
        of_major, of_minor = int(digits[:-1]), int(digits[-1])
        if kind == "sm" and of_major == major and (of_minor == minor if is_specific else of_minor <= minor):
            kinds.add("binary")
        if kind == "compute" and not is_specific and (of_major, of_minor) <= (major, minor):
            kinds.add("ptx")
    return "binary" if "binary" in kinds else "ptx" if "ptx" in kinds else "none"


def _code(result: Result) -> list[Verdict]:
    arch_list, capability = result.framework.arch_list, result.device.compute_capability
    if not arch_list or not capability:
        return []
    name, has = result.framework.name, code_for(arch_list, capability)
    if has == "binary":
        return [Verdict("correctness", "machine code", "PASS", f"{name} has machine code for {capability}")]
    if has == "ptx":
        text = f"{name} has only PTX for {capability}: every kernel is compiled at its first use"
        return [Verdict("correctness", "machine code", "WARN", text)]
    text = f"{name} has no code for {capability}, only for {' '.join(arch_list)}"
    return [Verdict("correctness", "machine code", "FAIL", text)]


def _ratios(device: Device, tests: dict[str, Measurement]) -> list[Verdict]:
    found = []
    for faster, slower, least, since, is_failure in RATIOS:
        if not all(name in tests and tests[name].is_measured for name in (faster, slower)):
            continue
        name = f"{faster} / {slower}"
        if device.capability < since or (since >= (7, 0) and NO_TENSOR_CORES in (device.name or "")):
            found.append(Verdict("ratio", name, "NOT_APPLICABLE", "this GPU has no tensor cores for it"))
            continue
        ratio = tests[faster].value / tests[slower].value
        is_good = ratio >= least
        text = f"{ratio:.2f}, at least {least:g}" + ("" if is_good else " expected: the fast path is not used")
        outcome: Outcome = "PASS" if is_good else "FAIL" if is_failure else "WARN"
        found.append(Verdict("ratio", name, outcome, text, value=round(ratio, 3)))
    return found


def _peers(tests: dict[str, Measurement]) -> list[Verdict]:
    details = tests["all_reduce"].details if "all_reduce" in tests else None
    rates = (details and details.product_tflops) or ()
    if len(rates) < 2:
        return []
    slowest = min(rates) / arithmetic.percentile(rates, 0.5)
    text = f"GPU {rates.index(min(rates))} is the slowest at {slowest:.2f} of the middle one"
    outcome: Outcome = "PASS" if slowest >= PEERS_AT_LEAST else "WARN"
    return [Verdict("ratio", "GPUs against each other", outcome, text, value=round(slowest, 3))]


def _throughput(test: Measurement, result: Result) -> Verdict:
    expected, sm_count = result.expectations, result.device.sm_count
    seen = sampler.during(result.telemetry, test.start_s, test.end_s)
    peak, peak_text = _peak(test.name, expected, seen)
    rate = expected.rates.get(test.name) if expected else None
    efficiency = fraction = None
    parts = []
    if peak:
        fraction = test.value / peak
        parts.append(f"{fraction:.0%} of {peak_text}")
    if rate and seen.sm_mhz and sm_count:
        efficiency = test.value / arithmetic.peak_tflops(sm_count, rate.value, seen.sm_mhz)
        parts.append(f"{efficiency:.0%} of the silicon at the {seen.sm_mhz:.0f} MHz it ran at")
    verdict = Verdict(
        "throughput",
        test.name,
        "UNRATED",
        "; ".join((*parts, "no measured reference")),
        clock_efficiency=None if efficiency is None else round(efficiency, 3),
        peak_fraction=None if fraction is None else round(fraction, 3),
        peak=peak,
        sm_mhz=seen.sm_mhz,
    )
    reference = expected.references.get(test.name) if expected else None
    if not reference or reference.unit != test.unit:
        return verdict
    ratio = test.value / reference.value
    parts.insert(0, f"{ratio:.2f} of the reference {reference.value:g} {reference.unit} (n={reference.n})")
    outcome: Outcome = "PASS"
    if ratio < WARN_BELOW:
        excuses, others = causes(test, result)
        parts += excuses + others or ["no cause found: try `--soak 5`, other programs on the GPU, another driver"]
        # Other tools' figures, of other shapes, may raise a hand but not accuse.
        is_failure = ratio < FAIL_BELOW and reference.is_own
        outcome = "WARN" if not is_failure else "INCONCLUSIVE" if excuses else "FAIL"
    return replace(
        verdict,
        outcome=outcome,
        text="; ".join(parts),
        reference=reference.value,
        reference_ratio=round(ratio, 3),
    )


def _peak(name: str, expected: Expectations | None, seen: Stretch) -> tuple[float | None, str]:
    if name.startswith(("h2d", "d2h")):
        generation, lanes = seen.pcie_generation, seen.pcie_lanes
        peak = arithmetic.pcie_gbs(generation, lanes) if generation and lanes else None
        return (None if peak is None else round(peak, 2)), f"PCIe {generation} x{lanes}"
    known = expected.peaks.get(name) if expected else None
    return (known.value, f"the {known.value:g} {known.unit} peak") if known else (None, "")


def _soak(test: Measurement, result: Result) -> Verdict:
    values = [window.value for window in test.windows or ()]
    part = max(1, len(values) // 10)
    kept = arithmetic.percentile(values[-part:], 0.5) / arithmetic.percentile(values[:part], 0.5)
    text = f"{test.value:g} {test.unit}, the last tenth at {kept:.2f} of the first"
    if kept >= SOAK_AT_LEAST:
        return Verdict("throughput", "soak", "PASS", text, value=round(kept, 3))
    excuses, others = causes(test, result)
    return Verdict("throughput", "soak", "WARN", "; ".join((text, *excuses, *others)), value=round(kept, 3))


def causes(test: Measurement, result: Result) -> tuple[list[str], list[str]]:
    """Every known reason why a number is low: those that make it say nothing of the image, because they are the
    machine's state and not its software; and the others."""
    device = result.device
    seen = sampler.during(result.telemetry, test.start_s, test.end_s)
    excuses = [f"throttled: {reason}" for reason in seen.slow_reasons if reason in FAULTS]
    if device.is_mig:
        sm_count = "?" if device.sm_count is None else device.sm_count
        excuses.append(f"a MIG slice of {sm_count} SMs, not the whole GPU")
    used, busy = device.used_bytes or 0, device.utilisation_percent or 0
    if used > BUSY_BYTES or busy > BUSY_PERCENT:
        excuses.append(f"shared: {used / 2**30:.1f} GiB were in use and the GPU {busy} % busy before the start")
    limit, default = device.power_limit_w, device.power_default_w
    if limit and default and limit < default:
        excuses.append(f"power limit {limit:g} W, {default:g} W by default")

    others = []
    if "sw_power_cap" in seen.slow_reasons:
        others.append("at its power limit" + ("" if limit is None else f" of {limit:g} W"))
    if test.name.startswith(("h2d", "d2h")):
        for now, most, what in (
            (seen.pcie_generation, device.pcie_generation_max, "PCIe generation"),
            (seen.pcie_lanes, device.pcie_lanes_max, "PCIe lanes"),
        ):
            if now and (most or 0) > now:
                others.append(f"{what} {now}, the GPU can do {most}")
    arch_list, capability = result.framework.arch_list, device.compute_capability
    if arch_list and capability and code_for(arch_list, capability) != "binary":
        others.append(f"wrong wheel: no machine code for {capability} in it")
    return excuses, others


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst outcome; NOT_APPLICABLE when nothing else is there."""
    return min(outcomes, key=OUTCOMES.index, default="NOT_APPLICABLE")


def _summary(verdicts: list[Verdict], result: Result) -> Summary:
    software = worst(v.outcome for v in verdicts if v.gate != "throughput")
    if result.device.kind != "cuda":
        outcome: Outcome = "FAIL" if software == "FAIL" else "NOT_APPLICABLE"
        return Summary(outcome, software, "NOT_APPLICABLE", FUNCTIONAL_ONLY)
    throughput = [v.outcome for v in verdicts if v.gate == "throughput"]
    # What has no reference does not hide that the rest passed; only when nothing has one is the machine unrated.
    machine = worst(outcome for outcome in throughput if outcome != "UNRATED")
    if machine == "NOT_APPLICABLE" and "UNRATED" in throughput:
        machine = "UNRATED"
    efficiency = [v.clock_efficiency for v in verdicts if v.clock_efficiency is not None and "16" in v.test]
    reasons = sorted({reason for sample in result.telemetry for reason in sample.slow_reasons or ()})
    text = f"software: {software}" + (f" (clock efficiency {max(efficiency):.2f})" if efficiency else "")
    text += f" | machine: {machine}" + (f" ({', '.join(reasons)})" if reasons else "")
    return Summary(worst((software, machine)), software, machine, text)
