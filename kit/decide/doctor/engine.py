"""Checks of the container engine itself."""

from __future__ import annotations

from collections.abc import Iterator

from kit.decide.doctor import fixes
from kit.decide.doctor.report import Finding, HostReport, block, finding, note
from kit.decide.rights import way_in
from kit.facts.sockets import ENGINE_VARIABLE


def engine_missing(report: HostReport) -> Iterator[Finding]:
    """No engine at all."""
    host = report.host
    if host.engine.problem == "missing" or (host.engine.program == "" and host.engine.problem == ""):
        yield block("no container engine is installed", fixes.install_engine(host))


def engine_down(report: HostReport) -> Iterator[Finding]:
    """An engine that is installed and does not answer."""
    host = report.host
    if host.engine.problem == "down":
        said = f": {host.engine.problem_text}" if host.engine.problem_text else ""
        yield block(
            f"{host.engine.program or 'the container engine'} does not answer{said}",
            # Without a service to start, what it says is wrong with its own program or files.
            f"`{fixes.start(host)}`{_or_podman(report)}"
            if host.engine.features.has_service
            else f"`{host.engine.program} info` must work: put right what it says",
        )


def engine_permission(report: HostReport) -> Iterator[Finding]:
    """An engine that this user may not talk to."""
    host = report.host
    if host.engine.problem == "denied":
        at = f" at {host.engine.endpoint}" if host.engine.endpoint else ""
        path = host.engine.endpoint.removeprefix("unix://") or "/var/run/docker.sock"
        yield block(
            f"you have no right to use the container engine{at}",
            way_in(host.engine.access, path, is_private=host.engine.is_private) + _or_podman(report),
        )


def _or_podman(report: HostReport) -> str:
    """The other engine that is there, for whoever can do nothing about the one that does not answer."""
    is_other = report.host.podman and report.engine.features.has_service
    return f"; or take Podman, which is there: `export {ENGINE_VARIABLE}=podman`" if is_other else ""


def engine_snap(report: HostReport) -> Iterator[Finding]:
    """Docker from snap is confined: it does not see the driver's libraries on the host.

    https://github.com/canonical/docker-snap/issues/148
    """
    host = report.host
    if host.engine.is_snap and report.has_engine and report.has_gpu:
        command = fixes.install_command(host, "docker.io docker-buildx") if host.os_id in fixes.APT else ""
        yield finding(
            "warn" if report.injection else "block",
            "docker is the snap, which is confined and may not see the NVIDIA driver's libraries",
            f"`sudo snap remove docker && {command}`"
            if command
            else f"`sudo snap remove docker`, then install Docker Engine ({fixes.ENGINE_GUIDE})",
        )


def engine_desktop(report: HostReport) -> Iterator[Finding]:
    """Docker Desktop on Linux runs containers in a VM without the GPU; on Windows its VM is WSL2, which has it."""
    host = report.host
    if host.engine.is_desktop and report.has_engine and report.has_gpu and not host.is_wsl:
        is_apt = host.os_id in fixes.APT and not host.target
        yield block(
            "Docker Desktop runs containers in a virtual machine, which has no access to the GPU",
            "`kit engine up && export KIT_ENGINE=private`"
            if is_apt
            else f"install Docker Engine beside it ({fixes.ENGINE_GUIDE}), then `docker context use default`",
        )


def engine_rootless(report: HostReport) -> Iterator[Finding]:
    """The legacy runtime may not set up device cgroups for a rootless engine, and fails unless it is told not to."""
    host = report.host
    if report.passes_gpus and host.engine.is_rootless and report.injection == "runtime" and not host.toolkit.no_cgroups:
        yield block(
            "the engine is rootless, and the `nvidia` runtime is not told to leave cgroups alone",
            "`sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place`",
        )


def engine_old(report: HostReport) -> Iterator[Finding]:
    """Docker too old to build kit's images, or for CDI."""
    engine = report.engine
    if not report.has_engine or engine.features.is_cdi_only:
        return
    build, cdi = report.minimum("build"), report.minimum("cdi")
    if build and report.is_older("build"):
        yield block(
            f"docker {engine.version} is too old: {build.needs} takes {build.version}",
            f"upgrade Docker Engine ({fixes.ENGINE_GUIDE})",
        )
    elif cdi and report.is_older("cdi") and report.passes_gpus and report.injection == "runtime":
        yield note(
            f"docker {engine.version} is too old for {cdi.needs} ({cdi.version}): the runtime passes GPUs",
            f"upgrade Docker Engine when you can ({fixes.ENGINE_GUIDE})",
        )


def buildx_missing(report: HostReport) -> Iterator[Finding]:
    """Without buildx the docker command silently uses the old builder, which cannot build kit's images."""
    # For a machine behind SSH the buildx of this one builds.
    is_asked = report.has_engine and report.engine.features.has_buildkit and not report.host.target
    if is_asked and not report.engine.buildx:
        yield block("this docker has no buildx, so it cannot build with BuildKit", fixes.install_buildx(report.host))


def podman_old(report: HostReport) -> Iterator[Finding]:
    """A podman that does not know CDI devices has no way to a GPU."""
    engine, row = report.engine, report.minimum("cdi")
    if row and engine.features.is_cdi_only and report.passes_gpus and report.is_older("cdi"):
        yield block(
            f"podman {engine.version} is too old for {row.needs}: that takes {row.version}",
            "upgrade podman, which may take a newer release of the distribution, or use Docker Engine: "
            + fixes.install_engine(report.host),
        )


def podman_uids(report: HostReport) -> Iterator[Finding]:
    """Rootless Podman without UIDs for its containers cannot unpack an image, whose files have several owners.

    podman/docs/tutorials/rootless_tutorial.md names the files, the commands and that ranges must not overlap.
    """
    engine = report.engine
    if report.has_engine and engine.is_rootless and engine.uids == 1:
        span = "100000-165535"
        yield block(
            "podman has no UIDs for containers: no range in /etc/subuid is yours, so no image can be unpacked",
            f"`sudo usermod --add-subuids {span} --add-subgids {span} $USER && podman system migrate` (another "
            "range if /etc/subuid or /etc/subgid gives this one to somebody else)",
        )


def podman_linger(report: HostReport) -> Iterator[Finding]:
    """What rootless Podman runs is its user's, and systemd ends that with the user's last session."""
    host, engine = report.host, report.engine
    if report.has_engine and not engine.features.has_service and engine.is_rootless and host.lingers is False:
        yield finding(
            "warn" if host.target else "note",
            "containers end when the last login of their user does: podman is rootless, and lingering is off",
            f"`{f'ssh {host.target} ' if host.target else ''}loginctl enable-linger`",
        )
