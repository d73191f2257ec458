"""Checks of the NVIDIA driver and the GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kit.catalog.names import ImageRequest
from kit.catalog.rows import SHORT_NAMES, version_key
from kit.decide.compat import (
    capability_of,
    driver_objection,
    first_driver,
    is_older,
    is_too_new,
    judge,
    modules_for,
    or_newer,
    resolve,
    with_pci_gpus,
)
from kit.decide.doctor import fixes
from kit.decide.doctor.report import Finding, HostReport, Severity, block, finding, joined, note, warn
from kit.facts.host import VM_DRIVER, GpuProcess, Host, HostGpu

# A desktop session holds some hundred MiB; from this share on a training run is likely not to fit.
BUSY_SHARE = 0.25
# The driver rounds limits; a watt is no setting of anybody's.
POWER_SLACK_W = 1.0


def gpu_missing(report: HostReport) -> Iterator[Finding]:
    """No NVIDIA GPU at all: everything works, on the CPU."""
    host = report.host
    if not (report.has_gpu or host.pci_gpus or host.has_nouveau or host.is_wsl or host.driver is None):
        yield note(
            "no NVIDIA GPU on this machine: images run on the CPU",
            "take a CPU image, which is smaller (`kit list` shows them), or a machine with a GPU: `--host USER@SERVER`",
        )


def driver_missing(report: HostReport) -> Iterator[Finding]:
    """A GPU on the PCI bus, and no NVIDIA driver for it."""
    host = report.host
    # What nouveau drives is that check's; None means that nobody could say.
    if host.driver != "" or not host.pci_gpus or host.gpus or host.has_nouveau or host.is_wsl or _is_mismatch(host):
        return
    where = joined([gpu.address for gpu in host.pci_gpus])
    if all(gpu.driver == VM_DRIVER for gpu in host.pci_gpus):
        yield warn(
            f"the NVIDIA GPU at {where} is bound to {VM_DRIVER}, that is, kept for virtual machines",
            "run kit in the virtual machine that has the GPU, or take it out of its list and reboot",
        )
    elif _unfit(report):
        return  # why it could not be loaded
    elif host.driver_library:
        yield block(
            f"there is an NVIDIA GPU at {where}, and driver {host.driver_library} is installed but not loaded",
            "`sudo modprobe nvidia`; if it fails, `sudo dmesg | tail` says why (no module for this kernel, Secure "
            "Boot)",
        )
    else:
        names = joined([gpu.name for gpu in with_pci_gpus(report.catalog, host).gpus if gpu.name])
        which = f"an NVIDIA GPU ({names})" if names else "an NVIDIA GPU"
        yield block(
            f"there is {which} at {where}, but no NVIDIA driver", fixes.install_driver(host, report.driver_need)
        )


def driver_mismatch(report: HostReport) -> Iterator[Finding]:
    """The loaded module and the library on disk differ, as they do after an upgrade until the machine is restarted."""
    host = report.host
    if _is_mismatch(host):
        library = f"library {host.driver_library}" if host.driver_library else "the library on disk"
        module = f"module {host.driver}" if host.driver else "module"
        yield block(
            f"driver/library version mismatch after an upgrade: the loaded {module} is not {library}",
            "`sudo reboot` (or, with nothing on the GPU, `sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia`)",
        )


def nouveau(report: HostReport) -> Iterator[Finding]:
    """The open nouveau driver holds the GPU; CUDA needs NVIDIA's."""
    host = report.host
    if host.has_nouveau and not (host.driver or host.is_wsl or _is_mismatch(host)):
        yield block(
            "the nouveau driver is loaded; CUDA works with NVIDIA's own driver only",
            fixes.disable_nouveau(host) if host.driver_library else fixes.install_driver(host, report.driver_need),
        )


def wsl_library(report: HostReport) -> Iterator[Finding]:
    """WSL2 without the driver's library that Windows lends it."""
    host = report.host
    if host.is_wsl and not host.gpus and host.driver == "":
        yield warn(
            "WSL2 has no /usr/lib/wsl/lib/libcuda.so.1: Windows shares no NVIDIA GPU, so images run on the CPU",
            fixes.install_driver(host, report.driver_need),
        )


def wsl_driver(report: HostReport) -> Iterator[Finding]:
    """A Linux driver inside WSL2 hides the library that Windows lends it."""
    if report.host.is_wsl and report.host.has_linux_driver_in_wsl:
        yield block(
            "a Linux NVIDIA driver is installed inside WSL2, where the one of Windows must be used",
            f"{fixes.remove_driver(report.host)}, then `wsl --shutdown` in Windows",
        )


def driver_new(report: HostReport) -> Iterator[Finding]:
    """A driver that does not know the GPU any more: each architecture has a last branch."""
    host = report.host
    for gpu, capability, objection in _unfit(report):
        if is_too_new(report.catalog, capability, report.driver):
            yield finding(
                _severity(report), f"{_where(gpu)}: {objection}", fixes.install_driver(host, report.driver_need)
            )


