"""What is known of a container engine, and in what kinds of engines differ.

Whoever needs to know whether an engine can do something asks its `features`, never which kind it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from kit.facts.sockets import Access
from kit.frozen import dataclass

EngineProblem = Literal["", "missing", "down", "denied"]
GpuForm = Literal["cdi", "runtime"]

CDI_KIND = "nvidia.com/gpu"
# Where engines look for CDI specifications unless they are told otherwise
# (containers/common, docs/containers.conf.5.md).
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")


@dataclass(frozen=True, kw_only=True)
class Features:
    """What engines of a kind can do."""

    title: str  # as a sentence has it
    has_buildkit: bool = False  # builds by buildx
    has_equal_digests: bool = False  # promises the same digest for the same image, built twice
    has_compose: bool = False
    limits_anyhow: bool = False  # a limit for which the kernel lacks something is a warning and no error
    shares_bridge: bool = False  # puts all users' containers on one network unless it is told otherwise
    has_service: bool = False  # a daemon with settings of its own, which keeps containers running by itself
    can_attach_by_uri: bool = False  # an address alone leads an editor to its containers, wherever they are
    keeps_groups: bool = False  # of a rootless engine's user, whose numbers a container does not have
    has_own_limits: bool = False  # lets a container have as many open files as it may, or its settings say
    is_cdi_only: bool = False  # has no other way to a GPU, and looks in CDI_FOLDERS without saying so


FEATURES = {
    "docker": Features(
        title="Docker",
        has_buildkit=True,
        has_equal_digests=True,
        has_compose=True,
        limits_anyhow=True,
        shares_bridge=True,
        has_service=True,
        can_attach_by_uri=True,
    ),
    "podman": Features(title="Podman", keeps_groups=True, has_own_limits=True, is_cdi_only=True),
}


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """A container engine, as it describes itself."""

    program: Literal["docker", "podman", ""] = ""
    version: str = ""
    problem: EngineProblem = "missing"
    problem_text: str = ""
    endpoint: str = ""  # `unix:///var/run/docker.sock`
    access: Access | None = None  # to that socket; None: not known
    is_rootless: bool = False
    uids: int | None = None  # of this machine that a rootless Podman may give to its containers; 1: its user's alone
    is_snap: bool = False
    is_desktop: bool = False
    is_private: bool = False  # kit's own
    cgroup_driver: str = ""
    cgroup_version: str = ""
    controllers: tuple[str, ...] = ()  # of cgroups that it may use, where it says so (Podman)
    storage_driver: str = ""
    data_root: str = ""
    runtimes: tuple[str, ...] = ()
    default_runtime: str = ""
    cdi_spec_dirs: tuple[str, ...] = ()  # as the engine says; empty when CDI is off, or not known to it
    cdi_devices: tuple[str, ...] = ()  # `nvidia.com/gpu=all`; those it lists, else those of the specifications it reads
    buildx: str = ""  # version; empty when there is none
    has_proxy: bool = False
    mirrors: tuple[str, ...] = ()
    lists_cdi: bool = False  # whether it said itself which CDI devices there are
    is_containerd_store: bool = False  # keeps OCI images: zstd layers and OCI export work
    cpus: int = 0
    memory_bytes: int = 0

    @property
    def features(self) -> Features:
        """What an engine of this kind can do; Docker's where there is none."""
        return FEATURES[self.program or "docker"]

    @property
    def cdi_folders(self) -> tuple[str, ...]:
        """Where it looks for CDI specifications; empty when it does not."""
        return self.cdi_spec_dirs or (CDI_FOLDERS if self.features.is_cdi_only else ())

    @property
    def gpu_form(self) -> GpuForm | None:
        """How it passes GPUs into containers, CDI devices before the `nvidia` runtime; None when it cannot."""
        if any(device.startswith(f"{CDI_KIND}=") for device in self.cdi_devices):
            return "cdi"
        # Podman takes a request for the runtime and ignores it: https://github.com/containers/podman/issues/22645
        return "runtime" if "nvidia" in self.runtimes and not self.features.is_cdi_only else None

    def with_cdi(self, devices: tuple[str, ...]) -> EngineFacts:
        """The same with the devices of the specifications it reads, where it does not list them itself."""
        return self if self.lists_cdi or not self.cdi_folders else replace(self, cdi_devices=devices)
