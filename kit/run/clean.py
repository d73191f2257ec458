"""What of kit's takes space on a machine, whose it is, and how it is deleted."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from kit import accounts, labels, paths
from kit.engine import Container, Engine
from kit.engine.docker import RECORDS
from kit.errors import BadInputError, KitError
from kit.frozen import dataclass
from kit.run.containers import STOPPED, owner_of, user_inside, user_of

Kind = Literal["images", "cache", "volumes"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BUILD_CACHE = "build cache of the engine"


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something on a disk, and why it stays, if it does."""

    kind: Kind
    name: str
    size: int | None  # None: nobody says
    stays: str = ""


def found(engine: Engine, words: Sequence[str] = ()) -> list[Item]:
    """What takes space: kit's images and caches, and the caller's own volumes; only of the kinds and names that are
    given, if any are. Raises BadInputError for one that nothing has.

    Another user's volumes are not among them, and images that another is noted for stay.
    """
    everything = [*_images(engine), *_caches(engine), *_volumes(engine)]
    if not words:
        return everything
    chosen: list[Item] = []
    for word in words:
        fitting = [item for item in everything if word in (item.kind, item.name, _short(item.name))]
        if not fitting and word not in KINDS:
            raise BadInputError(
                f"nothing of yours is named '{word}'", hint=f"`kit clean` shows all; kinds are {', '.join(KINDS)}"
            )
        chosen += [item for item in fitting if item not in chosen]
    return chosen


def delete(engine: Engine, item: Item) -> None:
    """Delete one of what `found` found. Raises what the engine says against it."""
    if item.kind == "images":
        engine.remove_image(item.name)
    elif item.kind == "volumes":
        engine.remove_volume(item.name)
    elif item.name == BUILD_CACHE:
        engine.prune_build_cache()
    else:
        shutil.rmtree(item.name)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is in an engine, of all its users, in words."""

    lines: tuple[str, ...] = ()
    running: tuple[str, ...] = ()  # the names of containers, each with its owner


def contents(engine: Engine) -> Contents:
    """What goes when an engine's data are deleted: whose containers, images and volumes."""
    there = [(container, f"{container.name} ({_owner(container)})") for container in engine.all_containers()]
    running = tuple(name for container, name in there if container.status not in STOPPED)
    stopped = tuple(name for container, name in there if container.status in STOPPED)
    try:
        usage = engine.usage
    except KitError:  # one whose disk has failed is deleted all the same
        return Contents(lines=("images and volumes: the engine does not say which",), running=running)
    images = tuple(image.name for image in usage.images)
    volumes: dict[str, list[int]] = {}
    for volume in usage.volumes:
        if not volume.name.startswith(RECORDS):
            uid = match[1] if (match := re.match(r"kit-([0-9]{1,10})-", volume.name)) else ""
            whose = accounts.user_name(int(uid)) or f"UID {uid}" if uid else "nobody known"
            volumes.setdefault(whose, []).append(volume.size or 0)
    lines = (
        *((f"running: {', '.join(running)}",) if running else ()),
        *((f"stopped: {', '.join(stopped)}",) if stopped else ()),
        *((f"images: {', '.join(images)}",) if images else ()),
        *(f"volumes of {whose}: {len(sizes)}, {sum(sizes) / 1e9:.1f} GB" for whose, sizes in sorted(volumes.items())),
    )
    return Contents(lines=lines, running=running)


def _owner(container: Container) -> str:
    return container.labels.get(labels.OWNER_NAME) or owner_of(container) or "not kit's"


def _short(name: str) -> str:
    return name.removeprefix("kit/").removesuffix(":latest")


def _images(engine: Engine) -> list[Item]:
    me = user_of(engine).partition(":")[0]
    # Whoever administers an engine may delete what is nobody's; in a rootless one everything is the caller's.
    may_all = engine.is_rootless or me == "0" or (engine.connection is None and os.geteuid() == 0)
    items = []
    for image in engine.usage.images:
        if not image.name.startswith("kit/"):
            continue
        owner = engine.made_by(image.name)
        if image.is_used:
            stays = "a container uses it"
        elif owner != me and not (may_all and not owner):
            stays = "another user's" if owner else "nobody knows whose: only an administrator deletes it"
        else:
            stays = ""
        items.append(Item(kind="images", name=image.name, size=image.size, stays=stays))
    return items


def _volumes(engine: Engine) -> list[Item]:
    uids = {user_of(engine).partition(":")[0], user_inside(engine).partition(":")[0]}
    return [
        Item(
            kind="volumes",
            name=volume.name,
            size=volume.size,
            stays="a container uses it" if volume.is_used else "",
        )
        for volume in engine.usage.volumes
        if volume.name.startswith(tuple(f"kit-{uid}-" for uid in uids)) and not volume.name.startswith(RECORDS)
    ]


def _caches(engine: Engine) -> list[Item]:
    items = []
    size = engine.usage.build_cache
    if size:
        item = Item(kind="cache", name=BUILD_CACHE, size=size)
        if not engine.is_kits:
            item = replace(item, stays="all users': `docker builder prune`")
        items.append(item)
    folder = paths.cache_dir()
    if engine.connection is None and folder.is_dir():
        items.append(Item(kind="cache", name=str(folder), size=size_of(folder)))
    return items


def size_of(folder: Path) -> int:
    """The bytes of the files below a folder; of what cannot be read none."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(where) / name).lstat().st_size
            except OSError:
                continue
    return total
