"""What a row of packages.toml is; apart from `model` for the reason that `machines` is."""

from __future__ import annotations

from kit.catalog.model import Flavor, Framework, Layer
from kit.frozen import dataclass


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
class SystemPackage:
    """A distribution package that images carry."""

    name: str
    flavors: tuple[Flavor, ...] = ("", "devel")
    reason: str
    source: str
