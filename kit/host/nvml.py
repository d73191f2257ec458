"""The driver asked in process, through NVML: starts no program, as `kit run` must not before every container."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kit.facts.host import GpuProcess, HostGpu, MigInstance
from kit.host.parse_gpus import Driver, device_id, pci_address, program_name

# NVML's number for "on no MIG instance".
_NO_INSTANCE = 0xFFFFFFFF
# NVML_GPU_VIRTUALIZATION_MODE_VGPU: this machine is the guest.
_VGPU = 2


def read_nvml(nvml: Any, *, with_use: bool = False) -> Driver | None:
    """What the driver says through `nvml` (the module pynvml); None when it gives no answer that way.

    What one GPU does not know, or a driver is too old for, is unknown there; a GPU the driver lost has its words.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        version = _ask(nvml, nvml.nvmlSystemGetDriverVersion)
        cuda = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion)
        count = _ask(nvml, nvml.nvmlDeviceGetCount)
        if version is None or count is None:
            return None
        return Driver(
            version=_text(version),
            # 12080 is 12.8
            cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
            gpus=tuple(_gpu(nvml, index, with_use) for index in range(count)),
        )
    finally:
        _ask(nvml, nvml.nvmlShutdown)


def _ask(nvml: Any, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The answer, or None when there is none: not supported, no right to ask, unknown to this driver."""
    try:
        return function(*args, **options)
    except nvml.NVMLError:
        return None


def _text(value: Any) -> str:
    # Older versions of pynvml answer bytes.
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def _mib(value: Any) -> int | None:
    return value // 2**20 if isinstance(value, int) else None


def _watts(milliwatts: Any) -> float | None:
    return milliwatts / 1000 if isinstance(milliwatts, int) else None


def _gpu(nvml: Any, index: int, with_use: bool) -> HostGpu:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = _text(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError as e:
        return HostGpu(name="", index=index, problem=_text(e))
    capability = _ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    pci = _ask(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    memory = _memory(nvml, handle)
    mode = _ask(nvml, nvml.nvmlDeviceGetMigMode, handle)
    instances = _instances(nvml, handle) if mode and mode[0] else ()
    mode_of = getattr(nvml, "nvmlDeviceGetVirtualizationMode", None)  # older versions of pynvml do not have it
    gpu = HostGpu(
        name=name,
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else "",
        index=index,
        uuid=_text(_ask(nvml, nvml.nvmlDeviceGetUUID, handle)),
        pci_address=pci_address(_text(pci.busId)) if pci else "",
        device_id=device_id(f"{getattr(pci, 'pciDeviceId', 0):08x}") if pci else "",
        memory_mib=_mib(memory.total) if memory else None,
        is_vgpu=mode_of is not None and _ask(nvml, mode_of, handle) == _VGPU,
        is_mig_enabled=bool(mode and mode[0]),
        mig_instances=instances,
    )
    if not with_use:
        return gpu
    rates = _ask(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    return replace(
        gpu,
        memory_used_mib=_mib(memory.used) if memory else None,
        utilisation_percent=rates.gpu if rates else None,
        temperature_c=_ask(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        power_draw_w=_watts(_ask(nvml, nvml.nvmlDeviceGetPowerUsage, handle)),
        power_limit_w=_watts(_ask(nvml, nvml.nvmlDeviceGetPowerManagementLimit, handle)),
        power_default_w=_watts(_ask(nvml, nvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)),
        processes=_processes(nvml, handle, instances),
    )


def _memory(nvml: Any, handle: Any) -> Any:
    # The first version counts the driver's own reserve as used; nvidia-smi does not.
    second = getattr(nvml, "nvmlMemory_v2", None)
    found = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle, version=second) if second else None
    return found or _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)


def _instances(nvml: Any, handle: Any) -> tuple[MigInstance, ...]:
    found = []
    for number in range(_ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        mig = _ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if mig is None:
            continue  # the numbers have gaps
        memory = _memory(nvml, mig)
        found.append(
            MigInstance(
                uuid=_text(_ask(nvml, nvml.nvmlDeviceGetUUID, mig)),
                # `NVIDIA A100-SXM4-40GB MIG 1g.5gb`
                profile=_text(_ask(nvml, nvml.nvmlDeviceGetName, mig)).rpartition(" MIG ")[2],
                index=number,
                gpu_instance=_ask(nvml, nvml.nvmlDeviceGetGpuInstanceId, mig),
                compute_instance=_ask(nvml, nvml.nvmlDeviceGetComputeInstanceId, mig),
                memory_mib=_mib(memory.total) if memory else None,
                memory_used_mib=_mib(memory.used) if memory else None,
            )
        )
    return tuple(found)


def _processes(nvml: Any, handle: Any, instances: tuple[MigInstance, ...]) -> tuple[GpuProcess, ...] | None:
    computing = _ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    drawing = _ask(nvml, nvml.nvmlDeviceGetGraphicsRunningProcesses, handle)
    if computing is None and drawing is None:
        return None
    uuids = {(mig.gpu_instance, mig.compute_instance): mig.uuid for mig in instances}
    found: dict[int, GpuProcess] = {}
    for raw in [*(drawing or ()), *(computing or ())]:
        on = getattr(raw, "gpuInstanceId", _NO_INSTANCE), getattr(raw, "computeInstanceId", _NO_INSTANCE)
        found[raw.pid] = GpuProcess(
            pid=raw.pid,
            name=program_name(_text(_ask(nvml, nvml.nvmlSystemGetProcessName, raw.pid))),
            memory_mib=_mib(raw.usedGpuMemory),
            mig_uuid=uuids.get(on, ""),
            is_graphics=all(raw.pid != process.pid for process in computing or ()),
        )
    return tuple(found.values())
