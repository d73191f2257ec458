"""`kit gpus`: who uses which GPU of a machine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from kit.accounts import user_name
from kit.cli.options import Options, host_option, json_option
from kit.cli.output import picked, print_json, print_table, show
from kit.decide import gpus
from kit.host import read_gpus

if TYPE_CHECKING:
    from kit.decide.gpus import Unit
    from kit.facts.host import GpuContainer, GpuProcess, Host, HostGpu, MigInstance

HEADER = ("GPU", "NAME", "MEMORY", "USE", "TEMP", "STATE")
NAME = HEADER.index("NAME")
COLOURS = {"free": "green", "in use": "yellow", "leased": "cyan", "faulty": "red"}


@click.command("gpus")
@host_option
@json_option
@click.pass_obj
def gpus_command(options: Options) -> None:
    """Show who uses which GPU: processes, kit's containers, and the leases of `kit run --gpus free`.

    `kit run --gpus free` takes the emptiest GPU that is not leased, `--gpus 2` two that nobody uses.
    """
    host = read_gpus(options.host, with_use=True)
    gpus.require_answer(host)
    if options.json:
        print_json([as_json(gpu, [unit for unit in gpus.units(host) if unit.gpu == gpu]) for gpu in host.gpus])
        return
    if not host.gpus:
        show(f"no NVIDIA GPU on {options.host or 'this host'}")
        return
    if not options.host:
        host = replace(host, containers=gpus.with_user_names(host.containers, user_name))
    print_units(host, gpus.units(host))


def as_json(gpu: HostGpu, units: Sequence[Unit]) -> dict[str, Any]:
    """What `kit gpus --json` says of a GPU that can be given as these units. The keys are an interface."""
    return {
        **picked(
            gpu,
            *("index", "name", "uuid", "compute_capability", "memory_mib", "memory_used_mib", "utilisation_percent"),
            *("temperature_c", "power_draw_w", "power_limit_w"),
        ),
        "is_free": bool(units) and all(unit.state == "free" for unit in units),
        "problem": gpu.problem,
        "mig_instances": [
            {
                "index": unit.index,
                **picked(unit.instance, "uuid", "profile", "memory_mib", "memory_used_mib"),
                "is_free": unit.state == "free",
                "processes": _processes_json(unit.processes),
                "containers": _containers_json([unit]),
            }
            for unit in units
            if unit.instance
        ],
        "processes": _processes_json(gpu.processes),
        "containers": _containers_json(units),
    }


def _processes_json(processes: Sequence[GpuProcess] | None) -> list[dict[str, Any]] | None:
    if processes is None:
        return None  # the driver does not say
    return [picked(process, "pid", "name", "user", "memory_mib", "container") for process in processes]


def _containers_json(units: Sequence[Unit]) -> list[dict[str, Any]]:
    given = dict.fromkeys(container for unit in units for container in unit.containers)
    leasing = {container for unit in units for container in unit.leases}
    return [{**picked(c, "name", "image", "service", "user"), "is_lease": c in leasing} for c in given]


def print_units(host: Host, units: Sequence[Unit]) -> None:
    """A row for each GPU and MIG instance, and below it a line for each container and process that uses it."""
    rows: list[tuple[tuple[str, ...], list[str]]] = []
    for gpu in host.gpus:
        mine = [unit for unit in units if unit.gpu == gpu]
        if gpu.is_mig_enabled:
            rows.append((_row(gpu), [] if mine else ["MIG is on, without an instance: nothing to give"]))
        for unit in mine:
            lines = [_container_line(c, is_lease=c in unit.leases) for c in unit.containers]
            lines += [_process_line(p) for p in unit.processes or ()]
            if unit.gpu.problem:
                lines.insert(0, f"the driver reports: {unit.gpu.problem}")
            elif unit.processes is None:
                lines.append("the driver does not say which processes use it")
            rows.append((_row(gpu, unit), lines))
    table = _fit([HEADER, *(row for row, _ in rows)])
    print_table(table[0], table[1:], colours=COLOURS, below=[lines for _, lines in rows])
    free = [unit.index for unit in units if unit.state == "free"]
    show(f"\nfree: {', '.join(free) or 'none'} ({len(free)} of {len(units)})")


def _row(gpu: HostGpu, unit: Unit | None = None) -> tuple[str, ...]:
    """The cells of a GPU (without a unit: of one that is given as MIG instances), or of an instance."""
    instance = unit.instance if unit else None
    if unit and instance:
        return (unit.index or "-", f"MIG {instance.profile}", _memory(instance), "-", "-", unit.state)
    return (
        str(gpu.index),
        gpu.name,
        _memory(gpu),
        "-" if gpu.utilisation_percent is None else f"{gpu.utilisation_percent}%",
        "-" if gpu.temperature_c is None else f"{gpu.temperature_c}C",
        unit.state if unit else "MIG",
    )


def _memory(of: HostGpu | MigInstance) -> str:
    if of.memory_mib is None:
        return "-"
    used = "?" if of.memory_used_mib is None else f"{of.memory_used_mib / 1024:.1f}"
    return f"{used}/{of.memory_mib / 1024:.1f} GiB"


def _container_line(container: GpuContainer, *, is_lease: bool) -> str:
    # A container's name begins with that of its image, unless it was named by other means.
    image = "" if container.image in container.name else f"  {container.image}"
    user = f"  {container.user}" if container.user else ""
    return f"{'lease' if is_lease else 'given'}  {container.name}{image}{user}"


def _process_line(process: GpuProcess) -> str:
    memory = "" if process.memory_mib is None else f"  {process.memory_mib} MiB"
    where = f"  in {process.container}" if process.container else ""
    kind = "  (draws only)" if process.is_graphics else ""
    return f"{process.pid}  {process.name}  {process.user or '-'}{memory}{where}{kind}"


def _fit(table: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The rows with names shortened until a line fits the terminal; whole where the output is no terminal."""
    if not sys.stdout.isatty():
        return [tuple(row) for row in table]
    others = sum(max(len(row[i]) for row in table) for i in range(len(HEADER)) if i != NAME) + 2 * (len(HEADER) - 1)
    space = max(shutil.get_terminal_size().columns - others, 8)
    if max(len(row[NAME]) for row in table) > space:
        table = [(*row[:NAME], row[NAME].removeprefix("NVIDIA "), *row[NAME + 1 :]) for row in table]
    return [
        (*row[:NAME], row[NAME] if len(row[NAME]) <= space else f"{row[NAME][: space - 1]}…", *row[NAME + 1 :])
        for row in table
    ]
