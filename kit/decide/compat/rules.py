"""The rules: what a platform, a driver and a GPU say to one image.

- Driver floor: CUDA 11 and later run on any driver from the floor of their major on (minor-version compatibility);
  older CUDA needs the driver it was released with. Rows of `cuda.toml`, from NVIDIA's CUDA Toolkit release notes.
- Machine code for `X.y` runs on compute capability `X.z` with z >= y and on no other major (CUDA C++ Programming Guide,
  binary compatibility). PTX is compiled by the driver for anything newer, if the driver is at least as new as the
  toolkit that wrote it (`cudaErrorUnsupportedPtxVersion`).
- Each architecture has a first and a last driver branch (`drivers.py`): a newer driver does not know the card any more.
- Forward compatibility (`cuda-compat`) exists for data-centre GPUs only, and kit's images do not use it:
  https://docs.nvidia.com/deploy/cuda-compatibility/forward-compatibility.html
- The aarch64 wheels are for servers (SBSA), not for JetPack: https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1941
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kit.catalog.rows import Framework, Image, Limit, Release, version_key
from kit.decide.bases import archive_refusal as archive_refusal
from kit.decide.compat.declare import capability_of, class_of, label_of, pair, with_pci_gpus
from kit.decide.compat.drivers import architecture_of, driver_objection, is_older
from kit.frozen import dataclass

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.facts.host import Host, HostGpu

# Classes whose cards take `cuda-compat`; for the others CUDA answers with error 804.
FORWARD_COMPATIBLE = ("datacenter", "superchip")


ARM64 = "linux/arm64"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is to be said of one image on one host; it can work when there is no refusal."""

    image: Image
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()


def judge(catalog: Catalog, image: Image, host: Host) -> Verdict:
    """What the host's platform, driver and GPUs say to one image, whatever was asked for."""
    release = image.release
    reasons: list[str] = []
    warnings: list[str] = []
    refusals: list[str] = []
    host = with_pci_gpus(catalog, host)
    if host.platform not in release.platforms:
        other = "; its aarch64 wheel is a CPU build" if host.platform == ARM64 and release.arm64_wheel == "cpu" else ""
        refusals.append(
            f"no {'CUDA ' if image.is_gpu else ''}wheels of {release.framework} {release.version} "
            f"for {host.platform}, only for {', '.join(release.platforms)}{other}"
        )
    if not image.is_gpu:
        reasons.append("built for the CPU")
    elif not host.has_gpu:
        warnings.append("no NVIDIA GPU on this host: it runs on the CPU")
    else:
        _judge_driver(catalog, release, host, reasons, warnings, refusals)
        for gpu in host.gpus:
            _judge_gpu(catalog, release, gpu, host, reasons, warnings, refusals)
    return Verdict(image=image, reasons=tuple(reasons), warnings=tuple(warnings), refusals=tuple(refusals))


def code_for(release: Release, capability: str, platform: str) -> tuple[str, bool]:
    """(the compute capability whose code runs on this one, whether it is PTX); ("", False) when none does."""
    wanted = pair(capability)
    if native := code_in(release.capabilities(platform), capability):
        return native, False
    ptx = [c for c in release.ptx if pair(c) <= wanted]
    if ptx and (not release.ptx_newest or wanted <= pair(release.ptx_newest)):
        return max(ptx, key=pair), True
    return "", False


def code_in(compiled: Sequence[str], capability: str) -> str:
    """The compute capability of those compiled whose machine code runs on another; empty when none does."""
    wanted = pair(capability)
    return max((c for c in compiled if pair(c)[0] == wanted[0] and pair(c)[1] <= wanted[1]), key=pair, default="")


def limits(catalog: Catalog, framework: Framework, host: Host) -> tuple[str, ...]:
    """What each kind of GPU of the host cannot do, in a line of its own, by the table."""
    lines: dict[str, None] = {}
    for gpu in host.gpus:
        capability = capability_of(catalog, gpu)
        missing = [row.what for row in limit_rows(catalog, framework, host.platform, capability)] if capability else []
        if missing:
            label = gpu.name if gpu.name and gpu.name != capability else "GPU"
            lines[f"{label} ({capability}) has no {', '.join(missing)}"] = None
    return tuple(lines)


def limit_rows(catalog: Catalog, framework: Framework, platform: str, capability: str) -> list[Limit]:
    """The rows of what a GPU of a compute capability cannot do."""
    return [
        row
        for row in catalog.limits
        if row.framework in ("", framework)
        and row.platform in ("", platform)
        and (not row.below or pair(capability) < pair(row.below))
    ]


def pythons(catalog: Catalog, image: Image) -> dict[str, str]:
    """The Pythons the image can be built with, each with the base that has it (`registry` or `archive`)."""
    found = {catalog.base_for(image).python: "registry"}
    if not archive_refusal(catalog, image):
        # The build takes the best suite and no other.
        found.setdefault(catalog.suites_for(image)[0].python, "archive")
    return found


