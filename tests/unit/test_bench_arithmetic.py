"""FLOPs, bytes, spreads, peaks: known answers."""

from __future__ import annotations

import math

import pytest

from kit.bench import arithmetic
from kit.bench.expectations import find_rate
from kit.bench.results import Device
from kit.bench.work import GIB, cpu_sizes, gpu_sizes, parse_shapes
from kit.catalog import Catalog


def test_operations_and_bytes_of_each_piece_of_work() -> None:
    assert arithmetic.matmul_flops(2, 3, 4) == 48
    assert arithmetic.copy_bytes(10) == 20
    assert arithmetic.triad_bytes(10) == 30
    # One image, one channel, one pixel, 1x1: a multiplication and an addition, and the same twice backwards.
    assert arithmetic.conv_flops(1, 1, 1, 1) == 6
    assert arithmetic.conv_flops(2, 8, 4, 3) == 3 * 2 * 2 * 16 * 64 * 9


def test_transformer_counts_weights_in_products_and_attention() -> None:
    # 12 width^2 weights in a layer, the output layer, and attention over the context.
    assert arithmetic.transformer_flops_per_token(1, 2, 3, 5) == 6 * (48 + 10) + 12 * 1 * 2 * 3
    gpt_2_small = arithmetic.transformer_flops_per_token(12, 768, 1024, 50257)
    assert gpt_2_small == pytest.approx(6 * 123.5e6 + 12 * 12 * 768 * 1024, rel=0.01)


@pytest.mark.parametrize(("ranks", "expected"), [(2, 1.0), (4, 1.5), (8, 1.75)])
def test_bus_bandwidth_is_the_one_of_nccl_tests(ranks: int, expected: float) -> None:
    assert arithmetic.bus_bandwidth(10**9, 1.0, ranks) == pytest.approx(expected * 1e9)


@pytest.mark.parametrize(("generation", "gbs"), [(3, 15.75), (4, 31.5), (5, 63.0)])
def test_pcie_x16(generation: int, gbs: float) -> None:
    assert arithmetic.pcie_gbs(generation, 16) == pytest.approx(gbs, rel=0.001)


def test_unknown_pcie_generation_has_no_speed() -> None:
    assert arithmetic.pcie_gbs(9, 16) is None


