"""What is wrong with a machine for GPU containers: an ordered list of checks, each a pure function of its facts."""

from __future__ import annotations

from dataclasses import replace

from kit.catalog import Catalog
from kit.decide.doctor import engine, gpus, injection, machine, reach
from kit.decide.doctor.report import IMAGE_BYTES, SEVERITIES, Check, Finding, HostReport, Severity
from kit.facts.host import Host

# In the order to read and to put right: what a later one needs comes first. A check's identifier is its function's
# name with hyphens.
CHECKS: tuple[Check, ...] = (
    machine.unread,
    gpus.nouveau,
    gpus.driver_missing,
    gpus.driver_mismatch,
    gpus.wsl_driver,
    gpus.wsl_library,
    gpus.driver_new,
    gpus.driver_modules,
    gpus.driver_old,
    gpus.gpu_unsupported,
    gpus.gpu_lost,
    gpus.mig_empty,
    engine.engine_missing,
    engine.engine_down,
    engine.engine_permission,
    engine.engine_old,
    engine.buildx_missing,
    engine.engine_snap,
    engine.engine_desktop,
    engine.podman_old,
    engine.podman_uids,
    engine.podman_linger,
    injection.toolkit_missing,
    injection.toolkit_unconfigured,
    injection.cdi_disabled,
    injection.cdi_missing,
    injection.cdi_unreadable,
    injection.cdi_stale,
    engine.engine_rootless,
    injection.toolkit_version,
    injection.cgroup_reload,
    machine.disk_low,
    machine.memory_low,
    machine.clock_wrong,
    reach.ca_missing,
    reach.proxy_engine,
    reach.index_unreachable,
    reach.registry_unreachable,
    reach.mirror_unreachable,
    gpus.gpu_busy,
    gpus.power_limit,
    gpus.gpu_missing,
    machine.shm_small,
    machine.ports_busy,
)


def examine(host: Host, catalog: Catalog, *, image_bytes: int = IMAGE_BYTES) -> list[Finding]:
    """All that is to be said of a machine, what blocks first; never raises.

    A check that crashes is a finding of its own (`unread`): the others are still made.
    """
    report = HostReport(host=host, catalog=catalog, image_bytes=image_bytes)
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += [replace(finding, check=identifier(check)) for finding in check(report)]
        except Exception as e:
            found.append(
                Finding(
                    check="unread",
                    severity="warn",
                    message=f"the check `{identifier(check)}` failed: {type(e).__name__}: {e}",
                    fix="this is a defect in kit: report it with what `kit doctor --json` prints",
                )
            )
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def identifier(check: Check) -> str:
    """The name that findings of a check carry."""
    return check.__name__.replace("_", "-")


__all__ = ["CHECKS", "SEVERITIES", "Check", "Finding", "HostReport", "Severity", "examine", "identifier"]
