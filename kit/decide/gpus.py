"""Who uses which GPU, and which ones a container may have to itself; pure decisions over the facts of a machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from kit.errors import GpuUnavailableError
from kit.frozen import dataclass

if TYPE_CHECKING:
    from kit.facts.host import GpuContainer, GpuProcess, Host, HostGpu, MigInstance
    from kit.spec.gpu_request import GpuRequest

UnitState = Literal["free", "in use", "leased", "faulty"]

# A container that has ended holds no lease, whatever its restart policy: after a crash the engine goes from running
# to restarting at once, and one that was stopped gives its GPU back. When the engine does start an ended one again
# (a reboot, `docker start`), its lease counts again, beside another that was made in between.
HOLDING = ("created", "running", "paused", "restarting")
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What a container can be given: a whole GPU, or one of its instances where MIG is on."""

    gpu: HostGpu
    instance: MigInstance | None = None
    processes: tuple[GpuProcess, ...] | None = ()  # None: the driver does not say
    containers: tuple[GpuContainer, ...] = ()  # of kit's, that were given it
    leases: tuple[GpuContainer, ...] = ()  # those of them that it belongs to alone

    @property
    def uuid(self) -> str:
        return self.instance.uuid if self.instance else self.gpu.uuid

    @property
    def index(self) -> str:
        """As CDI and nvidia-smi number it: `0`, of an instance `0:1`; empty when its number is not known."""
        if not self.instance:
            return str(self.gpu.index)
        return "" if self.instance.index is None else f"{self.gpu.index}:{self.instance.index}"

    @property
    def label(self) -> str:
        """Its name in a sentence."""
        if not self.instance:
            return f"GPU {self.gpu.index}"
        return f"GPU {self.index or self.uuid}" + (f" ({self.instance.profile})" if self.instance.profile else "")

    @property
    def memory_used_mib(self) -> int | None:
        return self.instance.memory_used_mib if self.instance else self.gpu.memory_used_mib

    @property
    def computing(self) -> tuple[GpuProcess, ...]:
        """Its processes without those that only draw: many machines have a display server on every GPU."""
        return tuple(process for process in self.processes or () if not process.is_graphics)

    @property
    def state(self) -> UnitState:
        if self.gpu.problem:
            return "faulty"
        if self.leases:
            return "leased"
        return "in use" if self.computing else "free"


def units(host: Host, containers: Iterable[GpuContainer] | None = None) -> tuple[Unit, ...]:
    """What there is to give on a host, in its order, with who uses each; `containers` instead of the host's own.

    A GPU with MIG on counts as its instances alone. A process of which it is not known on which instance it is counts
    for every instance of its GPU.
    """
    present = tuple(c for c in (host.containers if containers is None else containers) if c.status in HOLDING)
    found = []
    for gpu in host.gpus:
        for instance in gpu.mig_instances if gpu.is_mig_enabled else (None,):
            unit = Unit(gpu=gpu, instance=instance)
            processes = gpu.processes
            if instance and processes is not None:
                processes = tuple(p for p in processes if p.mig_uuid in ("", instance.uuid))
            given = tuple(c for c in present if _leases(c, unit) or any(_names(d, unit) for d in c.devices))
            leases = tuple(c for c in given if _leases(c, unit))
            found.append(replace(unit, processes=processes, containers=given, leases=leases))
    return tuple(found)


def _leases(container: GpuContainer, unit: Unit) -> bool:
    return unit.uuid in container.lease or unit.gpu.uuid in container.lease


def _names(device: str, unit: Unit) -> bool:
    """Whether a device, as an engine or CUDA_VISIBLE_DEVICES names it, is this unit or has it as a part."""
    name = device.rpartition("=")[2]
    if name == "all" or name == unit.index or name == str(unit.gpu.index):
        return True
    # CUDA takes the start of a UUID for the whole when only one GPU begins so.
    return name.startswith(("GPU-", "MIG-")) and (unit.uuid.startswith(name) or unit.gpu.uuid.startswith(name))


def named(found: Sequence[Unit], names: Iterable[str]) -> tuple[Unit, ...]:
    """The units that these indexes and UUIDs (`all` for each) stand for, in the order of the names."""
    return tuple(dict.fromkeys(unit for name in names for unit in found if _names(name, unit)))


