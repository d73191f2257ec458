"""What is known of a machine, as frozen dataclasses. None: nobody could say; an empty value: there is none."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from kit.facts.engine import EngineFacts
from kit.frozen import dataclass

# The kernel driver that keeps a device for virtual machines.
VM_DRIVER = "vfio-pci"

EndpointKind = Literal["registry", "mirror", "index"]


@dataclass(frozen=True, kw_only=True)
class GpuProcess:
    """A process that holds memory on a GPU."""

    pid: int
    name: str  # the program's own name, without its folder and arguments
    user: str = ""  # empty when it could not be read
    memory_mib: int | None = None
    container: str = ""  # the name of the container it runs in, else the start of that container's ID
    mig_uuid: str = ""  # the MIG instance it is on
    is_graphics: bool = False  # it only draws (nvidia-smi's type `G`, such as Xorg), and computes nothing


@dataclass(frozen=True, kw_only=True)
class MigInstance:
    """A slice of a GPU that is used as a GPU of its own."""

    uuid: str  # `MIG-…`
    profile: str = ""  # `1g.10gb`
    index: int | None = None  # among the MIG devices of its GPU: the second number of the CDI name `0:1`
    gpu_instance: int | None = None
    compute_instance: int | None = None
    memory_mib: int | None = None
    memory_used_mib: int | None = None


@dataclass(frozen=True, kw_only=True)
class HostGpu:
    """One GPU of a machine, measured or declared."""

    name: str  # as nvidia-smi prints it; of a declared GPU what the user wrote
    compute_capability: str = ""  # `8.9`; empty when the driver does not say it and the name must
    index: int = 0
    uuid: str = ""
    pci_address: str = ""
    device_id: str = ""  # on the PCI bus, of vendor 10de: `2684`
    memory_mib: int | None = None
    memory_used_mib: int | None = None
    utilisation_percent: int | None = None
    temperature_c: int | None = None
    power_draw_w: float | None = None
    power_limit_w: float | None = None
    power_default_w: float | None = None
    is_vgpu: bool = False  # a part of a GPU that another machine has, given to this one by its vGPU manager
    is_mig_enabled: bool = False
    mig_instances: tuple[MigInstance, ...] = ()
    processes: tuple[GpuProcess, ...] | None = None
    problem: str = ""  # what the driver said instead of facts: `GPU is lost`


@dataclass(frozen=True, kw_only=True)
class PciGpu:
    """An NVIDIA display controller on the PCI bus, seen without any driver."""

    address: str  # `0000:01:00.0`
    device_id: str  # `2803`
    driver: str = ""  # the kernel driver bound to it: `nvidia`, `nouveau`, `vfio-pci`; empty: none


@dataclass(frozen=True, kw_only=True)
class CdiSpec:
    """A CDI specification on the machine that names NVIDIA GPUs."""

    path: str
    devices: tuple[str, ...] = ()  # `nvidia.com/gpu=all`
    modified: float | None = None  # seconds since the epoch
    driver: str = ""  # the driver version in the library paths it mounts
    is_readable: bool = True  # by the user who asked
    missing_files: tuple[str, ...] = ()  # files it mounts that are not on the machine any more


@dataclass(frozen=True, kw_only=True)
class ContainerToolkit:
    """The NVIDIA Container Toolkit; `version` is empty when it is not installed."""

    version: str = ""
    no_cgroups: bool | None = None  # of /etc/nvidia-container-runtime/config.toml; None: no such file, or not set


@dataclass(frozen=True, kw_only=True)
class GpuContainer:
    """A container of kit's, running or about to, and the GPUs it was given."""

    name: str
    id: str  # the engine's full ID
    image: str = ""  # kit's name for the image
    service: str = ""  # `jupyter`, `tensorboard`, or empty for a command
    user: str = ""  # who started it; `UID:GID` where that has no name
    status: str = ""  # `running`, `created`, …
    devices: tuple[str, ...] = ()  # as they were asked for: `nvidia.com/gpu=0`, `all`
    lease: tuple[str, ...] = ()  # UUIDs of the GPUs that are its alone (label `kit.lease`)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A registry, mirror or index, and whether it answers from this machine."""

    kind: EndpointKind
    url: str  # without user name and password
    is_reachable: bool | None = None  # None: nothing on the machine could ask
    problem: str = ""  # `certificate`, `timeout`, `name`, `refused`, or the HTTP status
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine that runs containers: this one, one behind SSH, or one that was only declared."""

    target: str = ""  # `user@server`; empty: this machine
    is_declared: bool = False
    platform: str = "linux/amd64"  # in docker's spelling
    os: str = ""  # `Debian GNU/Linux 12 (bookworm)`
    os_id: str = ""  # `debian`
    kernel: str = ""
    is_wsl: bool = False
    # The driver: None when nobody could say, empty when none is loaded.
    driver: str | None = ""
    driver_modules: Literal["open", "proprietary", ""] = ""  # the flavor of its kernel modules; empty: not known
    driver_cuda: str = ""  # newest CUDA the driver itself supports, nvidia-smi's header
    driver_library: str = ""  # version of libnvidia-ml / libcuda on disk, to compare with the loaded module
    driver_problem: str = ""  # what nvidia-smi printed when it failed
    has_linux_driver_in_wsl: bool = False
    has_nouveau: bool = False
    pci_gpus: tuple[PciGpu, ...] = ()
    gpus: tuple[HostGpu, ...] = ()
    toolkit: ContainerToolkit = field(default_factory=ContainerToolkit)
    cdi_specs: tuple[CdiSpec, ...] = ()
    containers: tuple[GpuContainer, ...] = ()
    engine: EngineFacts = field(default_factory=EngineFacts)
    podman: str = ""  # its version, whatever the engine is; empty: not installed
    lingers: bool | None = None  # whether the user's programs go on after the last logout; None: no systemd ends them
    cpus: int | None = None
    memory_bytes: int | None = None
    shm_bytes: int | None = None  # of the machine's own /dev/shm
    disk_path: str = ""  # the nearest existing folder of the engine's data root
    disk_free_bytes: int | None = None
    shell_proxies: tuple[str, ...] = ()  # names of the proxy variables that are set, never their values
    has_private_ca: bool = False  # an administrator added a certificate authority to the system
    endpoints: tuple[Endpoint, ...] = ()
    clock_skew_s: float | None = None  # this machine's clock minus that of the servers that answered
    busy_ports: tuple[int, ...] = ()  # of 8888 to 8897 and 6006 to 6015, in use on loopback
    unread: tuple[str, ...] = ()  # probes that failed or took too long: `nvidia-smi: timed out after 10 s`

    @property
    def has_gpu(self) -> bool:
        """True when an NVIDIA GPU is there, whether or not its driver works."""
        return bool(self.gpus or self.pci_gpus)
