"""GPU injection: how an engine passes GPUs into a container, or the exact reason why it cannot. Decisions are pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kit.engine import EngineInfo
from kit.errors import BadInputError, GpuUnavailableError

CDI_KIND = "nvidia.com/gpu"
# The driver's /proc entry and its device: either means that an NVIDIA driver is loaded. WSL2 has neither.
DRIVER_TRACES = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/usr/lib/wsl/lib/libcuda.so.1"))
TOOLKIT_HINT = (
    "install the NVIDIA Container Toolkit, then `sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`; "
    "or run on the CPU with --gpus none"
)
WORDS: tuple[Literal["all", "none", "free"], ...] = ("all", "none", "free")
# The legacy runtime, where it is the engine's default, injects by this variable, whatever else was asked for.
HIDDEN = (("NVIDIA_VISIBLE_DEVICES", "void"),)
# The bases of nvidia/cuda carry NVIDIA_REQUIRE_CUDA, by which the legacy runtime refuses drivers that minor-version
# compatibility lets through; kit has compared the driver itself by now. The variable is read in
# NVIDIA/nvidia-container-toolkit internal/config/image/cuda_image.go.
UNCHECKED = (("NVIDIA_DISABLE_REQUIRE", "1"),)


@dataclass(frozen=True, kw_only=True)
class GpuRequest:
    """What `--gpus` asks for: `free` and `count` leave the choice to kit, and lease what it chose."""

    kind: Literal["all", "none", "free", "count", "named"]
    text: str  # as it was written
    count: int = 0
    names: tuple[str, ...] = ()  # indexes (`0`), MIG indexes (`0:1`), UUIDs

    @property
    def is_lease(self) -> bool:
        return self.kind in ("free", "count")


@dataclass(frozen=True, kw_only=True)
class Injection:
    """Arguments for the engine, environment for the container, and lines for the user (may be empty)."""

    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    note: str = ""
    lease: tuple[str, ...] = ()  # UUIDs of the GPUs that no other lease may take


def host_has_gpu(traces: tuple[Path, ...] = DRIVER_TRACES) -> bool:
    """True when this host has an NVIDIA driver loaded."""
    return any(trace.exists() for trace in traces)


def parse_request(text: str) -> GpuRequest:
    """The value of `--gpus`: all, none, free, a number of GPUs, or indexes and UUIDs. Raises BadInputError."""
    text = text.strip()
    for kind in WORDS:
        if text == kind:
            return GpuRequest(kind=kind, text=text)
    if re.fullmatch(r"[1-9][0-9]{0,3}", text):
        return GpuRequest(kind="count", text=text, count=int(text))
    if re.fullmatch(r"0+", text):
        raise BadInputError(
            f"--gpus {text}: a number alone says how many GPUs to take",
            hint="--gpus device=0 is the first GPU, --gpus none is no GPU",
        )
    names = tuple(name.strip() for name in text.removeprefix("device=").split(","))
    for name in names:
        if name in WORDS:
            raise BadInputError(f"--gpus {text}: '{name}' stands alone")
        if not re.fullmatch(r"[0-9]+(:[0-9]+)?|(GPU|MIG)-[0-9a-zA-Z/-]+", name):
            raise BadInputError(
                f"--gpus {text}: '{name}' is no GPU",
                hint="give all, none, free, how many (2), indexes such as 0,3 or device=1, or UUIDs such as GPU-5f0e…",
            )
    return GpuRequest(kind="named", text=text, names=tuple(dict.fromkeys(names)))


def spec_devices(folders: tuple[str, ...]) -> tuple[str, ...]:
    """CDI devices named in the specifications of these folders, for engines that do not list them themselves.

    Reads only the kind and the device names; a file that is no specification counts for nothing.
    """
    found: list[str] = []
    for folder in folders:
        for file in sorted(Path(folder).glob("*")) if Path(folder).is_dir() else []:
            if file.suffix in (".yaml", ".yml", ".json"):
                try:
                    found += devices_in(file.read_text(encoding="utf-8", errors="replace"))
                except OSError:
                    continue
    return tuple(found)


def devices_in(text: str) -> tuple[str, ...]:
    """The CDI devices that the text of a specification names, if it is one of NVIDIA GPUs."""
    if not re.search(rf"""["']?kind["']?\s*:\s*["']?{re.escape(CDI_KIND)}(?![\w./-])""", text):
        return ()
    names = re.findall(r"""["']?name["']?\s*:\s*["']?([A-Za-z0-9:._-]+)["']?""", text)
    return tuple(f"{CDI_KIND}={name}" for name in names)


def inject(
    request: GpuRequest | None,
    info: EngineInfo,
    *,
    is_gpu_image: bool,
    has_gpu: bool,
    image: str = "the image",
    devices: tuple[tuple[str, ...], ...] = (),
) -> Injection:
    """How to start a container with the GPUs that were asked for; `request` None means: what the host has.

    `devices` are the GPUs that were chosen, each by the names an engine may know it by, the best first; without them
    the request's own names count. A CDI device if the engine knows one, else the `nvidia` runtime, else
    GpuUnavailableError with the fix. The CPU is never taken silently: only when it was asked for, or with a line
    saying so when the host has no GPU.
    """
    if not is_gpu_image:
        if request is None or request.kind == "none":
            return Injection()
        raise GpuUnavailableError(
            f"{image} is built for the CPU, so --gpus {request.text} cannot work",
            hint="`kit list` shows the images for each CUDA",
        )
    if request and request.kind == "none":
        return Injection(environment=HIDDEN)
    wanted = devices or (tuple((name,) for name in request.names) if request and request.names else (("all",),))
    listed = tuple(d for d in info.cdi_devices or spec_devices(info.cdi_spec_dirs) if d.startswith(f"{CDI_KIND}="))
    if listed:
        return Injection(arguments=_cdi_arguments(wanted, listed, is_default=request is None), environment=HIDDEN)
    if request is None and not has_gpu:
        return Injection(environment=HIDDEN, note="no NVIDIA GPU on this host: running on the CPU")
    if "nvidia" in info.runtimes:
        value = "all" if wanted == (("all",),) else '"device=' + ",".join(names[0] for names in wanted) + '"'
        return Injection(arguments=(f"--gpus={value}",), environment=UNCHECKED)
    what = (
        f"--gpus {request.text} was asked for, but" if request and not has_gpu else "this host has an NVIDIA GPU, but"
    )
    raise GpuUnavailableError(
        f"{what} the container engine cannot pass one through: it lists no CDI device and has no `nvidia` runtime",
        hint=TOOLKIT_HINT,
    )


def _cdi_arguments(
    wanted: tuple[tuple[str, ...], ...], listed: tuple[str, ...], *, is_default: bool
) -> tuple[str, ...]:
    found, missing = [], []
    for names in wanted:
        known = [f"{CDI_KIND}={name}" for name in names if f"{CDI_KIND}={name}" in listed]
        found += known[:1]
        missing += [] if known else [f"{CDI_KIND}={names[0]}"]
    if missing and is_default and wanted == (("all",),):
        # A specification written by hand need not have `all`: what the host has is then everything it lists.
        return tuple(f"--device={device}" for device in dict.fromkeys(listed))
    if missing:
        raise GpuUnavailableError(
            f"the engine knows no {', '.join(missing)}",
            details=("it knows: " + ", ".join(listed),),
            hint="`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` lists the GPUs anew",
        )
    return tuple(f"--device={device}" for device in found)
