"""What engines, CDI specifications and the Container Toolkit say, as facts. Pure, never raises."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from kit.host.model import CdiSpec, EngineFacts, EngineProblem, GpuContainer
from kit.labels import GPUS, IMAGE, LEASE, OWNER_NAME, SERVICE, USER

_CDI_KIND = "nvidia.com/gpu"
# Of a container of kit's; in the order in which probe.sh asks docker for them.
CONTAINER_LABELS = (IMAGE, SERVICE, USER, GPUS, LEASE, OWNER_NAME)


def _object(text: str) -> dict[str, Any]:
    """The JSON object in a text that may have warnings around it; empty when there is none."""
    for line in (text, *text.splitlines()):
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(data, dict):
            return data
    return {}


def _dict(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def _list(data: Any) -> list[Any]:
    return data if isinstance(data, list) else []


def _text(data: Any) -> str:
    return data if isinstance(data, str) else ""


def problem_of(text: str) -> tuple[EngineProblem, str]:
    """Why an engine gives no answer, from what its program printed: the kind, and the telling line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if "permission denied" in line.lower():
            return "denied", line
    return "down", lines[0] if lines else ""


def parse_info(text: str, errors: str, program: str, real_path: str = "") -> EngineFacts:
    """`docker info` or `podman info` as JSON; `errors` is what else was printed, `real_path` the program's file."""
    raw = _object(text)
    # Podman under the name of docker answers in its own words.
    if "host" in raw and "store" in raw:
        return _podman(raw)
    kind: Literal["docker", "podman"] = "podman" if program.rpartition("/")[2] == "podman" else "docker"
    is_snap = "/snap/" in real_path or "/snap/" in program or real_path.endswith("/snap")
    said = [error for error in _list(raw.get("ServerErrors")) if isinstance(error, str)]
    if said or not raw.get("ServerVersion"):
        problem, telling = problem_of("\n".join([*said, errors]))
        return EngineFacts(program=kind, problem=problem, problem_text=telling, is_snap=is_snap)
    client = _dict(raw.get("ClientInfo"))
    data_root, security = _text(raw.get("DockerRootDir")), _list(raw.get("SecurityOptions"))
    plugins = {_text(p.get("Name")): _text(p.get("Version")) for p in map(_dict, _list(client.get("Plugins")))}
    devices = [_dict(device) for device in _list(raw.get("DiscoveredDevices"))]
    mirrors = _list(_dict(raw.get("RegistryConfig")).get("Mirrors"))
    return EngineFacts(
        program=kind,
        version=_text(raw.get("ServerVersion")),
        problem="",
        is_rootless=any("rootless" in _text(option) for option in security),
        is_snap=is_snap or data_root.startswith("/var/snap/"),
        is_desktop=_text(raw.get("OperatingSystem")) == "Docker Desktop",
        cgroup_driver=_text(raw.get("CgroupDriver")),
        cgroup_version=_text(raw.get("CgroupVersion")),
        storage_driver=_text(raw.get("Driver")),
        data_root=data_root,
        runtimes=tuple(sorted(_dict(raw.get("Runtimes")))),
        default_runtime=_text(raw.get("DefaultRuntime")),
        cdi_spec_dirs=tuple(filter(None, map(_text, _list(raw.get("CDISpecDirs"))))),
        cdi_devices=tuple(_text(d.get("ID")) for d in devices if d.get("Source") == "cdi" and _text(d.get("ID"))),
        buildx=plugins.get("buildx", "").removeprefix("v"),
        has_proxy=bool(raw.get("HttpProxy") or raw.get("HttpsProxy")),
        mirrors=tuple(filter(None, map(_text, mirrors))),
    )


def _podman(raw: dict[str, Any]) -> EngineFacts:
    host, store, version = _dict(raw.get("host")), _dict(raw.get("store")), _dict(raw.get("version"))
    security, runtime = _dict(host.get("security")), _dict(host.get("ociRuntime"))
    sizes = [_dict(row).get("size") for row in _list(_dict(host.get("idMappings")).get("uidmap"))]
    return EngineFacts(
        program="podman",
        version=_text(version.get("Version")),
        problem="",
        endpoint=_text(_dict(host.get("remoteSocket")).get("path")),
        is_rootless=security.get("rootless") is True,
        uids=sum(size for size in sizes if isinstance(size, int)) or None,
        cgroup_driver=_text(host.get("cgroupManager")),
        cgroup_version=_text(host.get("cgroupVersion")).removeprefix("v"),
        storage_driver=_text(store.get("graphDriverName")),
        data_root=_text(store.get("graphRoot")),
        runtimes=tuple(filter(None, [_text(runtime.get("name"))])),
        default_runtime=_text(runtime.get("name")),
    )


def parse_version(text: str) -> str:
    """The first version in a text: `1.17.8` of `NVIDIA Container Toolkit CLI version 1.17.8`."""
    found = re.search(r"(?<![\w.])v?(\d+\.\d+(?:\.\d+)?(?:[-~+][\w.+~-]+)?)", text)
    return found[1] if found else ""


def parse_cdi(text: str, path: str, missing: str) -> CdiSpec | None:
    """One CDI specification, after a line with the time of its last change; None when it names no NVIDIA GPU.

    YAML as nvidia-ctk writes it and JSON, by their lines: a YAML parser would be one more dependency. `missing` are
    the paths in it that are not on the machine.
    """
    modified, _, spec = text.partition("\n")
    if not re.search(rf"""["']?kind["']?\s*:\s*["']?{re.escape(_CDI_KIND)}(?![\w./-])""", spec):
        return None
    names = re.findall(r"""(?:^|[\s{,-])["']?name["']?\s*:\s*["']?([A-Za-z0-9:._-]+)["']?""", spec)
    driver = re.search(r"lib(?:cuda|nvidia-ml)\.so\.(\d{3}(?:\.\d+)+)", spec)
    inner = set(_inner_paths(spec))
    return CdiSpec(
        path=path,
        devices=tuple(f"{_CDI_KIND}={name}" for name in dict.fromkeys(names)),
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
                        devices=parse_devices(gpus),
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


def parse_devices(label: str) -> tuple[str, ...]:
    """The GPUs in the engine's arguments that a container was started with: `--device=nvidia.com/gpu=0 --gpus=all`."""
    found: list[str] = []
    try:
        words = shlex.split(label)
    except ValueError:
        words = label.split()
    for word in words:
        option, _, value = word.partition("=")
        if option == "--device":
            found.append(value)
        elif option == "--gpus":
            found += value.strip('"').removeprefix("device=").split(",")
    return tuple(filter(None, found))


def container_name(ids: Mapping[str, str], container_id: str) -> str:
    """The name of a container, or the start of its ID when this engine does not know it; empty for none."""
    return ids.get(container_id) or container_id[:12]
