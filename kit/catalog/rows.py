"""What a row of the catalog is: frozen dataclasses, one per table."""

from __future__ import annotations

from functools import cache
from typing import Literal, get_args

from kit.frozen import dataclass

Framework = Literal["torch", "tensorflow"]
Flavor = Literal["", "devel"]
# Who brings CUDA and cuDNN into the image: `nvidia-*` wheels, the framework's own wheel (old PyTorch index builds),
# the base image (TensorFlow before its CUDA wheels), or nobody (CPU).
CudaProvider = Literal["wheels", "bundled", "base", "none"]
Layer = Literal["cuda", "framework", "apps"]

SHORT_NAMES: dict[Framework, str] = {"torch": "torch", "tensorflow": "tf"}
# The layers every image has, in the order they are installed. A lock with a parent adds others: `devel`, by its flavor.
LAYERS: tuple[Layer, ...] = get_args(Layer)


@dataclass(frozen=True, kw_only=True)
class Release:
    """One framework release built for one CUDA: one row, one image (and its `-devel` flavor where CUDA has one)."""

    name: str  # the image's name, `torch2.7-cu126`
    framework: Framework
    version: str  # of the framework, `2.7.1`
    cuda: str = ""  # `12.6`; empty for the CPU
    cudnn: str = ""  # what the image loads, `9.5.1.17`; empty for the CPU or when no source states it
    cuda_provider: CudaProvider
    index: str = ""  # wheel index beside PyPI, pinned to the framework's own packages; empty: PyPI has them
    index_packages: tuple[str, ...] = ()  # the packages that may come from `index`, and no others
    requirements: tuple[str, ...]  # the framework and its companions, `torch==2.7.1`
    constraints: tuple[str, ...] = ()  # bounds on what the solver may choose for this image
    overrides: tuple[str, ...] = ()  # replaces what other packages ask for (uv's override)
    pythons: tuple[str, ...]  # minor versions its wheels exist for
    platforms: tuple[str, ...]  # in docker's spelling; CUDA works on each
    compute_capabilities: tuple[str, ...] = ()  # machine code compiled in, `5.0`
    arm64_wheel: Literal["cuda", "cpu", "none", ""] = (
        ""  # what its aarch64 wheel is: CUDA, or the CPU's; empty: not known
    )
    compute_capabilities_on: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (platform, those of its wheel) if others
    ptx: tuple[str, ...] = ()  # intermediate code carried for newer GPUs, `9.0`
    ptx_newest: str = ""  # newest compute capability its PTX works on; empty: no limit is known
    ptx_note: str = ""  # what happens on newer ones
    ptx_source: str = ""  # who saw it, and on what
    distro: str  # registry base: `ubuntu22.04`
    suites: tuple[str, ...] = ()  # archive bases that can carry it, best first: `bookworm`
    note: str = ""  # what a reader of the row should know: why something is missing or bounded
    unlocked: str = ""  # why it has no lock yet; empty: it must have one
    source: str
    verified: str

    @property
    def cuda_tag(self) -> str:
        """`cu126`, or `cpu`."""
        return "cu" + self.cuda.replace(".", "") if self.cuda else "cpu"

    def capabilities(self, platform: str) -> tuple[str, ...]:
        """The compute capabilities whose machine code is in the wheel of a platform."""
        return dict(self.compute_capabilities_on).get(platform, self.compute_capabilities)


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Releases of a framework that exist for some GPUs and are not in the catalog."""

    framework: Framework
    oldest: str  # minor versions, `2.8`
    newest: str
    cuda: str
    index: str  # where the wheels are
    compute_capabilities: tuple[str, ...]
    platforms: tuple[str, ...]
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A wheel of an index beside PyPI, and the hash that public lock files name for it."""

    file: str  # `torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl`
    sha256: str
    sources: tuple[str, ...]  # at least two that say so, of different owners: files anyone can read again

    @property
    def package(self) -> str:
        return self.file.split("-")[0].replace("_", "-").lower()

    @property
    def version(self) -> str:
        return self.file.split("-")[1]

    @property
    def hash(self) -> str:
        """As a lock writes it."""
        return f"sha256:{self.sha256}"