def driver_modules(report: HostReport) -> Iterator[Finding]:
    """The other flavor of the kernel modules than the GPU takes: nvidia-smi says `No devices were found`."""
    host = report.host
    for gpu, capability, objection in _unfit(report):
        wanted = modules_for(report.catalog, capability)
        if host.driver_modules and wanted and wanted != host.driver_modules and "kernel modules" in objection:
            yield finding(
                _severity(report), f"{_where(gpu)}: {objection}", fixes.install_driver(host, report.driver_need)
            )


def driver_old(report: HostReport) -> Iterator[Finding]:
    """The driver is too old for a GPU, for every image, or for the newest."""
    host, unfit = report.host, _unfit(report)
    for gpu, capability, _ in unfit:
        if gpu in report.unlisted_gpus and _is_before_first(report, capability):
            first = first_driver(report.catalog, capability)
            yield finding(
                _severity(report),
                f"driver {report.driver} is too old for {_where(gpu)}, which takes {first} or newer",
                f"install driver {first} or newer: {fixes.install_driver(host, report.driver_need)}",
            )
    if any(not _is_before_first(report, capability) for _, capability, _ in unfit):
        return
    host = _with_usable_gpus(report)
    if not host.driver or not host.gpus:
        return
    need = report.driver_need
    if not _runs_something(report, host) and _runs_something(report, replace(host, driver=None)):
        needed = _oldest_that_helps(report, host)
        fix = fixes.install_driver(host, replace(need, first=needed or need.first))
        yield block(
            f"driver {host.driver} is too old for every GPU image"
            + (f": the first that works needs {needed}" if needed else ""),
            f"install driver {or_newer(report.catalog, host, needed)}: {fix}" if needed else fix,
        )
        return
    for framework in SHORT_NAMES:
        present = resolve(ImageRequest(framework=framework), report.catalog, host)
        possible = resolve(ImageRequest(framework=framework), report.catalog, replace(host, driver=None))
        if not present.image or not possible.image:
            continue
        floor = report.catalog.min_driver(possible.image)
        if present.image == possible.image or not is_older(host.driver, floor):
            continue
        if not judge(report.catalog, possible.image, replace(host, driver=floor)).refusals:
            newer = or_newer(report.catalog, host, floor)
            yield note(
                f"driver {host.driver} runs `{present.image.name}`; driver {newer} would run "
                f"`{possible.image.name}` too",
                f"nothing, unless you need it; then install driver {newer}: "
                f"{fixes.install_driver(host, replace(need, first=floor))}",
            )


def _unfit(report: HostReport) -> list[tuple[HostGpu, str, str]]:
    """GPUs that the driver does not work with, their compute capability and why; shown by it or not."""
    host, catalog, version = report.host, report.catalog, report.driver
    known = [(gpu, capability_of(catalog, gpu)) for gpu in (*report.usable_gpus, *report.unlisted_gpus)]
    return [
        (gpu, capability, objection)
        for gpu, capability in known
        if capability and version and (objection := driver_objection(catalog, capability, version, host.driver_modules))
    ]


def _is_before_first(report: HostReport, capability: str) -> bool:
    first = first_driver(report.catalog, capability)
    return bool(report.driver and first) and version_key(report.driver)[0] < version_key(first)[0]


def _severity(report: HostReport) -> Severity:
    """How bad it is that a GPU does not work: other GPUs may."""
    unfit = [one for one, _, _ in _unfit(report)]
    return "warn" if any(other not in unfit for other in report.usable_gpus) else "block"


def _where(gpu: HostGpu) -> str:
    name = gpu.name or "an NVIDIA GPU"
    return f"{name} at {gpu.pci_address}" if gpu.pci_address else name


def gpu_unsupported(report: HostReport) -> Iterator[Finding]:
    """A GPU that no image has code for, whatever the driver; or GPUs that no image has code for together."""
    host, catalog = report.host, report.catalog
    strangers = [
        gpu for gpu in report.usable_gpus if not _runs_something(report, replace(host, gpus=(gpu,), driver=None))
    ]
    if not strangers and not _runs_something(report, replace(_with_usable_gpus(report), driver=None)):
        kinds = {capability_of(catalog, gpu): gpu for gpu in reversed(report.usable_gpus)}
        if len(kinds) > 1:
            yield warn(
                f"no image has code for all the GPUs at once ({joined(sorted(kinds))}), only for each kind",
                f"use GPUs of one kind alone, such as `--gpus device={min(gpu.index for gpu in kinds.values())}`",
            )
    names = joined([f"GPU {g.index}, {g.name} ({capability_of(catalog, g) or 'unknown'})" for g in strangers])
    others = ",".join(str(gpu.index) for gpu in report.usable_gpus if gpu not in strangers)
    if strangers and others:
        yield warn(f"no image has code for {names}", f"leave it out: `--gpus device={others}`")
    elif strangers:
        yield block(
            f"no image has code for {names}",
            "run on the CPU: `--gpus none`; `kit resolve --explain` says what each image lacks",
        )


