"""What the engine is told of a container, and what it says of those it has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder or file of the host, or a named volume, inside a container."""

    source: str  # empty: a new volume without a name
    target: str
    is_volume: bool = False
    read_only: bool = False

    def argument(self) -> str:
        kind = "volume" if self.is_volume else "bind"
        source = f"source={self.source}," if self.source else ""  # Podman 5 refuses an empty one
        return f"type={kind},{source}target={self.target}" + (",readonly" if self.read_only else "")


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """Everything about a container to start, in the engine's terms."""

    image: str
    name: str
    command: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    secret_environment: Mapping[str, str] = field(default_factory=dict)  # values stay out of argument lists
    mounts: tuple[Mount, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()  # (port on 127.0.0.1, port in the container)
    labels: Mapping[str, str] = field(default_factory=dict)
    gpu_arguments: tuple[str, ...] = ()
    shm_bytes: int = 0
    remove: bool = False
    interactive: bool = False
    tty: bool = False
    healthcheck: bool = False
    restart: str = ""

    def arguments(self) -> list[str]:
        """The arguments of `docker run` for it."""
        args = [f"--name={self.name}", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        if self.user:
            args.append(f"--user={self.user}")
        if self.workdir:
            args.append(f"--workdir={self.workdir}")
        args += [f"--env={name}={value}" for name, value in self.environment.items()]
        args += [f"--env={name}" for name in self.secret_environment]
        args += [f"--mount={mount.argument()}" for mount in self.mounts]
        # Never on another address: a notebook server is a shell for whoever reaches it.
        args += [f"--publish=127.0.0.1:{outer}:{inner}" for outer, inner in self.ports]
        args += [f"--label={name}={value}" for name, value in self.labels.items()]
        args += self.gpu_arguments
        if self.shm_bytes:
            args.append(f"--shm-size={self.shm_bytes}")
        if self.remove:
            args.append("--rm")
        if self.interactive:
            args.append("--interactive")
        if self.tty:
            args.append("--tty")
        if not self.healthcheck:
            args.append("--no-healthcheck")
        if self.restart:
            args.append(f"--restart={self.restart}")
        return [*args, self.image, *self.command]


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
