"""Whether a project's kit.lock still is what its kit.toml asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kit import paths
from kit.locks.format import LOCK_FILE, sha256

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.environment.declared import Declared
    from kit.environment.format import EnvironmentLock


def inputs_hash(declared: Declared) -> str:
    """A hash over what a project asks for, and what its pyproject.toml does when it is installed itself."""
    requires: tuple[str, ...] = ()
    if declared.project:
        from kit.environment.editable import read

        requires = read(declared.folder).requires
    asked = [declared.image, declared.packages, declared.system, declared.indexes, declared.project, requires]
    return sha256(json.dumps(asked))


def differences(catalog: Catalog, declared: Declared, lock: EnvironmentLock) -> list[str]:
    """What has changed since the lock was made, one line each; none when it is up to date. No network."""
    found = []
    if lock.inputs_hash != inputs_hash(declared):
        found.append("what kit.toml asks for has changed")
    file = paths.images_dir() / catalog.find(lock.image).name / LOCK_FILE
    if lock.image_lock != json.loads(file.read_text(encoding="utf-8")).get("requirements_hash"):
        found.append(f"the lock of {lock.image} has changed")
    return found
