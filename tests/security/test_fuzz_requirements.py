"""Damaged requirements.lock, with and without a lock.json that has its hash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kit import locks, paths
from kit.catalog import Catalog
from kit.image.build.inputs import read_inputs
from kit.locks.format import own_sections, parse_requirements, read_requirements, split_layers
from kit.locks.solver import for_these, marker_environments
from kit.render import render_dockerfile
from kit.verify import expected
from tests.security.fuzzing import damaged, fuzz

NAMES = ("tf-cpu", "torch2.14-cu130-devel", "torch2.14-cu130")
FOLDERS = {name: paths.images_dir() / name for name in NAMES}
TEXTS = [(folder / "requirements.lock").read_bytes()[:20_000] for folder in FOLDERS.values()]
ENVIRONMENTS = marker_environments(["3.10", "3.12"], ["x86_64"])


@pytest.fixture
def use(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Reads a requirements.lock in an image's place, its hash in lock.json or not, and what is made of it."""
    for name, folder in FOLDERS.items():
        shutil.copytree(folder, tmp_path / name)
    monkeypatch.setattr(paths, "images_dir", lambda: tmp_path)
    image = catalog.find("tf-cpu")
    folder = tmp_path / image.name
    lock_file = json.loads((folder / "lock.json").read_bytes())

    def read(text: bytes) -> None:
        (folder / "requirements.lock").write_bytes(text)
        whole = read_requirements(folder)[0]
        (folder / "lock.json").write_text(json.dumps(lock_file | {"requirements_hash": locks.sha256(whole)}))
        lock = locks.read_lock(folder, image)
        for environment in ENVIRONMENTS:
            expected.packages(lock, environment)
        expected.locked_version(lock, "cudnn")
        render_dockerfile(catalog, image, lock)
        read_inputs(catalog, image)
        locks.check(catalog, image)

    return read


def test_bytes(use: Callable[[bytes], None]) -> None:
    fuzz(damaged(TEXTS), use)


def parts(text: bytes) -> None:
    for entry in parse_requirements(own_sections(text.decode(errors="surrogateescape"))):
        for_these(entry, ENVIRONMENTS)
    split_layers(text.decode(errors="replace"))


def test_what_uv_might_answer() -> None:
    fuzz(damaged(TEXTS), parts)


MARKERS = ["python_version", "x == 'y'", "python_version < '3.11", "os_name == ", "(" * 5000, "'a' < 'b' and"]
LONG = ["a==" + "1" * 40_000, "a" * 40_000, "a==1 ; " + "(" * 40_000, "-" * 40_000 + " --hash=" * 10_000]


@pytest.mark.parametrize("marker", MARKERS)
def test_a_marker_that_is_none_is_refused(marker: str) -> None:
    with pytest.raises(locks.LockError, match="marker"):
        parse_requirements(f"numpy==1.0 ; {marker} \\\n    --hash=sha256:{'a' * 64}\n")


@pytest.mark.parametrize("text", LONG)
def test_a_long_line_takes_no_longer(text: str) -> None:
    with pytest.raises(locks.LockError):
        parse_requirements(f"{text} --hash=sha256:{'a' * 64}")
