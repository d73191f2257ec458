"""Which bases an image can stand on, and the Python it has there. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.catalog.rows import Image


def archive_refusal(catalog: Catalog, image: Image) -> str:
    """Why the image cannot stand on a registry-free base; empty when it can."""
    if image.release.cuda_provider == "base":
        return "it takes CUDA and cuDNN from its base image, which only a registry has"
    if not catalog.suites_for(image):
        return "its wheels are for Pythons that no distribution release in the catalog has"
    if image.flavor == "devel" and not catalog.toolkit(image.release.cuda).nvcc_wheels:
        return f"no wheel brings nvcc for CUDA {image.release.cuda}, so only a `devel` base image has it"
    return ""


def pythons_on(catalog: Catalog, image: Image, base: str) -> tuple[str, ...]:
    """The Python the image will have on the base that is asked for: with `auto` there may be two, and which it is shows
    when a registry answers, or does not.
    """
    registry = catalog.base_for(image).python
    archive = "" if archive_refusal(catalog, image) else catalog.suites_for(image)[0].python
    wanted = {"registry": (registry,), "archive": (archive,)}.get(base, (registry, archive))
    return tuple(dict.fromkeys(python for python in wanted if python)) or (registry,)
