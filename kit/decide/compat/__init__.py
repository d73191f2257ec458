"""Which image works on a host, and the exact reason why each other one does not. Pure: no engine, no network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kit.catalog.names import ImageRequest
from kit.catalog.rows import SHORT_NAMES, Framework, Image, version_key
from kit.decide.compat.declare import capability_of as capability_of
from kit.decide.compat.declare import class_of, label_of, pair
from kit.decide.compat.declare import declared_driver as declared_driver
from kit.decide.compat.declare import declared_host as declared_host
from kit.decide.compat.declare import gpu_by_name as gpu_by_name
from kit.decide.compat.declare import parse_driver as parse_driver
from kit.decide.compat.declare import unknown_host as unknown_host
from kit.decide.compat.declare import with_pci_gpus as with_pci_gpus
from kit.decide.compat.drivers import branch_of as branch_of
from kit.decide.compat.drivers import driver_objection as driver_objection
from kit.decide.compat.drivers import first_driver as first_driver
from kit.decide.compat.drivers import is_older as is_older
from kit.decide.compat.drivers import is_too_new as is_too_new
from kit.decide.compat.drivers import last_branch as last_branch
from kit.decide.compat.drivers import modules_for as modules_for
from kit.decide.compat.gpu_names import memory_of_device as memory_of_device
from kit.decide.compat.rules import Verdict as Verdict
from kit.decide.compat.rules import archive_refusal as archive_refusal
from kit.decide.compat.rules import code_for as code_for
from kit.decide.compat.rules import code_in, limits
from kit.decide.compat.rules import judge as judge
from kit.decide.compat.rules import limit_rows as limit_rows
from kit.decide.compat.rules import pythons as pythons
from kit.errors import IncompatibleError
from kit.frozen import dataclass

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.facts.host import Host


TITLES: dict[Framework, str] = {"torch": "PyTorch", "tensorflow": "TensorFlow"}


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """The image for a host, or None with every reason in `refused` and the smallest change that helps in `hint`."""

    image: Image | None
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    alternatives: tuple[Image, ...] = ()  # others that work too, best first
    refused: tuple[Verdict, ...] = ()
    hint: str = ""
    limits: tuple[str, ...] = ()  # what the GPUs cannot do
    newer: tuple[str, ...] = ()  # newer releases for these GPUs that exist, and are not in the catalog


def resolve(request: ImageRequest, catalog: Catalog, host: Host) -> Resolution:
    """The newest release that works on every GPU of the host with its driver, its CUDA the newest of those.

    The order of releases does not depend on the host, so that a newer driver can only add better answers.
    """
    host = with_pci_gpus(catalog, host)
    verdicts = [
        _with_request(judge(catalog, image, host), request, catalog, host) for image in _named(request, catalog)
    ]
    cannot = limits(catalog, request.framework, host)
    fitting = sorted((v for v in verdicts if not v.refusals), key=lambda v: _rank(v.image, host), reverse=True)
    refused = tuple(sorted((v for v in verdicts if v.refusals), key=lambda v: _rank(v.image, host), reverse=True))
    if not fitting:
        return Resolution(
            image=None,
            refused=refused,
            hint=_smallest_change(request, catalog, host),
            limits=cannot,
            newer=_newer_releases(request, catalog, host),
        )
    best = fitting[0]
    return Resolution(
        image=best.image,
        reasons=best.reasons,
        warnings=best.warnings,
        alternatives=tuple(v.image for v in fitting[1:]),
        refused=refused,
        limits=cannot if best.image.is_gpu else (),
        newer=_newer_releases(request, catalog, host) if best.image.is_gpu else (),
    )


def objection(catalog: Catalog, image: Image, host: Host) -> IncompatibleError | None:
    """Why an image that was named outright cannot work on the host, with what would help; None when it can."""
    refusals = judge(catalog, image, host).refusals
    if not refusals:
        return None
    other = resolve(ImageRequest(framework=image.framework, flavor=image.flavor), catalog, host)
    helps = f"`{other.image.name}` works here" if other.image else other.hint
    hint = f"{helps}; or go on with --force" if helps else "go on with --force"
    return IncompatibleError(f"{image.name} cannot work on this host: {refusals[0]}", details=refusals[1:], hint=hint)


def parse_name(catalog: Catalog, name: str) -> ImageRequest | Image:
    """A request when the name leaves the CUDA open (`torch`, `tf2.19`, `torch-devel`), else the image it names.

    Raises NoSuchImageError when nothing has that name.
    """
    image, asked = catalog.find(name), ImageRequest.parse(name)
    return image if asked is None or asked.tag else asked


def request_for(image: Image) -> ImageRequest:
    """The request that only this image answers."""
    release = image.release
    return ImageRequest(framework=image.framework, version=release.version, tag=release.cuda_tag, flavor=image.flavor)


def choose(catalog: Catalog, name: str, host: Host) -> tuple[Image, Resolution | None]:
    """The image a name stands for on the host, and how it was found; None when the name says it outright.

    Raises NoSuchImageError, and IncompatibleError with every reason when nothing fits.
    """
    asked = parse_name(catalog, name)
    if isinstance(asked, Image):
        return asked, None
    host = with_pci_gpus(catalog, host)
    found = resolve(asked, catalog, host)
    if found.image is None:
        raise no_fit(name, found, host)
    return found.image, found


def no_fit(name: str, resolution: Resolution, host: Host) -> IncompatibleError:
    """The error for a request that nothing fits."""
    return IncompatibleError(
        f"no image for `{name}` works with {describe(host)}",
        details=(*refusal_lines(resolution.refused), *resolution.newer),
        hint=resolution.hint,
    )


def refusal_lines(refused: tuple[Verdict, ...]) -> tuple[str, ...]:
    """Each reason once, with the images it stands against, in the order of the images."""
    images: dict[str, list[str]] = {}
    for verdict in refused:
        for reason in verdict.refusals:
            images.setdefault(reason, []).append(verdict.image.name)
    return tuple(f"{', '.join(names)}: {reason}" for reason, names in images.items())


def describe(host: Host) -> str:
    """The host in a few words: `driver 550.54.14, NVIDIA GeForce RTX 4090 (8.9)`."""
    if not host.has_gpu:
        return f"no NVIDIA GPU, {host.platform}"
    names: dict[str, int] = {}
    for gpu in host.gpus:
        label = label_of(gpu)
        names[label] = names.get(label, 0) + 1
    gpus = [f"{count} x {label}" if count > 1 else label for label, count in names.items()]
    driver = "driver unknown" if host.driver is None else f"driver {host.driver}" if host.driver else "no driver"
    return ", ".join(
        [driver, *(gpus or ["an NVIDIA GPU"]), *([host.platform] if host.platform != "linux/amd64" else [])]
    )


def _named(request: ImageRequest, catalog: Catalog) -> list[Image]:
    return [i for i in catalog.images() if i.flavor == request.flavor and request.admits(i.release)]


def _with_request(verdict: Verdict, request: ImageRequest, catalog: Catalog, host: Host) -> Verdict:
    """The verdict with what speaks against the image when kit chooses: no lock, the Python, code nobody listed."""
    image, release = verdict.image, verdict.image.release
    refusals, reasons = list(verdict.refusals), list(verdict.reasons)
    if not image.is_gpu and host.has_gpu and request.tag != "cpu":
        refusals.append("it is for the CPU, and this host has an NVIDIA GPU")
    if catalog.unlocked_reason(image):
        refusals.append("it has no lock yet, so it cannot be built: `kit lock` makes one where its index answers")
    if image.is_gpu and host.gpus and not release.compute_capabilities:
        refusals.append("which GPUs its wheel has code for is not known")
    if request.python:
        available = pythons(catalog, image)
        if request.python not in available:
            refusals.append(
                f"no base gives it Python {request.python}, only {', '.join(sorted(available, key=version_key))}"
            )
        elif available[request.python] == "archive":
            reasons.append(f"Python {request.python} is that of the registry-free base: build it with --base archive")
        else:
            reasons.append(f"Python {request.python} is that of its base image")
    return replace(verdict, refusals=tuple(refusals), reasons=tuple(reasons))


def _rank(image: Image, host: Host) -> tuple[object, ...]:
    release = image.release
    # Without a GPU the image for the CPU is the smaller one that does the same.
    return (
        not image.is_gpu if not host.has_gpu else image.is_gpu,
        version_key(release.version),
        version_key(release.cuda or "0"),
    )


def _best(request: ImageRequest, catalog: Catalog, host: Host) -> Image | None:
    """What `resolve` would choose, without asking what would help if there is nothing."""
    verdicts = (
        _with_request(judge(catalog, image, host), request, catalog, host) for image in _named(request, catalog)
    )
    return max((v.image for v in verdicts if not v.refusals), key=lambda image: _rank(image, host), default=None)


def _smallest_change(request: ImageRequest, catalog: Catalog, host: Host) -> str:
    """What would make an image fit, the least first: another driver, another version, another Python, fewer GPUs."""
    changes: list[str] = []
    for driver in _other_drivers(catalog, host):
        if image := _best(request, catalog, replace(host, driver=driver)):
            if not host.driver:
                what = f"install driver {or_newer(catalog, host, driver)}"
            elif is_older(host.driver, driver):
                what = f"upgrade the driver to {or_newer(catalog, host, driver)}"
            else:
                what = f"go back to driver R{driver}, the last one for this GPU"
            changes.append(f"{what}: `{image.name}` then works")
            break
    if host.driver_modules and (image := _best(request, catalog, replace(host, driver_modules=""))):
        other = "proprietary" if host.driver_modules == "open" else "open"
        changes.append(f"install the {other} kernel modules of the driver: `{image.name}` then works")
    wider = ImageRequest(framework=request.framework, flavor=request.flavor, python=request.python)
    if wider != request and (image := _best(wider, catalog, host)):
        changes.append(f"take {SHORT_NAMES[request.framework]} {image.release.version}: `{image.name}` works here")
    if request.python and (image := _best(replace(request, python=""), catalog, host)):
        have = ", ".join(sorted(pythons(catalog, image), key=version_key))
        changes.append(f"take Python {have}: `{image.name}` works here")
    if len(host.gpus) > 1:
        alone = ((gpu, _best(request, catalog, replace(host, gpus=(gpu,)))) for gpu in host.gpus)
        uses = [f"`{image.name}` with --gpus device={gpu.index} ({label_of(gpu)})" for gpu, image in alone if image]
        if uses:
            changes.append(f"use one GPU alone: {', '.join(uses)}")
    if request.flavor and (image := _best(replace(request, flavor=""), catalog, host)):
        changes.append(f"do without the compiler: `{image.name}` works here")
    if any(class_of(catalog, gpu) == "jetson" for gpu in host.gpus):
        changes.append("take an image made for JetPack (github.com/dusty-nv/jetson-containers)")
    elif host.driver == "":
        changes.append("run on the CPU: --gpus none")
    elif not changes:
        if request.framework == "tensorflow" and _is_newer_than_tensorflow(catalog, host):
            # github.com/tensorflow/tensorflow/issues/99592: the only way found to work on the RTX 50 series.
            changes.append("take NVIDIA's own build of TensorFlow from NGC, nvcr.io/nvidia/tensorflow")
        instead: Framework = "tensorflow" if request.framework == "torch" else "torch"
        if image := _best(ImageRequest(framework=instead, flavor=request.flavor), catalog, host):
            changes.append(f"take {TITLES[instead]}: `{image.name}` works here")
    if not changes:
        changes.append("run on the CPU: --gpus none" if host.has_gpu else "`kit list` shows what there is")
    return "; or ".join(changes)


def or_newer(catalog: Catalog, host: Host, driver: str) -> str:
    """`525.60.13 or newer`, with the last branch that the host's GPUs work with where there is one."""
    ends = [end for gpu in host.gpus if (end := last_branch(catalog, capability_of(catalog, gpu)))]
    return f"{driver} or newer (R{min(ends)} at most)" if ends else f"{driver} or newer"


