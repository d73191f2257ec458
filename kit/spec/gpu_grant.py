"""The GPUs a container is given: how an engine passes them in, or the exact reason why it cannot. Decided once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.errors import GpuUnavailableError
from kit.facts.engine import CDI_KIND
from kit.frozen import dataclass

if TYPE_CHECKING:
    from kit.facts.engine import EngineFacts, GpuForm
    from kit.spec.gpu_request import GpuRequest

TOOLKIT_HINT = (
    "install the NVIDIA Container Toolkit, then `sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`; "
    "or run on the CPU with --gpus none"
)
ALL = (("all",),)
# The legacy runtime, where it is the engine's default, injects by this variable, whatever else was asked for.
HIDDEN = (("NVIDIA_VISIBLE_DEVICES", "void"),)
# The bases of nvidia/cuda carry NVIDIA_REQUIRE_CUDA, by which the legacy runtime refuses drivers that minor-version
# compatibility lets through; kit has compared the driver itself by now. The variable is read in
# NVIDIA/nvidia-container-toolkit internal/config/image/cuda_image.go.
UNCHECKED = (("NVIDIA_DISABLE_REQUIRE", "1"),)


@dataclass(frozen=True, kw_only=True)
class GpuGrant:
    """The GPUs of a container, the environment that goes with them, and lines for the user (may be empty)."""

    form: GpuForm | None = None  # None: it is given no GPU
    # By CDI whole device names (`nvidia.com/gpu=0`), by the runtime `all`, indexes and UUIDs.
    devices: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    note: str = ""
    lease: tuple[str, ...] = ()  # UUIDs of the GPUs that no other lease may take


# For an image with CUDA: none of the host's GPUs reaches it, whatever the engine's default runtime is.
HIDDEN_GPUS = GpuGrant(environment=HIDDEN)


def read_label(text: str) -> tuple[str, ...]:
    """The devices in a container's label: their names; of a container that an older kit started, the engine's
    arguments for them.
    """
    found: list[str] = []
    for word in text.replace('"', "").split():
        name = word.removeprefix("--device=").removeprefix("--gpus=").removeprefix("device=")
        found += name.split(",")
    return tuple(filter(None, found))


def refuse_cpu_image(request: GpuRequest | None, image: str) -> None:
    """Raise GpuUnavailableError when GPUs are asked for an image that is built for the CPU."""
    if request is not None and not request.is_none:
        raise GpuUnavailableError(
            f"{image} is built for the CPU, so --gpus {request.text} cannot work",
            hint="`kit list` shows the images for each CUDA",
        )


def grant(
    request: GpuRequest | None,
    engine: EngineFacts,
    *,
    has_gpu: bool,
    devices: tuple[tuple[str, ...], ...] = (),
) -> GpuGrant:
    """How to start a container of an image for GPUs with those that were asked for; None means what the host has.

    `devices` are the GPUs that were chosen, each by the names an engine may know it by, the best first; without them
    the request's own names count. A CDI device if the engine knows one, else the `nvidia` runtime, else
    GpuUnavailableError with the fix. The CPU is never taken silently: only when it was asked for, or with a line
    saying so when the host has no GPU.
    """
    if request and request.is_none:
        return HIDDEN_GPUS
    wanted = devices or (tuple((name,) for name in request.names) if request and request.names else ALL)
    form = engine.gpu_form
    if form == "cdi":
        return GpuGrant(form=form, devices=_cdi_devices(wanted, engine, request is None), environment=HIDDEN)
    if request is None and not has_gpu:
        return GpuGrant(environment=HIDDEN, note="no NVIDIA GPU on this host: running on the CPU")
    if form == "runtime":
        return GpuGrant(form=form, devices=tuple(names[0] for names in wanted), environment=UNCHECKED)
    what = (
        f"--gpus {request.text} was asked for, but" if request and not has_gpu else "this host has an NVIDIA GPU, but"
    )
    raise GpuUnavailableError(
        f"{what} the container engine cannot pass one through: it lists no CDI device and has no `nvidia` runtime",
        hint=TOOLKIT_HINT,
    )


def grant_in(form: GpuForm, request: GpuRequest | None = None) -> GpuGrant:
    """The GPUs of a request in a form, taken at their names: the engine that will be used is not here to be asked."""
    names = request.names if request and request.names else ALL[0]
    if form == "cdi":
        return GpuGrant(form=form, devices=tuple(f"{CDI_KIND}={name}" for name in names), environment=HIDDEN)
    return GpuGrant(form=form, devices=names, environment=UNCHECKED)


def _cdi_devices(wanted: tuple[tuple[str, ...], ...], engine: EngineFacts, is_default: bool) -> tuple[str, ...]:
    listed = tuple(device for device in engine.cdi_devices if device.startswith(f"{CDI_KIND}="))
    found, missing = [], []
    for names in wanted:
        known = [f"{CDI_KIND}={name}" for name in names if f"{CDI_KIND}={name}" in listed]
        found += known[:1]
        missing += [] if known else [f"{CDI_KIND}={names[0]}"]
    if missing and is_default and wanted == ALL:
        # A specification written by hand need not have `all`: what the host has is then everything it lists.
        return tuple(dict.fromkeys(listed))
    if missing:
        raise GpuUnavailableError(
            f"the engine knows no {', '.join(missing)}",
            details=("it knows: " + ", ".join(listed),),
            hint="`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` lists the GPUs again",
        )
    return tuple(found)
