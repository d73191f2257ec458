"""NVML through a stand-in with recorded answers, and the real pynvml on a machine that has no driver."""

from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

import kit.host
from kit.facts.host import GpuProcess, HostGpu, MigInstance
from kit.host import host_has_gpu
from kit.host.nvml import read_nvml

GIB = 2**30


class Nvml:
    """The functions of pynvml that kit calls. `gpus` and `migs`: attributes by handle; a missing one is unknown."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, *gpus, migs=(), driver="580.95.05", cuda=13000, error=None):
        self.gpus, self.migs, self.driver, self.cuda, self.error = gpus, migs, driver, cuda, error
        self.is_open = False

    def nvmlInit(self):  # noqa: N802
        if self.error:
            raise self.NVMLError(self.error)
        self.is_open = True

    def nvmlShutdown(self):  # noqa: N802
        self.is_open = False

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return self.driver

    def nvmlSystemGetCudaDriverVersion(self):  # noqa: N802
        return self.cuda

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        if isinstance(self.gpus[index], str):
            raise self.NVMLError(self.gpus[index])
        return self.gpus[index]

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, index):  # noqa: N802
        if index >= len(self.migs) or self.migs[index] is None:
            raise self.NVMLError("Not Found")
        return self.migs[index]

    def nvmlSystemGetProcessName(self, pid):  # noqa: N802
        return {116860: "/root/src/llama.cpp/build/bin/llama-server --api-key secret"}[pid]

    def __getattr__(self, name):
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)

        def answer(handle, *args, **options):
            assert self.is_open
            if name not in handle:
                raise self.NVMLError("Not Supported")
            return handle[name]

        return answer


def gpu(**more):
    """An RTX PRO 6000 as its nvidia-smi report has it (data/host/smi-blackwell-590.xml)."""
    return {
        "nvmlDeviceGetName": "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        "nvmlDeviceGetUUID": b"GPU-12345678-aaaa-bbbb-cccc-0123456789ab",
        "nvmlDeviceGetPciInfo": SimpleNamespace(busId="00000000:61:00.0", pciDeviceId=0x2BB410DE),
        "nvmlDeviceGetCudaComputeCapability": (12, 0),
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=97887 * 2**20, used=65720 * 2**20),
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=0, memory=0),
        "nvmlDeviceGetTemperature": 24,
        "nvmlDeviceGetPowerUsage": 3990,
        "nvmlDeviceGetPowerManagementLimit": 300000,
        "nvmlDeviceGetPowerManagementDefaultLimit": 300000,
        "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=116860, usedGpuMemory=65710 * 2**20)],
        "nvmlDeviceGetGraphicsRunningProcesses": [],
        **more,
    }


def test_everything_of_a_gpu():
    nvml = Nvml(gpu(), driver="590.44.01", cuda=13010)
    driver = read_nvml(nvml, with_use=True)
    assert (driver.version, driver.cuda, nvml.is_open) == ("590.44.01", "13.1", False)
    assert driver.gpus == (
        HostGpu(
            name="NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
            compute_capability="12.0",
            uuid="GPU-12345678-aaaa-bbbb-cccc-0123456789ab",
            pci_address="0000:61:00.0",
            device_id="2bb4",
            memory_mib=97887,
            memory_used_mib=65720,
            utilisation_percent=0,
            temperature_c=24,
            power_draw_w=3.99,
            power_limit_w=300.0,
            power_default_w=300.0,
            processes=(GpuProcess(pid=116860, name="llama-server", memory_mib=65710),),
        ),
    )


def test_without_its_use():
    (found,) = read_nvml(Nvml(gpu())).gpus
    assert (found.memory_mib, found.memory_used_mib, found.utilisation_percent, found.processes) == (
        97887,
        None,
        None,
        None,
    )


def test_the_driver_says_the_same_as_nvidia_smi():
    from kit.host.parse_gpus import complete, parse_smi

    report = (Path(__file__).parent / "data/host/smi-blackwell-590.xml").read_text()
    by_smi = complete(parse_smi(report).gpus[0], {"GPU-12345678-aaaa-bbbb-cccc-0123456789ab": (0, "12.0")}, {})
    assert read_nvml(Nvml(gpu()), with_use=True).gpus == (by_smi,)


def test_mig_instances_and_gaps_between_them():
    migs = [
        {
            "nvmlDeviceGetUUID": "MIG-a686709d-6dc2-542a-8851-0d2508448c10",
            "nvmlDeviceGetName": "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
            "nvmlDeviceGetGpuInstanceId": 9,
            "nvmlDeviceGetComputeInstanceId": 0,
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=10 * GIB, used=GIB),
        },
        None,
        {"nvmlDeviceGetUUID": "MIG-53864714-0a66-5df2-9007-9268e30d9a72"},
    ]
    process = SimpleNamespace(pid=116860, usedGpuMemory=None, gpuInstanceId=9, computeInstanceId=0)
    handle = gpu(
        nvmlDeviceGetMigMode=[1, 1],
        nvmlDeviceGetMaxMigDeviceCount=7,
        nvmlDeviceGetComputeRunningProcesses=[process],
    )
    (found,) = read_nvml(Nvml(handle, migs=migs), with_use=True).gpus
    assert found.is_mig_enabled
    assert found.mig_instances == (
        MigInstance(
            uuid="MIG-a686709d-6dc2-542a-8851-0d2508448c10",
            profile="1g.10gb",
            index=0,
            gpu_instance=9,
            compute_instance=0,
            memory_mib=10240,
            memory_used_mib=1024,
        ),
        MigInstance(uuid="MIG-53864714-0a66-5df2-9007-9268e30d9a72", index=2),
    )
    assert found.processes == (
        GpuProcess(pid=116860, name="llama-server", mig_uuid="MIG-a686709d-6dc2-542a-8851-0d2508448c10"),
    )


def test_processes_that_only_draw():
    def listed(*pids):
        return [SimpleNamespace(pid=pid, usedGpuMemory=0) for pid in pids]

    handle = gpu(nvmlDeviceGetComputeRunningProcesses=listed(1, 2), nvmlDeviceGetGraphicsRunningProcesses=listed(2, 3))
    nvml = Nvml(handle)
    nvml.nvmlSystemGetProcessName = lambda pid: f"/usr/bin/program{pid}"
    (found,) = read_nvml(nvml, with_use=True).gpus
    assert {(p.name, p.is_graphics) for p in found.processes} == {
        ("program1", False),
        ("program2", False),
        ("program3", True),
    }


def test_a_lost_gpu_beside_one_that_answers():
    driver = read_nvml(Nvml(gpu(), "GPU is lost"))
    assert [(g.index, g.name != "", g.problem) for g in driver.gpus] == [(0, True, ""), (1, False, "GPU is lost")]


def test_a_gpu_that_knows_its_name_only():
    (found,) = read_nvml(Nvml({"nvmlDeviceGetName": b"Tesla K40c"}), with_use=True).gpus
    assert found == HostGpu(name="Tesla K40c")


def test_the_newer_way_to_ask_for_memory_is_taken_where_there_is_one():
    nvml = Nvml(gpu())
    nvml.nvmlMemory_v2 = 33554472
    asked = []

    def memory(handle, version=None):
        asked.append(version)
        if version:
            raise nvml.NVMLError("Function Not Found")
        return SimpleNamespace(total=GIB, used=0)

    nvml.nvmlDeviceGetMemoryInfo = memory
    assert read_nvml(nvml).gpus[0].memory_mib == 1024
    assert asked == [33554472, None]


@pytest.mark.parametrize("error", ["Driver/library version mismatch", "NVML Shared Library Not Found"])
def test_a_driver_that_does_not_answer(error):
    assert read_nvml(Nvml(error=error)) is None


def test_no_cuda_version():
    assert read_nvml(Nvml(cuda=None)).cuda == ""


@pytest.mark.skipif(host_has_gpu(), reason="this machine has a driver")
def test_the_real_library_without_a_driver():
    assert read_nvml(pynvml) is None
    assert kit.host.read_gpus().driver == ""
