"""What the engine is told of a container, and what it says of those it has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kit.engine.answers import items, mapping, number, text, texts
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


def from_inspect(raw: Any) -> Container:
    """A container from the engine's answer about it alone."""
    raw = mapping(raw)
    config, state = mapping(raw.get("Config")), mapping(raw.get("State"))
    bindings = mapping(mapping(raw.get("HostConfig")).get("PortBindings"))
    ports = {}
    for inner, outer in bindings.items():
        # Compose takes a range of ports for one, too.
        if inside := _port(inner.partition("/")[0]):
            outside = next((_port(text(mapping(binding).get("HostPort"))) for binding in items(outer)), 0)
            ports.update({inside: outside} if outside else {})
    return Container(
        name=text(raw.get("Name")).lstrip("/"),
        image=text(config.get("Image")),
        status=text(state.get("Status")),
        exit_code=number(state.get("ExitCode")),
        labels=texts(config.get("Labels")),
        environment=dict(entry.partition("=")[::2] for entry in map(text, items(config.get("Env"))) if entry),
        ports=ports,
    )


def from_list(raw: Any) -> Container:
    """A container from the engine's list, which has its exit code in words: `Exited (137) 2 hours ago`."""
    raw = mapping(raw)
    ended = re.match(r"Exited \(([0-9]{1,9})\)", text(raw.get("Status")))
    ports = [(number(p.get("PrivatePort")), number(p.get("PublicPort"))) for p in map(mapping, items(raw.get("Ports")))]
    return Container(
        name=next(map(text, items(raw.get("Names"))), "").lstrip("/") or text(raw.get("Id")),
        image=text(raw.get("Image")),
        status=text(raw.get("State")),
        exit_code=int(ended[1]) if ended else 0,
        labels=texts(raw.get("Labels")),
        environment={},
        ports={inner: outer for inner, outer in ports if 0 < outer < 65536},
    )


def _port(written: str) -> int:
    """A port that is one; else 0."""
    return int(written) if re.fullmatch(r"[0-9]{1,5}", written) and 0 < int(written) < 65536 else 0
