"""What the NVIDIA driver says of the GPU in use, by its own two libraries: libcuda (what a program sees, MIG slices
too) and libnvidia-ml (clocks, power, heat, why it is slow).

Through ctypes: every container with a GPU has both libraries, and no image needs a package or a program for it. What a
driver or GPU does not know is absent, never a guess.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CUDA_LIBRARY = "libcuda.so.1"
NVML_LIBRARY = "libnvidia-ml.so.1"
# CUdevice_attribute of cuda.h
ATTRIBUTES = {"sm_count": 16, "cache_bytes": 38, "cc_major": 75, "cc_minor": 76}
# nvmlClocksEventReasons of nvml.h, all that can be set while a program runs
SLOW_REASONS = {
    0x2: "applications_clocks",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "hw_power_brake",
    0x100: "display_clocks",
}
SM_CLOCK, MEMORY_CLOCK = 1, 2  # nvmlClockType_t


class Memory(ctypes.Structure):
    """nvmlMemory_t"""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Utilization(ctypes.Structure):
    """nvmlUtilization_t"""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


def load(name: str) -> Any | None:
    """A library of the driver; None where there is none."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def cuda_devices(library: Any | None) -> list[dict[str, Any]]:
    """The GPUs a program of this process would see, in its order; none without a driver."""
    count = ctypes.c_int()
    if library is None or library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    return [_cuda_device(library, index) for index in range(count.value)]


def _cuda_device(library: Any, index: int) -> dict[str, Any]:
    device, memory, found = ctypes.c_int(), ctypes.c_size_t(), {}
    library.cuDeviceGet(ctypes.byref(device), index)
    for name, number in ATTRIBUTES.items():
        value = ctypes.c_int()
        if library.cuDeviceGetAttribute(ctypes.byref(value), number, device) == 0:
            found[name] = value.value
    text = ctypes.create_string_buffer(256)
    facts: dict[str, Any] = {"index": index}
    if library.cuDeviceGetName(text, len(text), device) == 0:
        facts["name"] = text.value.decode(errors="replace")
    if library.cuDeviceTotalMem_v2(ctypes.byref(memory), device) == 0:
        facts["memory_bytes"] = memory.value
    if library.cuDeviceGetPCIBusId(text, len(text), device) == 0:
        facts["pci_address"] = text.value.decode()
    raw = ctypes.create_string_buffer(16)
    # _v2 (CUDA 11.4) gives a MIG slice its own UUID, the first one that of the whole GPU.
    get_uuid = getattr(library, "cuDeviceGetUuid_v2", None) or getattr(library, "cuDeviceGetUuid", None)
    if get_uuid is not None and get_uuid(raw, device) == 0:
        digits = raw.raw.hex()
        facts["uuid"] = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    if "cc_major" in found and "cc_minor" in found:
        facts["compute_capability"] = f"{found['cc_major']}.{found['cc_minor']}"
    for name in ("sm_count", "cache_bytes"):
        if name in found:
            facts[name] = found[name]
    return facts


class Gpu:
    """One GPU as NVML knows it; made by `open_gpu`."""

    def __init__(self, library: Any, handle: Any) -> None:
        self.library, self.handle = library, handle

    def _number(self, function: str, *before: int) -> int | None:
        value = ctypes.c_uint()
        call: Callable[..., int] | None = getattr(self.library, function, None)
        return value.value if call and call(self.handle, *before, ctypes.byref(value)) == 0 else None

    def _mode(self, function: str) -> bool | None:
        now, later = ctypes.c_uint(), ctypes.c_uint()
        call: Callable[..., int] | None = getattr(self.library, function, None)
        known = call and call(self.handle, ctypes.byref(now), ctypes.byref(later)) == 0
        return bool(now.value) if known else None

    def _watts(self, function: str) -> float | None:
        milliwatts = self._number(function)
        return None if milliwatts is None else milliwatts / 1000

    def utilisation_percent(self) -> int | None:
        """How much of the last moments the GPU was busy; None under MIG."""
        value = Utilization()
        known = self.library.nvmlDeviceGetUtilizationRates(self.handle, ctypes.byref(value)) == 0
        return int(value.gpu) if known else None

    def used_bytes(self) -> int | None:
        """Memory in use, by whomever."""
        value = Memory()
        known = self.library.nvmlDeviceGetMemoryInfo(self.handle, ctypes.byref(value)) == 0
        return int(value.used) if known else None

    def slow_reasons(self) -> list[str] | None:
        """Why the clocks are lower than they could be."""
        value = ctypes.c_ulonglong()
        # Drivers from 535 on also have it as nvmlDeviceGetCurrentClocksEventReasons; this name stays.
        if self.library.nvmlDeviceGetCurrentClocksThrottleReasons(self.handle, ctypes.byref(value)) != 0:
            return None
        return [name for bit, name in SLOW_REASONS.items() if value.value & bit]

    def facts(self) -> dict[str, Any]:
        """What does not change while a benchmark runs."""
        text = ctypes.create_string_buffer(96)
        driver = text.value.decode() if self.library.nvmlSystemGetDriverVersion(text, len(text)) == 0 else None
        return _known(
            driver=driver,
            is_mig=self._mode("nvmlDeviceGetMigMode"),
            has_ecc=self._mode("nvmlDeviceGetEccMode"),
            power_limit_w=self._watts("nvmlDeviceGetEnforcedPowerLimit"),
            power_default_w=self._watts("nvmlDeviceGetPowerManagementDefaultLimit"),
            sm_clock_max_mhz=self._number("nvmlDeviceGetMaxClockInfo", SM_CLOCK),
            memory_clock_max_mhz=self._number("nvmlDeviceGetMaxClockInfo", MEMORY_CLOCK),
            pcie_generation_max=self._number("nvmlDeviceGetMaxPcieLinkGeneration"),
            pcie_lanes_max=self._number("nvmlDeviceGetMaxPcieLinkWidth"),
            used_bytes=self.used_bytes(),
            utilisation_percent=self.utilisation_percent(),
        )

    def sample(self) -> dict[str, Any]:
        """What changes from one moment to the next."""
        return _known(
            sm_mhz=self._number("nvmlDeviceGetClockInfo", SM_CLOCK),
            memory_mhz=self._number("nvmlDeviceGetClockInfo", MEMORY_CLOCK),
            temperature_c=self._number("nvmlDeviceGetTemperature", 0),
            power_w=self._watts("nvmlDeviceGetPowerUsage"),
            utilisation_percent=self.utilisation_percent(),
            pcie_generation=self._number("nvmlDeviceGetCurrPcieLinkGeneration"),
            pcie_lanes=self._number("nvmlDeviceGetCurrPcieLinkWidth"),
            slow_reasons=self.slow_reasons(),
        )


def _known(**facts: Any) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


@contextlib.contextmanager
def open_gpu(library: Any | None, pci_address: str) -> Iterator[Gpu | None]:
    """The GPU at a PCI address, while the block runs; None when NVML is missing or does not know it."""
    if library is None or library.nvmlInit_v2() != 0:
        yield None
        return
    try:
        handle = ctypes.c_void_p()
        known = library.nvmlDeviceGetHandleByPciBusId_v2(pci_address.encode(), ctypes.byref(handle)) == 0
        yield Gpu(library, handle) if known else None
    finally:
        library.nvmlShutdown()
