"""`kit doctor` on machines described by folders and programs: the real probe reads them, here and behind ssh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit.catalog import load_catalog
from kit.catalog.names import ImageRequest
from kit.decide import compat, doctor
from kit.facts.host import Host
from kit.host import read_host
from tests.unit.test_host_probe import Machine

CATALOG = load_catalog()
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (dvs-builder@U16)\n"
PROPRIETARY = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Tue Mar 3 01:00:00 UTC 2026\n"
SYSTEMS = {
    "ubuntu": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nID=ubuntu\n',
    "debian": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\n',
    "debian 12": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
    "fedora": 'PRETTY_NAME="Fedora Linux 43"\nID=fedora\n',
}
GPU_ID = "GPU-5f0e1b7c-0000-0000-0000-00000000000{}"


class Described(Machine):
    """A machine by what matters for its driver and GPUs."""

    def system(self, name: str, *, kernel: str = "Linux version 6.8.0 (buildd@host)") -> None:
        self.file("etc/os-release", SYSTEMS[name])
        self.file("proc/version", kernel + "\n")

    def bus(self, *devices: str, driver: str = "nvidia") -> None:
        for number, device in enumerate(devices, 1):
            folder = f"sys/bus/pci/devices/0000:0{number}:00.0"
            for name, value in (("vendor", "0x10de"), ("class", "0x030000"), ("device", f"0x{device}")):
                self.file(f"{folder}/{name}", value + "\n")
            if driver:
                (self.root / folder / "driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")

    def driver(self, version: str, modules: str = PROPRIETARY) -> None:
        self.file("proc/driver/nvidia/version", modules.format(version))
        self.file("proc/modules", "nvidia 5 1 nvidia_uvm, Live 0x0\n")

    def shows(self, version: str, *gpus: tuple[str, str, str], extra: str = "") -> None:
        """nvidia-smi with GPUs (name, compute capability, PCI device ID); none: what it says then."""
        if not gpus:
            self.program("nvidia-smi", "echo 'No devices were found'; exit 6")
            return
        body = "".join(
            f'<gpu id="00000000:0{n}:00.0"><product_name>{name}</product_name><uuid>{GPU_ID.format(n)}</uuid>{extra}'
            f"<pci><pci_device_id>{device.upper()}10DE</pci_device_id>"
            f"<pci_bus_id>00000000:0{n}:00.0</pci_bus_id></pci>"
            "<fb_memory_usage><total>24564 MiB</total><used>12 MiB</used></fb_memory_usage></gpu>"
            for n, (name, _, device) in enumerate(gpus, 1)
        )
        self.file(
            ".report",
            f"<nvidia_smi_log><driver_version>{version}</driver_version><cuda_version>12.4</cuda_version>{body}"
            "</nvidia_smi_log>\n",
        )
        self.file(".query", "".join(f"{n - 1}, {GPU_ID.format(n)}, {c}\n" for n, (_, c, _) in enumerate(gpus, 1)))
        self.program(
            "nvidia-smi",
            f"""case "$*" in
