"""The driver's two libraries, played by objects that write what a driver would; and the sampler."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from kit.bench import drivers, sampler
from kit.bench.measured import host_facts
from kit.bench.results import Device, Sample

UUID = bytes(range(16))


def value_of(pointer: Any) -> Any:
    """What a `byref` points to."""
    return pointer._obj


class FakeCuda:
    """libcuda of a machine with one H200."""

    def __init__(self, *, count: int = 1, init: int = 0) -> None:
        self.count, self.init = count, init

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        value_of(count).value = self.count
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        value_of(device).value = index
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        known = {16: 132, 38: 60 * 2**20, 75: 9, 76: 0}
        if attribute not in known:
            return 1
        value_of(value).value = known[attribute]
        return 0

    def cuDeviceGetName(self, text: Any, size: int, device: Any) -> int:  # noqa: N802
        text.value = b"NVIDIA H200"
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, device: Any) -> int:  # noqa: N802
        value_of(size).value = 150754820096
        return 0

    def cuDeviceGetPCIBusId(self, text: Any, size: int, device: Any) -> int:  # noqa: N802
        text.value = b"0000:1A:00.0"
        return 0

    def cuDeviceGetUuid_v2(self, raw: Any, device: Any) -> int:  # noqa: N802
        raw.raw = UUID
        return 0


class FakeNvml:
    """libnvidia-ml of the same machine; what is not here the driver does not know."""

    def __init__(self, numbers: dict[str, int]) -> None:
        self.numbers, self.shut_down = numbers, 0

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.shut_down += 1
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, address: bytes, handle: Any) -> int:  # noqa: N802
        value_of(handle).value = 1
        return 0 if address == b"0000:1A:00.0" else 6

    def nvmlSystemGetDriverVersion(self, text: Any, size: int) -> int:  # noqa: N802
        text.value = b"580.159.03"
        return 0

    def nvmlDeviceGetUtilizationRates(self, handle: Any, value: Any) -> int:  # noqa: N802
        if "utilisation" not in self.numbers:
            return 3  # not supported: MIG
        value_of(value).gpu = self.numbers["utilisation"]
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, value: Any) -> int:  # noqa: N802
        value_of(value).used = self.numbers["used"]
        return 0

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any, value: Any) -> int:  # noqa: N802
        value_of(value).value = self.numbers["reasons"]
        return 0

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int, value: Any) -> int:  # noqa: N802
        value_of(value).value = {1: 1830, 2: 3201}[kind]
        return 0

    def nvmlDeviceGetMigMode(self, handle: Any, now: Any, later: Any) -> int:  # noqa: N802
        value_of(now).value, value_of(later).value = self.numbers["mig"], 0
        return 0

    def nvmlDeviceGetPowerUsage(self, handle: Any, value: Any) -> int:  # noqa: N802
        value_of(value).value = 698_500
        return 0

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any, value: Any) -> int:  # noqa: N802
        value_of(value).value = 700_000
        return 0


def nvml(**numbers: int) -> FakeNvml:
    return FakeNvml({"used": 2**30, "reasons": 0, "mig": 0, **numbers})


def test_what_a_program_sees() -> None:
    (device,) = drivers.cuda_devices(FakeCuda())
    assert device == Device(
        kind="cuda",
        index=0,
        name="NVIDIA H200",
        memory_bytes=150754820096,
        pci_address="0000:1A:00.0",
        uuid="00010203-0405-0607-0809-0a0b0c0d0e0f",
        compute_capability="9.0",
        sm_count=132,
        cache_bytes=60 * 2**20,
    )


def test_no_library_no_driver_and_no_gpu_are_no_devices() -> None:
    assert drivers.cuda_devices(None) == []
    assert drivers.cuda_devices(FakeCuda(init=100)) == []
    assert drivers.cuda_devices(FakeCuda(count=0)) == []
    assert drivers.load("libcuda-of-nobody.so.1") is None


def test_facts_and_samples_of_a_gpu() -> None:
    library = nvml(utilisation=99, reasons=0x4 | 0x20)
    with drivers.open_gpu(library, "0000:1A:00.0") as gpu:
        assert gpu is not None
        assert gpu.describe(Device(kind="cuda", name="x")) == Device(
            kind="cuda",
            name="x",
            driver="580.159.03",
            is_mig=False,
            power_limit_w=700.0,
            used_bytes=2**30,
            utilisation_percent=99,
        )
        assert gpu.sample(1.5) == Sample(
            at_s=1.5,
            sm_mhz=1830,
            memory_mhz=3201,
            power_w=698.5,
            utilisation_percent=99,
            slow_reasons=("sw_power_cap", "sw_thermal"),
        )
    assert library.shut_down == 1


def test_mig_has_no_utilisation_and_says_so_by_leaving_it_out() -> None:
    with drivers.open_gpu(nvml(mig=1), "0000:1A:00.0") as gpu:
        assert gpu is not None
        assert gpu.describe(Device(kind="cuda")).is_mig is True
        assert gpu.sample(0.0).utilisation_percent is None


def test_a_gpu_that_nvml_does_not_know() -> None:
    with drivers.open_gpu(nvml(), "0000:99:00.0") as gpu:
        assert gpu is None
    with drivers.open_gpu(None, "0000:1A:00.0") as gpu:
        assert gpu is None


def test_structures_are_as_large_as_the_driver_s() -> None:
    assert ctypes.sizeof(drivers.Memory) == 24
    assert ctypes.sizeof(drivers.Utilization) == 8


def test_sampler_samples_until_it_is_stopped() -> None:
    taken = sampler.Sampler(lambda at_s: Sample(at_s, sm_mhz=1), interval_s=0.005)
    taken.start()
    time.sleep(0.1)
    taken.stop()
    count = len(taken.samples)
    assert count >= 3
    assert all(sample.sm_mhz == 1 and sample.at_s >= 0 for sample in taken.samples)
    time.sleep(0.05)
    assert len(taken.samples) == count


def test_without_a_gpu_the_sampler_is_empty() -> None:
    taken = sampler.Sampler(None)
    taken.start()
    taken.stop()
    assert taken.samples == []


def test_only_busy_samples_of_the_stretch_count() -> None:
    samples = (
        Sample(at_s=0.0, sm_mhz=345, utilisation_percent=0, slow_reasons=("hw_thermal",)),
        Sample(at_s=1.0, sm_mhz=1500, power_w=600.0, utilisation_percent=100, slow_reasons=()),
        Sample(at_s=1.2, sm_mhz=1600, power_w=700.0, utilisation_percent=95, slow_reasons=("sw_power_cap",)),
        Sample(at_s=1.4, sm_mhz=500, utilisation_percent=50, slow_reasons=()),
        Sample(at_s=9.0, sm_mhz=1980, utilisation_percent=100, slow_reasons=()),
    )
    assert sampler.during(samples, 0.0, 2.0) == sampler.Stretch(
        samples=2, sm_mhz=1550.0, power_w=650.0, slow_reasons=("sw_power_cap",)
    )
    assert sampler.during(samples, 3.0, 4.0) == sampler.Stretch()


def test_under_mig_every_sample_counts() -> None:
    assert sampler.during((Sample(at_s=0.0, sm_mhz=1000),), 0.0, 1.0).sm_mhz == 1000


def test_facts_of_this_machine() -> None:
    facts = host_facts()
    assert (facts.cpus or 0) >= 1
    assert isinstance(facts.is_container, bool)
    assert (facts.shm_bytes or 0) > 0