def _other_drivers(catalog: Catalog, host: Host) -> list[str]:
    """Drivers that may help: the last branches of the GPUs, if the host's is newer; those of the tables that are newer.

    None when no driver is the matter.
    """
    if not host.has_gpu or host.driver is None:
        return []
    capabilities = [capability_of(catalog, gpu) for gpu in host.gpus]
    if host.driver and any(is_too_new(catalog, capability, host.driver) for capability in capabilities):
        return [str(min(end for capability in capabilities if (end := last_branch(catalog, capability))))]
    known = {d for t in catalog.toolkits for d in (t.min_driver, *(pair[1] for pair in t.drivers[:1])) if d}
    return sorted((d for d in known if not host.driver or version_key(d) > version_key(host.driver)), key=version_key)


def _newer_releases(request: ImageRequest, catalog: Catalog, host: Host) -> tuple[str, ...]:
    """Releases with code for each of the host's GPUs that are newer than any image for them, and have no row."""
    capabilities = {capability_of(catalog, gpu) for gpu in host.gpus}
    rows = [
        row
        for row in catalog.elsewhere
        if row.framework == request.framework
        and not request.version
        and host.platform in row.platforms
        and capabilities
        and all(capability and code_in(row.compute_capabilities, capability) for capability in capabilities)
    ]
    if not rows:
        return ()
    best = _best(ImageRequest(framework=request.framework), catalog, replace(host, driver=None, driver_modules=""))
    return tuple(
        f"not in the catalog: {TITLES[row.framework]} {row.oldest} to {row.newest} for CUDA {row.cuda} have code for "
        f"{'this GPU' if len(host.gpus) == 1 else 'these GPUs'} too, on {row.index}"
        for row in rows
        if best is None or version_key(row.newest) > version_key(".".join(best.release.version.split(".")[:2]))
    )


def _is_newer_than_tensorflow(catalog: Catalog, host: Host) -> bool:
    limits = [pair(r.ptx_newest) for r in catalog.releases if r.framework == "tensorflow" and r.ptx_newest]
    found = [pair(c) for gpu in host.gpus if (c := capability_of(catalog, gpu))]
    return bool(limits) and any(capability > max(limits) for capability in found)
