"""GPU injection: how an engine passes GPUs into a container, or the exact reason why it cannot. Decisions are pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kit.engine import EngineInfo
from kit.errors import BadInputError, GpuUnavailableError

CDI_KIND = "nvidia.com/gpu"
# The driver's /proc entry and its device: either means that an NVIDIA driver is loaded. WSL2 has neither.
DRIVER_TRACES = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/usr/lib/wsl/lib/libcuda.so.1"))
TOOLKIT_HINT = (
    "install the NVIDIA Container Toolkit, then `sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`; "
    "or run on the CPU with --gpus none"
)


@dataclass(frozen=True, kw_only=True)
class Injection:
    """Arguments for the engine, environment for the container, and one line for the user (may be empty)."""

    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    note: str = ""


def host_has_gpu(traces: tuple[Path, ...] = DRIVER_TRACES) -> bool:
    """True when this host has an NVIDIA driver loaded."""
    return any(trace.exists() for trace in traces)


def parse_request(text: str) -> tuple[str, ...]:
    """`all`, `none`, indexes or UUIDs (`0,3`): the devices by name, () for none. Raises BadInputError."""
    if text == "none":
        return ()
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if not re.fullmatch(r"all|[0-9]+(:[0-9]+)?|(GPU|MIG)-[0-9a-zA-Z/-]+", name):
            raise BadInputError(
                f"--gpus {text}: '{name}' is no GPU",
                hint="give all, none, indexes such as 0,3, or UUIDs such as GPU-5f0e…",
            )
    if "all" in names and len(names) > 1:
        raise BadInputError(f"--gpus {text}: 'all' stands alone")
    return names


def spec_devices(folders: tuple[str, ...]) -> tuple[str, ...]:
    """CDI devices named in the specifications of these folders, for engines that do not list them themselves.

    Reads only the kind and the device names; a file that is no specification counts for nothing.
    """
    found = []
    for folder in folders:
        for file in sorted(Path(folder).glob("*")) if Path(folder).is_dir() else []:
            if file.suffix in (".yaml", ".yml", ".json"):
                try:
                    text = file.read_text(encoding="utf-8", errors="replace")
                except OSError:
                    continue
                if re.search(rf"""["']?kind["']?\s*:\s*["']?{re.escape(CDI_KIND)}(?![\w./-])""", text):
                    names = re.findall(r"""["']?name["']?\s*:\s*["']?([A-Za-z0-9:._-]+)["']?""", text)
                    found += [f"{CDI_KIND}={name}" for name in names]
    return tuple(found)


def inject(
    request: str | None, info: EngineInfo, *, is_gpu_image: bool, has_gpu: bool, image: str = "the image"
) -> Injection:
    """How to start a container with the GPUs that were asked for; `request` None means: what the host has.

    A CDI device if the engine knows one, else the `nvidia` runtime, else GpuUnavailableError with the fix. The CPU is
    never taken silently: only when it was asked for, or with a line saying so when the host has no GPU.
    """
    # The legacy runtime, where it is the engine's default, injects by this variable, whatever else was asked for.
    hidden = (("NVIDIA_VISIBLE_DEVICES", "void"),)
    if request is not None:
        wanted = parse_request(request)
        if not wanted:
            return Injection(environment=hidden if is_gpu_image else ())
        if not is_gpu_image:
            raise GpuUnavailableError(
                f"{image} is built for the CPU, so --gpus {request} cannot work",
                hint="`kit list` shows the images for each CUDA",
            )
    elif not is_gpu_image:
        return Injection()
    else:
        wanted = ("all",)
    listed = tuple(d for d in info.cdi_devices or spec_devices(info.cdi_spec_dirs) if d.startswith(f"{CDI_KIND}="))
    if listed:
        devices = tuple(f"{CDI_KIND}={name}" for name in wanted)
        missing = [d for d in devices if d not in listed]
        if not missing:
            return Injection(arguments=tuple(f"--device={d}" for d in devices), environment=hidden)
        if request is None:
            # A specification written by hand need not have `all`: what the host has is then everything it lists.
            return Injection(arguments=tuple(f"--device={d}" for d in dict.fromkeys(listed)), environment=hidden)
        raise GpuUnavailableError(
            f"the engine knows no {', '.join(missing)}",
            details=("it knows: " + ", ".join(listed),),
            hint="`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` lists the GPUs anew",
        )
    if request is None and not has_gpu:
        return Injection(environment=hidden, note="no NVIDIA GPU on this host: running on the CPU")
    if "nvidia" in info.runtimes:
        value = "all" if wanted == ("all",) else '"device=' + ",".join(wanted) + '"'
        return Injection(arguments=(f"--gpus={value}",))
    what = "this host has an NVIDIA GPU, but" if has_gpu else f"--gpus {request or 'all'} was asked for, but"
    raise GpuUnavailableError(
        f"{what} the container engine cannot pass one through: it lists no CDI device and has no `nvidia` runtime",
        hint=TOOLKIT_HINT,
    )