'-q -x') cat '{self.root}/.report' ;;
--query-gpu*) cat '{self.root}/.query' ;;
*) exit 1 ;;
esac""",
        )

    def engine(self, version: str = "28.5.2", *, cdi: bool = True, runtimes: tuple[str, ...] = ("runc",)) -> None:
        info = {
            "ServerVersion": version,
            "OperatingSystem": "Linux",
            "DockerRootDir": "/var/lib/docker",
            "Driver": "overlay2",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2",
            "Runtimes": {name: {"path": name} for name in runtimes},
            "DefaultRuntime": "runc",
            "SecurityOptions": [],
            "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"] if cdi else [],
        }
        self.says(
            "docker",
            info=json.dumps(info) + "\n",
            buildx="github.com/docker/buildx v0.29.1 abc\n",
            context="unix:///var/run/docker.sock\n",
            ps="",
        )
        if cdi:
            self.file(
                "etc/cdi/nvidia.yaml", 'cdiVersion: 0.7.0\nkind: nvidia.com/gpu\ndevices:\n- name: "0"\n- name: all\n'
            )

    def toolkit(self, version: str) -> None:
        self.says("nvidia-ctk", version=f"NVIDIA Container Toolkit CLI version {version}\n")


@pytest.fixture(params=["here", "behind ssh"])
def described(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Described:
    machine = Described(tmp_path / "machine", monkeypatch)  # type: ignore[no-untyped-call]
    machine.target = "" if request.param == "here" else "alice@lab1"
    # What follows the address runs there, with the script as its input.
    machine.program("ssh", 'while [ "$1" != alice@lab1 ]; do shift; done; shift; exec sh -c "$*"')
    monkeypatch.setenv("KIT_SSH", str(machine.bin / "ssh"))
    return machine


def read(machine: Described) -> Host:
    host = read_host(machine.target)
    assert host.unread == ()
    return host


def findings(host: Host) -> dict[str, tuple[str, str, str]]:
    return {f.check: (f.severity, f.message, f.fix) for f in doctor.examine(host, CATALOG)}


ADA = ("NVIDIA GeForce RTX 4090", "8.9", "2684")

# (system, devices on the bus, driver and kernel modules, what it shows, finding, in its message, in its fix, not said)
CASES: list[tuple[Any, ...]] = [
    (
        "ubuntu",
        ("1c81",),
        ("595.71.05", PROPRIETARY),
        (),
        ("driver-new", "block"),
        "GeForce GTX 1050 at 0000:01:00.0: driver 595.71.05 is too new: R580 is the last driver for this card",
        "nvidia-driver-580",
        ("gpu-lost", "driver-old"),
    ),
    (
        "debian",
        ("15f8",),
        ("595.71.05", PROPRIETARY),
        (),
        ("driver-new", "block"),
        "Tesla P100 PCIe 16GB at 0000:01:00.0",
        "R580 with the proprietary kernel modules",
        ("gpu-lost",),
    ),
    (
        "fedora",
        ("1db4",),
        ("590.48.01", PROPRIETARY),
        (),
        ("driver-new", "block"),
        "R580 is the last driver for this card, as for all of Volta (7.0)",
        "akmod-nvidia-580xx",
        ("gpu-lost",),
    ),
    (
        "ubuntu",
        ("102d",),
        ("535.183.01", PROPRIETARY),
        (),
        ("driver-new", "block"),
        "R470 is the last driver for this card",
        "nvidia-driver-470",
        ("gpu-lost",),
    ),
    (
        "ubuntu",
        ("2684", "1c81"),
        ("595.71.05", OPEN),
        (ADA,),
        ("driver-new", "warn"),
        "GeForce GTX 1050 at 0000:02:00.0",
        "nvidia-driver-580",
        ("gpu-lost",),
    ),
    (
        "ubuntu",
        ("2b85",),
        ("575.57.08", PROPRIETARY),
        (),
        ("driver-modules", "block"),
        "the proprietary kernel modules of driver 575.57.08 do not drive Blackwell (12.0): it takes the open ones",
        "nvidia-driver-575-open",
        ("gpu-lost", "driver-new", "driver-old"),
    ),
    (
        "ubuntu",
        ("1b38",),
        ("550.54.14", OPEN),
        (),
        ("driver-modules", "block"),
        "the open kernel modules of driver 550.54.14 do not drive Pascal (6.1): it takes the proprietary ones",
        "nvidia-driver-580",
        ("gpu-lost", "driver-new"),
    ),
    (
        "debian",
        ("2b85",),
        ("550.163.01", OPEN),
        (),
        ("driver-old", "block"),
        "driver 550.163.01 is too old for NVIDIA GeForce RTX 5090 at 0000:01:00.0, which takes 570.26 or newer",
        "has no driver newer than 550: add NVIDIA's own repository",
        ("gpu-lost", "driver-modules"),
    ),
    (
        "debian 12",
        ("2d04",),
        ("", ""),
        None,
        ("driver-missing", "block"),
        "an NVIDIA GPU (NVIDIA GeForce RTX 5060 Ti) at 0000:01:00.0, but no NVIDIA driver",
        "`sudo apt-get install nvidia-open`",
        (),
    ),
    (
        "debian 12",
        ("1b06",),
        ("", ""),
        None,
        ("driver-missing", "block"),
        "(GeForce GTX 1080 Ti)",
        "`sudo apt-get install nvidia-driver` (component non-free",
        (),
    ),
    (
        "ubuntu",
        ("1e07",),
        ("620.10", OPEN),
        (("NVIDIA GeForce RTX 2080 Ti", "7.5", "1e07"),),
        ("", ""),
        "",
        "",
        ("driver-new", "driver-modules", "driver-old"),
    ),
]


@pytest.mark.parametrize(("system", "devices", "driver", "shown", "what", "says", "fix", "absent"), CASES)
def test_a_driver_that_does_not_fit_its_gpu(
    described: Described,
    system: str,
    devices: tuple[str, ...],
    driver: tuple[str, str],
    shown: tuple[tuple[str, str, str], ...] | None,
    what: tuple[str, str],
    says: str,
    fix: str,
    absent: tuple[str, ...],
) -> None:
    described.system(system)
    described.bus(*devices, driver="nvidia" if driver[0] else "")
    if driver[0]:
        described.driver(*driver)
    if shown is not None:
        described.shows(driver[0], *shown)
    described.engine()
    described.toolkit("1.18.2")
    host = read(described)
    found = findings(host)
    if what[0]:
        severity, message, advice = found[what[0]]
        assert severity == what[1]
        assert says in message
        assert fix in advice
    assert not set(absent) & set(found), found
    if what[1] == "block":
        resolved = compat.resolve(ImageRequest(framework="torch"), CATALOG, host)
        assert resolved.image is None, "a CPU image would be a silent one"
        assert resolved.hint


@pytest.mark.parametrize(
    ("device", "version", "license_text", "check", "says", "advice"),
    [
        ("1c81", "595.71.05", "NVIDIA", "driver-new", "R580 is the last driver for this card", "nvidia-driver-580"),
        ("15f8", "580.65.06", "Dual MIT/GPL", "driver-modules", "it takes the proprietary ones", "nvidia-driver-580"),
        ("2b85", "575.57.08", "NVIDIA", "driver-modules", "it takes the open ones", "nvidia-driver-575-open"),
    ],
)
def test_a_driver_that_does_not_load_for_its_gpu(
    described: Described,
    tmp_path: Path,
    device: str,
    version: str,
    license_text: str,
    check: str,
    says: str,
    advice: str,
) -> None:
    """The module ends with `No such device` where it drives no GPU; nothing of it is left but what is on disk."""
    described.system("ubuntu")
    described.bus(device, driver="")
    library = tmp_path / f"libnvidia-ml.so.{version}"
    library.write_text("")
    described.program("ldconfig", f"printf '\\tlibnvidia-ml.so.1 (libc6,x86-64) => {library}\\n'")
    described.program("modinfo", f"echo '{license_text}'")
    described.program("nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    described.engine()
    described.toolkit("1.18.2")
    found = findings(read(described))
    severity, message, fix = found[check]
    assert severity == "block"
    assert says in message
    assert f"driver {version}" in message
    assert advice in fix
    assert "driver-missing" not in found


@pytest.mark.parametrize("name", ["GRID T4-16Q", "NVIDIA A10-24Q"])
def test_a_vgpu_is_told_to_match_its_host(described: Described, name: str) -> None:
    described.system("ubuntu")
    described.bus("1eb8" if "T4" in name else "2236")
    described.driver("535.54.03")
    described.shows("535.54.03", (name, "7.5" if "T4" in name else "8.6", "1eb8" if "T4" in name else "2236"))
    described.engine()
    described.toolkit("1.18.2")
    severity, message, fix = findings(read(described))["driver-old"]
    assert severity == "note"
    assert "driver 580 or newer would run" in message
    assert "must match the vGPU manager of its host" in fix
    assert "apt-get" not in fix


def test_a_vgpu_that_says_so_itself(described: Described) -> None:
    described.system("ubuntu")
    described.driver("550.54.14")
    mode = "<gpu_virtualization_mode><virtualization_mode>VGPU</virtualization_mode></gpu_virtualization_mode>"
    described.shows("550.54.14", ("NVIDIA A10", "8.6", "2236"), extra=mode)
    described.engine()
    host = read(described)
    assert host.gpus[0].is_vgpu
    assert "vGPU manager" in findings(host)["driver-old"][2]


@pytest.mark.parametrize(
    ("toolkit", "driver", "is_bad"),
    [("1.13.5", "576.88", True), ("1.14.4", "576.88", False), ("1.13.5", "551.86", False)],
)
def test_wsl_with_a_toolkit_that_lacks_a_library(described: Described, toolkit: str, driver: str, is_bad: bool) -> None:
    described.system("ubuntu", kernel="Linux version 6.6.87.2-microsoft-standard-WSL2 (root@host)")
    described.file("usr/lib/wsl/lib/libcuda.so.1", "")
    described.shows(driver, ADA)
    described.engine("27.5.1", cdi=False, runtimes=("nvidia", "runc"))
    described.toolkit(toolkit)
    found = [f for f in doctor.examine(read(described), CATALOG) if "error 500" in f.message]
    assert len(found) == int(is_bad)
    if is_bad:
        assert found[0].severity == "block"
        assert "1.14.4" in found[0].fix


@pytest.mark.parametrize(
    ("toolkit", "engine", "is_bad"),
    [("1.19.1", "26.0.2", True), ("1.20.0", "25.0.5", True), ("1.19.1", "26.1.5", False), ("1.19.0", "26.0.2", False)],
)
def test_specifications_that_an_older_docker_cannot_load(
    described: Described, toolkit: str, engine: str, is_bad: bool
) -> None:
    described.system("debian")
    described.bus("2684")
    described.driver("550.163.01", OPEN)
    described.shows("550.163.01", ADA)
    described.engine(engine)
    described.toolkit(toolkit)
    found = [f for f in doctor.examine(read(described), CATALOG) if "additionalGids" in f.message]
    assert len(found) == int(is_bad)
    if is_bad:
        assert "no-additional-gids-for-device-nodes" in found[0].fix
