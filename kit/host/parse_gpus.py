"""What the NVIDIA driver says as facts: nvidia-smi, /proc/driver/nvidia, its libraries. Pure, never raises."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from html import unescape

from kit.facts.host import GpuProcess, HostGpu, MigInstance, PciGpu
from kit.frozen import dataclass

# What stands where a value should be when the driver lost the GPU, or cannot be spoken with.
_FAULT = re.compile(r"GPU is lost[^<\n]*|GPU requires reset[^<\n]*|ERR!|Unknown Error", re.IGNORECASE)
# `GPU 0000:02:00.0: GPU is lost. …`, `GPU0000:CB:00.0: Unknown Error`, `GPU1: 0000:34:00.0: Unknown Error`
_NO_HANDLE = re.compile(
    r"Unable to determine the device handle for GPU ?(?:(?P<index>\d{1,3}):)? ?"
    r"(?:(?P<pci>[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]):)? ?(?P<problem>[^\n]+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Driver:
    """What the driver said when it was asked; `version` None when it gave no answer."""

    version: str | None = None
    cuda: str = ""
    problem: str = ""
    gpus: tuple[HostGpu, ...] = ()


def parse_smi(text: str) -> Driver:
    """The report of `nvidia-smi -q -x`, with what stands around it; each GPU that is there whole is taken.

    Not by an XML parser: the report of a machine with a broken GPU may be cut off, or have error lines in it.
    """
    gpus = [_gpu(found["body"], found["id"]) for found in _elements(text, "gpu")]
    numbered = [replace(gpu, index=number) for number, gpu in enumerate(gpus)]
    lost = [_without_handle(found, len(gpus)) for found in _NO_HANDLE.finditer(text)]
    head = text.partition("<gpu ")[0]
    # Since driver 610 the two are named by the parts of the driver they belong to.
    version = _value(head, "driver_version") or _value(head, "kmd_version")
    cuda = _value(head, "cuda_version") or _value(head, "cuda_umd_version")
    return Driver(
        version=_version(version) or None,
        cuda=_version(cuda),
        problem="" if gpus else _problem(text),
        gpus=tuple(numbered + lost),
    )


def _elements(text: str, name: str) -> list[re.Match[str]]:
    return list(re.finditer(rf'<{name}(?: id="(?P<id>[^"]*)")?>(?P<body>.*?)</{name}>', text, re.DOTALL))


def _body(text: str, name: str) -> str:
    found = _elements(text, name)
    return found[0]["body"] if found else ""


def _value(text: str, *path: str) -> str:
    """The text of the first element at a path; empty when it is not there, or the driver has no value for it."""
    for name in path:
        text = _body(text, name)
    text = unescape(text).strip()
    return "" if "<" in text or re.fullmatch(r"\[?(N/A|Not Supported|Not Found)\]?", text, re.IGNORECASE) else text


def _number(text: str) -> float | None:
    found = re.match(r"(\d{1,12}(?:\.\d{1,6})?)(?:\s|$)", text)
    return float(found[1]) if found else None


def _whole(text: str) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _version(text: str) -> str:
    found = re.match(r"\d+(?:\.\d+)+", text)
    return found[0] if found else ""


def pci_address(text: str) -> str:
    """`00000000:01:00.0`, as the driver writes it, in the kernel's spelling: `0000:01:00.0`."""
    found = re.fullmatch(r"(?:0000)?([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])", text.strip().lower())
    return found[1] if found else ""


def device_id(text: str) -> str:
    """The device of `268410DE`, as the driver writes device and vendor: `2684`; empty for what is not NVIDIA's."""
    found = re.fullmatch(r"(?:0x)?([0-9a-f]{4})10de", text.strip().lower())
    return found[1] if found else ""


def program_name(text: str) -> str:
    """A process without its folder and arguments; what follows the first space may be a password."""
    first = text.rpartition("\\")[2] if "\\" in text else (text.split() or [""])[0].rpartition("/")[2]
    return (first.split() or [""])[0]


def _gpu(body: str, address: str) -> HostGpu:
    outer = re.sub(r"<mig_devices>.*?</mig_devices>", "", body, flags=re.DOTALL)
    name, uuid = _value(outer, "product_name"), _value(outer, "uuid")
    fault = _FAULT.search(f"{name}\n{uuid}") or _FAULT.search(_value(outer, "fb_memory_usage", "total"))
    power = _body(outer, "gpu_power_readings") or _body(outer, "power_readings")
    draw = ("power_draw", "instant_power_draw", "average_power_draw")
    limit = ("current_power_limit", "enforced_power_limit", "power_limit")
    return HostGpu(
        name="" if _FAULT.search(name) else name,
        uuid=uuid if uuid.startswith("GPU-") else "",
        pci_address=pci_address(_value(outer, "pci", "pci_bus_id") or address or ""),
        device_id=device_id(_value(outer, "pci", "pci_device_id")),
        memory_mib=_whole(_value(outer, "fb_memory_usage", "total")),
        memory_used_mib=_whole(_value(outer, "fb_memory_usage", "used")),
        utilisation_percent=_whole(_value(outer, "utilization", "gpu_util")),
        temperature_c=_whole(_value(outer, "temperature", "gpu_temp")),
        power_draw_w=next((n for n in (_number(_value(power, key)) for key in draw) if n is not None), None),
        power_limit_w=next((n for n in (_number(_value(power, key)) for key in limit) if n is not None), None),
        power_default_w=_number(_value(power, "default_power_limit")),
        is_vgpu=_value(outer, "gpu_virtualization_mode", "virtualization_mode").upper() == "VGPU",
        is_mig_enabled=_value(outer, "mig_mode", "current_mig") == "Enabled",
        mig_instances=tuple(_mig(found["body"]) for found in _elements(_body(body, "mig_devices"), "mig_device")),
        processes=_processes(outer),
        problem=fault[0] if fault else "",
    )


