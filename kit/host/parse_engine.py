"""What containers, CDI specifications and the Container Toolkit say, as facts. Pure, never raises."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kit.engine import cdi
from kit.facts.host import CdiSpec, GpuContainer
from kit.facts.sockets import Access
from kit.labels import GPUS, IMAGE, LEASE, OWNER_NAME, SERVICE, USER
from kit.spec.gpu_grant import read_label

# Of a container of kit's; in the order in which probe.sh asks docker for them.
CONTAINER_LABELS = (IMAGE, SERVICE, USER, GPUS, LEASE, OWNER_NAME)


def _text(data: Any) -> str:
    return data if isinstance(data, str) else ""


def parse_version(text: str) -> str:
    """The first version in a text: `1.17.8` of `NVIDIA Container Toolkit CLI version 1.17.8`."""
    found = re.search(r"(?<![\w.])v?(\d+\.\d+(?:\.\d+)?(?:[-~+][\w.+~-]+)?)", text)
    return found[1] if found else ""


def parse_access(text: str) -> Access | None:
    """Whose a socket is, of the machine's own words: its owner, group and mode, this account's groups, whether it has
    sudo.
    """
    first, _, rest = text.partition("\n")
    found = re.fullmatch(r"(\d{1,10}) (\S+) (\S{10})\S?", first.strip())
    if not found:
        return None
    groups, _, sudo = rest.partition("\n")
    group = found[2] if found[3][5] == "w" and found[2] not in ("root", "UNKNOWN") else ""
    return Access(
        is_roots=found[1] == "0",
        group=group,
        is_member=group in groups.split(),
        has_sudo=sudo.strip() == "sudo",
    )


def parse_cdi(text: str, path: str, missing: str) -> CdiSpec | None:
    """One CDI specification, after a line with the time of its last change; None when it names no NVIDIA GPU.

    `missing` are the paths in it that are not on the machine.
    """
    modified, _, spec = text.partition("\n")
    if not cdi.is_of_gpus(spec):
        return None
    driver = re.search(r"lib(?:cuda|nvidia-ml)\.so\.(\d{3}(?:\.\d+)+)", spec)
    inner = set(_inner_paths(spec))
    return CdiSpec(
        path=path,
        devices=cdi.devices_in(spec),
        modified=float(modified) if re.fullmatch(r"[0-9]{1,12}", modified.strip()) else None,
        driver=driver[1] if driver else "",
        missing_files=tuple(line for line in missing.splitlines() if line.strip() and line not in inner),
    )


def _inner_paths(spec: str) -> Iterator[str]:
    """Paths of devices inside the container that another path stands for on the machine (`hostPath`)."""
    field = r"""["']?{}["']?\s*:\s*["']?(/[^\s"',}}]*)["']?"""
    between = r"[\s,]*"
    first, second = field.format("path"), field.format("hostPath")
    for path, host in re.findall(rf"(?<![A-Za-z]){first}{between}{second}", spec):
        if path != host:
            yield path
    for host, path in re.findall(rf"(?<![A-Za-z]){second}{between}{first}", spec):
        if path != host:
            yield path


def parse_containers(text: str) -> tuple[dict[str, str], tuple[GpuContainer, ...]]:
    """ID -> name of every container, and kit's own that have not ended, of JSON lists line by line."""
    names: dict[str, str] = {}
    own = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, list) or len(row) < 2 or not isinstance(row[0], str):
            continue
        name = row[1][0] if isinstance(row[1], list) and row[1] else row[1]
        names[row[0]] = _text(name).split(",")[0]
        if len(row) == 4 and isinstance(row[3], dict):  # Podman's, with all the labels
            row = [*row[:3], *(row[3].get(label) for label in CONTAINER_LABELS)]
        if len(row) == 9 and row[3]:
            status, image, service, user, gpus, lease, owner = map(_text, row[2:])
            if (state := _state(status)) != "exited":
                own.append(
                    GpuContainer(
                        name=names[row[0]],
                        id=row[0],
                        image=image,
                        service=service,
                        user=owner or user,
                        status=state,
                        devices=read_label(gpus),
                        lease=tuple(lease.split()),
                    )
                )
    return names, tuple(own)


def _state(status: str) -> str:
    """`Up 3 hours (Paused)` as the engine's own word for it, which old versions do not print by itself."""
    words = {"Created": "created", "Restarting": "restarting", "Removal": "removing", "Dead": "exited"}
    # Podman's (cmd/podman/containers/ps.go, libpod/define/containerstate.go).
    words |= {"Initialized": "created", "Paused": "paused", "Stopping": "running", "Removing": "removing"}
    first = status.partition(" ")[0]
    if first == "Up":
        return "paused" if "(Paused)" in status else "running"
    return words.get(first, "exited")


def container_name(ids: Mapping[str, str], container_id: str) -> str:
    """The name of a container, or the start of its ID when this engine does not know it; empty for none."""
    return ids.get(container_id) or container_id[:12]
