"""The sections of a probe as a Host: each fact from its parser, and what could not be read by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kit.engine.info import parse_info
from kit.facts.engine import EngineFacts
from kit.facts.host import CdiSpec, ContainerToolkit, Endpoint, Host, HostGpu
from kit.host import parse_engine, parse_gpus, parse_machine
from kit.host.parse_gpus import Driver
from kit.host.sections import Sections

# The programs behind the sections that may take too long, and the limits the script gives them.
_SLOW = {
    "nvidia-smi": ("nvidia-smi", 10),
    "nvidia-ctk": ("nvidia-ctk --version", 5),
    "nvidia-container-cli": ("nvidia-container-cli --version", 5),
    "podman": ("podman --version", 5),
    "info": ("{engine} info", 8),
    "buildx": ("{engine} buildx version", 8),
    "containers": ("{engine} ps", 8),
}
_WSL_LIBRARIES = "/usr/lib/wsl/"


def assemble(
    sections: Sections, *, target: str = "", endpoints: Sequence[Endpoint] = (), driver: Driver | None = None
) -> Host:
    """The machine that printed these sections; `driver`: what NVML said already, instead of nvidia-smi."""
    kernel, platform = parse_machine.parse_uname(sections.text("uname"))
    os_name, os_id = parse_machine.parse_os(sections.text("os"))
    names, containers = parse_engine.parse_containers(sections.text("containers"))
    reached, skew = _endpoints(sections, endpoints)
    disk = sections.get("disk")
    space = parse_machine.parse_df(disk.text) if disk else None
    shm = parse_machine.parse_df(sections.text("shm"))
    facts, specs = _driver_facts(sections, driver), _cdi_specs(sections)
    return Host(
        target=target,
        platform=platform,
        os=os_name,
        os_id=os_id,
        kernel=kernel,
        **{**facts, "gpus": tuple(_with_owners(gpu, sections, names) for gpu in facts["gpus"])},
        toolkit=_toolkit(sections),
        cdi_specs=specs,
        containers=containers,
        engine=_engine(sections).with_cdi(tuple(device for spec in specs for device in spec.devices)),
        podman=parse_engine.parse_version(sections.text("podman")),
        lingers={"yes": True, "no": False}.get(sections.text("linger").strip()),
        cpus=parse_machine.parse_count(sections.text("cpus")),
        memory_bytes=parse_machine.parse_memory(sections.text("memory")),
        shm_bytes=shm[0] if shm else None,
        disk_path=disk.rest if disk else "",
        disk_free_bytes=space[1] if space else None,
        shell_proxies=tuple(sections.text("proxies").split()),
        has_private_ca=bool(sections.text("authorities").strip()),
        endpoints=reached,
        clock_skew_s=skew,
        busy_ports=parse_machine.parse_ports(sections.text("ports")),
        unread=_unread(sections),
    )


def _driver_facts(sections: Sections, asked: Driver | None) -> dict[str, Any]:
    """The fields of Host that the driver's state makes."""
    is_wsl = parse_machine.is_wsl(sections.text("version"))
    smi = asked or parse_gpus.parse_smi(sections.said("nvidia-smi"))
    if not asked:
        capabilities = parse_gpus.parse_capabilities(sections.text("nvidia-smi-query"))
        instances = parse_gpus.parse_list(sections.text("nvidia-smi-list"))
        smi = replace(smi, gpus=tuple(parse_gpus.complete(gpu, capabilities, instances) for gpu in smi.gpus))
    module = parse_gpus.parse_module_version(sections.text("driver"))
    modules = sections.text("modules").split()
    libraries = sections.text("libraries")
    version: str | None = module or smi.version or ""
    # It is loaded, or Windows lends it, but nothing says which one it is.
    if not version and ("nvidia" in modules or (is_wsl and "libcuda.so" in sections.text("wsl"))):
        version = None
    is_hung = sections.timed_out("nvidia-smi")
    return {
        "is_wsl": is_wsl,
        "driver": version,
        "driver_modules": parse_machine.parse_modules(sections.text("driver"), sections.text("license")),
        "driver_cuda": smi.cuda,
        "driver_library": parse_gpus.parse_library_version(libraries),
        "driver_problem": "" if smi.gpus or asked or is_hung or not sections.get("nvidia-smi") else smi.problem,
        "has_linux_driver_in_wsl": is_wsl and any(line.find(_WSL_LIBRARIES) < 0 for line in libraries.splitlines()),
        "has_nouveau": "nouveau" in modules,
        "pci_gpus": parse_gpus.parse_pci(sections.text("pci")),
        "gpus": smi.gpus,
    }


