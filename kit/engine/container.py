"""What the engine is told of a container, and what it says of those it has."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from kit import layout
from kit.engine.answers import items, mapping, number, text, texts
from kit.frozen import dataclass

# In the words of the engine's list: `Up 2 hours (healthy)`, `Exited (0) About a minute ago`.
_AGE = r"(less than an?|about an?|[0-9]{1,6}) (second|minute|hour|day|week|month|year)s?"
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "month": 2592000, "year": 31536000}
_INSTANT = r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9:]{8})(?:\.[0-9]+)? ?(Z|[+-][0-9]{2}:?[0-9]{2})"
# What starts the program of every image of kit's, which the list has before it.
_INIT = rf"^(\S*/)?(docker-init|tini)( -\S+)* -- ({re.escape(layout.ENTRYPOINT)} )?"


ENDED = ("exited", "dead")


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
    command: str = ""  # what runs in it, in one line
    folder: str = ""  # of the engine's machine, at /workspace
    binds: Mapping[str, str] = field(default_factory=dict)  # a place in it -> what of that machine is mounted there
    since: float = 0.0  # when it was started, or ended if it has; in seconds since 1970, and 0 when that is not known


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
        command=" ".join(map(text, items(config.get("Cmd")))),
        folder=_folder(raw.get("Mounts")),
        binds={
            text(mount.get("Destination")): text(mount.get("Source"))
            for mount in map(mapping, items(raw.get("Mounts")))
            if mount.get("Type") == "bind"
        },
        since=_instant(state.get("FinishedAt" if state.get("Status") in ENDED else "StartedAt"))
        or _instant(raw.get("Created")),
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
        command=re.sub(_INIT, "", text(raw.get("Command")), count=1),
        folder=_folder(raw.get("Mounts")),
        since=_since(text(raw.get("Status"))) or float(number(raw.get("Created"))),
    )


def _folder(mounts: Any) -> str:
    found = (mapping(mount) for mount in items(mounts))
    return next((text(mount.get("Source")) for mount in found if mount.get("Destination") == layout.WORKSPACE), "")


def _since(status: str) -> float:
    """When the state began of which the engine's list says how long ago that was, about; 0 when it does not."""
    if (found := re.search(_AGE, status, re.IGNORECASE | re.ASCII)) is None:
        return 0.0
    count = int(found[1]) if found[1].isdecimal() else 1
    return time.time() - count * _SECONDS[found[2].lower()]


def _instant(said: Any) -> float:
    """A point in time as engines write it, to the nanosecond, in seconds since 1970; 0 for none."""
    found = re.match(_INSTANT, text(said), re.ASCII)
    if found is None:
        return 0.0
    from datetime import datetime

    zone = "+00:00" if found[3] == "Z" else f"{found[3][:3]}:{found[3][-2:]}"
    try:
        # Of what never was, engines say the first second of the year 1.
        return max(datetime.fromisoformat(f"{found[1]}T{found[2]}{zone}").timestamp(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _port(written: str) -> int:
    """A port that is one; else 0."""
    return int(written) if re.fullmatch(r"[0-9]{1,5}", written) and 0 < int(written) < 65536 else 0
