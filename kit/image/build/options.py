"""What is asked of a build, and what comes of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Literal

from kit.frozen import dataclass
from kit.network import NetworkSettings

if TYPE_CHECKING:
    from kit.image.buildlog import Log, Step

BaseChoice = Literal["registry", "archive", "auto"]


@dataclass(frozen=True, kw_only=True)
class ChosenBase:
    """The base an image is built on: where it comes from, and the Python it has."""

    source: Literal["registry", "archive"]
    reference: str
    python: str
    identity: str  # what the fingerprint holds: the registry reference, or the suite


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to build; none of it changes what is in the image but `base` and `registry_mirror`'s choice of base."""

    base: BaseChoice = "auto"
    registry_mirror: str = ""
    apt_mirror: str = ""  # of the distribution, for a base made from its package archive
    network: NetworkSettings = field(default_factory=lambda: NetworkSettings(proxies={}))
    force: bool = False
    no_cache: bool = False


@dataclass(frozen=True, kw_only=True)
class Built:
    """An image in the engine."""

    image: str
    reference: str
    base: str
    fingerprint: str
    is_new: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a build reports while it runs."""

    message: Callable[[str], None]
    log: Callable[[Log, list[Step]], None]


SILENT = Progress(message=lambda _: None, log=lambda *_: None)
