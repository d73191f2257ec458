"""`kit doctor`."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from kit import redact
from kit.catalog import load_catalog
from kit.cli.options import Options, host_option, json_option
from kit.cli.output import print_facts, print_json, runnable, say, show
from kit.decide.doctor import SEVERITIES, examine
from kit.facts.host import Endpoint
from kit.host import read_host
from kit.host.endpoints import build_endpoints
from kit.host.report import anonymous, to_json

if TYPE_CHECKING:
    from kit.decide.doctor import Finding, Severity
    from kit.facts.host import Host, HostGpu

COLORS: dict[Severity, str] = {"block": "red", "warn": "yellow", "note": "cyan"}


@click.command("doctor")
@host_option
@json_option
@click.pass_obj
def doctor_command(options: Options) -> None:
    """Say what of a machine would keep a GPU container from working, with one fix each.

    Looks at this machine, or --host; changes nothing. Exit code 1 when something blocks.
    """
    host = read_host(
        options.host,
        endpoints=build_endpoints(
            os.environ, mirror=options.setting("registry_mirror"), index=options.setting("index_url")
        ),
    )
    # The facts they name are what programs printed.
    findings = [
        replace(finding, message=redact.text(finding.message), fix=redact.text(finding.fix))
        for finding in examine(host, load_catalog())
    ]
    if options.json:
        found = [asdict(finding) for finding in findings]
        print_json({"host": to_json(host), "findings": anonymous(found, host)})
    else:
        print_facts([(name, redact.text(value)) for name, value in facts(host)])
        # Those of another machine are typed there.
        here = findings if options.host else [replace(found, fix=runnable(found.fix)) for found in findings]
        print_findings(options, here)
    click.get_current_context().exit(1 if any(finding.severity == "block" for finding in findings) else 0)


def facts(host: Host) -> list[tuple[str, str]]:
    """(name, value) of each fact of a machine that decides about GPU containers."""
    engine = host.engine
    size = [f"{host.cpus} CPUs"] if host.cpus else []
    size += [f"{host.memory_bytes / 2**30:.1f} GiB"] if host.memory_bytes else []
    system = [host.os or "unknown system", *([f"kernel {host.kernel}"] if host.kernel else []), host.platform, *size]
    driver = "unknown" if host.driver is None else host.driver or "none"
    rows = [
        ("host", host.target or "this machine"),
        ("system", ", ".join(system + (["WSL2"] if host.is_wsl else []))),
        ("driver", driver + (f" (CUDA {host.driver_cuda} or older)" if host.driver_cuda else "")),
    ]
    rows += [(f"GPU {gpu.index}", _gpu(gpu)) for gpu in host.gpus]
    if not host.gpus:
        found = ", ".join(f"an NVIDIA GPU at {gpu.address}, no facts" for gpu in host.pci_gpus)
        rows.append(("GPU", found or "none"))
    rows.append(("Container Toolkit", host.toolkit.version or "none"))
    for spec in host.cdi_specs:
        count = f"{len(spec.devices)} devices" if spec.is_readable else "not readable"
        rows.append(("CDI", f"{spec.path}: {count}" + (f", driver {spec.driver}" if spec.driver else "")))
    if engine.problem:
        rows.append(
            ("engine", {"missing": "none", "down": "does not answer", "denied": "no right to use it"}[engine.problem])
        )
    else:
        parts = [
            f"{engine.program} {engine.version}".strip(),
            "kit's own" if engine.is_private else "",
            "rootless" if engine.is_rootless else "",
            "snap" if engine.is_snap else "",
            "Docker Desktop" if engine.is_desktop else "",
            engine.storage_driver,
            f"cgroups by {engine.cgroup_driver}" if engine.cgroup_driver else "",
            f"buildx {engine.buildx}" if engine.buildx else "",
        ]
        rows.append(("engine", ", ".join(part for part in parts if part)))
    if host.disk_free_bytes is not None:
        rows.append(("disk", f"{host.disk_free_bytes / 1e9:.0f} GB free at {host.disk_path}"))
    rows += [(endpoint.kind, f"{endpoint.url}: {_answer(endpoint)}") for endpoint in host.endpoints]
    return rows


def print_findings(options: Options, findings: list[Finding]) -> None:
    """Each finding and, under it, its fix; how many there are of each kind on stderr."""
    for finding in findings:
        show()
        show(f"{finding.severity}: ", fg=COLORS[finding.severity], bold=True, nl=False)
        show(f"{finding.message} [{finding.check}]")
        show(f"  fix: {finding.fix}")
    counts = [(severity, sum(f.severity == severity for f in findings)) for severity in SEVERITIES]
    say(options, "\n" + (", ".join(f"{count} {severity}" for severity, count in counts if count) or "nothing found"))


def _gpu(gpu: HostGpu) -> str:
    if gpu.problem:
        return f"{gpu.name or 'unknown'}: {gpu.problem}"
    parts = [gpu.name, gpu.compute_capability]
    if gpu.memory_mib is not None:
        used = "" if gpu.memory_used_mib is None else f"{gpu.memory_used_mib} of "
        parts.append(f"{used}{gpu.memory_mib} MiB{' used' if used else ''}")
    if gpu.is_mig_enabled:
        parts.append(f"MIG, {len(gpu.mig_instances)} instances")
    return ", ".join(part for part in parts if part)


def _answer(endpoint: Endpoint) -> str:
    if endpoint.is_reachable is None:
        return "not asked"
    if not endpoint.is_reachable:
        return f"no answer{f' ({endpoint.problem})' if endpoint.problem else ''}"
    return "answers" + (f" in {endpoint.seconds:.2f} s" if endpoint.seconds is not None else "")