def gpu_lost(report: HostReport) -> Iterator[Finding]:
    """A GPU that the driver reports an error for, or a driver that answers nothing."""
    host = report.host
    for gpu in host.gpus:
        if gpu.problem:
            yield finding(
                "warn" if report.usable_gpus else "block",
                f"GPU {gpu.index}{f', {gpu.name}' if gpu.name else ''}: the driver says: {gpu.problem}",
                "`sudo reboot`; if it comes back, `sudo dmesg | grep Xid` says what the card reports",
            )
    if host.driver and host.driver_problem and not host.gpus and not _is_mismatch(host) and not _unfit(report):
        yield block(
            f"driver {host.driver} is loaded, but nvidia-smi says: {host.driver_problem}",
            "`wsl --shutdown` in Windows"
            if host.is_wsl
            else "`sudo reboot`; if it comes back, see `sudo dmesg | grep NVRM`",
        )


def mig_empty(report: HostReport) -> Iterator[Finding]:
    """MIG is on and nobody made an instance: the GPU cannot be used."""
    empty = [gpu for gpu in report.usable_gpus if gpu.is_mig_enabled and not gpu.mig_instances]
    for gpu in empty:
        yield finding(
            "block" if len(empty) == len(report.usable_gpus) else "warn",
            f"GPU {gpu.index}, {gpu.name}: MIG is on, but there is no MIG instance",
            f"turn MIG off: `sudo nvidia-smi -i {gpu.index} -mig 0` (or create instances: `nvidia-smi mig -lgip`)",
        )


def gpu_busy(report: HostReport) -> Iterator[Finding]:
    """Memory of a GPU that others hold."""
    busy = [gpu for gpu in report.usable_gpus if _is_busy(gpu)]
    free = ",".join(str(gpu.index) for gpu in report.usable_gpus if gpu not in busy)
    for gpu in busy:
        holders = joined([_holder(process) for process in gpu.processes or ()])
        said = f"GPU {gpu.index}, {gpu.name}: {gpu.memory_used_mib} of {gpu.memory_mib} MiB are in use"
        said += f" by {holders}" if holders else ""
        if free:
            yield note(said, f"take a free one: `--gpus device={free}`")
        else:
            yield warn(said, "wait, or ask who runs it: `kit gpus` shows everyone")


def power_limit(report: HostReport) -> Iterator[Finding]:
    """A power limit below the default: everything works, slower."""
    for gpu in report.usable_gpus:
        limit, default = gpu.power_limit_w, gpu.power_default_w
        if limit is not None and default is not None and limit < default - POWER_SLACK_W:
            yield note(
                f"GPU {gpu.index}, {gpu.name}: the power limit is {limit:g} W, {default:g} W by default",
                f"if nobody set it on purpose: `sudo nvidia-smi -i {gpu.index} -pl {default:g}`",
            )


def _holder(process: GpuProcess) -> str:
    inside = f"container {process.container}" if process.container else ""
    return f"{process.name} ({', '.join(filter(None, (f'PID {process.pid}', process.user, inside)))})"


def _is_busy(gpu: HostGpu) -> bool:
    # With MIG each instance has memory of its own.
    if gpu.is_mig_enabled or gpu.memory_mib is None or gpu.memory_used_mib is None:
        return False
    return gpu.memory_used_mib > BUSY_SHARE * gpu.memory_mib


def _with_usable_gpus(report: HostReport) -> Host:
    return replace(report.host, gpus=report.usable_gpus)


def _is_mismatch(host: Host) -> bool:
    if host.is_wsl:
        return False  # the driver's version is Windows', its libraries' another
    differ = bool(host.driver and host.driver_library and host.driver != host.driver_library)
    return differ or "version mismatch" in host.driver_problem.lower()


def _runs_something(report: HostReport, host: Host) -> bool:
    """True when a GPU image that can be built works on all the GPUs of the host."""
    catalog = report.catalog
    return any(
        image.is_gpu and not catalog.unlocked_reason(image) and not judge(catalog, image, host).refusals
        for image in catalog.images()
        if not image.flavor
    )


def _oldest_that_helps(report: HostReport, host: Host) -> str:
    """The oldest driver with which some image works; empty when none in the catalog does."""
    known = {d for row in report.catalog.toolkits for d in (row.min_driver, *(d for _, d in row.drivers)) if d}
    for driver in sorted(known, key=version_key):
        if _runs_something(report, replace(host, driver=driver)):
            return driver
    return ""