def test_spread_of_known_samples() -> None:
    found = arithmetic.spread([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (found.median, found.p20, found.p80, found.n) == (3.0, 1.8, 4.2, 5)
    assert found.jitter_percent == pytest.approx(100 * 1.4826 / 3)
    assert arithmetic.spread([7.0]).jitter_percent == 0


@pytest.mark.parametrize(
    ("work", "seconds", "unit", "expected"),
    [(2e12, 2, "TFLOP/s", 1.0), (3e9, 1, "GB/s", 3.0), (64, 0.5, "images/s", 128.0), (1000, 0.002, "us", 2.0)],
)
def test_rates_in_their_units(work: float, seconds: float, unit: str, expected: float) -> None:
    assert arithmetic.rate(work, seconds, unit) == pytest.approx(expected)


def test_a_shorter_time_and_a_higher_rate_are_better() -> None:
    assert arithmetic.is_better(1, 2, "us")
    assert not arithmetic.is_better(2, 1, "us")
    assert arithmetic.is_better(2, 1, "GB/s")


def test_errors_that_are_no_numbers_are_infinite() -> None:
    assert arithmetic.relative_error(4.0, 100.0) == pytest.approx(0.2)
    assert arithmetic.relative_error(math.nan, 100.0) == math.inf
    assert arithmetic.relative_error(0.0, 0.0) == math.inf


@pytest.mark.parametrize(
    ("per_set", "cache", "limit", "expected"),
    [(100, 60, 10**6, 3), (10, 60, 10**6, 13), (100, 0, 10**6, 1), (100, 60, 250, 2), (100, 60, 50, 1)],
)
def test_buffers_rotate_beyond_the_cache_and_within_memory(per_set: int, cache: int, limit: int, expected: int) -> None:
    assert arithmetic.rotating_sets(per_set, cache, limit) == expected


def test_sizes_adapt_to_the_card() -> None:
    h200 = gpu_sizes(140 * GIB, 60 * 2**20)
    assert h200.memory_bytes == 7 * GIB
    assert h200.resnet[0] == 64
    assert h200.copy_bytes >= GIB
    laptop = gpu_sizes(int(7.2 * GIB), 32 * 2**20)
    assert laptop.memory_bytes == int(5.4 * GIB) or laptop.memory_bytes < 7.2 * GIB
    small = gpu_sizes(2 * GIB, 2**20)
    assert small.matmul == ((4096, 4096, 4096),)
    assert small.resnet[0] == 16
    assert 3 * small.copy_bytes < 2 * GIB


def test_every_size_fits_its_memory() -> None:
    for free_gib in (2, 4, 6, 8, 16, 80):
        sizes = gpu_sizes(free_gib * GIB, 50 * 2**20)
        assert 3 * sizes.copy_bytes <= sizes.memory_bytes
        for m, n, k in sizes.matmul:
            assert 4 * (m * k + k * n + m * n) <= sizes.memory_bytes
    assert cpu_sizes().budget_part < 1


def test_shapes() -> None:
    assert parse_shapes("") == ()
    assert parse_shapes("4096x2048x1024,32x16x64") == ((4096, 2048, 1024), (32, 16, 64))
    for wrong in ("4096", "4096x4096", "4096x4096x4095", "axbxc", "0x16x16", "-16x16x16"):
        with pytest.raises(ValueError, match=r"MxNxK|invalid literal"):
            parse_shapes(wrong)


def peaks(catalog: Catalog) -> list[tuple[str, str, float, float]]:
    """(GPU, field, the table's peak, SMs x rate x clock) of every row that has all of them."""
    found = []
    for gpu in catalog.gpus:
        rate = find_rate(Device(kind="cuda", compute_capability=gpu.compute_capability), gpu, catalog.rates)
        if not rate or gpu.sm_count is None or gpu.boost_mhz is None:
            continue
        for kind in ("fp32", "tf32", "fp16", "bf16", "fp8"):
            field = "fp32_tflops" if kind == "fp32" else f"{kind}_tensor_tflops"
            clock = gpu.boost_mhz if kind == "fp32" else gpu.tensor_boost_mhz or gpu.boost_mhz
            if getattr(gpu, field) is not None and getattr(rate, kind):
                computed = arithmetic.peak_tflops(gpu.sm_count, getattr(rate, kind), clock)
                found.append((gpu.names[0], field, getattr(gpu, field), computed))
    return found


def test_every_peak_is_sms_times_rate_times_clock(catalog: Catalog) -> None:
    found = peaks(catalog)
    # A peak with sparsity would be twice as high.
    wrong = [row for row in found if abs(row[3] / row[2] - 1) > 0.03]
    assert wrong == []
    assert len(found) > 100
    named = {(name, field) for name, field, _, _ in found}
    for name in ("NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "Tesla T4", "NVIDIA L4"):
        assert (name, "fp16_tensor_tflops") in named


def test_rates_and_sm_counts_have_a_source(catalog: Catalog) -> None:
    assert all(rate.source for rate in catalog.rates)
    assert all(bool(gpu.sm_count) == bool(gpu.sm_source) for gpu in catalog.gpus)
    assert all(gpu.sm_count for gpu in catalog.gpus if gpu.boost_mhz)


def test_references_belong_to_gpus_and_tests_that_exist(catalog: Catalog) -> None:
    from kit.bench.suite import TEST_NAMES

    names = {name for gpu in catalog.gpus for name in gpu.names}
    for reference in catalog.references:
        assert reference.gpu in names, reference.gpu
        assert reference.test in TEST_NAMES
        assert reference.n >= 1
        assert reference.value > 0
    keys = [(r.gpu, r.memory_gb, r.framework, r.test) for r in catalog.references]
    assert len(set(keys)) == len(keys)


def test_no_reference_is_above_what_the_card_could_do(catalog: Catalog) -> None:
    for reference in catalog.references:
        for gpu in catalog.gpus:
            peak = gpu.bf16_tensor_tflops if reference.test == "matmul_bf16" else None
            if reference.gpu in gpu.names and peak:
                # GeForce cards run above their stated boost clock: 1.16 was the most in the table's source.
                assert reference.value / peak < 1.2
