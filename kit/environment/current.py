"""Whether a project's lock is what its kit.toml asks for. `kit run` asks that each time: little is imported."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kit import paths
from kit.environment import pyproject
from kit.environment.declared import Declared
from kit.environment.format import EnvironmentLock
from kit.locks.format import hash_in, sha256

if TYPE_CHECKING:
    from kit.catalog import Catalog


def inputs_hash(declared: Declared) -> str:
    """What the packages of a lock follow from: the image, what kit.toml lists and, with `project`, pyproject.toml.

    Raises BadInputError when pyproject.toml does not say what the project needs.
    """
    asks: dict[str, object] = {
        "image": declared.image,
        "packages": sorted(_without_blanks(declared.packages)),
        "system": sorted(declared.system),
        "indexes": list(declared.indexes),
    }
    if declared.project:
        asks["project"] = sorted(_without_blanks(pyproject.dependencies(declared.folder)))
    return sha256(json.dumps(asks, sort_keys=True, separators=(",", ":")))


def differences(catalog: Catalog, declared: Declared, lock: EnvironmentLock) -> list[str]:
    """What the project asks for, or its image is, otherwise than when the lock was made, one line each; asks nobody.

    Raises BadInputError, as `inputs_hash` does, and LockError when the image's lock cannot be read.
    """
    image = next((image for image in catalog.images() if image.name == lock.image), None)
    if image is None:
        return [f"its image `{lock.image}` is not in this kit's catalog"]
    found = []
    if inputs_hash(declared) != lock.inputs_hash:
        from kit.environment import wish

        asks = "what kit.toml or pyproject.toml asks for" if declared.project else "what kit.toml asks for"
        is_other = not wish.admits(declared.image, image)
        found.append(
            f"`{declared.image}` is asked for, and the lock is for `{lock.image}`"
            if is_other
            else f"{asks} has changed (image, packages, system packages or indexes)"
        )
    if hash_in(paths.images_dir() / image.name) != lock.image_lock:
        found.append(f"the lock of the image `{lock.image}` has changed")
    return found


def _without_blanks(texts: Iterable[str]) -> list[str]:
    return ["".join(text.split()) for text in texts]
