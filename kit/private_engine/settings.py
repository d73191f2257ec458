"""Where an engine has its files, and the configuration its daemon is given; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from kit.frozen import dataclass

if TYPE_CHECKING:
    from kit.private_engine.subnet import Plan

Store = Literal["containerd", "overlay2"]
STORES: tuple[Store, ...] = get_args(Store)

# A Unix socket's path has at most 107 bytes, and Docker adds up to 45 to the folder it is given.
_LONGEST_FOLDER = 56
# Of what builds leave: the steps of the last two or three images with CUDA, at some 8 GB each.
BUILD_CACHE_LIMIT = "20GB"


@dataclass(frozen=True, kw_only=True)
class Programs:
    """A folder of ready programs: `bin` for PATH, `plugins` for the docker CLI."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def plugins(self) -> Path:
        return self.folder / "plugins"

    @property
    def is_ready(self) -> bool:
        return (self.folder / "ready.json").is_file()


@dataclass(frozen=True, kw_only=True)
class EnginePaths:
    """The files of the engine in one folder; every name that must differ between engines derives from the folder."""

    folder: Path
    # Tells apart two root file systems that have the same folder and share the kernel's tables (a chroot).
    root: str = ""

    @property
    def id(self) -> str:
        import hashlib

        return hashlib.sha256(f"{self.folder}{self.root}".encode()).hexdigest()[:8]

    @property
    def run(self) -> Path:
        """Sockets and run-time state: gone when the engine is down."""
        inside = self.folder / "run"
        return inside if len(str(inside)) <= _LONGEST_FOLDER else Path(f"/run/kit-{self.id}")

    @property
    def socket(self) -> Path:
        return self.run / "docker.sock"

    @property
    def daemon_file(self) -> Path:
        return self.run / "daemon.json"

    @property
    def state_file(self) -> Path:
        return self.folder / "state.json"

    @property
    def log_file(self) -> Path:
        return self.folder / "engine.log"

    @property
    def lock_file(self) -> Path:
        return self.folder / "lock"

    @property
    def programs(self) -> Path:
        return self.folder / "programs"

    @property
    def cdi(self) -> Path:
        """CDI specifications for this engine only, beside the machine's."""
        return self.folder / "cdi"

    def data(self, store: Store) -> Path:
        """The images and containers of one store; the two kinds cannot share a folder."""
        return self.folder / "data" / store

    @property
    def bridge(self) -> str:
        return f"kitbr-{self.id}"

    @property
    def chain(self) -> str:
        return f"KIT-{self.id}"

    @property
    def cgroup(self) -> str:
        return f"kit-{self.id}"

    @property
    def mark(self) -> str:
        """In the environment of every process of the engine's, so that none is lost."""
        return f"KIT_PRIVATE_ENGINE={self.id}"


def daemon_configuration(
    places: EnginePaths,
    plan: Plan,
    *,
    store: Store,
    mtu: int,
    proxy_program: Path,
    init_program: Path | None,
    registry_mirrors: Sequence[str],
    insecure_registries: Sequence[str],
    runtimes: Mapping[str, str],
) -> str:
    """The daemon.json: everything in the engine's own folder, and nothing shared with another Docker."""
    settings: dict[str, Any] = {
        "hosts": [f"unix://{places.socket}"],
        "data-root": str(places.data(store)),
        "exec-root": str(places.run / "exec"),
        "pidfile": str(places.run / "docker.pid"),
        "features": {"containerd-snapshotter": store == "containerd", "cdi": True},
        "cdi-spec-dirs": ["/etc/cdi", "/var/run/cdi", str(places.cdi)],
        "bridge": plan.bridge,
        "default-address-pools": [{"base": str(plan.later_networks), "size": 24}],
        "mtu": mtu,
        "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": str(mtu)}},
        # kit makes the rules itself: see kit/private_engine/subnet.py.
        "iptables": False,
        "ip6tables": False,
        "ip-forward": False,
        "ip-masq": False,
        "userland-proxy": True,
        "userland-proxy-path": str(proxy_program),
        # Without systemd there is no other driver, and with it this one keeps GPUs after a `systemctl daemon-reload`.
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": f"/{places.cgroup}",
        "log-driver": "json-file",
        "log-opts": {"max-size": "20m", "max-file": "3"},
        # A disk is what runs out first, and builds leave gigabytes each.
        "builder": {"gc": {"enabled": True, "defaultKeepStorage": BUILD_CACHE_LIMIT}},
        "shutdown-timeout": 10,
        "registry-mirrors": list(registry_mirrors),
        "insecure-registries": list(insecure_registries),
    }
    if store == "overlay2":
        settings["storage-driver"] = "overlay2"
    if init_program is not None:
        settings["init-path"] = str(init_program)
    if runtimes:
        settings["runtimes"] = {name: {"path": path} for name, path in runtimes.items()}
    return json.dumps(settings, indent=2) + "\n"
