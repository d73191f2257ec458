"""The catalog: loads the tables into frozen dataclasses, refuses what breaks a rule, and knows which images exist."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from kit import files, paths
from kit.catalog.devices import Device, read_devices
from kit.catalog.names import ImageRequest, possible_names
from kit.catalog.rows import (
    SHORT_NAMES,
    Action,
    Architecture,
    Base,
    BuiltFor,
    Cap,
    Chip,
    Codename,
    CondaNames,
    CondaOfImage,
    CondaSystem,
    CudaNumbered,
    DebianNames,
    DockerImage,
    DriverPackage,
    Elsewhere,
    EngineMinimum,
    EnginePackage,
    EngineSuite,
    Flavor,
    FrameworkPackages,
    Gpu,
    Held,
    Image,
    ImportNames,
    Instead,
    KnownBadToolkit,
    KnownIndex,
    KnownPackage,
    Layer,
    LayerRule,
    LeftVariable,
    LibraryPackages,
    Limit,
    Listed,
    OpenOnly,
    OptionalPart,
    Package,
    Platform,
    PopularPackages,
    Privileged,
    Problem,
    Rate,
    Reference,
    Release,
    Snapshot,
    Status,
    Suite,
    SystemPackage,
    Tegra,
    Tool,
    Toolkit,
    Translation,
    Twins,
    Vgpu,
    Wheel,
    WheelMetadata,
    version_key,
)
from kit.catalog.tables import Row, make_row, parse_file, refuse_duplicates
from kit.errors import CatalogError, NoSuchImageError
from kit.frozen import dataclass

PINS_FILE = "pins.json"
_AGAIN = "delete it, then `kit update` writes it anew"


@dataclass(frozen=True, kw_only=True)
class Pin:
    """The digest a registry itself gave for a tag."""

    repository: str
    tag: str
    digest: str
    confirmed: str  # the day the registry was asked, `2026-11-21`


def _table(file: str, table: str, row_type: type[Row], *keys: Callable[[Row], str]) -> cached_property[tuple[Row, ...]]:
    return cached_property(lambda catalog: catalog._rows(file, table, row_type, *keys))


class Catalog:
    """The tables of one folder. Each file is read when first asked for: a command pays only for what it uses."""

    packages = _table("packages.toml", "package", Package)
    system_packages = _table("packages.toml", "system_package", SystemPackage, lambda row: row.name)
    popular = _table("popular.toml", "popular", PopularPackages, lambda row: row.field)
    known_packages = _table("popular.toml", "known", KnownPackage)
    twins = _table("guards.toml", "twins", Twins, lambda row: row.module)
    cuda_numbered = _table("guards.toml", "cuda_numbered", CudaNumbered)
    optional_parts = _table("guards.toml", "optional_part", OptionalPart, lambda row: row.package)
    library_packages = _table("guards.toml", "libraries", LibraryPackages)
    tools = _table("packages.toml", "tool", Tool, lambda row: row.name)
    layer_rules = _table("packages.toml", "layer", LayerRule)
    caps = _table("packages.toml", "cap", Cap, lambda row: row.requirement)
    held = _table("packages.toml", "held", Held)
    built_for = _table("packages.toml", "built_for", BuiltFor)
    suites = _table("bases.toml", "suite", Suite, lambda row: row.name)
    codenames = _table("bases.toml", "codename", Codename, lambda row: row.name, lambda row: row.distro)
    snapshots = _table("bases.toml", "snapshot", Snapshot, lambda row: row.uri)
    privileged = _table("bases.toml", "privileged", Privileged, lambda row: row.path)
    platforms = _table("platforms.toml", "platform", Platform, lambda row: row.name)
    engine_packages = _table(
        "engine.toml", "engine_package", EnginePackage, lambda row: f"{row.name} {row.architecture}"
    )
    engine_suites = _table("engine.toml", "engine_suite", EngineSuite, lambda row: row.name)
    wheels = _table("wheels.toml", "wheel", Wheel, lambda row: row.file)
    wheel_metadata = _table("wheels.toml", "metadata", WheelMetadata, lambda row: f"{row.package} {row.version}")
    toolkits = _table("cuda.toml", "toolkit", Toolkit, lambda row: row.cuda)
    architectures = _table("cuda.toml", "architecture", Architecture, lambda row: row.compute_capability)
    limits = _table("cuda.toml", "limit", Limit)
    elsewhere = _table("frameworks.toml", "elsewhere", Elsewhere)
    open_only = _table("cuda.toml", "open_only", OpenOnly)
    chips = _table("chips.toml", "chip", Chip)
    vgpus = _table("chips.toml", "vgpu", Vgpu)
    listed = _table("chips.toml", "listed", Listed)
    tegras = _table("chips.toml", "tegra", Tegra)
    gpus = _table("gpus.toml", "gpu", Gpu)
    rates = _table("gpus.toml", "rate", Rate)
    references = _table("references.toml", "reference", Reference)
    known_bad_toolkits = _table("toolkit.toml", "known_bad", KnownBadToolkit)
    driver_packages = _table("toolkit.toml", "driver_package", DriverPackage, lambda row: row.os_id)
    engine_minimums = _table(
        "toolkit.toml", "engine_minimum", EngineMinimum, lambda row: f"{row.engine}, {row.feature}"
    )
    problems = _table("problems.toml", "problem", Problem, lambda row: row.id)
    statuses = _table("statuses.toml", "status", Status, lambda row: row.name)
    actions = _table("statuses.toml", "action", Action, lambda row: row.name)
    conda_names = _table("takeover.toml", "conda_name", CondaNames)
    conda_system = _table("takeover.toml", "conda_system", CondaSystem)
    conda_images = _table("takeover.toml", "conda_image", CondaOfImage)
    debian_names = _table("takeover.toml", "debian_name", DebianNames)
    import_names = _table("takeover.toml", "import_name", ImportNames)
    framework_packages = _table("takeover.toml", "framework_package", FrameworkPackages, lambda row: row.framework)
    instead = _table("takeover.toml", "instead", Instead, lambda row: row.package)
    known_indexes = _table("takeover.toml", "known_index", KnownIndex)
    docker_images = _table("takeover.toml", "docker_image", DockerImage, lambda row: row.repository)
    left_variables = _table("takeover.toml", "left_variable", LeftVariable)
    translations = _table("statuses.toml", "translation", Translation, lambda row: row.text)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def devices(self) -> tuple[Device, ...]:
        """NVIDIA's devices on the PCI bus."""
        return read_devices(self.folder)

    @cached_property
    def releases(self) -> tuple[Release, ...]:
        rows = self._rows("frameworks.toml", "release", Release, lambda row: row.name)
        for row in rows:
            _check_release(row)
        return rows

    @cached_property
    def bases(self) -> tuple[Base, ...]:
        """The base images, a digest that a registry confirmed (`kit update`) put in place of the row's lead."""
        rows = self._rows(
            "bases.toml",
            "base",
            Base,
            lambda row: f"{row.repository}:{row.tag}",
            lambda row: f"CUDA {row.cuda or '-'}, flavor {row.flavor or '-'}, {row.distro}",
        )
        for row in rows:
            if (row.digest == "") != (row.digest_status == "unknown"):
                raise CatalogError(
                    f"bases.toml: [[base]] `{row.tag}`: digest_status is `{row.digest_status}`, "
                    f"but digest is `{row.digest}`",
                    hint="a row without a digest is `unknown`, and only such a row",
                )
        pins = {(pin.repository, pin.tag): pin for pin in self.pins}
        return tuple(
            dataclasses.replace(
                row,
                digest=pin.digest,
                digest_status="confirmed",
                verified=f"confirmed by the registry on {pin.confirmed}",
            )
            if (pin := pins.get((row.repository, row.tag)))
            else row
            for row in rows
        )

    @cached_property
    def pins(self) -> tuple[Pin, ...]:
        """What `kit update` wrote; nothing when it never ran."""
        path = self.folder / PINS_FILE
        if not path.exists():
            return ()
        try:
            rows = list(json.loads(files.read_text(path))["pins"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
            raise CatalogError(f"{path} cannot be read: {type(e).__name__}: {e}", hint=_AGAIN) from None
        pins = tuple(make_row(PINS_FILE, "pins", Pin, row, i) for i, row in enumerate(rows))
        for pin in pins:
            if not re.fullmatch("sha256:[0-9a-f]{64}", pin.digest):
                raise CatalogError(f"{path}: the digest of `{pin.tag}` is not one: `{pin.digest}`", hint=_AGAIN)
        return pins

    def images(self) -> list[Image]:
        """Every image there is, in the order of the table; a `-devel` image follows its plain one."""
        return [
            Image(release=release, flavor=flavor)
            for release in self.releases
            for flavor in typing.get_args(Flavor)
            if not flavor or self._has_devel(release)
        ]

    def find(self, name: str) -> Image:
        """The image a name stands for; raises NoSuchImageError, with the nearest names, when there is none.

        A name is a row's own, or narrows as much as it says: `torch` (newest locked GPU image), `torch2.6`,
        `torch-cu126` (newest release for that CUDA), `torch2.6.0-cu124`, `tf2.21-cpu`, each with `-devel` or not.
        """
        request, plain = ImageRequest.parse(name), name.removesuffix("-devel")
        fitting = [r for r in self.releases if r.name == plain or request.admits(r)] if request else []
        if request is None or not fitting:
            raise self._no_such_image(name)
        # Without a CUDA in the name: a GPU image before a CPU one, one that can be built before one that cannot.
        chosen = max(
            fitting,
            key=lambda r: (
                r.name == plain,
                bool(request.tag or r.cuda),
                bool(request.tag or not r.unlocked),
                version_key(r.version),
                version_key(r.cuda or "0"),
            ),
        )
        if not request.flavor:
            return Image(release=chosen)
        if not self._has_devel(chosen):
            why = (
                f"no `devel` base image of CUDA {chosen.cuda} for {chosen.distro} is known"
                if chosen.cuda
                else "it is for the CPU"
            )
            raise NoSuchImageError(
                f"`{chosen.name}` has no `-devel` flavor: {why}",
                hint=f"`{chosen.name}` is the image without the compiler; `kit list --all` shows those that have one",
            )
        return Image(release=chosen, flavor="devel")

    def aliases(self, image: Image) -> list[str]:
        """The other names that find the image now."""
        return [name for name in possible_names(image) if name != image.name and self.find(name) == image]

    def unlocked_reason(self, image: Image) -> str:
        """Why the image has no lock; empty when it has one or must have one.

        A row's reason holds until someone locks the image where its index can be reached.
        """
        if not image.release.unlocked or (paths.images_dir() / image.name / "requirements.lock").is_file():
            return ""
        return image.release.unlocked

    def base_for(self, image: Image) -> Base:
        """The registry base the image stands on.

        NVIDIA's `base` flavor where wheels bring CUDA (nothing is there twice), `cudnn-runtime` where the base must
        bring it, the `devel` one of each for `-devel`; the plain distribution for the CPU, and where NVIDIA has no
        base of that CUDA for the distribution and wheels bring everything.
        """
        release = image.release
        if release.cuda_provider == "none":
            return self._base("", "", release.distro, image)
        devel = image.flavor == "devel"
        if release.cuda_provider == "base":
            return self._base(release.cuda, "cudnn-devel" if devel else "cudnn-runtime", release.distro, image)
        if devel:
            return self._base(release.cuda, "devel", release.distro, image)
        exists = any((b.cuda, b.flavor, b.distro) == (release.cuda, "base", release.distro) for b in self.bases)
        return (
            self._base(release.cuda, "base", release.distro, image)
            if exists
            else self._base("", "", release.distro, image)
        )

    def suites_for(self, image: Image) -> list[Suite]:
        """The distribution releases a registry-free base of the image can be made of, best first."""
        return [self.suite(name) for name in image.release.suites]

    def suite(self, name: str) -> Suite:
        for suite in self.suites:
            if suite.name == name:
                return suite
        raise CatalogError(
            f"bases.toml: there is no [[suite]] `{name}`", hint=f"there are: {', '.join(s.name for s in self.suites)}"
        )

    def pythons_for(self, image: Image) -> list[str]:
        """The Python of each base the image can stand on, lowest first: its lock must serve all of them."""
        found = {self.base_for(image).python, *(suite.python for suite in self.suites_for(image))}
        return sorted(found, key=version_key)

    def machines_for(self, image: Image) -> list[str]:
        """The machines the image exists for, as wheels and markers name them."""
        names = {row.name: row.machine for row in self.platforms}
        return [names[platform] for platform in image.release.platforms]

    def packages_for(self, image: Image) -> list[Package]:
        """The packages the image carries beside the framework, by name."""
        name = image.release.name
        rows = [
            p
            for p in self.packages
            if image.framework in p.frameworks and (not p.images or name in p.images) and name not in p.except_images
        ]
        refuse_duplicates("packages.toml", f"package (for the image `{name}`)", [row.name for row in rows])
        return sorted(rows, key=lambda row: row.name)

    def wheels_for(self, release: Release) -> tuple[Wheel, ...]:
        """The wheels of a release's own index whose hashes are known without it; empty unless each package has some.

        Raises CatalogError for a row that is no wheel with a hash and two sources, or has no metadata.
        """
        if not release.index:
            return ()
        wanted = {tuple(r.split("==")) for r in release.requirements if r.partition("==")[0] in release.index_packages}
        found = tuple(row for row in self.wheels if (row.package, row.version) in wanted)
        if {row.package for row in found} != set(release.index_packages):
            return ()
        described = {(row.package, row.version) for row in self.wheel_metadata}
        for row in found:
            _check_wheel(row)
            if (row.package, row.version) not in described:
                raise CatalogError(
                    f"wheels.toml: [[wheel]] `{row.file}`: there is no [[metadata]] of {row.package} {row.version}",
                    hint="the solver needs to know what it asks for",
                )
        return found

    def constraints_for(self, image: Image) -> tuple[str, ...]:
        """What the solver is held to: the release's own constraints, and the caps."""
        caps = (c for c in self.caps if image.framework in c.frameworks and image.release.name not in c.except_images)
        return (*image.release.constraints, *(cap.requirement for cap in caps))

    def layer_of(self, package: str) -> Layer:
        """The layer a locked package is installed in."""
        import fnmatch

        for rule in self.layer_rules:
            if any(fnmatch.fnmatchcase(package, pattern) for pattern in rule.patterns):
                return rule.name
        return "apps"

    @property
    def uv_version(self) -> str:
        """The only uv that may solve a lock or make an environment."""
        return next(tool.version for tool in self.tools if tool.name == "uv")

    def toolkit(self, cuda: str) -> Toolkit:
        for toolkit in self.toolkits:
            if toolkit.cuda == cuda:
                return toolkit
        raise CatalogError(
            f"cuda.toml: there is no [[toolkit]] `{cuda}`",
            hint=f"add the row; there are: {', '.join(t.cuda for t in self.toolkits)}",
        )

    def min_driver(self, image: Image) -> str:
        """The oldest driver that can run the image; empty for the CPU.

        The floor of the CUDA major (minor-version compatibility); before CUDA 11 there was none, and the driver
        released with the toolkit is what it takes.
        """
        if not image.release.cuda:
            return ""
        toolkit = self.toolkit(image.release.cuda)
        return toolkit.min_driver or toolkit.drivers[0][1]

    def _has_devel(self, release: Release) -> bool:
        return release.cuda != "" and release.distro in self.toolkit(release.cuda).devel_bases

    def _base(self, cuda: str, flavor: str, distro: str, image: Image) -> Base:
        for base in self.bases:
            if (base.cuda, base.flavor, base.distro) == (cuda, flavor, distro):
                return base
        wanted = f"CUDA {cuda}, flavor {flavor}, {distro}" if cuda else f"{distro} without CUDA"
        raise CatalogError(f"bases.toml: no [[base]] for `{image.name}`: {wanted}", hint="add the row")

    def _no_such_image(self, name: str) -> NoSuchImageError:
        import difflib

        names = dict.fromkeys(n for image in self.images() for n in (image.name, *possible_names(image)))
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        return NoSuchImageError(
            f"there is no image `{name}`",
            hint=(f"nearest: {', '.join(near)}; " if near else "") + "`kit list` shows all",
        )

    def _rows(self, file: str, table: str, row_type: type[Row], *keys: Callable[[Row], str]) -> tuple[Row, ...]:
        """The rows of a table; no two of them may have the same of a key."""
        if file not in self._documents:
            self._documents[file] = parse_file(self.folder / file)
        values = self._documents[file].get(table, [])
        if not isinstance(values, list):
            raise CatalogError(f"{file}: `{table}` must be a list of tables, written [[{table}]]")
        rows = tuple(make_row(file, table, row_type, row, i) for i, row in enumerate(values))
        for key in keys:
            refuse_duplicates(file, table, map(key, rows))
        return rows

    @cached_property
    def _documents(self) -> dict[str, dict[str, Any]]:
        return {}


def load_catalog(folder: Path | None = None) -> Catalog:
    """The catalog of a folder, by default kit's own. Tables are read when used; a bad one raises CatalogError then."""
    return Catalog(folder or paths.catalog_dir())


def _check_wheel(row: Wheel) -> None:
    where = f"wheels.toml: [[wheel]] `{row.file}`"
    if not re.fullmatch(r"[A-Za-z0-9._]+-[A-Za-z0-9.+!_]+(-[A-Za-z0-9._]+){3}\.whl", row.file):
        raise CatalogError(f"{where}: that is no wheel's file name", hint="NAME-VERSION-PYTHON-ABI-PLATFORM.whl")
    if not re.fullmatch("[0-9a-f]{64}", row.sha256):
        raise CatalogError(f"{where}: sha256 is `{row.sha256}`, which is not one", hint="64 hexadecimal digits")
    if len(set(row.sources)) < 2:
        raise CatalogError(f"{where}: fewer than two sources name it", hint="a hash counts when two agree on it")


def _check_release(row: Release) -> None:
    """The rules that join a release's keys; a name that says another version than the row would mislead everyone."""
    where = f"frameworks.toml: [[release]] `{row.name}`"
    if (row.cuda_provider == "none") != (row.cuda == ""):
        raise CatalogError(
            f"{where}: cuda is `{row.cuda}`, but cuda_provider is `{row.cuda_provider}`",
            hint="a CPU release has no cuda and the provider `none`",
        )
    if not row.version.replace(".", "").isdecimal():
        raise CatalogError(f"{where}: the version `{row.version}` is not numbers and dots")
    if row.cuda and row.arm64_wheel and (row.arm64_wheel == "cuda") != ("linux/arm64" in row.platforms):
        raise CatalogError(
            f"{where}: arm64_wheel is `{row.arm64_wheel}`, but platforms are {', '.join(row.platforms)}",
            hint="a release with CUDA is for linux/arm64 when its aarch64 wheel is a CUDA build, and only then",
        )
    short, tag = SHORT_NAMES[row.framework], row.cuda_tag
    minor = ".".join(row.version.split(".")[:2])
    allowed = (f"{short}{minor}-{tag}", f"{short}-{tag}")
    if row.name not in allowed:
        raise CatalogError(
            f"{where}: the name does not match {row.framework} {row.version}, "
            f"{f'CUDA {row.cuda}' if row.cuda else 'CPU'}",
            hint=f"it must be `{allowed[0]}` (or `{allowed[1]}`)",
        )
    if bool(row.index) != bool(row.index_packages):
        raise CatalogError(
            f"{where}: `index` and `index_packages` go together",
            hint="an index is pinned to the packages that may come from it",
        )
