"""Which driver branches a GPU works with, from the first to the last, and with which kernel modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from kit.catalog.rows import Architecture, version_key

if TYPE_CHECKING:
    from kit.catalog import Catalog

Modules = Literal["open", "proprietary", ""]  # the flavor of the kernel modules; empty: not known


def branch_of(driver: str) -> int:
    """The branch of a driver: 580 of `580.65.06`, and of Windows' `581.29`, which is of R580.

    NVIDIA numbers its branches in steps of five since R390, and counts on from there on Windows.
    """
    major = version_key(driver)[0]
    return major - major % 5 if major >= 390 else major


def is_older(driver: str, than: str) -> bool:
    """True when a driver is older than another; a branch alone, `535`, is not older than any build of its own."""
    mine, other = version_key(driver), version_key(than)
    return mine < (other[:1] if len(mine) == 1 else other)


def architecture_of(catalog: Catalog, capability: str) -> Architecture | None:
    """The architecture of a compute capability."""
    return next((a for a in catalog.architectures if a.compute_capability == capability), None)


def first_driver(catalog: Catalog, capability: str) -> str:
    """The oldest driver, or branch, for a compute capability; empty when no row says it."""
    row = architecture_of(catalog, capability)
    if row and row.first_branch:
        return str(row.first_branch)
    drivers = catalog.toolkit(row.first_toolkit).drivers if row and row.first_toolkit else ()
    return drivers[0][1] if drivers else ""


def last_branch(catalog: Catalog, capability: str) -> int | None:
    """The last driver branch for a compute capability; None while drivers support it."""
    row = architecture_of(catalog, capability)
    return row.last_branch if row else None


def is_too_new(catalog: Catalog, capability: str, driver: str) -> bool:
    """True for a driver of a branch after the last one for a compute capability."""
    row = architecture_of(catalog, capability)
    return row is not None and row.first_without is not None and version_key(driver)[0] >= row.first_without


def driver_objection(catalog: Catalog, capability: str, driver: str, modules: Modules = "") -> str:
    """Why a driver cannot work with GPUs of a compute capability; empty when nothing known speaks against it.

    `driver` too old, too new, or with the other kernel modules; `modules` empty: nobody said which.
    """
    row = architecture_of(catalog, capability)
    if row is None:
        return ""
    name = f"{row.name} ({capability})" if row.name else f"compute capability {capability}"
    oldest = first_driver(catalog, capability)
    # By branch: the first driver for a GPU is often some builds older than the one released with the toolkit.
    if oldest and version_key(driver)[0] < version_key(oldest)[0]:
        return f"driver {driver} is older than the branch that brought it, {oldest}"
    if is_too_new(catalog, capability, driver):
        return f"driver {driver} is too new: R{row.last_branch} is the last driver for this card, as for all of {name}"
    if modules == "open" and row.modules == "proprietary":
        return f"the open kernel modules of driver {driver} do not drive {name}: it takes the proprietary ones"
    if modules == "proprietary" and row.modules == "open":
        return f"the proprietary kernel modules of driver {driver} do not drive {name}: it takes the open ones"
    return ""


def modules_for(catalog: Catalog, capability: str, driver: str = "") -> Modules:
    """The only kernel modules that a GPU works with, in a driver if it is given; empty: either, or not known."""
    row = architecture_of(catalog, capability)
    if row and row.modules in ("open", "proprietary"):
        return "open" if row.modules == "open" else "proprietary"
    newest = min((rule.branch for rule in catalog.open_only), default=None)
    return "open" if driver and newest and branch_of(driver) >= newest else ""
