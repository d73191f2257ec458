"""What the engine is told of a container, and what it says of itself and of those it has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kit.spec.gpu_grant import CDI_KIND


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What an engine says of itself."""

    version: str
    is_containerd_store: bool  # keeps OCI images: zstd layers and OCI export work
    cdi_devices: tuple[str, ...]  # `nvidia.com/gpu=all`; empty when the engine does not list them
    cdi_spec_dirs: tuple[str, ...]  # empty when CDI is off
    runtimes: tuple[str, ...]
    data_root: str
    cpus: int
    memory_bytes: int
    is_rootless: bool = False

    @property
    def gpu_devices(self) -> tuple[str, ...]:
        """The CDI devices that are NVIDIA GPUs."""
        return tuple(d for d in self.cdi_devices or spec_devices(self.cdi_spec_dirs) if d.startswith(f"{CDI_KIND}="))

    @property
    def gpu_form(self) -> Literal["cdi", "runtime", "none"]:
        """How the engine passes GPUs in: CDI where it knows such devices, else the `nvidia` runtime."""
        return "cdi" if self.gpu_devices else "runtime" if "nvidia" in self.runtimes else "none"


def spec_devices(folders: tuple[str, ...]) -> tuple[str, ...]:
    """CDI devices named in the specifications of these folders, for engines that do not list them themselves.

    Reads only the kind and the device names; a file that is no specification counts for nothing.
    """
    found: list[str] = []
    for folder in folders:
        for file in sorted(Path(folder).glob("*")) if Path(folder).is_dir() else []:
            if file.suffix in (".yaml", ".yml", ".json"):
                try:
                    found += devices_in(file.read_text(encoding="utf-8", errors="replace"))
                except OSError:
                    continue
    return tuple(found)


def devices_in(text: str) -> tuple[str, ...]:
    """The CDI devices that the text of a specification names, if it is one of NVIDIA GPUs."""
    if not re.search(rf"""["']?kind["']?\s*:\s*["']?{re.escape(CDI_KIND)}(?![\w./-])""", text):
        return ()
    names = re.findall(r"""["']?name["']?\s*:\s*["']?([A-Za-z0-9:._-]+)["']?""", text)
    return tuple(f"{CDI_KIND}={name}" for name in names)


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container as the engine reports it."""

    name: str
    image: str
    status: str  # running, exited, created …
    exit_code: int
    labels: Mapping[str, str]
    environment: Mapping[str, str]
    ports: Mapping[int, int]  # port in the container -> port on the host


def from_inspect(raw: dict[str, Any]) -> Container:
    """A container from the engine's answer about it alone."""
    config, state = raw["Config"], raw["State"]
    bindings = (raw.get("HostConfig") or {}).get("PortBindings") or {}
    return Container(
        name=raw["Name"].lstrip("/"),
        image=config["Image"],
        status=state["Status"],
        exit_code=int(state.get("ExitCode") or 0),
        labels=config.get("Labels") or {},
        environment=dict(entry.partition("=")[::2] for entry in config.get("Env") or []),
        ports={
            int(inner.split("/")[0]): int(outer[0]["HostPort"])
            for inner, outer in bindings.items()
            # Compose takes a range of ports for one, too.
            if outer and str(outer[0].get("HostPort", "")).isdecimal()
        },
    )


def from_list(raw: dict[str, Any]) -> Container:
    """A container from the engine's list, which has its exit code in words: `Exited (137) 2 hours ago`."""
    ended = re.match(r"Exited \((\d+)\)", raw.get("Status", ""))
    return Container(
        name=raw["Names"][0].lstrip("/") if raw.get("Names") else raw["Id"],
        image=raw.get("Image", ""),
        status=raw.get("State", ""),
        exit_code=int(ended[1]) if ended else 0,
        labels=raw.get("Labels") or {},
        environment={},
        ports={p["PrivatePort"]: p["PublicPort"] for p in raw.get("Ports") or [] if p.get("PublicPort")},
    )
