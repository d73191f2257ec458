"""Damaged lock.json: an error that says so, whatever is in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit import locks, paths
from kit.catalog import Catalog
from kit.image.build.inputs import read_inputs
from kit.render import render_dockerfile
from tests.security.fuzzing import damaged, fuzz, replaced

NAMES = ("torch2.14-cu130-devel", "torch2.14-cu130", "torch-cpu", "tf-cpu")
FILES = {name: paths.images_dir() / name / "lock.json" for name in NAMES}
TEXTS = [file.read_bytes() for file in FILES.values()]


@pytest.fixture
def use(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Reads a lock.json in an image's place as every command does that reads one."""
    for name, file in FILES.items():
        shutil.copytree(file.parent, tmp_path / name)
    monkeypatch.setattr(paths, "images_dir", lambda: tmp_path)
    images = [catalog.find(name) for name in NAMES]

    def read(text: bytes) -> None:
        name = next((name for name in NAMES if f'"{name}"'.encode() in text), NAMES[0])
        image = images[NAMES.index(name)]
        (tmp_path / name / "lock.json").write_bytes(text)
        try:
            locks.other_uv(catalog, image)
            lock = locks.read_lock(tmp_path / name, image)
            render_dockerfile(catalog, image, lock)
            read_inputs(catalog, image)
            locks.check(catalog, image)
        finally:
            (tmp_path / name / "lock.json").write_bytes(FILES[name].read_bytes())

    return read


def test_bytes(use: Callable[[bytes], None]) -> None:
    fuzz(damaged(TEXTS), use)


def test_values(use: Callable[[bytes], None]) -> None:
    fuzz(replaced([json.loads(text) for text in TEXTS]), lambda value: use(json.dumps(value).encode()))


@pytest.mark.parametrize("epoch", [-1, -(2**70), 2**40, 2**70, 10**4000])
def test_a_time_that_is_none(use: Callable[[bytes], None], epoch: int) -> None:
    value: dict[str, Any] = json.loads(FILES["tf-cpu"].read_bytes())
    with pytest.raises(locks.LockError, match="source_date_epoch"):
        use(json.dumps(value | {"source_date_epoch": epoch}).encode())


@pytest.mark.parametrize("day", ["", "x", "2026-13-01", "2026-11-21T00:00:00", "99999-01-01", "20261121"])
def test_a_day_that_is_none(use: Callable[[bytes], None], day: str) -> None:
    value: dict[str, Any] = json.loads(FILES["tf-cpu"].read_bytes())
    with pytest.raises(locks.LockError, match="snapshot"):
        use(json.dumps(value | {"snapshot": day}).encode())