def visible(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves visible, () for none; None when it is not set.

    Schedulers tell a job its GPUs by it. CUDA reads it up to the first word that is no device (CUDA C++ Programming
    Guide, "CUDA Environment Variables"); `NoDevFiles` is Slurm's own word for none.
    """
    if (value := environment.get(VISIBLE)) is None:
        return None
    found: list[str] = []
    for name in (word.strip() for word in value.split(",")):
        if not re.fullmatch(r"[0-9]+|(GPU|MIG)-[0-9a-zA-Z/-]+", name):
            break
        found.append(name)
    return tuple(dict.fromkeys(found))


def choose(found: Sequence[Unit], request: GpuRequest) -> tuple[Unit, ...]:
    """The units for `free` (the emptiest without a lease) or a number of GPUs (each without lease and processes).

    Fewest processes first, then least memory in use, then the lowest index; processes that only draw do not count.
    Raises GpuUnavailableError, with who uses each, when there are not as many.
    """
    count = request.count if request.kind == "count" else 1
    if not found:
        raise GpuUnavailableError(
            f"--gpus {request.text} was asked for, but there is no NVIDIA GPU to choose from",
            hint="`kit doctor` says what the machine has; --gpus none runs on the CPU",
        )
    wanted: tuple[UnitState, ...] = ("free", "in use") if request.kind == "free" else ("free",)
    usable = sorted((unit for unit in found if unit.state in wanted), key=_emptiness)
    if len(usable) >= count:
        return tuple(usable[:count])
    if len(found) < count:
        raise GpuUnavailableError(
            f"--gpus {request.text}: there {'are' if len(found) > 1 else 'is'} only {len(found)} to choose from",
            details=tuple(f"{unit.label}: {who(unit)}" for unit in found),
            hint=f"--gpus {request.text} is how many to take; --gpus device={request.text} names one",
        )
    raise GpuUnavailableError(
        f"--gpus {request.text}: {len(usable) or 'none'} of {len(found)} GPUs {'are' if len(usable) > 1 else 'is'} "
        + ("free of leases" if request.kind == "free" else "free"),
        details=tuple(f"{unit.label}: {who(unit)}" for unit in found if unit not in usable),
        hint="`kit gpus` shows who uses them; name one to share it all the same: --gpus device=0",
    )


def _emptiness(unit: Unit) -> tuple[int, bool, int, int, int, str]:
    used = unit.memory_used_mib
    # What is not known sorts after what is known to be as good.
    instance = -1 if unit.instance is None or unit.instance.index is None else unit.instance.index
    return len(unit.computing), used is None, used or 0, unit.gpu.index, instance, unit.uuid


def who(unit: Unit) -> str:
    """Who uses a unit, in one line: leases first, then processes."""
    if unit.gpu.problem:
        return f"the driver reports: {unit.gpu.problem}"
    parts = [f"leased by {describe_container(container)}" for container in unit.leases]
    parts += [describe_process(process) for process in unit.computing]
    return "; ".join(parts) or ("free" if unit.processes is not None else "no lease; its processes are not known")


def describe_container(container: GpuContainer) -> str:
    """A container by its name, and whose it is."""
    return container.name + (f" (user {container.user})" if container.user else "")


def describe_process(process: GpuProcess) -> str:
    """A process by its program, number, owner and memory."""
    parts = [f"pid {process.pid}"]
    if process.user:
        parts.append(f"user {process.user}")
    if process.memory_mib is not None:
        parts.append(f"{process.memory_mib} MiB")
    if process.container:
        parts.append(f"in {process.container}")
    return f"{process.name} ({', '.join(parts)})"


def choice_note(chosen: Sequence[Unit]) -> str:
    """A line that says what was chosen and, where it is in use all the same, by whom."""
    lines = [f"{', '.join(f'{unit.label} ({unit.gpu.name})' for unit in chosen)}: leased to this container"]
    for unit in chosen:
        if unit.processes is None:
            lines.append(f"{unit.label}: the driver does not say whether other processes use it")
        elif unit.computing:
            lines.append(f"{unit.label} is the emptiest, but in use: {who(unit)}")
    return "\n".join(lines)


def lease_warning(leases: Iterable[GpuContainer]) -> str:
    """A line for a container that shares GPUs which others hold; empty when nobody does."""
    holders = ", ".join(describe_container(container) for container in dict.fromkeys(leases))
    return f"warning: shares GPUs that are leased to {holders}" if holders else ""


def with_user_names(containers: Iterable[GpuContainer], look_up: Callable[[int], str]) -> tuple[GpuContainer, ...]:
    """Containers with their user's name in the place of `UID:GID`, where `look_up` knows one (else it returns "")."""
    found = []
    for container in containers:
        uid = container.user.partition(":")[0]
        name = look_up(int(uid)) if uid.isascii() and uid.isdecimal() else ""
        found.append(replace(container, user=name or container.user))
    return tuple(found)


def require_answer(host: Host) -> None:
    """Raises GpuUnavailableError when the machine has an NVIDIA GPU, or may have one, and its driver says nothing."""
    if host.gpus:
        return
    where = host.target or "this host"
    hint = f"`kit doctor{f' --host {host.target}' if host.target else ''}` says what is wrong and how to mend it"
    if host.driver_problem:
        lines = tuple(host.driver_problem.strip().splitlines())
        raise GpuUnavailableError(f"the NVIDIA driver of {where} does not answer", details=lines, hint=hint)
    if host.pci_gpus:
        addresses = ", ".join(gpu.address for gpu in host.pci_gpus)
        raise GpuUnavailableError(f"{where} has an NVIDIA GPU ({addresses}), but no driver that answers", hint=hint)
    if host.driver is None:
        raise GpuUnavailableError(f"the GPUs of {where} could not be read", details=host.unread, hint=hint)
