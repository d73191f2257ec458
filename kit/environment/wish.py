"""What `[environment] image` wishes for (`torch`, `torch>=2.6`, `torch-cu126`), and the image that it becomes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from kit.catalog.names import ImageRequest
from kit.catalog.rows import Image, version_key
from kit.decide import compat
from kit.errors import BadInputError, NoSuchImageError

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.decide.compat import Resolution
    from kit.facts.host import Host

_WISH = re.compile(r"([^<>=!~\s]+)\s*((?:[<>=!~]=?|===).*)?")


def choose_for(catalog: Catalog, wish: str, host: Callable[[], Host]) -> tuple[Image, Resolution | None]:
    """The image that a wish becomes on a host, and how it was found; None where the wish names its CUDA.

    `host` is asked only when the wish leaves that open. Raises BadInputError for a wish that is none,
    NoSuchImageError, and IncompatibleError with every reason when nothing fits.
    """
    request = _request(wish)
    if request is None or not request.specifier:
        asked = compat.parse_name(catalog, wish)
        if isinstance(asked, Image):
            return asked, None
        request = asked
    elif request.tag:
        fitting = [image for image in catalog.images() if _fits(request, image)]
        if not fitting:
            there = ", ".join(release.name for release in catalog.releases if release.framework == request.framework)
            raise NoSuchImageError(f"there is no image for `{wish}`", hint=f"there are: {there}")
        return max(fitting, key=lambda image: (not catalog.unlocked_reason(image), *_newest(image))), None
    known = compat.with_pci_gpus(catalog, host())
    found = compat.resolve(request, catalog, known)
    if found.image is None:
        raise compat.no_fit(wish, found, known)
    return found.image, found


def newest_for_gpus(catalog: Catalog, wish: str) -> Image | None:
    """The newest image with a lock that a wish may become on a machine with a GPU; None when there is none."""
    request = _request(wish)
    fitting = [
        image
        for image in catalog.images()
        if request and image.is_gpu and _fits(request, image) and not catalog.unlocked_reason(image)
    ]
    return max(fitting, key=_newest, default=None)


def admits(wish: str, image: Image) -> bool:
    """Whether an image is one that a wish may stand for, on whatever host. Raises BadInputError."""
    request = _request(wish)
    return image.name == wish or (request is not None and _fits(request, image))


def _fits(request: ImageRequest, image: Image) -> bool:
    return image.flavor == request.flavor and request.admits(image.release)


def _newest(image: Image) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return version_key(image.release.version), version_key(image.release.cuda or "0")


def _request(wish: str) -> ImageRequest | None:
    """What a wish says; None when it is no framework's name."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    match = _WISH.fullmatch(wish.strip())
    request = ImageRequest.parse(match[1]) if match else None
    if match is None or request is None or not match[2]:
        return request
    try:
        specifier = str(SpecifierSet(match[2]))
    except InvalidSpecifier:
        raise BadInputError(
            f"`{wish}`: what follows the name is not a version", hint="as `torch>=2.6`, or `torch>=2.6,<2.9`"
        ) from None
    return dataclasses.replace(request, specifier=specifier)