def _mig(body: str) -> MigInstance:
    return MigInstance(
        uuid=_value(body, "uuid"),
        index=_whole(_value(body, "index")),
        gpu_instance=_whole(_value(body, "gpu_instance_id")),
        compute_instance=_whole(_value(body, "compute_instance_id")),
        memory_mib=_whole(_value(body, "fb_memory_usage", "total")),
        memory_used_mib=_whole(_value(body, "fb_memory_usage", "used")),
    )


def _processes(body: str) -> tuple[GpuProcess, ...] | None:
    """None when the driver does not say, as in WSL2 and on some vGPUs."""
    if re.search(r"<processes\s*/>", body):
        return ()
    listed = _elements(body, "processes")
    if not listed or (not _elements(listed[0]["body"], "process_info") and "N/A" in listed[0]["body"]):
        return None
    found: dict[int, GpuProcess] = {}
    for element in _elements(listed[0]["body"], "process_info"):
        pid = _whole(_value(element["body"], "pid"))
        if pid is not None:
            instance = _value(element["body"], "gpu_instance_id"), _value(element["body"], "compute_instance_id")
            found[pid] = GpuProcess(
                pid=pid,
                name=program_name(_value(element["body"], "process_name")),
                memory_mib=_whole(_value(element["body"], "used_memory")),
                mig_uuid="/".join(instance) if all(instance) else "",
                # `C`, `G` and `C+G`; some drivers list a process once for each.
                is_graphics=_value(element["body"], "type") == "G" and (pid not in found or found[pid].is_graphics),
            )
    return tuple(found.values())


def _without_handle(found: re.Match[str], number: int) -> HostGpu:
    index = int(found["index"]) if found["index"] else number
    return HostGpu(name="", index=index, pci_address=pci_address(found["pci"] or ""), problem=found["problem"].strip())


def _problem(text: str) -> str:
    """The first lines nvidia-smi printed instead of a report."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("<")]
    return " ".join(lines[:3])[:500]


def parse_capabilities(text: str) -> dict[str, tuple[int, str]]:
    """UUID -> index and compute capability, of `--query-gpu=index,uuid,compute_cap`; empty when it is not known."""
    found = re.findall(r"^(\d{1,3}), (GPU-[0-9a-fA-F-]+), (\d{1,2}\.\d)\s*$", text, re.MULTILINE)
    return {uuid: (int(index), capability) for index, uuid, capability in found}


def parse_list(text: str) -> dict[str, list[tuple[str, str]]]:
    """UUID of a GPU -> profile and UUID of each of its MIG instances, of `nvidia-smi -L`."""
    found: dict[str, list[tuple[str, str]]] = {}
    gpu = ""
    for line in text.splitlines():
        if match := re.match(r"GPU \d+: .*\(UUID: (GPU-[0-9a-fA-F-]+)\)", line):
            gpu = match[1]
        elif gpu and (match := re.match(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[0-9a-zA-Z/-]+)\)", line)):
            found.setdefault(gpu, []).append((match[1], match[2]))
    return found


def complete(
    gpu: HostGpu, capabilities: Mapping[str, tuple[int, str]], instances: Mapping[str, list[tuple[str, str]]]
) -> HostGpu:
    """A GPU of the report with what only the query and the list say, its processes on the MIG instance they use."""
    index, capability = capabilities.get(gpu.uuid, (gpu.index, ""))
    # Both name the instances in the order of their numbers.
    named = instances.get(gpu.uuid, [])
    migs = tuple(
        replace(mig, profile=named[n][0], uuid=mig.uuid or named[n][1]) if n < len(named) else mig
        for n, mig in enumerate(gpu.mig_instances)
    )
    uuids = {f"{mig.gpu_instance}/{mig.compute_instance}": mig.uuid for mig in migs}
    processes = gpu.processes and tuple(replace(p, mig_uuid=uuids.get(p.mig_uuid, "")) for p in gpu.processes)
    return replace(gpu, index=index, compute_capability=capability, mig_instances=migs, processes=processes)


def parse_module_version(text: str) -> str:
    """The driver in the first line of /proc/driver/nvidia/version, of either kernel module; empty for none."""
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", text)
    return found[1] if found else ""


def parse_library_version(text: str) -> str:
    """The driver version in the real names of its libraries, libnvidia-ml first: libcuda may be that of cuda-compat."""
    # A driver's version has three digits before its first dot: the stubs of Jetson and WSL2 are `.so.1.1`.
    found = re.findall(r"/(libnvidia-ml|libcuda)\.so\.(\d{3}(?:\.\d+)+)$", text, re.MULTILINE)
    return next((version for _, version in sorted(found, key=lambda row: row[0] == "libcuda")), "")


def parse_pci(text: str) -> tuple[PciGpu, ...]:
    """Lines `ADDRESS DEVICE [DRIVER]`."""
    found = re.findall(r"^([0-9a-f:]+\.[0-9a-f]) ([0-9a-f]{4}) ?(\S*)\s*$", text, re.MULTILINE)
    return tuple(PciGpu(address=address, device_id=device, driver=driver) for address, device, driver in found)
