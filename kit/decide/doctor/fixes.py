"""The commands that put something right, for the distribution and the engine at hand."""

from __future__ import annotations

from kit.decide.compat.drivers import Modules, branch_of
from kit.decide.compat.gpu_names import board_of
from kit.facts.engine import EngineFacts
from kit.facts.host import Host
from kit.frozen import dataclass

APT = ("debian", "ubuntu", "linuxmint", "pop", "kali", "raspbian")
DNF = ("fedora", "rhel", "centos", "rocky", "almalinux", "ol", "amzn")
ZYPPER = ("opensuse-leap", "opensuse-tumbleweed", "sles")
# Those with the `ubuntu-drivers` command.
UBUNTU = ("ubuntu", "linuxmint")

VGPU_GUIDE = "https://docs.nvidia.com/vgpu/"
DRIVER_GUIDE = "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/"
TOOLKIT_GUIDE = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"
ENGINE_GUIDE = "https://docs.docker.com/engine/install/"
CDI_FILE = "/etc/cdi/nvidia.yaml"


def install_command(host: Host, packages: str) -> str:
    """The distribution's command that installs packages; empty when kit does not know the distribution."""
    for ids, program in ((APT, "apt-get"), (DNF, "dnf"), (ZYPPER, "zypper")):
        if host.os_id in ids:
            return f"sudo {program} install {packages}"
    return ""


@dataclass(frozen=True, kw_only=True)
class DriverNeed:
    """The driver that a machine's GPUs take."""

    first: str = ""  # the oldest; empty: not known
    last: int | None = None  # the last branch; None: the newest will do
    modules: Modules = ""  # the only kernel modules they work with
    packaged: int | None = None  # the newest branch that the distribution itself has; None: not known


def install_driver(host: Host, need: DriverNeed | None = None) -> str:
    """How this machine gets an NVIDIA driver that its GPUs work with, or a newer one."""
    need = need or DriverNeed()
    wanted = f" R{need.last}" if need.last else f" {need.first} or newer" if need.first else ""
    if any(gpu.is_vgpu or board_of(gpu.name) for gpu in host.gpus):
        return (
            "this is a vGPU, whose driver must match the vGPU manager of its host: ask who runs the host for the guest "
            f"driver of its release, or for a newer one there ({VGPU_GUIDE})"
        )
    if host.is_wsl:
        which = f"NVIDIA driver R{need.last}" if need.last else "the newest NVIDIA driver"
        return f"install {which} on Windows, then `wsl --shutdown` there"
    if need.packaged and need.first and branch_of(need.first) > need.packaged:
        package = "cuda-drivers" if need.modules == "proprietary" else "nvidia-open"
        return (
            f"{host.os or host.os_id} has no driver newer than {need.packaged}: add NVIDIA's own repository for it "
            f"({DRIVER_GUIDE}), then `sudo apt-get install {package}`, then `sudo reboot`"
        )
    # What the distribution has is none too new, where nothing is installed yet.
    is_bare = not (host.driver or host.driver_library)
    is_any = is_bare and need.packaged is not None and (need.last or 0) >= need.packaged
    if (need.last or need.modules == "open") and not is_any:
        return _install_exactly(host, need, wanted)
    if host.os_id in UBUNTU:
        return "`sudo ubuntu-drivers install`, then `sudo reboot`"
    if host.os_id == "debian":
        return "`sudo apt-get install nvidia-driver` (component non-free of Debian's archive), then `sudo reboot`"
    if host.os_id == "fedora":
        return "`sudo dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda` (from RPM Fusion), then `sudo reboot`"
    return f"install NVIDIA's driver{wanted} for this distribution ({DRIVER_GUIDE}), then reboot"


def _install_exactly(host: Host, need: DriverNeed, wanted: str) -> str:
    """How a driver is installed whose branch or kernel modules are not the distribution's choice."""
    have = host.driver or host.driver_library
    branch = need.last or max((branch_of(driver) for driver in (need.first, have) if driver), default=0)
    if host.os_id in UBUNTU and branch:
        flavor = "-open" if need.modules == "open" else ""
        return f"`sudo apt-get install nvidia-driver-{branch}{flavor}`, then `sudo reboot`"
    if host.os_id == "fedora" and need.last:
        return f"`sudo dnf install akmod-nvidia-{need.last}xx` (from RPM Fusion), then `sudo reboot`"
    modules = f" with the {need.modules} kernel modules" if need.modules else ""
    return f"install NVIDIA's driver{wanted}{modules} ({DRIVER_GUIDE}, which says how to lock a branch), then reboot"


