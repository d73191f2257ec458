"""What an engine keeps on its disk, as its own command line says it. Pure."""

from __future__ import annotations

import re
from typing import Any

from kit.engine.answers import items, mapping, parsed, text
from kit.frozen import dataclass

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An image or a volume; its size is None where the engine does not say it."""

    name: str
    size: int | None
    is_used: bool  # by a container, running or not


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What there is; the cache of builds None where it is not told apart from images."""

    images: tuple[Stored, ...]
    volumes: tuple[Stored, ...]
    build_cache: int | None = None  # what of it can be freed


def of_docker(printed: str) -> Usage:
    """What `docker system df --verbose --format={{json .}}` printed."""
    found = mapping(parsed(printed))
    images = (mapping(raw) for raw in items(found.get("Images")))
    volumes = (mapping(raw) for raw in items(found.get("Volumes")))
    caches = (mapping(raw) for raw in items(found.get("BuildCache")))
    return Usage(
        images=tuple(
            Stored(
                name=f"{text(raw.get('Repository'))}:{text(raw.get('Tag'))}",
                size=size_of(raw.get("Size")),
                is_used=_count(raw.get("Containers")) > 0,
            )
            for raw in images
        ),
        volumes=tuple(
            Stored(name=text(raw.get("Name")), size=size_of(raw.get("Size")), is_used=_count(raw.get("Links")) > 0)
            for raw in volumes
        ),
        # What is shared with an image stays.
        build_cache=sum(
            size_of(raw.get("Size")) or 0
            for raw in caches
            if text(raw.get("InUse")) != "true" and text(raw.get("Shared")) != "true"
        ),
    )


def size_of(said: Any) -> int | None:
    """`1.234GB` in bytes; None for anything else, as the engine writes where it does not know (`N/A`)."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([kmgt]?b)", text(said).lower(), re.ASCII)
    return round(float(match[1]) * _UNITS[match[2]]) if match else None


def _count(said: Any) -> int:
    match = re.fullmatch("[0-9]{1,9}", text(said), re.ASCII)
    return int(match[0]) if match else 0
