"""What an engine says of itself (`docker info`, `podman info`), as facts. Pure, never raises."""

from __future__ import annotations

from typing import Any, Literal

from kit.engine.answers import items as _list
from kit.engine.answers import mapping as _dict
from kit.engine.answers import number as _number
from kit.engine.answers import parsed
from kit.engine.answers import text as _text
from kit.facts.engine import EngineFacts, EngineProblem


def _object(printed: str) -> dict[str, Any]:
    """The JSON object in a text that may have warnings around it; empty when there is none."""
    return next((data for line in (printed, *printed.splitlines()) if isinstance(data := parsed(line), dict)), {})


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
    listed = tuple(_text(d.get("ID")) for d in devices if d.get("Source") == "cdi" and _text(d.get("ID")))
    mirrors, status = _list(_dict(raw.get("RegistryConfig")).get("Mirrors")), _list(raw.get("DriverStatus"))
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
        cdi_devices=listed,
        buildx=plugins.get("buildx", "").removeprefix("v"),
        has_proxy=bool(raw.get("HttpProxy") or raw.get("HttpsProxy")),
        mirrors=tuple(filter(None, map(_text, mirrors))),
        lists_cdi=bool(listed),
        is_containerd_store=any(_list(row)[:1] == ["driver-type"] and "containerd" in str(row) for row in status),
        cpus=_number(raw.get("NCPU")),
        memory_bytes=_number(raw.get("MemTotal")),
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
        uids=sum(map(_number, sizes)) or None,
        cgroup_driver=_text(host.get("cgroupManager")),
        controllers=tuple(map(_text, _list(host.get("cgroupControllers")))),
        cgroup_version=_text(host.get("cgroupVersion")).removeprefix("v"),
        storage_driver=_text(store.get("graphDriverName")),
        data_root=_text(store.get("graphRoot")),
        runtimes=tuple(filter(None, [_text(runtime.get("name"))])),
        default_runtime=_text(runtime.get("name")),
        cpus=_number(host.get("cpus")),
        memory_bytes=_number(host.get("memTotal")),
    )
