"""Checks of what passes GPUs into containers: the NVIDIA Container Toolkit, CDI specifications, the legacy runtime."""

from __future__ import annotations

from collections.abc import Iterator

from kit.catalog.rows import KnownBadToolkit, version_key
from kit.decide.doctor import fixes
from kit.decide.doctor.report import Finding, HostReport, block, finding, joined, parse_version, warn
from kit.facts.host import CdiSpec


def toolkit_missing(report: HostReport) -> Iterator[Finding]:
    """A GPU, and nothing that could pass it into a container."""
    host = report.host
    # A specification written by hand needs no toolkit.
    is_passed = report.injection or host.cdi_specs
    if report.has_gpu and not (host.engine.is_desktop or host.toolkit.version or is_passed):
        yield block(
            "the NVIDIA Container Toolkit is not installed, so no container gets a GPU", fixes.install_toolkit(host)
        )


def toolkit_unconfigured(report: HostReport) -> Iterator[Finding]:
    """The toolkit is there, but the engine was told neither of CDI nor of the `nvidia` runtime."""
    host = report.host
    if not report.passes_gpus or not host.toolkit.version:
        return
    if report.injection == "runtime" and host.toolkit.no_cgroups and not host.engine.is_rootless:
        # https://github.com/NVIDIA/nvidia-container-toolkit/issues/381
        yield block(
            "`no-cgroups` is true in /etc/nvidia-container-runtime/config.toml, for rootless engines only: "
            "containers may not open the GPU (Failed to initialize NVML: Unknown Error)",
            "`sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups=false --in-place`",
        )
    if report.injection or report.has_cdi or host.cdi_specs or host.engine.features.is_cdi_only:
        return
    command = (
        fixes.configure_runtime(host)
        if report.is_older("cdi")
        else f"{fixes.generate_cdi()} && {fixes.enable_cdi(host)}"
    )
    yield block(
        f"the NVIDIA Container Toolkit {host.toolkit.version} is installed, but the engine does not use it: "
        "CDI is off, and there is no `nvidia` runtime",
        f"`{command}`",
    )


def toolkit_version(report: HostReport) -> Iterator[Finding]:
    """A version of the toolkit that is known to fail in this machine's combination."""
    for row in report.catalog.known_bad_toolkits:
        if report.passes_gpus and _applies(row, report):
            engine = f" with {report.engine.program} {report.engine.version}" if row.engine else ""
            yield finding(
                row.severity,
                f"NVIDIA Container Toolkit {report.host.toolkit.version}{engine}: {row.problem}",
                row.fix,
            )


def _applies(row: KnownBadToolkit, report: HostReport) -> bool:
    toolkit, engine = parse_version(report.host.toolkit.version), parse_version(report.engine.version)
    return (
        toolkit is not None
        and (not row.first or version_key(row.first) <= toolkit)
        and (not row.last or toolkit <= version_key(row.last))
        and (not row.engine or row.engine == report.engine.program)
        and (not row.injection or row.injection == report.injection)
        and (not row.wsl_driver or _is_wsl_from(row.wsl_driver, report))
        and (not row.engine_below or (engine is not None and engine < version_key(row.engine_below)))
    )


def _is_wsl_from(driver: str, report: HostReport) -> bool:
    host = report.host
    return host.is_wsl and bool(host.driver) and version_key(host.driver or "0") >= version_key(driver)


def cdi_missing(report: HostReport) -> Iterator[Finding]:
    """The engine resolves CDI devices, the toolkit is there, and nobody wrote the specification."""
    host = report.host
    is_asked = report.passes_gpus and report.has_cdi and host.toolkit.version
    if is_asked and not report.injection and all(spec.is_readable for spec in host.cdi_specs):
        yield block(
            "no CDI specification names this machine's GPUs, so the engine knows of none", f"`{fixes.generate_cdi()}`"
        )


def cdi_disabled(report: HostReport) -> Iterator[Finding]:
    """A CDI specification is there, and the engine does not look at it."""
    host, engine = report.host, report.engine
    if not report.passes_gpus or report.injection or report.has_cdi or not host.cdi_specs:
        return
    if engine.features.is_cdi_only:
        return  # podman-old says it
    where = joined([spec.path for spec in host.cdi_specs])
    row = report.minimum("cdi")
    if row and report.is_older("cdi"):
        yield block(
            f"{engine.program} {engine.version} cannot use CDI ({where}): that takes {row.version}",
            f"`{fixes.configure_runtime(host)}`, or upgrade the engine",
        )
        return
    yield block(f"there is a CDI specification ({where}), but CDI is off in the engine", f"`{fixes.enable_cdi(host)}`")


def cdi_unreadable(report: HostReport) -> Iterator[Finding]:
    """A CDI specification that the user may not read, which matters where the engine does not list its devices."""
    if not report.passes_gpus or not report.has_cdi or report.engine.lists_cdi:
        return
    for spec in report.host.cdi_specs:
        if not spec.is_readable:
            yield finding(
                "warn" if report.injection else "block",
                f"the CDI specification {spec.path} cannot be read by you",
                f"`sudo chmod 644 {spec.path}`",
            )


def cdi_stale(report: HostReport) -> Iterator[Finding]:
    """A CDI specification of an older driver: containers that ask for its devices do not start."""
    if not report.passes_gpus or report.injection != "cdi":
        return
    specs = [spec for spec in report.host.cdi_specs if spec.is_readable]
    stale = {spec.path: why for spec in specs if (why := _staleness(spec, report))}
    for path, why in stale.items():
        # Another specification may name the same devices; which one counts is the order of the engine's folders.
        yield finding(
            "block" if len(stale) == len(specs) else "warn",
            f"the CDI specification {path} {why}",
            f"`{fixes.generate_cdi(path)}`",
        )


def _staleness(spec: CdiSpec, report: HostReport) -> str:
    host = report.host
    if spec.missing_files:
        more = f" and {len(spec.missing_files) - 1} more" if len(spec.missing_files) > 1 else ""
        return f"mounts {spec.missing_files[0]}{more}, which is not there any more"
    # In WSL2 the libraries have a version other than Windows' driver.
    if spec.driver and host.driver and spec.driver != host.driver and not host.is_wsl:
        return f"is of driver {spec.driver}, and driver {host.driver} is loaded"
    return ""


def cgroup_reload(report: HostReport) -> Iterator[Finding]:
    """The legacy runtime under systemd's cgroups: `systemctl daemon-reload` takes the GPUs from running containers.

    NVIDIA's troubleshooting page names CDI as a way out, and where the engine is too old for it, the cgroupfs driver:
    https://github.com/NVIDIA/nvidia-container-toolkit/issues/48
    """
    if not report.passes_gpus or report.injection != "runtime" or report.engine.cgroup_driver != "systemd":
        return
    host = report.host
    if report.is_older("cdi"):
        file = fixes.engine_config(host.engine)
        fix = f'add `"exec-opts": ["native.cgroupdriver=cgroupfs"]` to {file}, then `{fixes.restart(host)}`'
    elif report.has_cdi:
        fix = f"pass GPUs by CDI: `{fixes.generate_cdi()}`"
    elif host.cdi_specs:
        fix = f"pass GPUs by CDI: `{fixes.enable_cdi(host)}`"
    else:
        fix = f"pass GPUs by CDI: `{fixes.generate_cdi()} && {fixes.enable_cdi(host)}`"
    yield warn(
        "running containers lose their GPUs (Failed to initialize NVML: Unknown Error) at the next `systemctl "
        "daemon-reload`, which package updates do too: `--gpus` is the legacy way, and systemd manages the cgroups",
        fix,
    )
