"""What the NVIDIA driver says of the GPU in use, by its own two libraries: libcuda (what a program sees, MIG slices
too) and libnvidia-ml (clocks, power, heat, why it is slow).

Through ctypes: every container with a GPU has both libraries, and no image needs a package or a program for it. What a
driver or GPU does not know is None, never a guess.
"""

from __future__ import annotations

import contextlib
import ctypes
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from kit.bench.results import Device, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CUDA_LIBRARY = "libcuda.so.1"
NVML_LIBRARY = "libnvidia-ml.so.1"
# CUdevice_attribute of cuda.h
SM_COUNT, CACHE_BYTES, CC_MAJOR, CC_MINOR = 16, 38, 75, 76
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

Value = TypeVar("Value")


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


def cuda_devices(library: Any | None) -> list[Device]:
    """The GPUs a program of this process would see, in its order; none without a driver."""
    count = ctypes.c_int()
    if library is None or library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    return [_cuda_device(library, index) for index in range(count.value)]


def _cuda_device(library: Any, index: int) -> Device:
    device, memory, raw = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(16)
    library.cuDeviceGet(ctypes.byref(device), index)

    def attribute(number: int) -> int | None:
        value = ctypes.c_int()
        return value.value if library.cuDeviceGetAttribute(ctypes.byref(value), number, device) == 0 else None

    def text(function: Callable[..., int]) -> str | None:
        value = ctypes.create_string_buffer(256)
        return value.value.decode(errors="replace") if function(value, len(value), device) == 0 else None

    major, minor = attribute(CC_MAJOR), attribute(CC_MINOR)
    # _v2 (CUDA 11.4) gives a MIG slice its own UUID, the first one that of the whole GPU.
    get_uuid = getattr(library, "cuDeviceGetUuid_v2", None) or getattr(library, "cuDeviceGetUuid", None)
    return Device(
        kind="cuda",
        index=index,
        name=text(library.cuDeviceGetName),
        memory_bytes=memory.value if library.cuDeviceTotalMem_v2(ctypes.byref(memory), device) == 0 else None,
        pci_address=text(library.cuDeviceGetPCIBusId),
        uuid=str(uuid.UUID(bytes=raw.raw)) if get_uuid and get_uuid(raw, device) == 0 else None,
        compute_capability=None if major is None or minor is None else f"{major}.{minor}",
        sm_count=attribute(SM_COUNT),
        cache_bytes=attribute(CACHE_BYTES),
    )


class Gpu:
    """One GPU as NVML knows it; made by `open_gpu`."""

    def __init__(self, library: Any, handle: Any) -> None:
        self.library, self.handle = library, handle

    def _ask(self, function: str, value: Value, *before: Any) -> Value | None:
        """`value`, filled in by a function of the library; None when it is not there or does not know."""
        call: Callable[..., int] | None = getattr(self.library, function, None)
        return value if call and call(self.handle, *before, ctypes.byref(value)) == 0 else None  # type: ignore[arg-type]

    def _number(self, function: str, *before: int) -> int | None:
        value = self._ask(function, ctypes.c_uint(), *before)
        return None if value is None else value.value

    def _mode(self, function: str) -> bool | None:
        now = ctypes.c_uint()
        later = self._ask(function, ctypes.c_uint(), ctypes.byref(now))
        return None if later is None else bool(now.value)

    def _watts(self, function: str) -> float | None:
        milliwatts = self._number(function)
        return None if milliwatts is None else milliwatts / 1000

    def _utilisation_percent(self) -> int | None:
        """How much of the last moments the GPU was busy; None under MIG."""
        value = self._ask("nvmlDeviceGetUtilizationRates", Utilization())
        return None if value is None else int(value.gpu)

    def _slow_reasons(self) -> tuple[str, ...] | None:
        """Why the clocks are lower than they could be."""
        # Drivers from 535 on also have it as nvmlDeviceGetCurrentClocksEventReasons; this name stays.
        value = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong())
        return None if value is None else tuple(name for bit, name in SLOW_REASONS.items() if value.value & bit)

    def describe(self, device: Device) -> Device:
        """A device with what NVML knows of it and what does not change while a benchmark runs."""
        text = ctypes.create_string_buffer(96)
        memory = self._ask("nvmlDeviceGetMemoryInfo", Memory())
        return replace(
            device,
            driver=text.value.decode() if self.library.nvmlSystemGetDriverVersion(text, len(text)) == 0 else None,
            is_mig=self._mode("nvmlDeviceGetMigMode"),
            has_ecc=self._mode("nvmlDeviceGetEccMode"),
            power_limit_w=self._watts("nvmlDeviceGetEnforcedPowerLimit"),
            power_default_w=self._watts("nvmlDeviceGetPowerManagementDefaultLimit"),
            sm_clock_max_mhz=self._number("nvmlDeviceGetMaxClockInfo", SM_CLOCK),
            memory_clock_max_mhz=self._number("nvmlDeviceGetMaxClockInfo", MEMORY_CLOCK),
            pcie_generation_max=self._number("nvmlDeviceGetMaxPcieLinkGeneration"),
            pcie_lanes_max=self._number("nvmlDeviceGetMaxPcieLinkWidth"),
            used_bytes=None if memory is None else int(memory.used),
            utilisation_percent=self._utilisation_percent(),
        )

    def sample(self, at_s: float) -> Sample:
        """What changes from one moment to the next."""
        return Sample(
            at_s=at_s,
            sm_mhz=self._number("nvmlDeviceGetClockInfo", SM_CLOCK),
            memory_mhz=self._number("nvmlDeviceGetClockInfo", MEMORY_CLOCK),
            temperature_c=self._number("nvmlDeviceGetTemperature", 0),
            power_w=self._watts("nvmlDeviceGetPowerUsage"),
            utilisation_percent=self._utilisation_percent(),
            pcie_generation=self._number("nvmlDeviceGetCurrPcieLinkGeneration"),
            pcie_lanes=self._number("nvmlDeviceGetCurrPcieLinkWidth"),
            slow_reasons=self._slow_reasons(),
        )


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
