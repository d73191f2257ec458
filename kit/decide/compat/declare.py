"""A host as it is declared, and GPUs by their names."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from kit.catalog.rows import Gpu, version_key
from kit.decide.compat.drivers import Modules, branch_of
from kit.decide.compat.gpu_names import capability_of_device, device, is_jetson, named, nearest
from kit.errors import BadInputError
from kit.facts.host import VM_DRIVER
from kit.frozen import dataclass

# NVIDIA's version between what people write before it and what packages add: `nvidia-driver-570-open`, `550.54.14-1`.
_DRIVER = re.compile(
    r"(?:\d:)?(?:(?:nvidia|cuda|akmod|linux|graphics|tesla|legacy|headless|drivers?|open|version)[-_: ]*)*[vr]?"
    r"(?P<version>\d{3}(?:\.\d{1,3}){0,2})(?:\.x{1,3}){0,2}(?:xx)?(?:[-+~_, (][\w.+~: (),-]*)?",
    re.IGNORECASE | re.ASCII,
)
_CUDA = r"(?:(?:cuda(?: version)?[: -]*)?(?=\d+\.)|cu(?:da)?(?=\d{3}$))(?P<major>\d{1,2})\.?(?P<minor>\d)(?:\.\d{1,3})?"
# The oldest drivers that run any CUDA there are images for are of R418.
OLDEST_BRANCH = 300
# A version among other words: `NVIDIA-SMI 550.54.14`, `GeForce Game Ready Driver 576.88 WHQL`.
_VERSION_INSIDE = re.compile(r"(?<![\w.])[vr]?(\d{3}(?:\.\d{2,3}){1,2})(?:\.run)?(?![\w.])", re.IGNORECASE | re.ASCII)

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.facts.host import Host, HostGpu


def unknown_host() -> Host:
    """A host nobody has said anything about."""
    from kit.facts.host import Host

    return Host(driver=None, is_declared=True)


def declared_host(
    catalog: Catalog, *, driver: str = "", gpus: tuple[str, ...] = (), platform: str = "", base: Host | None = None
) -> Host:
    """A host as the user declares it; what is not declared is taken from `base`, or unknown.

    Raises BadInputError for a driver, GPU or platform that cannot be one.
    """
    from kit.facts.host import HostGpu

    host = base or unknown_host()
    if platform:
        known = [row for row in catalog.platforms if any(row.name in r.platforms for r in catalog.releases)]
        named = [row.name for row in known if platform in (row.name, row.machine, row.debian)]
        if not named:
            names = " or ".join(row.name for row in known)
            raise BadInputError(f"--platform {platform}: not a platform kit knows", hint=f"give {names}")
        host = replace(host, platform=named[0])
    if gpus:
        found = [gpu_by_name(catalog, text) for text in gpus]
        host = replace(
            host,
            gpus=tuple(HostGpu(name=name, compute_capability=cc, index=i) for i, (name, cc) in enumerate(found)),
            pci_gpus=(),
            driver=host.driver or None,
        )
    if driver:
        given = declared_driver(catalog, driver)
        host = replace(host, driver=given.version, driver_modules=given.modules)
        if not host.has_gpu:
            host = replace(host, gpus=(HostGpu(name="a GPU that was not named"),))
    return replace(host, is_declared=True, driver_problem="")


@dataclass(frozen=True, kw_only=True)
class DeclaredDriver:
    """A driver as the user wrote it."""

    version: str  # `550.54.14`, or the branch alone: `535`
    modules: Modules = ""
    note: str = ""  # what it was taken for, when that is not what it says


def parse_driver(text: str) -> str:
    """The version in what people call a driver: NVIDIA's own, with what a distribution adds, or Windows'.

    `550.54.14-open`, `535.183.01-0ubuntu0.22.04.1`, `570.124.06 (UDA)`, `r535`, `nvidia-driver-535`; Windows'
    `31.0.15.3640` is 536.40. Raises BadInputError.
    """
    words = text.strip()
    others: set[str] = set(_VERSION_INSIDE.findall(words))
    version = ""
    if match := re.fullmatch(r"\d+\.\d+\.(\d+)\.(\d{4})", words, re.ASCII):
        # Windows numbers: the last five digits of the last two parts are NVIDIA's.
        digits = (match[1] + match[2])[-5:]
        version = f"{digits[:3]}.{digits[3:]}"
    elif match := _DRIVER.fullmatch(words):
        version = match["version"] if others <= {match["version"]} else ""
    elif re.fullmatch(r"[\w.+~:(), /|-]*", words) and len(others) == 1:
        version = others.pop()
    if version and int(version[:3]) >= OLDEST_BRANCH:  # else it is another maker's, or a CUDA version without its dot
        return version
    raise BadInputError(
        f"--driver {text}: not a driver version", hint="give it as `nvidia-smi` prints it, such as 550.54.14"
    )


def declared_driver(catalog: Catalog, text: str) -> DeclaredDriver:
    """A driver as people have it; a CUDA version, which nvidia-smi shows beside it, is the driver it came with.

    Raises BadInputError.
    """
    if match := re.fullmatch(_CUDA, text.strip(), re.IGNORECASE | re.ASCII):
        # A driver's CUDA may have had no toolkit, as 12.7.
        major, shown = match["major"], version_key(f"{match['major']}.{match['minor']}")
        rows = [
            t for t in catalog.toolkits if t.drivers and t.cuda.startswith(f"{major}.") and version_key(t.cuda) <= shown
        ]
        row = max(rows, key=lambda t: version_key(t.cuda), default=None)
        if row:
            version = row.drivers[0][1]
            return DeclaredDriver(
                version=version,
                note=f"--driver {text.strip()}: taken as the CUDA version that nvidia-smi shows, which no driver has: "
                f"R{branch_of(version)} shows {row.cuda}, so the driver is at least {version}",
            )
    version = parse_driver(text)
    return DeclaredDriver(version=version, modules="open" if re.search(r"\bopen\b", text, re.IGNORECASE) else "")


def gpu_by_name(catalog: Catalog, text: str) -> tuple[str, str]:
    """(name, compute capability) of a GPU written as nvidia-smi prints it, shortened, or as `sm_89` or `8.9`.

    Raises BadInputError with the nearest names when it is none, or when GPUs of several capabilities fit.
    """
    words = text.strip()
    if match := re.fullmatch(
        r"(?:sm|compute)[_ ]?(\d{1,2})\.?(\d)[af]?|(?:cc ?)?(\d{1,2})\.(\d)", words, re.IGNORECASE | re.ASCII
    ):
        capability = f"{match[1] or match[3]}.{match[2] or match[4]}"
        return capability, capability
    match = re.fullmatch(r"(?:10de:)?([0-9a-f]{4})", words, re.IGNORECASE)
    known = device(catalog, match[1]) if match else None
    if known and (capability := capability_of_device(catalog, known.id)):
        return next(iter(known.names), known.chip), capability
    meant = named(catalog, words)
    if len(meant.capabilities) == 1:
        names = [name for name, _ in meant.names]
        return (names[0] if meant.is_exact and words not in names else words), meant.capabilities[0]
    if meant.capabilities:
        fitting = ", ".join(f"{name} ({capability})" for name, capability in meant.names)
        raise BadInputError(
            f"--gpu {text}: several GPUs are called that: {fitting}",
            hint="give the whole name, or the PCI ID that `lspci -nn` shows, such as 10de:2684",
        )
    near = nearest(catalog, words)
    raise BadInputError(
        f"--gpu {text}: no GPU of the catalog is called that",
        hint=(f"nearest: {', '.join(near)}; " if near else "") + "or give its compute capability, such as sm_89",
    )


def with_pci_gpus(catalog: Catalog, host: Host) -> Host:
    """The host with the GPUs that are on its bus, known by their PCI IDs, where no driver showed any."""
    if host.gpus or not host.pci_gpus:
        return host
    from kit.facts.host import HostGpu

    found = []
    for index, pci in enumerate(gpu for gpu in host.pci_gpus if gpu.driver != VM_DRIVER):
        capability = capability_of_device(catalog, pci.device_id)
        known = device(catalog, pci.device_id)
        name = next(iter(known.names), known.chip) if known else ""
        found.append(
            HostGpu(
                name=name,
                compute_capability=capability,
                index=index,
                pci_address=pci.address,
                device_id=pci.device_id,
            )
        )
    return replace(host, gpus=tuple(found) if all(gpu.compute_capability for gpu in found) else ())


def capability_of(catalog: Catalog, gpu: HostGpu) -> str:
    """The compute capability of a host's GPU: by the driver, else its PCI ID, else its name; empty if unknown."""
    if gpu.compute_capability:
        return gpu.compute_capability
    if gpu.device_id and (capability := capability_of_device(catalog, gpu.device_id)):
        return capability
    found = named(catalog, gpu.name).capabilities
    return found[0] if len(found) == 1 else ""