def _with_owners(gpu: HostGpu, sections: Sections, names: Mapping[str, str]) -> HostGpu:
    """A GPU whose processes have their owners and containers."""
    facts = {section.rest: parse_machine.parse_process(section.text) for section in sections.all("process")}
    found = []
    for process in gpu.processes or ():
        known = facts.get(str(process.pid), parse_machine.ProcessFacts())
        container = parse_engine.container_name(names, known.container)
        found.append(replace(process, name=process.name or known.name, user=known.user, container=container))
    return replace(gpu, processes=None if gpu.processes is None else tuple(found))


def _toolkit(sections: Sections) -> ContainerToolkit:
    words = sections.text("toolkit").split()
    return ContainerToolkit(
        version=parse_engine.parse_version(sections.text("nvidia-ctk"))
        or parse_engine.parse_version(sections.text("nvidia-container-cli")),
        no_cgroups={"true": True, "false": False}.get(words[-1]) if words else None,
    )


def _cdi_specs(sections: Sections) -> tuple[CdiSpec, ...]:
    missing = {section.rest: section.text for section in sections.all("cdi-missing")}
    found = []
    for section in sections.all("cdi"):
        if section.code != 0:
            found.append(CdiSpec(path=section.rest, is_readable=False))
        elif spec := parse_engine.parse_cdi(section.text, section.rest, missing.get(section.rest, "")):
            found.append(spec)
    return tuple(found)


def _engine(sections: Sections) -> EngineFacts:
    info = sections.get("info")
    if info is None:
        return EngineFacts()
    program, _, path = sections.text("program").partition("\n")
    errors = "took too long to answer" if sections.timed_out("info") else sections.text("info.err")
    facts = parse_info(info.text, errors, program.strip(), path.strip())
    endpoint = facts.endpoint or sections.text("context").strip()
    return replace(
        facts,
        endpoint=endpoint,
        access=parse_engine.parse_access(sections.text("access")) if facts.problem == "denied" else None,
        is_desktop=facts.is_desktop or "/.docker/desktop/" in endpoint,
        buildx=parse_engine.parse_version(sections.text("buildx")) or facts.buildx,
    )


def _endpoints(sections: Sections, endpoints: Sequence[Endpoint]) -> tuple[tuple[Endpoint, ...], float | None]:
    names = [f"endpoint-{number}" for number in range(len(endpoints))]
    asked = [
        parse_machine.parse_endpoint(endpoint, sections.get(name), sections.text(f"{name}.err"))
        for endpoint, name in zip(endpoints, names, strict=True)
    ]
    return tuple(found for found, _ in asked), parse_machine.median_skew(skew for _, skew in asked)


def _unread(sections: Sections) -> tuple[str, ...]:
    engine = sections.text("program").partition("\n")[0].rpartition("/")[2] or "docker"
    found = []
    for name, (command, limit) in _SLOW.items():
        if sections.timed_out(name):
            found.append(f"{command.format(engine=engine)}: timed out after {limit} s")
    smi = sections.get("nvidia-smi")
    if smi and "<nvidia_smi_log" in smi.text and "</nvidia_smi_log>" not in smi.text:
        found.append("nvidia-smi -q -x: what it printed is no whole report")
    info = sections.get("info")
    if info and info.code == 0 and not info.text.strip():
        found.append(f"{engine} info: it printed nothing")
    if not sections.is_complete:
        found.append("sh: the probe ended before its end; what it had not printed is unknown")
    return tuple(found)
