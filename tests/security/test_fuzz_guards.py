"""Damaged packages, as templates/guards.py reads them, and damaged lines of what it writes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kit import paths
from kit.catalog import Catalog
from kit.environment.guards import sentences_of
from tests.security.fuzzing import damaged, fuzz, replaced
from tests.unit.test_guards import elf

FINDINGS: list[dict[str, Any]] = [
    {"guard": "owners", "package": "onnxruntime", "other": "onnxruntime-gpu", "file": "x", "count": 2, "stops": True},
    {"guard": "libraries", "package": "a", "libraries": ["libGL.so.1"], "file": "a/b.so", "count": 1, "stops": True},
    {"guard": "numpy", "package": "pandas", "numpy": "2.4.6", "file": "a/b.so", "count": 1, "stops": True},
    {"guard": "cuda", "package": "a", "needs": 13, "image": 12, "libraries": ["libcudart.so.13"], "stops": False},
    {"guard": "import", "package": "a", "text": "undefined symbol: b", "stops": True},
]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guards_program", paths.templates_dir() / "guards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_values(catalog: Catalog) -> None:
    def read(value: Any) -> None:
        for finding in sentences_of(catalog, ["kit-guard: " + json.dumps(value)]):
            assert len(finding.message) < 2000
            assert (finding.message + finding.hint).isprintable()

    fuzz(replaced(FINDINGS), read)


def test_lines(catalog: Catalog) -> None:
    texts = [("#9 1.2 kit-guard: " + json.dumps(finding)).encode() for finding in FINDINGS]
    fuzz(damaged(texts), lambda data: sentences_of(catalog, data.decode(errors="replace").splitlines()))


def test_shared_objects(program: ModuleType, tmp_path: Path) -> None:
    whole = elf("libc.so.6", "libx.so.1", module="_c", runpath="$ORIGIN/libs:/opt")
    file = tmp_path / "x.so"
    machine = program.elf_kind(whole)

    def read(data: bytes) -> None:
        file.write_bytes(data)
        found = program.read_elf(str(file), machine)
        assert found is None or all(isinstance(name, str) for name in found.needed)

    read(whole)
    fuzz(damaged([whole]), read)


def test_records(program: ModuleType, tmp_path: Path) -> None:
    info = tmp_path / "x-1.0.dist-info"
    info.mkdir()
    text = b'x/__init__.py,sha256=abc,10\n"x/a,b.so",sha256=abc,10\n../../../bin/x,,\nx-1.0.dist-info/RECORD,,\n'

    def read(data: bytes) -> None:
        (info / "RECORD").write_bytes(data)
        (info / "METADATA").write_bytes(data)
        found = program.Distribution(info, str(tmp_path))
        found.modules()
        found.requires()
        assert all(program.size_of(record) >= 0 for record in found.files.values())

    read(text)
    fuzz(damaged([text]), read)
