"""Facts of a machine, this one or one behind SSH: its driver, GPUs, Container Toolkit, engine, room and network.

One shell script (`probe.sh`) reads them, run here or through ssh; pure functions make a `Host` of what it prints.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kit import redact
from kit.engine import Engine, connect
from kit.errors import BadInputError, KitError
from kit.facts.host import Endpoint, Host, PciGpu
from kit.host.parse_machine import is_wsl, parse_modules, parse_uname

if TYPE_CHECKING:
    from kit.host.parse_gpus import Driver

PCI_DEVICES = Path("/sys/bus/pci/devices")
# The driver's /proc entry and its device: either means that an NVIDIA driver is loaded. WSL2 has neither.
DRIVER_TRACES = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/usr/lib/wsl/lib/libcuda.so.1"))


def host_has_gpu(traces: tuple[Path, ...] = DRIVER_TRACES) -> bool:
    """True when this host has an NVIDIA driver loaded."""
    return any(trace.exists() for trace in traces)


def read_host(
    target: str = "",
    *,
    endpoints: Sequence[Endpoint] = (),
    engine: Engine | None = None,
) -> Host:
    """Everything that can be read of a machine; what cannot is in `unread`.

    `target`: empty for this machine, else what ssh takes, or a docker context on ssh. `endpoints` are asked from that
    machine. `engine`: the one to ask on this machine; None: the one kit would use, else the docker (or podman) there
    is. Raises NetworkError when the target cannot be reached, BadInputError when it is none, MissingProgramError
    without ssh.
    """
    from kit.host.assemble import assemble
    from kit.host.probe import run_probe

    engine = None if target else engine or _own_engine()
    asked = [_endpoint(endpoint) for endpoint in endpoints]
    sections = run_probe(
        target,
        ("gpu", "use", "engine", "machine", "network"),
        engine=engine,
        urls=[_question(endpoint) for endpoint in asked],
    )
    host = assemble(sections, target=target, endpoints=asked)
    return replace(host, engine=replace(host.engine, is_private=_is_private(host, engine)))


def read_gpus(target: str = "", *, with_use: bool = False, engine: Engine | None = None) -> Host:
    """The driver and the GPUs of a machine, `with_use` also who uses them; raises what `read_host` raises.

    Starts no program on a machine without a driver, where `pci_gpus` says what has none, and on this machine none but
    those for `with_use` either, as long as NVML answers.
    """
    if not target:
        if not host_has_gpu():
            return Host(platform=_platform(), pci_gpus=_pci_gpus())
        if (driver := _ask_nvml(with_use)) and not with_use:
            return Host(
                platform=_platform(),
                driver=driver.version,
                driver_modules=_modules(),
                driver_cuda=driver.cuda,
                gpus=driver.gpus,
                pci_gpus=() if driver.gpus else _pci_gpus(),  # a driver may not know the GPU there is
                is_wsl=is_wsl(os.uname().release),
            )
    else:
        driver = None
    from kit.host.assemble import assemble
    from kit.host.probe import Group, run_probe

    engine = None if target or not with_use else engine or _own_engine()
    groups: list[Group] = ["use"] if with_use else []
    if driver is None:
        groups.append("gpu")
    sections = run_probe(
        target,
        groups,
        engine=engine,
        pids=[process.pid for gpu in driver.gpus for process in gpu.processes or ()] if driver else (),
    )
    return assemble(sections, target=target, driver=driver)


def _own_engine() -> Engine | None:
    """The engine kit would use on this machine; None when none answers, which the script finds out by itself."""
    try:
        return connect()
    except KitError:
        return None


def _ask_nvml(with_use: bool) -> Driver | None:
    """What NVML says; None where it cannot be used."""
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        return None
    from kit.host.nvml import read_nvml

    return read_nvml(pynvml, with_use=with_use)


def _modules() -> Literal["open", "proprietary", ""]:
    """The flavor of the loaded kernel modules."""
    try:
        return parse_modules(DRIVER_TRACES[0].read_text())
    except OSError:
        return ""


def _pci_gpus() -> tuple[PciGpu, ...]:
    """The NVIDIA display controllers of this machine, but for those that were handed to virtual machines."""
    found = []
    for device in sorted(PCI_DEVICES.iterdir()) if PCI_DEVICES.is_dir() else ():
        try:
            vendor, kind, number = ((device / name).read_text().strip() for name in ("vendor", "class", "device"))
        except OSError:
            continue  # unplugged meanwhile
        driver = (device / "driver").resolve().name if (device / "driver").exists() else ""
        if vendor == "0x10de" and kind.startswith("0x03") and driver != "vfio-pci":
            found.append(PciGpu(address=device.name, device_id=number.removeprefix("0x"), driver=driver))
    return tuple(found)


def _platform() -> str:
    system = os.uname()
    return parse_uname(f"{system.sysname} {system.release} {system.machine}")[1]


def _endpoint(endpoint: Endpoint) -> Endpoint:
    """An endpoint whose address has no user name and password. Raises BadInputError when it is no address."""
    url = redact.without_users(endpoint.url)
    if not re.fullmatch(r"https?://[^\s/]+\S*", url):
        raise BadInputError(f"{url} is no address to ask", hint="give one that begins with https:// or http://")
    return replace(endpoint, url=url)


def _question(endpoint: Endpoint) -> str:
    """What is asked of an endpoint: of a registry the version of its API, which says 401 where a login is needed."""
    address = endpoint.url.rstrip("/")
    return f"{address}/" if endpoint.kind == "index" else f"{address.removesuffix('/v2')}/v2/"


def _is_private(host: Host, engine: Engine | None) -> bool:
    """True for kit's own engine: by its socket here, by its usual folder elsewhere."""
    if host.target:
        return host.engine.endpoint.startswith("unix:///var/lib/kit/")
    from kit import private_engine  # only `kit doctor` asks whose engine it is

    socket = f"unix://{private_engine.socket_path()}"
    return socket in (host.engine.endpoint, engine.environment.get("DOCKER_HOST") if engine else "")
