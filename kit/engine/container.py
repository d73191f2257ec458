"""What the engine is told of a container, and what it says of those it has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kit.frozen import dataclass


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
