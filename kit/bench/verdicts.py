"""What the numbers mean: three gates that do not lean on each other, and why a number is low. Pure.

1. Correctness: against float64; what the wheel has machine code for. Holds on the CPU too.
2. Ratios inside one run: is the tensor-core path used at all? Needs no table and no clock.
3. Throughput: the rate by the clock it ran at (the software's part), of the peak (the machine's part), and against what
   was measured on the same GPU before. A peak alone fails nobody: healthy cards reach from a third of it to more than
   all of it.
"""

from __future__ import annotations

from typing import Any

from kit.bench import arithmetic, sampler

OUTCOMES = ("FAIL", "INCONCLUSIVE", "WARN", "UNRATED", "PASS", "NOT_APPLICABLE")  # the worst first
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


def judge(result: dict[str, Any]) -> dict[str, Any]:
    """The `verdicts` and the `summary` of a result, from its other parts."""
    tests = {test["name"]: test for test in result["tests"]}
    is_gpu = result["device"]["kind"] == "cuda"
    verdicts = [_correctness(test) for test in result["tests"] if test["outcome"] != "not_run"]
    if is_gpu:
        verdicts += [*_code(result), *_ratios(result["device"], tests), *_peers(tests)]
    for test in result["tests"]:
        if test["outcome"] != "failed":
            verdicts.append(_throughput(test, result) if is_gpu else _not_applicable(test))
    return {"verdicts": verdicts, "summary": _summary(verdicts, result)}


def _verdict(gate: str, test: str, outcome: str, text: str, **numbers: Any) -> dict[str, Any]:
    known = {name: value for name, value in numbers.items() if value is not None}
    return {"gate": gate, "test": test, "outcome": outcome, "text": text, **known}


def _not_applicable(test: dict[str, Any]) -> dict[str, Any]:
    return _verdict("throughput", test["name"], "NOT_APPLICABLE", test.get("reason") or FUNCTIONAL_ONLY)


def _correctness(test: dict[str, Any]) -> dict[str, Any]:
    if test["outcome"] == "failed":
        return _verdict("correctness", test["name"], "FAIL", test["reason"])
    check = test["correctness"]
    if check["passed"]:
        return _verdict("correctness", test["name"], "PASS", check["measure"], error=check["error"])
    what = f"error {check['error']:.2g}" if check["error"] is not None else "not a number, or the wrong result"
    what = what if check["repeatable"] else "the same input twice gave different results"
    return _verdict("correctness", test["name"], "FAIL", f"{check['measure']}: {what}, allowed {check['limit']:g}")


def code_for(arch_list: list[str], capability: str) -> str:
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


def _code(result: dict[str, Any]) -> list[dict[str, Any]]:
    arch_list, capability = result["framework"].get("arch_list"), result["device"].get("compute_capability")
    if not arch_list or not capability:
        return []
    has, name = code_for(arch_list, capability), result["framework"]["name"]
    outcome, text = {
        "binary": ("PASS", f"{name} has machine code for {capability}"),
        "ptx": ("WARN", f"{name} has only PTX for {capability}: every kernel is compiled at its first use"),
        "none": ("FAIL", f"{name} has no code for {capability}, only for {' '.join(arch_list)}"),
    }[has]
    return [_verdict("correctness", "machine code", outcome, text)]


