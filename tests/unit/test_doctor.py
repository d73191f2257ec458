"""kit.decide.doctor: healthy machines give nothing wrong; each finding comes and goes with the one fact it is about."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.catalog import load_catalog
from kit.catalog.rows import version_key
from kit.decide import doctor
from kit.decide.compat import is_too_new, judge
from kit.decide.doctor import CHECKS, Finding, HostReport, examine, identifier
from kit.decide.doctor.fixes import install_driver, install_engine, trust_ca
from kit.decide.doctor.report import joined, parse_version
from kit.facts.engine import EngineFacts
from kit.facts.host import (
    CdiSpec,
    ContainerToolkit,
    Endpoint,
    GpuProcess,
    Host,
    HostGpu,
    MigInstance,
    PciGpu,
)
from kit.facts.sockets import Access

CATALOG = load_catalog()
GB = 10**9
DOCKER = EngineFacts(
    program="docker",
    version="28.5.2",
    problem="",
    endpoint="unix:///var/run/docker.sock",
    cgroup_driver="systemd",
    cgroup_version="2",
    storage_driver="overlay2",
    data_root="/var/lib/docker",
    runtimes=("io.containerd.runc.v2", "runc"),
    default_runtime="runc",
    cdi_spec_dirs=("/etc/cdi", "/var/run/cdi"),
    buildx="0.29.1",
)
SPEC = CdiSpec(path="/etc/cdi/nvidia.yaml", devices=("nvidia.com/gpu=0", "nvidia.com/gpu=all"), driver="595.71.05")
ADA = HostGpu(
    name="NVIDIA GeForce RTX 4090",
    compute_capability="8.9",
    uuid="GPU-5f0e1b7c-0000-0000-0000-000000000000",
    pci_address="0000:01:00.0",
    memory_mib=24564,
    memory_used_mib=312,
    power_limit_w=450.0,
    power_default_w=450.0,
    processes=(),
)
CPU_ONLY = Host(
    os="Ubuntu 24.04.3 LTS",
    os_id="ubuntu",
    kernel="6.8.0-87-generic",
    engine=DOCKER,
    cpus=16,
    memory_bytes=64 * 2**30,
    shm_bytes=32 * 2**30,
    disk_path="/var/lib/docker",
    disk_free_bytes=400 * GB,
    endpoints=(
        Endpoint(kind="registry", url="https://registry.example", is_reachable=True, seconds=0.1),
        Endpoint(kind="mirror", url="https://mirror.example", is_reachable=True, seconds=0.1),
        Endpoint(kind="index", url="https://index.example/simple", is_reachable=True, seconds=0.1),
    ),
    clock_skew_s=0.3,
)
UBUNTU = replace(
    CPU_ONLY,
    driver="595.71.05",
    driver_cuda="13.2",
    driver_library="595.71.05",
    pci_gpus=(PciGpu(address="0000:01:00.0", device_id="2684", driver="nvidia"),),
    gpus=(ADA,),
    toolkit=ContainerToolkit(version="1.18.2", no_cgroups=False),
    cdi_specs=(SPEC,),
    engine=replace(DOCKER, cdi_devices=SPEC.devices),
)
LEGACY = replace(
    UBUNTU,
    cdi_specs=(),
    engine=replace(DOCKER, version="27.5.1", cdi_spec_dirs=(), runtimes=("nvidia", "runc"), cgroup_driver="cgroupfs"),
)
WSL = replace(
    UBUNTU,
    is_wsl=True,
    kernel="6.6.87.2-microsoft-standard-WSL2",
    driver="576.88",
    driver_library="",
    driver_cuda="12.9",
    pci_gpus=(),
    cdi_specs=(replace(SPEC, driver=""),),
)
PODMAN = replace(
    UBUNTU,
    os="Fedora Linux 42",
    os_id="fedora",
    podman="5.4.2",
    engine=EngineFacts(
        program="podman",
        version="5.4.2",
        problem="",
        is_rootless=True,
        cgroup_driver="systemd",
        cdi_devices=SPEC.devices,  # of the specification: it lists none
    ),
)
# kit's own engine: CDI by a hand-written specification, no Container Toolkit.
PRIVATE = replace(UBUNTU, toolkit=ContainerToolkit(), engine=replace(DOCKER, is_private=True, cdi_devices=SPEC.devices))
DESKTOP_WSL = replace(WSL, toolkit=ContainerToolkit(), cdi_specs=(), engine=replace(DOCKER, is_desktop=True))
HEALTHY = {
    "ubuntu": UBUNTU,
    "legacy": LEGACY,
    "wsl": WSL,
    "podman": PODMAN,
    "private": PRIVATE,
    "desktop on windows": DESKTOP_WSL,
}

Change = Callable[[Host], Host]


def facts(**changes: Any) -> Change:
    return lambda host: replace(host, **changes)


def engine(**changes: Any) -> Change:
    return lambda host: replace(host, engine=replace(host.engine, **changes))


def gpu(**changes: Any) -> Change:
    return lambda host: replace(host, gpus=(replace(host.gpus[0], **changes), *host.gpus[1:]))


def spec(**changes: Any) -> Change:
    return lambda host: replace(host, cdi_specs=(replace(host.cdi_specs[0], **changes),))


def toolkit(**changes: Any) -> Change:
    return lambda host: replace(host, toolkit=replace(host.toolkit, **changes))


def endpoint(kind: str, **changes: Any) -> Change:
    return lambda host: replace(
        host, endpoints=tuple(replace(e, **changes) if e.kind == kind else e for e in host.endpoints)
    )


def both(*changes: Change) -> Change:
    def change(host: Host) -> Host:
        for one in changes:
            host = one(host)
        return host

    return change


NO_GPU_FACTS = {"gpus": (), "driver": "", "driver_library": ""}
NO_CDI = both(facts(cdi_specs=()), engine(cdi_devices=()))
CDI_OFF = engine(cdi_devices=(), cdi_spec_dirs=())
LAPTOP = replace(UBUNTU, gpus=(ADA, replace(ADA, index=1)))
ROOTLESS_LEGACY = both(engine(is_rootless=True), toolkit(no_cgroups=True))(LEGACY)

DEBIAN = replace(UBUNTU, os="Debian GNU/Linux 13 (trixie)", os_id="debian")


def bus(device_id: str, address: str = "0000:01:00.0") -> PciGpu:
    return PciGpu(address=address, device_id=device_id, driver="nvidia")


def driver(version: str) -> dict[str, str]:
    return {"driver": version, "driver_library": version}


# (check, the machine without it, the fact that brings it, severity, part of the message, part of the fix)
CASES: list[tuple[str, Host, Change, str, str, str]] = [
    # driver and GPU
    ("gpu-missing", UBUNTU, facts(pci_gpus=(), **NO_GPU_FACTS), "note", "images run on the CPU", "CPU image"),
    (
        "driver-missing",
        UBUNTU,
        facts(**NO_GPU_FACTS),
        "block",
        "at 0000:01:00.0, but no NVIDIA driver",
        "ubuntu-drivers",
    ),
    (
        "driver-missing",
        UBUNTU,
        facts(**NO_GPU_FACTS | {"driver_library": "595.71.05"}),
        "block",
        "driver 595.71.05 is installed but not loaded",
        "sudo modprobe nvidia",
    ),
    (
        "driver-missing",
        UBUNTU,
        facts(**NO_GPU_FACTS, pci_gpus=(PciGpu(address="0000:01:00.0", device_id="2684", driver="vfio-pci"),)),
        "warn",
        "bound to vfio-pci",
        "virtual machine",
    ),
    (
        "driver-mismatch",
        UBUNTU,
        facts(driver_library="595.80"),
        "block",
        "module 595.71.05 is not library 595.80",
        "reboot",
    ),
    (
        "driver-mismatch",
        UBUNTU,
        facts(driver_problem="Failed to initialize NVML: Driver/library version mismatch", driver_library="", gpus=()),
        "block",
        "version mismatch",
        "reboot",
    ),
    ("nouveau", UBUNTU, facts(has_nouveau=True, **NO_GPU_FACTS), "block", "nouveau driver is loaded", "ubuntu-drivers"),
    (
        "nouveau",
        PODMAN,
        facts(has_nouveau=True, **NO_GPU_FACTS | {"driver_library": "595.71.05"}),
        "block",
        "nouveau",
        "dracut --force",
    ),
    ("wsl-driver", WSL, facts(has_linux_driver_in_wsl=True), "block", "inside WSL2", "apt-get purge"),
    ("wsl-library", WSL, facts(driver="", gpus=()), "warn", "/usr/lib/wsl/lib", "on Windows"),
    (
        "driver-old",
        UBUNTU,
        facts(driver="460.32.03", driver_library=""),
        "block",
        "driver 460.32.03 is too old",
        "driver 520",
    ),
    (
        "driver-old",
        UBUNTU,
        facts(driver="550.54.14", driver_library="550.54.14"),
        "note",
        "driver 580 or newer would run `torch2.15-cu132`",
        "ubuntu-drivers",
    ),
    # drivers too new, too old, with the other kernel modules
    (
        "driver-new",
        UBUNTU,
        gpu(name="NVIDIA GeForce GTX 1050", compute_capability="6.1"),
        "block",
        "NVIDIA GeForce GTX 1050 at 0000:01:00.0: driver 595.71.05 is too new: R580 is the last driver for this card",
        "`sudo apt-get install nvidia-driver-580`",
    ),
    (
        "driver-new",
        UBUNTU,
        facts(gpus=(), pci_gpus=(bus("1c81"),), driver_problem="No devices were found"),
        "block",
        "GeForce GTX 1050 at 0000:01:00.0: driver 595.71.05 is too new",
        "nvidia-driver-580",
    ),
    (
        "driver-new",
        PODMAN,
        facts(pci_gpus=(bus("2684"), bus("15f8", "0000:02:00.0"))),
        "warn",
        "Tesla P100 PCIe 16GB at 0000:02:00.0: driver 595.71.05 is too new",
        "akmod-nvidia-580xx",
    ),
    (
        "driver-new",
        WSL,
        gpu(name="Tesla K80", compute_capability="3.7", pci_address=""),
        "block",
        "Tesla K80: driver 576.88 is too new: R470 is the last driver",
        "install NVIDIA driver R470 on Windows",
    ),
    (
        "driver-new",
        DEBIAN,
        facts(gpus=(), driver="", driver_library="595.71.05", pci_gpus=(replace(bus("1c81"), driver=""),)),
        "block",
        "GeForce GTX 1050 at 0000:01:00.0: driver 595.71.05 is too new",
        "R580 with the proprietary kernel modules",
    ),
    (
        "driver-modules",
        UBUNTU,
        facts(gpus=(), pci_gpus=(bus("2b85"),), driver_modules="proprietary", driver_problem="No devices were found"),
        "block",
        "NVIDIA GeForce RTX 5090 at 0000:01:00.0: the proprietary kernel modules of driver 595.71.05 do not drive",
        "`sudo apt-get install nvidia-driver-595-open`",
    ),
    (
        "driver-modules",
        UBUNTU,
        facts(
            gpus=(),
            pci_gpus=(bus("1db4"),),
            driver="580.65.06",
            driver_library="580.65.06",
            driver_modules="open",
            driver_problem="No devices were found",
        ),
        "block",
        "takes the proprietary ones",
        "`sudo apt-get install nvidia-driver-580`",
    ),
    (
        "driver-old",
        DEBIAN,
        facts(gpus=(), pci_gpus=(bus("2b85"),), driver_problem="No devices were found", **driver("550.163.01")),
        "block",
        "driver 550.163.01 is too old for NVIDIA GeForce RTX 5090 at 0000:01:00.0, which takes 570.26 or newer",
        "has no driver newer than 550: add NVIDIA's own repository",
    ),
    (
        "driver-missing",
        DEBIAN,
        facts(**NO_GPU_FACTS, pci_gpus=(bus("2b85"),)),
        "block",
        "an NVIDIA GPU (NVIDIA GeForce RTX 5090) at 0000:01:00.0, but no NVIDIA driver",
        "`sudo apt-get install nvidia-open`",
    ),
    (
        "driver-missing",
        DEBIAN,
        facts(**NO_GPU_FACTS, pci_gpus=(bus("1c81"),)),
        "block",
        "(GeForce GTX 1050)",
        "`sudo apt-get install nvidia-driver` (component non-free",
    ),
    (
        "driver-old",
        UBUNTU,
        both(gpu(name="GRID T4-16Q", compute_capability="7.5"), facts(**driver("550.54.14"))),
        "note",
        "driver 580 or newer would run",
        "this is a vGPU, whose driver must match the vGPU manager of its host",
    ),
    (
        "driver-old",
        UBUNTU,
        both(gpu(name="NVIDIA A10", compute_capability="8.6", is_vgpu=True), facts(**driver("418.39"))),
        "block",
        "driver 418.39 is too old",
        "vGPU manager",
    ),
    (
        "gpu-unsupported",
        UBUNTU,
        gpu(name="Quadro K600", compute_capability="3.0"),
        "block",
        "no image has code for GPU 0, Quadro K600 (3.0)",
        "",
    ),
    (
        "gpu-unsupported",
        LAPTOP,
        gpu(name="Quadro K600", compute_capability="3.0"),
        "warn",
        "Quadro K600",
        "`--gpus device=1`",
    ),
    ("gpu-lost", UBUNTU, gpu(problem="GPU is lost"), "block", "the driver says: GPU is lost", "sudo reboot"),
    ("gpu-lost", LAPTOP, gpu(problem="GPU is lost"), "warn", "GPU is lost", "sudo reboot"),
    (
        "gpu-lost",
        UBUNTU,
        facts(gpus=(), driver_problem="No devices were found"),
        "block",
        "No devices were found",
        "NVRM",
    ),
    ("mig-empty", UBUNTU, gpu(is_mig_enabled=True), "block", "no MIG instance", "-mig 0"),
    (
        "gpu-busy",
        UBUNTU,
        gpu(memory_used_mib=20000, processes=(GpuProcess(pid=4711, name="python", user="alice"),)),
        "warn",
        "20000 of 24564 MiB are in use by python (PID 4711, alice)",
        "kit gpus",
    ),
    ("gpu-busy", LAPTOP, gpu(memory_used_mib=20000), "note", "20000 of 24564 MiB", "`--gpus device=1`"),
    ("power-limit", UBUNTU, gpu(power_limit_w=300.0), "note", "300 W, 450 W by default", "-i 0 -pl 450"),
    # Container Toolkit, CDI, runtime
    (
        "toolkit-missing",
        UBUNTU,
        both(NO_CDI, toolkit(version="")),
        "block",
        "not installed",
        "nvidia-container-toolkit",
    ),
    (
        "toolkit-missing",
        PODMAN,
        both(NO_CDI, toolkit(version="")),
        "block",
        "not installed",
        "sudo dnf install nvidia-container-toolkit",
    ),
    ("toolkit-unconfigured", LEGACY, engine(runtimes=("runc",)), "block", "CDI is off", "--cdi.enabled"),
    (
        "toolkit-unconfigured",
        LEGACY,
        engine(runtimes=("runc",), version="24.0.7"),
        "block",
        "1.18.2 is installed, but",
        "nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker",
    ),
    ("toolkit-unconfigured", LEGACY, toolkit(no_cgroups=True), "block", "no-cgroups", "no-cgroups=false"),
    ("toolkit-version", UBUNTU, toolkit(version="1.17.4"), "warn", "CVE-2025-23266", "1.17.8"),
    ("toolkit-version", LEGACY, toolkit(version="1.19.1"), "note", "with docker 27.5.1", "1.19.0"),
    (
        "toolkit-version",
        replace(PODMAN, toolkit=ContainerToolkit(version="1.19.0")),
        both(toolkit(version="1.19.1"), engine(version="4.9.3+ds1-1ubuntu0.2")),
        "warn",
        "additionalGids",
        "no-additional-gids-for-device-nodes",
    ),
    ("cdi-missing", UBUNTU, NO_CDI, "block", "no CDI specification", "nvidia-ctk cdi generate"),
    ("cdi-missing", PODMAN, NO_CDI, "block", "no CDI specification", "nvidia-ctk cdi generate"),
    (
        "cdi-stale",
        UBUNTU,
        spec(driver="570.124.06"),
        "block",
        "is of driver 570.124.06",
        "--output=/etc/cdi/nvidia.yaml",
    ),
    (
        "cdi-stale",
        WSL,
        spec(missing_files=("/usr/lib/wsl/lib/libcuda.so.1", "/usr/lib/wsl/lib/libdxcore.so")),
        "block",
        "libcuda.so.1 and 1 more",
        "cdi generate",
    ),
    ("cdi-disabled", UBUNTU, CDI_OFF, "block", "CDI is off in the engine", "--cdi.enabled"),
    ("cdi-disabled", UBUNTU, both(CDI_OFF, engine(version="24.0.7")), "block", "that takes 25.0", "runtime configure"),
    (
        "cdi-unreadable",
        PODMAN,
        both(spec(is_readable=False, devices=()), engine(cdi_devices=())),
        "block",
        "cannot be read",
        "sudo chmod 644",
    ),
    ("cgroup-reload", LEGACY, engine(cgroup_driver="systemd"), "warn", "daemon-reload", "--cdi.enabled"),
    (
        "cgroup-reload",
        LEGACY,
        engine(cgroup_driver="systemd", version="24.0.7"),
        "warn",
        "daemon-reload",
        "native.cgroupdriver=cgroupfs",
    ),
    # engine
    ("engine-missing", UBUNTU, facts(engine=EngineFacts()), "block", "no container engine", "kit engine up"),
    (
        "engine-down",
        UBUNTU,
        engine(problem="down", problem_text="connection refused"),
        "block",
        "docker does not answer: connection refused",
        "sudo systemctl start docker",
    ),
    (
        "engine-permission",
        UBUNTU,
        engine(problem="denied", access=Access(is_roots=True, group="docker")),
        "block",
        "no right",
        "sudo usermod -aG docker $USER",
    ),
    (
        "engine-permission",
        UBUNTU,
        engine(problem="denied", access=Access(is_roots=True, has_sudo=True)),
        "block",
        "no right",
        "it is root's alone: `sudo -E kit …` uses it as root",
    ),
    (
        "engine-snap",
        UBUNTU,
        engine(is_snap=True, cdi_devices=(), cdi_spec_dirs=()),
        "block",
        "snap",
        "snap remove docker",
    ),
    ("engine-desktop", UBUNTU, engine(is_desktop=True), "block", "virtual machine", "KIT_ENGINE=private"),
    ("engine-rootless", ROOTLESS_LEGACY, toolkit(no_cgroups=False), "block", "rootless", "no-cgroups --in-place"),
    ("engine-old", UBUNTU, engine(version="20.10.24+dfsg1"), "block", "20.10.24+dfsg1 is too old", "upgrade"),
    ("engine-old", LEGACY, engine(version="24.0.7"), "note", "the runtime passes GPUs", "upgrade"),
    ("buildx-missing", UBUNTU, engine(buildx=""), "block", "no buildx", "apt-get install docker-buildx-plugin"),
    (
        "engine-down",
        UBUNTU,
        both(engine(problem="down"), facts(podman="4.3.1")),
        "block",
        "docker",
        "KIT_ENGINE=podman",
    ),
    (
        "engine-down",
        PODMAN,
        engine(problem="down", problem_text="no such"),
        "block",
        "no such",
        "`podman info` must work",
    ),
    (
        "engine-permission",
        UBUNTU,
        both(engine(problem="denied"), facts(podman="4.3.1")),
        "block",
        "no right",
        "or take Podman, which is there: `export KIT_ENGINE=podman`",
    ),
    ("podman-old", PODMAN, engine(version="3.4.4"), "block", "podman 3.4.4 is too old", "upgrade podman"),
    ("podman-uids", PODMAN, engine(uids=1), "block", "/etc/subuid", "--add-subuids 100000-165535 --add-subgids"),
    ("podman-linger", PODMAN, facts(lingers=False), "note", "containers end", "`loginctl enable-linger`"),
    (
        "podman-linger",
        PODMAN,
        facts(lingers=False, target="me@lab"),
        "warn",
        "lingering is off",
        "`ssh me@lab loginctl enable-linger`",
    ),
    # machine
    ("disk-low", UBUNTU, facts(disk_free_bytes=5 * GB), "block", "5.0 GB free at /var/lib/docker", "system prune"),
    ("disk-low", UBUNTU, facts(disk_free_bytes=12 * GB), "warn", "enough for an image, but building", "system prune"),
    ("disk-low", CPU_ONLY, facts(disk_free_bytes=5 * GB), "warn", "5.0 GB free", "system prune"),
    ("shm-small", UBUNTU, facts(shm_bytes=64 * 2**20), "note", "64 MiB", "remount"),
    ("memory-low", UBUNTU, facts(memory_bytes=2 * 2**30), "warn", "2.0 GiB", "swap"),
    ("memory-low", WSL, facts(memory_bytes=2 * 2**30), "warn", "2.0 GiB", ".wslconfig"),
    ("clock-wrong", UBUNTU, facts(clock_skew_s=-7200.0), "warn", "2 hours behind", "timedatectl"),
    ("clock-wrong", WSL, facts(clock_skew_s=61.0), "warn", "61 seconds ahead", "hwclock"),
    ("ports-busy", UBUNTU, facts(busy_ports=(8888, 8889)), "note", "port 8888 (Jupyter)", "kit ps"),
    (
        "unread",
        UBUNTU,
        facts(unread=("nvidia-smi: timed out after 10 s",)),
        "warn",
        "timed out after 10 s",
        "`nvidia-smi`",
    ),
    ("unread", UBUNTU, facts(driver=None), "warn", "whether an NVIDIA driver", "/proc/driver/nvidia/version"),
    # network
    ("proxy-engine", UBUNTU, facts(shell_proxies=("https_proxy",)), "warn", "https_proxy is set", "daemon.json"),
    (
        "proxy-engine",
        PRIVATE,
        facts(shell_proxies=("http_proxy", "no_proxy")),
        "warn",
        "http_proxy is",
        "kit engine up",
    ),
    (
        "registry-unreachable",
        UBUNTU,
        endpoint("registry", is_reachable=False, problem="timeout"),
        "note",
        "does not answer in time; the mirror https://mirror.example does",
        "nothing",
    ),
    (
        "registry-unreachable",
        replace(UBUNTU, endpoints=UBUNTU.endpoints[:1]),
        endpoint("registry", is_reachable=False, problem="name"),
        "warn",
        "without any: `--base archive`",
        "KIT_REGISTRY_MIRROR",
    ),
    (
        "mirror-unreachable",
        UBUNTU,
        endpoint("mirror", is_reachable=False, problem="refused"),
        "warn",
        "refused",
        "KIT_",
    ),
    (
        "mirror-unreachable",
        engine(mirrors=("https://mirror.example/",))(UBUNTU),
        endpoint("mirror", is_reachable=False, problem="503"),
        "warn",
        "(503)",
        "registry-mirrors",
    ),
    (
        "index-unreachable",
        UBUNTU,
        endpoint("index", is_reachable=False),
        "warn",
        "no image can be built",
        "UV_DEFAULT_INDEX",
    ),
    (
        "ca-missing",
        UBUNTU,
        endpoint("index", is_reachable=False, problem="certificate"),
        "warn",
        "certificate of https://index.example/simple is not trusted",
        "update-ca-certificates",
    ),
]


def found(host: Host, check: str) -> list[Finding]:
    return [finding for finding in examine(host, CATALOG) if finding.check == check]


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_machine_gives_nothing(name: str) -> None:
    findings = examine(HEALTHY[name], CATALOG)
    # WSL's driver here is of the CUDA 12 line: a newer one would do more, which is a note.
    assert [f for f in findings if f.severity != "note" or f.check != "driver-old"] == []


def test_a_machine_without_a_gpu_gives_one_note() -> None:
    findings = examine(CPU_ONLY, CATALOG)
    assert [(f.check, f.severity) for f in findings] == [("gpu-missing", "note")]


@pytest.mark.parametrize(
    ("check", "healthy", "change", "severity", "message", "fix"),
    CASES,
    ids=[f"{check}-{i}" for i, (check, *_) in enumerate(CASES)],
)
def test_a_finding_comes_and_goes_with_its_fact(
    check: str, healthy: Host, change: Change, severity: str, message: str, fix: str
) -> None:
    findings = found(change(healthy), check)
    assert len(findings) == 1, examine(change(healthy), CATALOG)
    assert findings[0].severity == severity
    assert message in findings[0].message
    assert fix in findings[0].fix
    assert found(healthy, check) == []


CARDS = [
    HostGpu(name=name, compute_capability=row.compute_capability, uuid="GPU-1", pci_address="0000:01:00.0")
    for row in CATALOG.chips
    for name in row.names
]


@given(st.sampled_from(CARDS), st.integers(340, 630), st.sampled_from([UBUNTU, WSL, DEBIAN, PODMAN]))
@settings(max_examples=60, deadline=None)
def test_a_driver_is_never_praised_for_an_image_without_code(card: HostGpu, branch: int, machine: Host) -> None:
    version = f"{branch}.54.14"
    host = replace(machine, gpus=(card,), pci_gpus=(), **driver(version))
    for one in examine(host, CATALOG):
        if match := re.search(r"driver (\S+) or newer (?:\(R\d+ at most\) )?would run `(\S+)` too", one.message):
            assert not judge(CATALOG, CATALOG.find(match[2]), replace(host, driver=match[1])).refusals
    checks = [one.check for one in examine(host, CATALOG)]
    assert ("driver-new" in checks) == is_too_new(CATALOG, card.compute_capability, version)
    assert not {"driver-new", "driver-old"} <= set(checks)


def test_every_check_has_a_case() -> None:
    assert {identifier(check) for check in CHECKS} == {check for check, *_ in CASES}


def test_what_is_said_of_podman_is_not_said_of_others() -> None:
    # Root's containers are nobody's session, and Docker's belong to a service; Podman builds without buildx.
    not_linger = facts(lingers=False)
    assert examine(not_linger(UBUNTU), CATALOG) == []
    assert examine(both(not_linger, engine(is_rootless=False, uids=1))(PODMAN), CATALOG) == []
    assert examine(both(engine(uids=65537), facts(lingers=True))(PODMAN), CATALOG) == []
    assert examine(both(engine(is_rootless=True), not_linger, facts(podman="4.3.1"))(UBUNTU), CATALOG) == []


def test_podman_has_no_service_to_start_again() -> None:
    refused = endpoint("registry", is_reachable=False, problem="certificate")
    (finding,) = found(refused(PODMAN), "ca-missing")
    assert "update-ca-trust" in finding.fix
    assert "systemctl" not in finding.fix


def test_every_finding_is_named_after_its_check() -> None:
    for _, healthy, change, *_ in CASES:
        report = HostReport(host=change(healthy), catalog=CATALOG)
        named = [replace(finding, check=identifier(check)) for check in CHECKS for finding in check(report)]
        found = examine(change(healthy), CATALOG)
        assert len(found) == len(named)
        assert all(finding in named for finding in found)


# A finding, and those that would contradict it or say it twice.
EXCLUSIVE = {
    "engine-missing": {"engine-down", "buildx-missing", "cdi-disabled", "cdi-missing", "cdi-stale", "proxy-engine"},
    "engine-down": {"engine-missing", "buildx-missing", "cdi-disabled", "cdi-missing", "toolkit-unconfigured"},
    "engine-permission": {"engine-missing", "buildx-missing", "cdi-disabled", "cdi-missing", "toolkit-unconfigured"},
    "gpu-missing": {"toolkit-missing", "toolkit-unconfigured", "cdi-missing", "driver-missing", "driver-old"},
    "nouveau": {"driver-missing", "driver-mismatch", "gpu-missing"},
    "driver-missing": {"driver-old", "driver-mismatch", "gpu-unsupported", "gpu-lost"},
    "driver-mismatch": {"driver-missing"},
    "wsl-library": {"gpu-missing", "driver-missing", "driver-mismatch"},
    "gpu-unsupported": {"driver-old"},
    "toolkit-missing": {"toolkit-unconfigured", "cdi-missing", "cdi-disabled", "cgroup-reload"},
    "toolkit-unconfigured": {"toolkit-missing", "cdi-missing", "cdi-disabled", "engine-rootless"},
    "cdi-disabled": {"cdi-missing", "cdi-stale", "cdi-unreadable", "podman-old"},
    "cdi-missing": {"cdi-unreadable", "cdi-stale"},
    "podman-old": {"cdi-missing", "engine-old", "buildx-missing"},
    "engine-desktop": {"toolkit-missing", "cdi-missing", "cdi-disabled", "cgroup-reload"},
}


def contradictions(checks: set[str]) -> set[tuple[str, str]]:
    return {(check, other) for check in checks for other in EXCLUSIVE.get(check, ()) if other in checks}


def test_checks_do_not_contradict_each_other() -> None:
    for check, healthy, change, *_ in CASES:
        checks = {f.check for f in examine(change(healthy), CATALOG)}
        if check == "gpu-unsupported" and len(healthy.gpus) > 1:
            checks -= {"gpu-unsupported"}  # the other GPU has a driver to speak of
        assert contradictions(checks) == set(), check


def test_what_blocks_comes_first() -> None:
    host = both(facts(disk_free_bytes=GB, memory_bytes=GB), gpu(power_limit_w=100.0))(UBUNTU)
    severities = [finding.severity for finding in examine(host, CATALOG)]
    assert severities == ["block", "warn", "note"]


def test_the_image_that_is_wanted_decides_what_disk_is_enough() -> None:
    host = facts(disk_free_bytes=12 * GB)(UBUNTU)
    assert {f.severity for f in examine(host, CATALOG, image_bytes=5 * GB) if f.check == "disk-low"} == set()
    assert {f.severity for f in examine(host, CATALOG, image_bytes=13 * GB) if f.check == "disk-low"} == {"block"}


def test_a_check_that_crashes_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(report: HostReport) -> typing.Iterator[Finding]:
        raise ZeroDivisionError("no reason")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (disk_full, *CHECKS))
    (finding,) = examine(UBUNTU, CATALOG)
    assert (finding.check, finding.severity) == ("unread", "warn")
    assert finding.message == "the check `disk-full` failed: ZeroDivisionError: no reason"


def test_an_older_driver_says_nothing_of_images_its_gpu_cannot_run() -> None:
    # A Pascal card: CUDA 13 dropped it, so a driver for CUDA 13 would bring nothing.
    pascal = both(
        facts(driver="550.54.14", driver_library="550.54.14"), spec(driver="550.54.14"), gpu(compute_capability="6.1")
    )(UBUNTU)
    assert examine(pascal, CATALOG) == []


def test_gpus_that_no_image_serves_together_are_named() -> None:
    pascal = replace(ADA, name="NVIDIA GeForce GTX 1080", compute_capability="6.1")
    blackwell = replace(ADA, index=1, name="NVIDIA GeForce RTX 5090", compute_capability="12.0")
    assert found(replace(UBUNTU, gpus=(pascal,)), "gpu-unsupported") == []
    assert found(replace(UBUNTU, gpus=(blackwell,)), "gpu-unsupported") == []
    (finding,) = found(replace(UBUNTU, gpus=(pascal, blackwell)), "gpu-unsupported")
    assert finding.severity == "warn"
    assert "all the GPUs at once (12.0 and 6.1)" in finding.message
    assert finding.fix == "use GPUs of one kind alone, such as `--gpus device=0`"


def test_a_busy_gpu_with_mig_is_not_busy() -> None:
    instance = MigInstance(uuid="MIG-1", profile="1g.10gb")
    host = gpu(is_mig_enabled=True, mig_instances=(instance,), memory_used_mib=20000)(UBUNTU)
    assert examine(host, CATALOG) == []


def test_a_stale_specification_beside_a_fresh_one_is_a_warning() -> None:
    fresh, stale = replace(SPEC, path="/var/run/cdi/nvidia.yaml"), replace(SPEC, driver="570.124.06")
    (finding,) = examine(replace(UBUNTU, cdi_specs=(stale, fresh)), CATALOG)
    assert (finding.check, finding.severity) == ("cdi-stale", "warn")
    assert "--output=/etc/cdi/nvidia.yaml" in finding.fix


def test_fixes_are_those_of_the_distribution() -> None:
    assert "apt-get install nvidia-driver" in install_driver(replace(CPU_ONLY, os_id="debian"))
    assert "dnf install akmod-nvidia" in install_driver(PODMAN)
    assert "https://docs.nvidia.com/" in install_driver(replace(CPU_ONLY, os_id="arch"))
    assert "on Windows" in install_driver(WSL)
    assert "update-ca-trust" in trust_ca(PODMAN)
    # kit's own engine is for this machine, and its packages for Debian's relatives.
    assert "docs.docker.com" in install_engine(replace(CPU_ONLY, target="alice@lab1"))
    assert "docs.docker.com" in install_engine(PODMAN)


@pytest.mark.parametrize(
    ("text", "version"),
    [("20.10.24+dfsg1", "20.10.24"), ("4.9.3+ds1-1ubuntu0.2", "4.9.3"), ("dev", None), ("", None), ("²8", None)],
)
def test_versions_of_distributions(text: str, version: str | None) -> None:
    assert parse_version(text) == (version_key(version) if version else None)


def test_versions_that_are_known_to_be_bad_are_ranges_that_hold_something() -> None:
    rows = CATALOG.known_bad_toolkits
    assert rows
    for row in rows:
        assert row.first or row.last, row.problem
        assert row.source
        assert row.verified
        if row.first and row.last:
            first, last = parse_version(row.first), parse_version(row.last)
            assert first is not None
            assert last is not None
            assert first <= last
    assert {(row.engine, row.feature) for row in CATALOG.engine_minimums} == {
        ("docker", "build"),
        ("docker", "cdi"),
        ("podman", "cdi"),
        ("compose", "inline-config"),
        ("compose", "raw-env-file"),
    }


def test_a_mismatch_that_hides_the_gpus_is_said_once() -> None:
    problem = "Failed to initialize NVML: Driver/library version mismatch"
    host = replace(UBUNTU, gpus=(), driver_problem=problem, driver_library="595.80")
    assert [f.check for f in examine(host, CATALOG)] == ["driver-mismatch"]


def test_words_are_joined() -> None:
    assert [joined(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


# Values that facts often have, so that generated machines reach the checks' inner branches.
TEXTS = st.sampled_from(
    [
        "",
        "550.54.14",
        "595.71.05",
        "8.9",
        "3.0",
        "docker",
        "28.5.2",
        "24.0.7",
        "4.9.3+ds1",
        "nvidia",
        "nvidia.com/gpu=all",
        "/etc/cdi/nvidia.yaml",
        "ubuntu",
        "fedora",
        "systemd",
        "1.19.1",
        "nouveau",
        "linux/arm64",
    ]
) | st.text(max_size=8)


def anything(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a type of the host's model."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(anything(arguments[0]), max_size=3).map(tuple)
    if arguments:  # `X | None`
        return st.one_of([st.none() if a is type(None) else anything(a) for a in arguments])
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{field.name: anything(hints[field.name]) for field in fields(hint)})
    return {str: TEXTS, bool: st.booleans(), int: st.integers(), float: st.floats()}[hint]


def crash_free(findings: list[Finding]) -> bool:
    return not any(f.message.startswith("the check `") for f in findings)


@settings(max_examples=60, deadline=None)
@given(anything(Host))
def test_examine_never_raises(host: Host) -> None:
    findings = examine(host, CATALOG)
    assert all(f.check and f.message and f.fix for f in findings)
    assert [f.severity for f in findings] == sorted((f.severity for f in findings), key=doctor.SEVERITIES.index)


WORDS = st.sampled_from(["", "8.9", "6.1", "12.0"])


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([*HEALTHY.values(), CPU_ONLY]),
    st.lists(st.sampled_from([change for _, _, change, *_ in CASES]), max_size=5),
)
def test_no_mix_of_faults_makes_a_check_crash_or_contradict(host: Host, changes: list[Change]) -> None:
    for change in changes:
        try:
            host = change(host)
        except IndexError:  # the machine has no GPU or specification any more that could be changed
            continue
    findings = examine(host, CATALOG)
    assert crash_free(findings)
    checks = {f.check for f in findings}
    said = {f.check: f.message for f in findings}
    partly = {f.check for f in findings if f.severity != "block"}
    assert {pair for pair in contradictions(checks) if pair[0] not in partly} == set(), said