def class_of(catalog: Catalog, gpu: HostGpu) -> str:
    """The catalog's class of a GPU, by its name, else by a compute capability that only one class has."""
    if is_jetson(catalog, gpu.name):
        return "jetson"
    rows = gpu_rows(catalog, gpu.name) or tuple(
        row for row in catalog.gpus if gpu.compute_capability and row.compute_capability == gpu.compute_capability
    )
    found = {row.gpu_class for row in rows}
    return found.pop() if len(found) == 1 else ""


def label_of(gpu: HostGpu) -> str:
    if gpu.name in ("", gpu.compute_capability):
        return f"GPU {gpu.compute_capability or gpu.index}"
    return f"{gpu.name} ({gpu.compute_capability})" if gpu.compute_capability else gpu.name


@cache
def _words(name: str) -> tuple[str, ...]:
    """A GPU's name to compare by: drivers before R470 leave out `NVIDIA`, people leave out the brand."""
    text = name.lower().partition(" mig ")[0]
    return tuple(w for w in re.split(r"[\s\-_/()]+", text) if w and w not in ("nvidia", "geforce", "tesla", "quadro"))


@cache
def gpu_rows(catalog: Catalog, name: str) -> tuple[Gpu, ...]:
    """The catalog's GPUs of that name; if there are none, those whose names have these words in a row."""
    wanted = _words(name)
    if not wanted:
        return ()
    exact = tuple(gpu for gpu in catalog.gpus if any(_words(n) == wanted for n in gpu.names))
    if exact:
        return exact

    def has(words: tuple[str, ...]) -> bool:
        return any(words[i : i + len(wanted)] == wanted for i in range(len(words) - len(wanted) + 1))

    return tuple(gpu for gpu in catalog.gpus if any(has(_words(n)) for n in gpu.names))


def pair(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor or 0)