@dataclass(frozen=True, kw_only=True)
class WheelMetadata:
    """What a release of an index beside PyPI asks for: the solver's metadata where that index cannot be read."""

    package: str
    version: str
    requires: tuple[str, ...]  # as `Requires-Dist` has it
    source: str


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package that images carry beside the framework, and where."""

    name: str
    layer: Layer = "apps"
    frameworks: tuple[Framework, ...] = ("torch", "tensorflow")
    images: tuple[str, ...] = ()  # only these images; empty: all of its frameworks
    except_images: tuple[str, ...] = ()
    requirement: str = ""  # what to solve for when the bare name is not enough: `numpy<2`
    note: str = ""
    source: str


@dataclass(frozen=True, kw_only=True)
class LayerRule:
    """Which locked packages go into a layer, by shell pattern; what no rule names goes into `apps`."""

    name: Layer
    patterns: tuple[str, ...]  # `nvidia-*`
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Cap:
    """A bound on a package that comes with others: the newest is one that much used packages refuse."""

    requirement: str  # `python-dateutil<3`
    frameworks: tuple[Framework, ...] = ("torch", "tensorflow")
    except_images: tuple[str, ...] = ()
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Held:
    """Packages that `pip install` in a container leaves at their version, beside the framework's own and CUDA."""

    patterns: tuple[str, ...]
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class BuiltFor:
    """Which releases of packages run with these versions of another, where their metadata does not say it."""

    package: str
    versions: str  # of that other package, `>=2`
    requirements: tuple[str, ...]  # `pandas>=2.2.2`
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class PopularPackages:
    """Packages that many people install in a container; the check `kit lock --check --popular` tries each."""

    field: str
    packages: tuple[str, ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class KnownPackage:
    """Packages of which an image, by shell pattern, is known to get another version than the newest, or none."""

    packages: tuple[str, ...]
    images: tuple[str, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Packages, by shell pattern, that are one package for `import` and write the same paths."""

    module: str  # `cv2`
    packages: tuple[str, ...]
    share: tuple[str, ...] = ()  # these may stand beside each other at one version
    cpu: tuple[str, ...] = ()  # these compute on the CPU alone
    gpu: str = ""  # the one for an image's CUDA, `faiss-gpu-cu{major}`
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class CudaNumbered:
    """Packages, by shell pattern, whose version begins with the major of the CUDA that they are for."""

    patterns: tuple[str, ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class OptionalPart:
    """Files, by shell pattern, without which a package works: a library that they need may be missing."""

    package: str  # a shell pattern
    patterns: tuple[str, ...]
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class LibraryPackages:
    """The distribution's packages that have libraries, by shell pattern, which wheels need and do not bring."""

    packages: tuple[tuple[str, tuple[str, ...]], ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A program that makes images, of which no other version may."""

    name: str
    version: str
    source: str


@dataclass(frozen=True, kw_only=True)
class SystemPackage:
    """A distribution package that images carry."""

    name: str
    flavors: tuple[Flavor, ...] = ("", "devel")
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base image in a registry."""

    cuda: str = ""  # toolkit, `12.6`; empty for a base without CUDA (ubuntu itself)
    flavor: Literal["base", "runtime", "cudnn-runtime", "devel", "cudnn-devel", ""] = ""
    distro: str
    python: str  # the distribution's own
    glibc: str  # the distribution's own: wheels are built for a lowest one
    repository: str  # `nvidia/cuda`
    tag: str
    digest: str = ""  # empty: no source names one
    digest_status: Literal["confirmed", "unconfirmed", "unknown"]
    cudnn: str = ""
    note: str = ""
    source: str
    verified: str

    @property
    def reference(self) -> str:
        """What FROM names: the tag, and the digest where one is known."""
        return f"{self.repository}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A distribution release that a registry-free base can be made of."""

    name: str  # `bookworm`
    distro: str  # `debian12`
    python: str
    glibc: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Codename:
    """What a distribution calls a release of its own, which its archive and its mirrors go by."""

    name: str  # `jammy`
    distro: str  # `ubuntu22.04`
    source: str


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """An archive that keeps what a distribution's mirrors delete."""

    family: str  # `debian`
    uri: str  # with `{time}` in it, of the state that is wanted: 20260711T083000Z
    architectures: tuple[str, ...]  # of dpkg's words
    source: str


@dataclass(frozen=True, kw_only=True)
class Privileged:
    """A file that a distribution's required packages ship with setuid or setgid."""

    path: str
    mode: str  # `4755`
    package: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A platform, in the words of those who name it."""

    name: str  # docker's, `linux/arm64`
    machine: str  # of `uname -m`, wheels and markers, `aarch64`
    debian: str  # dpkg's, `arm64`
    engine_glibc: str = ""  # the oldest that Debian's packages of the Docker Engine run with; empty: there are none
    in_ci: bool = False  # CI builds the images for it
    source: str


@dataclass(frozen=True, kw_only=True)
class EnginePackage:
    """A package of Debian's with programs of the private engine, pinned."""

    name: str
    version: str
    architecture: str  # dpkg's, `arm64`
    path: str  # below a mirror's address
    sha256: str
    source: str


@dataclass(frozen=True, kw_only=True)
class EngineSuite:
    """A release of Debian whose packages the private engine takes where a mirror has the pinned ones no more."""

    name: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Toolkit:
    """One CUDA Toolkit minor release and what it needs of the driver."""

    cuda: str
    drivers: tuple[tuple[str, str], ...] = ()  # (release, driver released with it), oldest first
    min_driver: str = ""  # by minor-version compatibility within the major; empty before CUDA 11
    cc_max: str = ""
    nvcc_wheels: tuple[str, ...] = ()  # requirements of the PyPI wheels that bring nvcc and its headers; empty: none do
    nvcc_note: str = ""  # what was looked at to know that
    devel_bases: tuple[str, ...] = ()  # distros with a `devel` flavor
    targets: tuple[str, ...] = ()  # what its ptxas compiles for, `sm_90a`; empty when no wheel of it could be asked
    note: str = ""
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A GPU architecture: when the toolkit learned it and when it dropped it."""

    compute_capability: str
    name: str = ""
    first_toolkit: str = ""
    dropped_in: str = ""
    first_branch: int | None = None  # of drivers, 470; None: that of the driver that came with `first_toolkit`
    last_branch: int | None = None  # None: drivers still support it
    first_without: int | None = None  # the branch after the last one
    modules: Literal["proprietary", "either", "open", ""] = ""  # the kernel modules it works with; empty: not known
    note: str = ""
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What GPUs cannot do: those below a compute capability, or all on a platform."""

    what: str
    below: str = ""  # compute capability; empty: any
    platform: str = ""  # in docker's spelling; empty: any
    framework: Framework | Literal[""] = ""  # empty: both
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class OpenOnly:
    """The driver branch from which there are open kernel modules alone."""

    branch: int
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class Chip:
    """Chips of one compute capability, by their names in the PCI ID database."""

    names: tuple[str, ...]
    compute_capability: str
    memory: Literal["HBM", "GDDR", "shared"]  # shared: with the CPU
    source: str


@dataclass(frozen=True, kw_only=True)
class Vgpu:
    """What the names of vGPUs call boards: `V100DX` of `GRID V100DX-32C`."""

    boards: tuple[str, ...]
    compute_capability: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Names whose compute capability NVIDIA's own lists say, whatever chips the PCI ID database has them on."""

    names: tuple[str, ...]
    compute_capability: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Tegra:
    """Words in the names of GPUs inside an SoC, as L4T and people call them."""

    words: tuple[str, ...]  # in lower case
    compute_capability: str
    is_jetson: bool = False  # it takes NVIDIA's own builds for JetPack
    source: str


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU as nvidia-smi names it. Rates are dense TFLOP/s, memory in GB, bandwidth in GB/s, all from the source."""

    names: tuple[str, ...]
    gpu_class: str
    architecture: str
    compute_capability: str
    memory_gb: float | None = None
    bandwidth_gbs: float | None = None
    pcie_gen: int | None = None
    pcie_lanes: int | None = None
    fp32_tflops: float | None = None
    tf32_tensor_tflops: float | None = None
    fp16_tensor_tflops: float | None = None
    bf16_tensor_tflops: float | None = None
    fp8_tensor_tflops: float | None = None
    fp16_non_tensor_tflops: float | None = None
    sm_count: int | None = None
    boost_mhz: int | None = None
    tensor_boost_mhz: int | None = None  # where tensor cores have a clock of their own
    sm_source: str = ""
    tensor_source: str = ""
    tensor_verified: str = ""
    laptop: bool = False
    note: str = ""
    conflicts: tuple[str, ...] = ()  # what other sources say where they differ
    fields_verified: tuple[tuple[str, str], ...] = ()  # (field, how well it is known)
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Fused multiply-adds per SM and clock of an architecture, dense."""

    compute_capability: str
    gpu_classes: tuple[str, ...] = ()  # empty: all
    fp32: int
    tf32: int | None = None
    fp16: int | None = None
    bf16: int | None = None
    fp8: int | None = None
    source: str


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a test of `kit bench` was measured to give on a GPU."""

    gpu: str  # its name
    memory_gb: float | None = None  # where cards of one name differ
    framework: Framework
    test: str
    value: float  # median over `n` machines
    unit: str
    n: int
    date: str
    tool: str
    is_own: bool  # measured by kit bench itself
    source: str


@dataclass(frozen=True, kw_only=True)
class KnownBadToolkit:
    """Versions of the NVIDIA Container Toolkit that fail, and with what; a condition that is empty always holds."""

    first: str = ""  # inclusive
    last: str = ""  # inclusive
    engine: Literal["docker", "podman", ""] = ""
    engine_below: str = ""  # the first engine version that works with it
    injection: Literal["cdi", "runtime", ""] = ""  # how the engine passes GPUs
    wsl_driver: str = ""  # in WSL2 alone, from this driver of Windows on
    severity: Literal["block", "warn", "note"]
    problem: str
    fix: str
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class DriverPackage:
    """The newest driver branch that a distribution itself has, in whichever of its releases."""

    os_id: str
    newest: int
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class EngineMinimum:
    """The engine version that brought something kit needs."""

    engine: Literal["docker", "podman", "compose"]
    feature: Literal["build", "cdi", "inline-config", "raw-env-file"]
    version: str
    needs: str  # in words
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error as logs print it, and what is known about it."""

    id: str
    hints: tuple[str, ...]  # in lower case; a line that matches a pattern has one of them, which is quicker to look for
    # Regular expressions, found anywhere in a line, upper and lower case alike. A group with a name is looked up in the
    # list of statuses of that family, which then says what the line means.
    patterns: tuple[str, ...]
    near: tuple[str, ...] = ()  # texts in lower case, of which one must stand some lines around it
    unless: tuple[str, ...] = ()  # texts in lower case, none of which may stand there: it then means something else
    examples: tuple[str, ...]  # lines as they were printed; of a row with `near`, the lines together
    cause: str
    decide: str = ""  # where several causes have the same words: the commands that tell them apart
    fix: str
    check: str = ""  # the check of `kit doctor` that finds it; empty: none can
    proof: str = ""  # a pattern of what that check says where it proves the problem; empty: it may mean something else
    explains: tuple[str, ...] = ()  # the problems that follow from it
    cured_by: tuple[str, ...] = ()  # parts of a later line, in lower case, after which it is no error any more
    symptom: bool = False  # it says too little: whatever else is found explains it
    harmless: bool = False  # it looks like an error and is none
    source: str
    verified: str


@dataclass(frozen=True, kw_only=True)
class Status:
    """One of a list of numbers and names that NVIDIA's driver or a library of it reports errors by."""

    family: str  # `cuda`, `cublas`, `cudnn`, `nccl`, `xid`
    code: int
    name: str
    meaning: str  # as the library itself or NVIDIA's list says it
    action: str
    next_action: str = ""  # when the first did not help


@dataclass(frozen=True, kw_only=True)
class Action:
    """What to do about some statuses."""

    name: str
    cause: str = ""  # what they have in common; empty: the row of problems.toml says it
    fix: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Translation:
    """A text of the C library, a shell or apt in another language, and the English that rows are written for."""

    text: str
    english: str
    source: str


@cache
def version_key(text: str) -> tuple[int, ...]:
    """A version of numbers and dots to compare by: `12.10` is newer than `12.9`, `12.0` is `12`.

    `packaging` compares all kinds of versions, and takes as long to import as everything else about the catalog.
    """
    numbers = [int(part) for part in text.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


@dataclass(frozen=True, kw_only=True)
class Image:
    """What an image name stands for: a release and a flavor. Names, folders and tags derive from it."""

    release: Release
    flavor: Flavor = ""

    @property
    def name(self) -> str:
        return self.release.name + (f"-{self.flavor}" if self.flavor else "")

    @property
    def reference(self) -> str:
        """The engine's name for the built image."""
        return f"kit/{self.name}:latest"

    @property
    def framework(self) -> Framework:
        return self.release.framework

    @property
    def is_gpu(self) -> bool:
        return self.release.cuda_provider != "none"


@dataclass(frozen=True, kw_only=True)
class CondaNames:
    """PyPI's names of what conda calls otherwise, or the same; empty where PyPI has none."""

    names: tuple[tuple[str, str], ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class CondaSystem:
    """The distribution's packages of what conda has beside Python packages."""

    names: tuple[tuple[str, str], ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class CondaOfImage:
    """What conda installs, by shell pattern, and an image brings."""

    patterns: tuple[str, ...]
    chooses: Literal["cuda", "python", "cpu", ""] = ""  # what of the image its version chooses
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class DebianNames:
    """Packages of the distribution, by shell pattern, that are taken over by another name; empty: not at all."""

    names: tuple[tuple[str, str], ...]
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class ImportNames:
    """The packages of PyPI that modules are of; empty where PyPI has none."""

    names: tuple[tuple[str, str], ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class FrameworkPackages:
    """The packages that are a framework, those that come with it, and others, by shell pattern, that are for it."""

    framework: Framework
    main: tuple[str, ...]
    companions: tuple[str, ...]
    implied: tuple[str, ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class Instead:
    """A package in whose place another is taken."""

    package: str
    instead: str  # empty: none
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class KnownIndex:
    """An index, by a pattern for its address, that a project needs not name: PyPI's, or one of a framework's own."""

    pattern: str  # with a group `tag` for the CUDA in it: `cu124`
    is_pypi: bool = False
    source: str


@dataclass(frozen=True, kw_only=True)
class DockerImage:
    """What the tags of a public image say: groups `version`, `cuda`, `python` of the pattern `tag`."""

    repository: str
    framework: Framework | Literal[""] = ""
    tag: str
    source: str


@dataclass(frozen=True, kw_only=True)
class LeftVariable:
    """Variables, by shell pattern, that a project's environment is not to set."""

    patterns: tuple[str, ...]
    reason: str
    source: str
