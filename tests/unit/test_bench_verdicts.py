"""What is made of numbers: healthy, throttled, shared, sliced and cheating GPUs; every outcome and every cause."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.bench import verdicts
from kit.bench.expectations import Tables, expectations, find_gpu
from kit.bench.measured import package_tables
from kit.bench.results import Details, Device, Expectations, Measurement, Result, Sample, Summary, Verdict, Window
from kit.bench.verdicts import judged
from kit.catalog import Catalog
from tests.unit.bench_results import H200, RIGHT, measured, not_run, reference_of, result_of, sample

PRODUCTS = {"matmul_fp32_ieee": 51.0, "matmul_tf32": 400.0, "matmul_fp16": 759.0, "matmul_bf16": 788.0}


def products(**changed: float) -> list[Measurement]:
    return [measured(name, value) for name, value in {**PRODUCTS, **changed}.items()]


def one(found: Result, gate: str, test: str) -> Verdict:
    (verdict,) = [v for v in found.verdicts if (v.gate, v.test) == (gate, test)]
    return verdict


def tables(catalog: Catalog) -> Tables:
    return Tables(gpus=catalog.gpus, rates=catalog.rates, references=catalog.references)


def expecting(value: float, *, test: str = "matmul_bf16", unit: str = "TFLOP/s", is_own: bool = False) -> Expectations:
    references = {test: reference_of(value, unit, is_own=is_own)}
    return Expectations(gpu="NVIDIA H200", peaks={}, rates={}, references=references)


def wrongly(name: str, value: float, **changed: Any) -> Measurement:
    """A test whose result is wrong."""
    return replace(measured(name, value), correctness=replace(RIGHT, passed=False, **changed))


def test_healthy_h200_passes_against_the_catalog(catalog: Catalog) -> None:
    expected = expectations(H200, "torch", tables(catalog))
    copy = measured("memory_copy", 4300.0, "GB/s")
    found = judged(result_of(*products(), copy, expectations=expected))
    assert found.summary.outcome == "PASS"
    bf16 = one(found, "throughput", "matmul_bf16")
    assert bf16.peak_fraction == pytest.approx(788 / 989, abs=0.001)
    # 132 SMs x 2048 x 2 x 1500 MHz = 811 TFLOP/s
    assert bf16.clock_efficiency == pytest.approx(788 / 811.0, abs=0.001)
    assert bf16.reference == pytest.approx(790.29)
    assert one(found, "throughput", "memory_copy").peak_fraction == pytest.approx(4300 / 4800, abs=0.001)
    assert one(found, "throughput", "matmul_tf32").outcome == "UNRATED"
    assert "clock efficiency 0.97" in found.summary.text


def test_wrong_results_fail_whatever_the_speed() -> None:
    found = judged(result_of(*products(), wrongly("matmul_bf16", 800.0, error=0.5)))
    assert found.summary.outcome == "FAIL"
    texts = [v.text for v in found.verdicts if v.outcome == "FAIL"]
    assert texts == ["error against float64: error 0.5, allowed 0.02"]


def test_results_that_differ_from_run_to_run_fail() -> None:
    wrong = wrongly("matmul_bf16", 800.0, repeatable=False)
    assert "different results" in one(judged(result_of(wrong)), "correctness", "matmul_bf16").text


def test_a_failed_test_fails() -> None:
    failed = Measurement("matmul_fp16", "failed", "RuntimeError: no kernel image is available")
    found = judged(result_of(failed))
    assert found.summary.outcome == "FAIL"
    assert not [v for v in found.verdicts if v.gate == "throughput"]


def test_sick_card_whose_tensor_cores_are_not_used_fails_without_any_table() -> None:
    # An RTX 3080 of the table that references.toml names: tf32 below fp32, bf16 half of fp16.
    device = replace(H200, name="NVIDIA GeForce RTX 3080", compute_capability="8.6")
    tests = products(matmul_fp32_ieee=24.0, matmul_tf32=19.5, matmul_fp16=58.0, matmul_bf16=27.0)
    found = judged(result_of(*tests, device=device))
    assert one(found, "ratio", "matmul_tf32 / matmul_fp32_ieee").outcome == "FAIL"
    assert one(found, "ratio", "matmul_bf16 / matmul_fp16").outcome == "FAIL"
    assert one(found, "ratio", "matmul_fp16 / matmul_fp32_ieee").outcome == "PASS"
    assert found.summary.outcome == "FAIL"


def test_cards_without_tensor_cores_are_not_asked_for_them() -> None:
    device = replace(H200, name="NVIDIA GeForce GTX 1660", compute_capability="7.5")
    tests = products(matmul_fp32_ieee=4.5, matmul_fp16=2.0)[:3:2]
    found = judged(result_of(*tests, device=device))
    assert one(found, "ratio", "matmul_fp16 / matmul_fp32_ieee").outcome == "NOT_APPLICABLE"


@pytest.mark.parametrize(
    ("faster", "slower", "unit"),
    [("h2d_pinned", "h2d_pageable", "GB/s"), ("conv_amp", "conv_fp32", "TFLOP/s")],
)
def test_untried_ratios_warn_and_do_not_fail(faster: str, slower: str, unit: str) -> None:
    found = judged(result_of(measured(faster, 5.0, unit), measured(slower, 10.0, unit)))
    assert one(found, "ratio", f"{faster} / {slower}").outcome == "WARN"


@pytest.mark.parametrize(
    ("value", "outcome"), [(100.0, "PASS"), (90.0, "PASS"), (89.0, "WARN"), (75.0, "WARN"), (74.0, "FAIL")]
)
def test_against_an_own_reference(value: float, outcome: str) -> None:
    result = result_of(measured("matmul_bf16", value), expectations=expecting(100.0, is_own=True))
    assert one(judged(result), "throughput", "matmul_bf16").outcome == outcome


def test_another_tool_s_reference_never_fails_a_card() -> None:
    result = result_of(measured("matmul_bf16", 30.0), expectations=expecting(100.0))
    verdict = one(judged(result), "throughput", "matmul_bf16")
    assert verdict.outcome == "WARN"
    assert "no cause found" in verdict.text


@pytest.mark.parametrize(
    ("device", "telemetry", "cause"),
    [
        ({}, (sample(0.5, reasons=("sw_thermal",)),), "throttled: sw_thermal"),
        ({}, (sample(0.5, reasons=("hw_power_brake",)),), "throttled: hw_power_brake"),
        ({"is_mig": True, "sm_count": 16}, None, "a MIG slice of 16 SMs"),
        ({"used_bytes": 40 * 2**30}, None, "shared: 40.0 GiB were in use"),
        ({"utilisation_percent": 97}, None, "GPU 97 % busy before the start"),
        ({"power_limit_w": 400.0}, None, "power limit 400 W, 700 W by default"),
    ],
)
def test_the_machine_s_state_makes_a_failure_inconclusive_and_is_named(
    device: dict[str, Any], telemetry: tuple[Sample, ...] | None, cause: str
) -> None:
    result = result_of(
        measured("matmul_bf16", 50.0),
        device=replace(H200, **device),
        telemetry=telemetry,
        expectations=expecting(100.0, is_own=True),
    )
    found = judged(result)
    verdict = one(found, "throughput", "matmul_bf16")
    assert verdict.outcome == "INCONCLUSIVE"
    assert cause in verdict.text
    assert found.summary.outcome == "INCONCLUSIVE"


def test_a_software_power_cap_is_named_and_excuses_nothing() -> None:
    result = result_of(
        measured("matmul_bf16", 50.0),
        telemetry=(sample(0.5, reasons=("sw_power_cap",)),),
        expectations=expecting(100.0, is_own=True),
    )
    verdict = one(judged(result), "throughput", "matmul_bf16")
    assert verdict.outcome == "FAIL"
    assert "at its power limit of 700 W" in verdict.text


def test_throttling_of_another_test_is_no_excuse() -> None:
    result = result_of(
        measured("matmul_bf16", 50.0, at_s=10.0),
        telemetry=(sample(0.5, reasons=("hw_thermal",)), sample(10.5)),
        expectations=expecting(100.0, is_own=True),
    )
    assert one(judged(result), "throughput", "matmul_bf16").outcome == "FAIL"


def test_a_narrow_pcie_link_is_named() -> None:
    expected = expecting(50.0, test="h2d_pinned", unit="GB/s")
    result = result_of(
        measured("h2d_pinned", 6.0, "GB/s"),
        telemetry=(sample(0.5, pcie_generation=4, pcie_lanes=4),),
        expectations=expected,
    )
    verdict = one(judged(result), "throughput", "h2d_pinned")
    assert "PCIe lanes 4, the GPU can do 16" in verdict.text
    assert "PCIe generation 4, the GPU can do 5" in verdict.text
    assert verdict.peak == pytest.approx(7.88)


def test_a_wrong_wheel_is_a_failure_and_a_cause() -> None:
    result = result_of(measured("matmul_bf16", 50.0), expectations=expecting(100.0), arch_list=("sm_70", "sm_80"))
    found = judged(result)
    assert one(found, "correctness", "machine code").outcome == "FAIL"
    assert "wrong wheel: no machine code for 9.0" in one(found, "throughput", "matmul_bf16").text


@pytest.mark.parametrize(
    ("arch_list", "capability", "expected"),
    [
        (["sm_80", "sm_90"], "9.0", "binary"),
        (["sm_80"], "8.6", "binary"),  # the same major, a higher minor
        (["sm_89"], "8.6", "none"),
        (["sm_80", "sm_89", "compute_90"], "9.0", "ptx"),
        (["compute_90"], "12.0", "ptx"),
        (["sm_90a"], "9.0", "binary"),
        (["compute_90a"], "10.0", "none"),  # specific PTX runs nowhere else
        (["sm_120"], "12.0", "binary"),
        (["sm_50"], "9.0", "none"),
        ([], "9.0", "none"),
    ],
)
def test_how_a_wheel_serves_a_gpu(arch_list: list[str], capability: str, expected: str) -> None:
    assert verdicts.code_for(arch_list, capability) == expected


def test_ptx_alone_warns() -> None:
    result = result_of(measured("matmul_fp16", 500.0), arch_list=("sm_80", "compute_90"))
    assert one(judged(result), "correctness", "machine code").outcome == "WARN"


def test_an_unknown_gpu_is_unrated_and_never_passes(catalog: Catalog) -> None:
    device = replace(H200, name="NVIDIA Z900", compute_capability="99.0")
    expected = expectations(device, "torch", tables(catalog))
    found = judged(result_of(*products(), device=device, expectations=expected, arch_list=("sm_990",)))
    assert {v.outcome for v in found.verdicts if v.gate == "throughput"} == {"UNRATED"}
    assert found.summary.outcome == "UNRATED"


def test_without_clocks_the_software_path_has_no_number() -> None:
    result = result_of(measured("matmul_bf16", 700.0), telemetry=(), expectations=expecting(790.0))
    assert one(judged(result), "throughput", "matmul_bf16").clock_efficiency is None


def test_on_the_cpu_nothing_of_speed_is_said() -> None:
    cpu = Device(kind="cpu", name="AMD EPYC")
    found = judged(result_of(measured("matmul_bf16", 0.3), not_run("matmul_fp8", "no fp8"), device=cpu, telemetry=()))
    assert {v.outcome for v in found.verdicts if v.gate == "throughput"} == {"NOT_APPLICABLE"}
    assert found.summary == Summary(
        outcome="NOT_APPLICABLE",
        software="PASS",
        machine="NOT_APPLICABLE",
        text="functional only, GPU not tested",
    )


def test_on_the_cpu_a_wrong_result_still_fails() -> None:
    wrong = wrongly("matmul_bf16", 0.3, error=None)
    found = judged(result_of(wrong, device=Device(kind="cpu"), telemetry=()))
    assert found.summary.outcome == "FAIL"


def test_a_mig_slice_has_rates_and_no_peak(catalog: Catalog) -> None:
    expected = expectations(replace(H200, is_mig=True, sm_count=16), "torch", tables(catalog))
    assert expected.rates
    assert expected.peaks == expected.references == {}


def test_cards_of_one_name_are_told_apart_by_memory(catalog: Catalog) -> None:
    for memory_gb in (10, 12):
        device = Device(kind="cuda", name="NVIDIA GeForce RTX 3080", memory_bytes=int(memory_gb * 1e9 * 1.04))
        row = find_gpu(device, catalog.gpus)
        assert row is not None
        assert row.memory_gb == memory_gb
    assert find_gpu(Device(kind="cuda", name="GeForce RTX 3090"), catalog.gpus)  # as drivers before R470 print it
    assert find_gpu(Device(kind="cuda", name="nothing"), catalog.gpus) is None


def test_slow_peer_among_gpus_warns() -> None:
    peers = measured("all_reduce", 400.0, "GB/s", details=Details(product_tflops=(700.0, 705.0, 600.0, 702.0)))
    verdict = one(judged(result_of(peers)), "ratio", "GPUs against each other")
    assert verdict.outcome == "WARN"
    assert "GPU 2 is the slowest at 0.86" in verdict.text


def test_soak_that_slows_down_warns_with_the_cause() -> None:
    windows = tuple(Window(at_s=float(i), value=100.0 - i, passed=True) for i in range(40))
    soak = measured("soak", 80.0, windows=windows)
    result = result_of(soak, telemetry=(sample(0.5, reasons=("sw_thermal",)),))
    verdict = one(judged(result), "throughput", "soak")
    assert verdict.outcome == "WARN"
    assert "throttled: sw_thermal" in verdict.text
    soak = replace(soak, windows=windows[:2])
    assert one(judged(result_of(soak)), "throughput", "soak").outcome == "PASS"


def test_the_tables_beside_the_code_rate_as_the_catalog_does(catalog: Catalog) -> None:
    alone = package_tables()
    if alone is None:
        pytest.skip("this Python has no tomllib")
    for name in ("NVIDIA H200", "Tesla T4", "NVIDIA GeForce RTX 4090", "NVIDIA L4"):
        capability = next(gpu.compute_capability for gpu in catalog.gpus if name in gpu.names)
        memory_gb = next(gpu.memory_gb for gpu in catalog.gpus if name in gpu.names)
        device = Device(kind="cuda", name=name, compute_capability=capability, memory_bytes=int((memory_gb or 1) * 1e9))
        assert expectations(device, "torch", alone) == expectations(device, "torch", tables(catalog))