def _ratios(device: dict[str, Any], tests: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    capability = tuple(int(part) for part in device.get("compute_capability", "0.0").split("."))
    found = []
    for faster, slower, least, since, is_failure in RATIOS:
        if any(tests.get(name, {}).get("outcome") != "measured" for name in (faster, slower)):
            continue
        name = f"{faster} / {slower}"
        if capability < since or (since >= (7, 0) and NO_TENSOR_CORES in device.get("name", "")):
            found.append(_verdict("ratio", name, "NOT_APPLICABLE", "this GPU has no tensor cores for it"))
            continue
        ratio = tests[faster]["value"] / tests[slower]["value"]
        is_good = ratio >= least
        outcome = "PASS" if is_good else "FAIL" if is_failure else "WARN"
        text = f"{ratio:.2f}, at least {least:g}" + ("" if is_good else " expected: the fast path is not used")
        found.append(_verdict("ratio", name, outcome, text, value=round(ratio, 3)))
    return found


def _peers(tests: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    rates = tests.get("all_reduce", {}).get("details", {}).get("product_tflops", [])
    if len(rates) < 2:
        return []
    slowest = min(rates) / arithmetic.percentile(rates, 0.5)
    outcome = "PASS" if slowest >= PEERS_AT_LEAST else "WARN"
    text = f"GPU {rates.index(min(rates))} is the slowest at {slowest:.2f} of the middle one"
    return [_verdict("ratio", "GPUs against each other", outcome, text, value=round(slowest, 3))]


def _throughput(test: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    name = test["name"]
    if test["outcome"] == "not_run":
        return _verdict("throughput", name, "NOT_APPLICABLE", test["reason"])
    if name == "soak":
        return _soak(test, result)
    expected, device = result.get("expectations") or {}, result["device"]
    seen = sampler.during(result["telemetry"], test.get("start_s", 0.0), test.get("end_s", 0.0))
    peak, peak_text = _peak(name, expected, seen)
    rate = expected.get("rates", {}).get(name)
    efficiency = None
    if rate and seen.get("sm_mhz") and device.get("sm_count"):
        efficiency = test["value"] / arithmetic.peak_tflops(device["sm_count"], rate["value"], seen["sm_mhz"])
    fraction = test["value"] / peak if peak else None
    numbers: dict[str, Any] = {
        "clock_efficiency": None if efficiency is None else round(efficiency, 3),
        "peak_fraction": None if fraction is None else round(fraction, 3),
        "peak": peak,
        "sm_mhz": seen.get("sm_mhz"),
    }
    parts = [f"{fraction:.0%} of {peak_text}"] if fraction is not None else []
    if efficiency is not None:
        parts.append(f"{efficiency:.0%} of the silicon at the {seen['sm_mhz']:.0f} MHz it ran at")
    reference = expected.get("references", {}).get(name)
    if not reference or reference["unit"] != test["unit"]:
        return _verdict("throughput", name, "UNRATED", "; ".join((*parts, "no measured reference")), **numbers)
    ratio = test["value"] / reference["value"]
    parts.insert(0, f"{ratio:.2f} of the reference {reference['value']:g} {reference['unit']} (n={reference['n']})")
    numbers["reference"], numbers["reference_ratio"] = reference["value"], round(ratio, 3)
    if ratio >= WARN_BELOW:
        return _verdict("throughput", name, "PASS", "; ".join(parts), **numbers)
    # Other tools' figures, of other shapes, may raise a hand but not accuse.
    outcome = "FAIL" if ratio < FAIL_BELOW and reference["is_own"] else "WARN"
    because = causes(test, result)
    parts += because
    if outcome == "FAIL" and excuses(test, result):
        outcome = "INCONCLUSIVE"
    if not because:
        parts.append("no cause found: try `--soak 5`, other programs on the GPU, another driver")
    return _verdict("throughput", name, outcome, "; ".join(parts), **numbers)


def _peak(name: str, expected: dict[str, Any], seen: dict[str, Any]) -> tuple[float | None, str]:
    if name.startswith(("h2d", "d2h")):
        generation, lanes = seen.get("pcie_generation"), seen.get("pcie_lanes")
        peak = arithmetic.pcie_gbs(generation, lanes) if generation and lanes else None
        return (None if peak is None else round(peak, 2)), f"PCIe {generation} x{lanes}"
    known = expected.get("peaks", {}).get(name)
    return (known["value"], f"the {known['value']:g} {known['unit']} peak") if known else (None, "")


def _soak(test: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    values = [window["value"] for window in test["windows"]]
    part = max(1, len(values) // 10)
    kept = arithmetic.percentile(values[-part:], 0.5) / arithmetic.percentile(values[:part], 0.5)
    text = f"{test['value']:g} {test['unit']}, the last tenth at {kept:.2f} of the first"
    because = causes(test, result)
    if kept >= SOAK_AT_LEAST:
        return _verdict("throughput", "soak", "PASS", text, value=round(kept, 3))
    return _verdict("throughput", "soak", "WARN", "; ".join((text, *because)), value=round(kept, 3))


def excuses(test: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """What makes a low number say nothing about the image: the machine's state, not its software."""
    device = result["device"]
    seen = sampler.during(result["telemetry"], test.get("start_s", 0.0), test.get("end_s", 0.0))
    found = [f"throttled: {reason}" for reason in seen.get("slow_reasons", ()) if reason in FAULTS]
    if device.get("is_mig"):
        found.append(f"a MIG slice of {device.get('sm_count', '?')} SMs, not the whole GPU")
    used, busy = device.get("used_bytes", 0), device.get("utilisation_percent", 0)
    if used > BUSY_BYTES or busy > BUSY_PERCENT:
        found.append(f"shared: {used / 2**30:.1f} GiB were in use and the GPU {busy} % busy before the start")
    limit, default = device.get("power_limit_w"), device.get("power_default_w")
    if limit and default and limit < default:
        found.append(f"power limit {limit:g} W, {default:g} W by default")
    return found


def causes(test: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """Every known reason why a number is low."""
    found = excuses(test, result)
    device = result["device"]
    seen = sampler.during(result["telemetry"], test.get("start_s", 0.0), test.get("end_s", 0.0))
    if "sw_power_cap" in seen.get("slow_reasons", ()):
        found.append("at its power limit" + (f" of {device['power_limit_w']:g} W" if "power_limit_w" in device else ""))
    if test["name"].startswith(("h2d", "d2h")):
        for field, what in (("pcie_generation", "PCIe generation"), ("pcie_lanes", "PCIe lanes")):
            if seen.get(field) and device.get(f"{field}_max", 0) > seen[field]:
                found.append(f"{what} {seen[field]}, the GPU can do {device[f'{field}_max']}")
    arch_list, capability = result["framework"].get("arch_list"), device.get("compute_capability")
    if arch_list and capability and code_for(arch_list, capability) != "binary":
        found.append(f"wrong wheel: no machine code for {capability} in it")
    return found


def worst(outcomes: list[str]) -> str:
    """The worst outcome; NOT_APPLICABLE when nothing else is there."""
    counted = [outcome for outcome in outcomes if outcome != "NOT_APPLICABLE"]
    return min(counted, key=OUTCOMES.index, default="NOT_APPLICABLE")


def _summary(verdicts: list[dict[str, Any]], result: dict[str, Any]) -> dict[str, Any]:
    software = worst([v["outcome"] for v in verdicts if v["gate"] != "throughput"])
    throughput = [v["outcome"] for v in verdicts if v["gate"] == "throughput"]
    # What has no reference does not hide that the rest passed; only when nothing has one is the machine unrated.
    machine = worst([outcome for outcome in throughput if outcome != "UNRATED"] or throughput)
    if machine == "NOT_APPLICABLE" and "UNRATED" in throughput:
        machine = "UNRATED"
    if result["device"]["kind"] != "cuda":
        outcome = "FAIL" if software == "FAIL" else "NOT_APPLICABLE"
        return {"outcome": outcome, "software": software, "machine": "NOT_APPLICABLE", "text": FUNCTIONAL_ONLY}
    efficiency = [v["clock_efficiency"] for v in verdicts if "clock_efficiency" in v and "16" in v["test"]]
    reasons = sorted({r for sample in result["telemetry"] for r in sample.get("slow_reasons", ())})
    text = f"software: {software}" + (f" (clock efficiency {max(efficiency):.2f})" if efficiency else "")
    text += f" | machine: {machine}" + (f" ({', '.join(reasons)})" if reasons else "")
    return {"outcome": worst([software, machine]), "software": software, "machine": machine, "text": text}
