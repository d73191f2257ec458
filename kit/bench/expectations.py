"""What a GPU should do: its peaks and rates from the catalog's tables, and what others measured on it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from kit.bench.results import Expectations, Peak, Rate, Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.bench.results import Device
    from kit.catalog import rows

# For each test the catalog's field of its peak, the peak's unit, and the field of its rate (multiply-adds per SM and
# clock).
FIELDS = {
    "matmul_fp32_ieee": ("fp32_tflops", "TFLOP/s", "fp32"),
    "matmul_tf32": ("tf32_tensor_tflops", "TFLOP/s", "tf32"),
    "matmul_fp16": ("fp16_tensor_tflops", "TFLOP/s", "fp16"),
    "matmul_bf16": ("bf16_tensor_tflops", "TFLOP/s", "bf16"),
    "matmul_fp8": ("fp8_tensor_tflops", "TFLOP/s", "fp8"),
    "memory_copy": ("bandwidth_gbs", "GB/s", ""),
    "memory_triad": ("bandwidth_gbs", "GB/s", ""),
}
GB = 1e9
# Cards of one name and different memory: the driver shows a tenth more or less than the marketed number.
MEMORY_TOLERANCE = 0.15


@dataclass(frozen=True)
class Tables:
    """The catalog's rows that results are rated by, or what has their attributes."""

    gpus: Sequence[rows.Gpu]
    rates: Sequence[rows.Rate]
    references: Sequence[rows.Reference]


def expectations(device: Device, framework: str, tables: Tables) -> Expectations:
    """Peaks, rates and references for a device, each with its source; what no table has is absent.

    A MIG slice has no peak and no reference of its own; its rates per SM are the whole GPU's.
    """
    gpu = find_gpu(device, tables.gpus)
    found = Expectations(gpu=gpu.names[0] if gpu else None, peaks={}, rates={}, references={})
    row = find_rate(device, gpu, tables.rates)
    for test, (peak_field, unit, rate_field) in FIELDS.items():
        if row and rate_field and (rate := getattr(row, rate_field)):
            found.rates[test] = Rate(rate, row.source)
        if gpu and not device.is_mig and (peak := getattr(gpu, peak_field)):
            found.peaks[test] = Peak(peak, unit, ("tensor" in peak_field and gpu.tensor_source) or gpu.source)
    if gpu and not device.is_mig:
        for of in tables.references:
            is_same_card = of.gpu in gpu.names and (not of.memory_gb or of.memory_gb == gpu.memory_gb)
            if is_same_card and of.framework == framework:
                values = {field.name: getattr(of, field.name) for field in fields(Reference)}
                found.references[of.test] = Reference(**values)
    return found


def find_gpu(device: Device, rows: Sequence[rows.Gpu]) -> rows.Gpu | None:
    """The catalog's row of a device: by name, then by memory, and of those left the one with the same SM count.

    None when nothing or more than one thing fits.
    """
    named = [row for row in rows if device.name in row.names or f"NVIDIA {device.name}" in row.names]
    if len(named) > 1 and device.memory_bytes:
        off = {id(row): abs(device.memory_bytes / GB / row.memory_gb - 1) for row in named if row.memory_gb}
        nearest = min(off.values(), default=1.0)
        named = [row for row in named if off.get(id(row)) == nearest <= MEMORY_TOLERANCE]
    if len(named) > 1:
        named = [row for row in named if row.sm_count == device.sm_count]
    return named[0] if len(named) == 1 else None


def find_rate(device: Device, gpu: rows.Gpu | None, rates: Sequence[rows.Rate]) -> rows.Rate | None:
    """The row of rates per SM of a device's architecture; GeForce cards have their own where they are slower."""
    is_geforce = gpu.gpu_class == "geforce" if gpu else "GeForce" in (device.name or "")
    for rate in rates:
        is_its_class = not rate.gpu_classes or ("geforce" in rate.gpu_classes) == is_geforce
        if rate.compute_capability == device.compute_capability and is_its_class:
            return rate
    return None
