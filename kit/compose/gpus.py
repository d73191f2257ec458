"""The GPUs of a compose file: in which of Compose's two forms, and which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kit.catalog.model import Image
from kit.engine import EngineInfo
from kit.errors import BadInputError, GpuUnavailableError
from kit.gpu import CDI_KIND, HIDDEN, UNCHECKED, GpuRequest, Injection, inject, spec_devices

Form = Literal["cdi", "nvidia"]
WORDS: dict[Form, str] = {"cdi": "GPUs by CDI", "nvidia": "GPUs by the NVIDIA runtime"}


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """The GPUs of a service, as `deploy.resources.reservations.devices` has them."""

    driver: Form
    device_ids: tuple[str, ...] = ()  # empty, for `nvidia` alone: all


def engine_form(info: EngineInfo) -> Form | None:
    """How `kit run` passes GPUs in on this engine; None when it cannot."""
    devices = info.cdi_devices or spec_devices(info.cdi_spec_dirs)
    if any(device.startswith(f"{CDI_KIND}=") for device in devices):
        return "cdi"
    return "nvidia" if "nvidia" in info.runtimes else None


def decide_injection(
    request: GpuRequest | None, image: Image, *, form: Form | None, info: EngineInfo | None
) -> tuple[Injection, Form | None]:
    """The GPUs of the services and their form: the asked one, else the engine's, else CDI. No form: no GPU.

    Raises BadInputError for GPUs that only `kit run` can choose, GpuUnavailableError for those the engine does not
    know and for an image for the CPU.
    """
    if request is not None and request.is_lease:
        raise BadInputError(
            f"--gpus {request.text}: a compose file cannot lease GPUs, it is started again and again",
            hint="name them: --gpus all, or --gpus device=0,1; `kit run --gpus free` leases",
        )
    wants_none = request is not None and request.kind == "none"
    if not image.is_gpu and request is not None and not wants_none:
        raise GpuUnavailableError(
            f"{image.name} is built for the CPU, so --gpus {request.text} cannot work",
            hint="`kit list` shows the images for each CUDA",
        )
    if not image.is_gpu or wants_none:
        return Injection(environment=HIDDEN if image.is_gpu else ()), None
    here = engine_form(info) if info else None
    chosen = form or here or "cdi"
    if info and chosen == here:
        return inject(request, info, is_gpu_image=True, has_gpu=True), chosen
    return injection_in(chosen, request), chosen


def injection_in(form: Form, request: GpuRequest | None = None) -> Injection:
    """The GPUs of a request in a form, taken at their names: the engine that will be used is not here to be asked."""
    names = request.names if request and request.names else ("all",)
    if form == "cdi":
        return Injection(arguments=tuple(f"--device={CDI_KIND}={name}" for name in names), environment=HIDDEN)
    value = "all" if names == ("all",) else f'"device={",".join(names)}"'
    return Injection(arguments=(f"--gpus={value}",), environment=UNCHECKED)


def reservation(injection: Injection) -> Reservation | None:
    """The arguments of `docker run` for GPUs as Compose says them; None without GPUs."""
    devices = tuple(a.removeprefix("--device=") for a in injection.arguments if a.startswith("--device="))
    if devices:
        return Reservation(driver="cdi", device_ids=devices)
    for argument in injection.arguments:
        if argument.startswith("--gpus="):
            names = tuple(argument.removeprefix("--gpus=").strip('"').removeprefix("device=").split(","))
            return Reservation(driver="nvidia", device_ids=() if names == ("all",) else names)
    return None


def gpu_line(form: Form | None, info: EngineInfo | None) -> str:
    """The form in words, and what the engine here has to say to it."""
    if form is None:
        return "on the CPU"
    here = engine_form(info) if info else None
    if here == form:
        return WORDS[form]
    if info is None:
        return f"{WORDS[form]} (no engine answers here to be asked)"
    if here is None:
        return f"{WORDS[form]}, though the engine here passes no GPU in (`kit doctor` says why); CPU: --gpus none"
    return f"{WORDS[form]}, though `kit run` takes {WORDS[here].removeprefix('GPUs ')[3:]} on the engine here"
