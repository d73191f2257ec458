"""What a GPU should do: its peaks and rates from the catalog's tables, and what others measured on it. Pure."""

from __future__ import annotations

from typing import Any

# The catalog's field for the peak of each test.
PEAK_FIELDS = {
    "matmul_fp32_ieee": ("fp32_tflops", "TFLOP/s"),
    "matmul_tf32": ("tf32_tensor_tflops", "TFLOP/s"),
    "matmul_fp16": ("fp16_tensor_tflops", "TFLOP/s"),
    "matmul_bf16": ("bf16_tensor_tflops", "TFLOP/s"),
    "matmul_fp8": ("fp8_tensor_tflops", "TFLOP/s"),
    "memory_copy": ("bandwidth_gbs", "GB/s"),
    "memory_triad": ("bandwidth_gbs", "GB/s"),
}
# Field of a rate's row (multiply-adds per SM and clock) for each product.
RATE_FIELDS = {
    "matmul_fp32_ieee": "fp32",
    "matmul_tf32": "tf32",
    "matmul_fp16": "fp16",
    "matmul_bf16": "bf16",
    "matmul_fp8": "fp8",
}
GB = 1e9
# Cards of one name and different memory: the driver shows a tenth more or less than the marketed number.
MEMORY_TOLERANCE = 0.15


def expectations(device: dict[str, Any], framework: str, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Peaks, rates and references for a device, each with its source; what no table has is absent.

    A MIG slice has no peak and no reference of its own; its rates per SM are the whole GPU's.
    """
    row = find_gpu(device, tables["gpu"])
    is_slice = bool(device.get("is_mig"))
    rate = find_rate(device, row, tables["rate"])
    found: dict[str, Any] = {"gpu": row["names"][0] if row else None, "peaks": {}, "rates": {}, "references": {}}
    if rate:
        found["rates"] = {
            test: {"value": rate[field], "source": rate["source"]}
            for test, field in RATE_FIELDS.items()
            if rate.get(field)
        }
    if row and not is_slice:
        for test, (field, unit) in PEAK_FIELDS.items():
            if row.get(field):
                source = row.get("tensor_source") if "tensor" in field else row["source"]
                found["peaks"][test] = {"value": row[field], "unit": unit, "source": source or row["source"]}
        for reference in tables["reference"]:
            if reference["gpu"] in row["names"] and _is_of(reference, row) and reference["framework"] == framework:
                found["references"][reference["test"]] = {
                    name: reference[name] for name in ("value", "unit", "n", "date", "tool", "is_own", "source")
                }
    return found


def _is_of(reference: dict[str, Any], row: dict[str, Any]) -> bool:
    return not reference.get("memory_gb") or reference["memory_gb"] == row.get("memory_gb")


def find_gpu(device: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The catalog's row of a device: by name, then by memory, and of those left the one with the same SM count.

    None when nothing or more than one thing fits.
    """
    name = str(device.get("name", ""))
    named = [row for row in rows if name in row["names"] or f"NVIDIA {name}" in row["names"]]
    memory = device.get("memory_bytes")
    if len(named) > 1 and memory:
        off = {id(row): abs(memory / GB / row["memory_gb"] - 1) for row in named if row.get("memory_gb")}
        nearest = min(off.values(), default=1.0)
        named = [row for row in named if off.get(id(row)) == nearest <= MEMORY_TOLERANCE]
    if len(named) > 1:
        named = [row for row in named if row.get("sm_count") == device.get("sm_count")]
    return named[0] if len(named) == 1 else None


def find_rate(device: dict[str, Any], row: dict[str, Any] | None, rates: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of rates per SM of a device's architecture; GeForce cards have their own where they are slower."""
    capability = device.get("compute_capability")
    is_geforce = row["gpu_class"] == "geforce" if row else "GeForce" in str(device.get("name", ""))
    for rate in rates:
        classes = rate.get("gpu_classes") or ()
        if rate["compute_capability"] == capability and (not classes or ("geforce" in classes) == is_geforce):
            return rate
    return None