def _judge_driver(
    catalog: Catalog, release: Release, host: Host, reasons: list[str], warnings: list[str], refusals: list[str]
) -> None:
    image = Image(release=release)
    floor = catalog.min_driver(image)
    if host.driver is None:
        warnings.append(f"the driver is not known: CUDA {release.cuda} needs {floor} or newer")
        return
    if not host.driver:
        refusals.append(f"no NVIDIA driver is loaded: CUDA {release.cuda} needs {floor} or newer")
        return
    toolkit = catalog.toolkit(release.cuda)
    major = release.cuda.partition(".")[0]
    scope = f"CUDA {major}.x" if toolkit.min_driver else f"CUDA {release.cuda}"
    if is_older(host.driver, floor):
        text = f"driver {host.driver} is older than {floor}, the oldest for {scope}"
        if host.gpus and all(class_of(catalog, gpu) in FORWARD_COMPATIBLE for gpu in host.gpus):
            text += "; forward compatibility (cuda-compat) could bridge it on data-centre GPUs, but no image uses it"
        refusals.append(text)
        return
    if version_key(host.driver) < version_key(floor):
        warnings.append(f"R{host.driver} without its build: {scope} takes {floor} or newer of it")
        return
    released = toolkit.drivers[0][1] if toolkit.drivers else ""
    if toolkit.min_driver and released and version_key(host.driver) < version_key(released):
        reasons.append(
            f"driver {host.driver} is {floor} or newer, the oldest for {scope} "
            f"(minor-version compatibility; CUDA {release.cuda} came with {released})"
        )
    else:
        reasons.append(f"driver {host.driver} is {floor} or newer, the oldest for {scope}")


def _judge_gpu(
    catalog: Catalog,
    release: Release,
    gpu: HostGpu,
    host: Host,
    reasons: list[str],
    warnings: list[str],
    refusals: list[str],
) -> None:
    capability, label = capability_of(catalog, gpu), label_of(gpu)
    if not capability:
        warnings.append(f"{label}: its compute capability is not known, so whether there is code for it is not, too")
        return
    if not gpu.compute_capability:
        label = f"{gpu.name} ({capability})"
    if class_of(catalog, gpu) == "jetson":
        refusals.append(
            f"{label}: a Jetson runs NVIDIA's own builds for JetPack; the aarch64 wheels are for servers (SBSA)"
        )
        return
    if host.driver and (objection := driver_objection(catalog, capability, host.driver, host.driver_modules)):
        refusals.append(f"{label}: {objection}")
        return
    if not release.compute_capabilities:
        warnings.append(f"{label}: which GPUs the wheel has code for is not known")
        return
    code, is_ptx = code_for(release, capability, host.platform)
    if not code:
        refusals.append(f"{label}: {_no_code(catalog, release, capability, host.platform)}")
    elif not is_ptx:
        same = "" if code == capability else f", which runs on all later {code.partition('.')[0]}.x"
        reasons.append(f"{label}: the wheel has machine code for {code}{same}")
    else:
        toolkit = catalog.toolkit(release.cuda)
        if host.driver and toolkit.drivers and is_older(host.driver, toolkit.drivers[0][1]):
            refusals.append(
                f"{label}: only PTX for {code} would run on it, and driver {host.driver} cannot compile that of CUDA "
                f"{release.cuda}, which takes {toolkit.drivers[0][1]} or newer"
            )
            return
        reasons.append(f"{label}: the wheel has PTX for {code}")
        warnings.append(
            f"{label}: the wheel has no machine code for it; the driver compiles it at first use from PTX for {code}, "
            "which can take many minutes once"
        )


def _no_code(catalog: Catalog, release: Release, capability: str, platform: str) -> str:
    has = release.capabilities(platform)
    listed = ", ".join(has)
    architecture = architecture_of(catalog, capability)
    wanted = pair(capability)
    if architecture and architecture.dropped_in and version_key(architecture.dropped_in) <= version_key(release.cuda):
        name = f"{architecture.name} ({capability})" if architecture.name else capability
        return f"CUDA {architecture.dropped_in} dropped {name}; the wheel has machine code for {listed}"
    if release.ptx_newest and wanted > pair(release.ptx_newest) and any(pair(p) <= wanted for p in release.ptx):
        return f"the wheel has machine code for {listed} only, and its PTX fails there: {release.ptx_note}"
    if wanted < min(map(pair, has)):
        return f"the wheel has dropped it: its machine code is for {listed}"
    carried = f" and PTX for {', '.join(release.ptx)}" if release.ptx else " and no PTX"
    return f"the wheel has no code for it: machine code for {listed}{carried}"