def remove_driver(host: Host) -> str:
    """How the packages of a Linux driver go."""
    if host.os_id in APT:
        return "`sudo apt-get purge 'nvidia-driver-*' 'libnvidia-compute-*'`"
    return "`sudo dnf remove '*nvidia-driver*'`" if host.os_id in DNF else "remove the NVIDIA driver's packages here"


def disable_nouveau(host: Host) -> str:
    """How nouveau is kept from being loaded where the NVIDIA driver is installed already."""
    rebuild = "sudo dracut --force" if host.os_id in (*DNF, *ZYPPER) else "sudo update-initramfs -u"
    return f"`echo blacklist nouveau | sudo tee /etc/modprobe.d/nouveau.conf && {rebuild} && sudo reboot`"


def install_toolkit(host: Host) -> str:
    """How this machine gets the NVIDIA Container Toolkit and a CDI specification."""
    command = install_command(host, "nvidia-container-toolkit")
    first = f"add NVIDIA's package repository ({TOOLKIT_GUIDE})"
    return f"{first}, then `{command} && {generate_cdi()}`" if command else f"{first} and install it as said there"


def generate_cdi(path: str = CDI_FILE) -> str:
    return f"sudo nvidia-ctk cdi generate --output={path}"


def enable_cdi(host: Host) -> str:
    """Commands that turn CDI on in Docker Engine."""
    return _configure(host, " --cdi.enabled")


def configure_runtime(host: Host) -> str:
    """Commands that give Docker Engine the legacy `nvidia` runtime."""
    return _configure(host, "")


def _configure(host: Host, option: str) -> str:
    sudo, file = ("", " --config=$HOME/.config/docker/daemon.json") if host.engine.is_rootless else ("sudo ", "")
    return f"{sudo}nvidia-ctk runtime configure --runtime=docker{option}{file} && {restart(host)}"


def restart(host: Host) -> str:
    return "kit engine down && kit engine up" if host.engine.is_private else _service(host, "restart")


def start(host: Host) -> str:
    return "kit engine up" if host.engine.is_private else _service(host, "start")


def _service(host: Host, verb: str) -> str:
    engine = host.engine
    if engine.is_desktop:
        return f"systemctl --user {verb} docker-desktop"
    if engine.is_rootless:
        return f"systemctl --user {verb} docker"
    if engine.is_snap:
        return f"sudo snap {verb} docker"
    # WSL2 runs without systemd unless it is told to.
    return f"sudo service docker {verb}" if host.is_wsl else f"sudo systemctl {verb} docker"


def install_engine(host: Host) -> str:
    """How this machine gets an engine: kit's own where its packages can run, else Docker's."""
    if host.os_id in APT and not host.target:
        return "`kit engine up` starts kit's own, nothing is installed"
    return f"install Docker Engine ({ENGINE_GUIDE})"


def install_buildx(host: Host) -> str:
    """Docker's own packages and the distributions' call the plugin differently."""
    ours, theirs = install_command(host, "docker-buildx-plugin"), install_command(host, "docker-buildx")
    return f"`{ours} || {theirs}`" if ours else "install Docker's buildx plugin"


def trust_ca(host: Host) -> str:
    """How a certificate authority becomes the system's, from where kit's builds take it."""
    if host.os_id in DNF:
        return "`sudo cp CA.crt /etc/pki/ca-trust/source/anchors/ && sudo update-ca-trust`"
    return "`sudo cp CA.crt /usr/local/share/ca-certificates/ && sudo update-ca-certificates`"


def engine_config(engine: EngineFacts) -> str:
    """The file that configures Docker's daemon."""
    return "~/.config/docker/daemon.json" if engine.is_rootless else "/etc/docker/daemon.json"
