"""Checks of the machine: room, memory, clock, ports, and what could not be read of it."""

from __future__ import annotations

from collections.abc import Iterator

from kit import layout
from kit.decide.doctor.report import BUILD_FACTOR, Finding, HostReport, finding, in_gib, joined, note, warn

# Below this, importing a framework next to a notebook server begins to swap; kit's own judgement, not a measurement.
MEMORY_BYTES = 4 * 2**30
# Docker's default of 64 MiB is what DataLoader workers fail with: https://github.com/pytorch/pytorch/issues/5040
SHM_BYTES = 2**30
# Certificates and signed package lists have been seen to fail from minutes on.
CLOCK_SKEW_S = 60


def disk_low(report: HostReport) -> Iterator[Finding]:
    """Too little room for an image, or for building it."""
    host, needed = report.host, report.image_bytes
    free = host.disk_free_bytes
    if free is None or free >= needed * BUILD_FACTOR:
        return
    where = f" at {host.disk_path}" if host.disk_path else ""
    image = f"an image takes up to {needed / 1e9:.0f} GB, and" if free < needed else "enough for an image, but"
    yield finding(
        "block" if free < needed and report.has_gpu else "warn",  # images for the CPU are smaller
        f"{free / 1e9:.1f} GB free{where}: {image} building one takes up to {needed * BUILD_FACTOR / 1e9:.0f} GB with "
        "its cache",
        "`kit clean` shows what of kit's takes space and frees some; "
        f"`{host.engine.program or 'docker'} system prune` frees what no container uses, the build cache too",
    )


def shm_small(report: HostReport) -> Iterator[Finding]:
    """Little shared memory on the machine; containers of `kit run` have their own."""
    size = report.host.shm_bytes
    if size is not None and size < SHM_BYTES:
        yield note(
            f"/dev/shm has {size / 2**20:.0f} MiB: DataLoader workers outside kit's containers (those have "
            "their own) may die with a bus error",
            "`sudo mount -o remount,size=50% /dev/shm`",
        )


def memory_low(report: HostReport) -> Iterator[Finding]:
    """Little memory for a framework and its data."""
    size = report.host.memory_bytes
    if size is not None and size < MEMORY_BYTES:
        yield warn(
            f"{in_gib(size)} of memory: a framework, its data and a notebook server share it",
            "give WSL2 more: `memory=` under `[wsl2]` in %UserProfile%\\.wslconfig, then `wsl --shutdown`"
            if report.host.is_wsl
            else "use a machine with more memory, or add swap to get through a build",
        )


def clock_wrong(report: HostReport) -> Iterator[Finding]:
    """A clock that differs from the servers' makes certificates and package lists invalid."""
    skew = report.host.clock_skew_s
    if skew is not None and abs(skew) > CLOCK_SKEW_S:
        yield warn(
            f"the clock is {_duration(abs(skew))} {'ahead' if skew > 0 else 'behind'}: downloads may fail with "
            "certificate or signature errors",
            "`sudo hwclock --hctosys`" if report.host.is_wsl else "`sudo timedatectl set-ntp true`",
        )


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def ports_busy(report: HostReport) -> Iterator[Finding]:
    """The usual ports are taken; kit takes the next free one by itself."""
    usual = {layout.JUPYTER_PORT: "Jupyter", layout.TENSORBOARD_PORT: "TensorBoard"}
    taken = [port for port in report.host.busy_ports if port in usual]
    if taken:
        what = joined([f"{port} ({usual[port]})" for port in taken])
        yield note(
            f"in use on this machine: port {what}; kit takes the next free one and prints its URL",
            f"nothing; `kit ps` shows whether it is yours, `ss -ltnp 'sport = :{taken[0]}'` whose else",
        )


def unread(report: HostReport) -> Iterator[Finding]:
    """Facts that nobody could read, so that the checks of them say nothing."""
    for text in report.host.unread:
        probe = text.partition(":")[0]
        yield warn(
            f"could not be read: {text}", f"look at it by hand on {report.host.target or 'this machine'}: `{probe}`"
        )
    if report.host.driver is None and not report.host.unread:
        yield warn(
            "whether an NVIDIA driver is loaded could not be read",
            "look at it by hand: `cat /proc/driver/nvidia/version`",
        )
