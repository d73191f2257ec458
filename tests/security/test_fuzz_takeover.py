"""Files of other tools, damaged: what reads them ends at once, with a value or with kit's own error."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import strategies as st

from kit.catalog import load_catalog
from kit.environment.declared import wrong_package
from kit.takeover import TakenOver, image, read
from tests.security.fuzzing import ANY_JSON, damaged, fuzz, replaced

DATA = Path(__file__).parents[1] / "unit/takeover/data"
CATALOG = load_catalog()
FILES = (
    *("requirements.txt", "environment.yml", "export.yml", "uv.lock", "poetry.lock", "pylock.toml", "Pipfile"),
    *("Pipfile.lock", "cog.yaml", "build.envd", "Dockerfile", "lines.ipynb", "imports.ipynb", "project/pyproject.toml"),
    "poetry/pyproject.toml",
)


@pytest.fixture(autouse=True)
def one_look_at_each_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images' own locks, which are kit's, are read once."""
    monkeypatch.setattr(image, "_Held", cache(image._Held))


def taken(path: Path) -> TakenOver:
    found = read(path, CATALOG)
    assert all(wrong_package(package) == "" for package in found.packages)
    variables = [part for pair in found.env for part in pair]
    "".join((found.image, *found.packages, *found.system, *found.indexes, *variables)).encode()  # that a file can hold
    assert all("\n" not in left.text and len(left.text) < 1000 and left.reason for left in found.left)
    return found


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / Path(name).name
    whole = (DATA / name).read_bytes()
    path.write_bytes(whole)
    taken(path)  # the tables of the catalog are read once

    def check(data: bytes) -> None:
        path.write_bytes(data)
        taken(path)

    fuzz(damaged([whole]), check)


@pytest.mark.parametrize("name", ["Pipfile.lock", "lines.ipynb"])
def test_other_values_of_json(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    whole = json.loads((DATA / name).read_text(encoding="utf-8"))
    taken(DATA / name)  # the tables of the catalog are read once

    def check(value: object) -> None:
        path.write_text(json.dumps(value), encoding="utf-8")
        taken(path)

    fuzz(replaced([whole]), check)
    fuzz(ANY_JSON, check)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("requirements.txt", "a" * 2_000_000),
        ("requirements.txt", "\\\n" * 500_000),
        ("requirements.txt", "torch==" + "1" * 5000),
        ("requirements.txt", "torch==" + "1." * 900 + "1"),
        ("requirements.txt", "a ; " + "(" * 900 + "python_version > '3'" + ")" * 900),
        ("environment.yml", "- " * 100_000),
        ("environment.yml", "a: " + "{a: " * 90),
        ("environment.yml", "&a [*a]"),
        ("environment.yml", "dependencies: &a [*a]"),
        ("environment.yml", "dependencies: &a\n  - pip: *a\n"),
        ("environment.yml", "dependencies: [pkg" + "=" * 400 + "]"),
        ("environment.yml", "? " * 5000),
        ("Dockerfile", "RUN " + "(" * 50_000),
        ("Dockerfile", "RUN '" + "x" * 90_000),
        ("Dockerfile", "RUN " + "sh -c \"" * 500),
        ("Dockerfile", "ARG a=" + "$a" * 400 + "\nFROM $a\n" + "ARG a=$a$a\n" * 60 + "FROM $a"),
        ("Dockerfile", "ENV A=" + "x" * 900 + "\n" + "ENV A=$A$A$A$A\n" * 30 + "RUN pip install $A"),
        ("Dockerfile", "RUN cat " + "<<A " * 3000),
        ("build.envd", "-" * 100_000 + "1"),
        ("build.envd", "base(" + "[" * 5000),
        ("build.envd", "x = " + "not " * 20_000 + "1"),
        ("build.envd", "a" + ".a" * 50_000),
        ("build.envd", "x = 1" + "+1" * 50_000),
        ("a.ipynb", json.dumps({"cells": [{"cell_type": "code", "source": "import " + "a." * 50_000 + "a"}]})),
        ("a.ipynb", json.dumps({"cells": [{"cell_type": "code", "source": "x = " + "-" * 100_000 + "1"}]})),
        ("a.ipynb", json.dumps({"cells": [{"cell_type": "code", "source": "!pip install " + "\\\n" * 9000}]})),
        ("uv.lock", "[[package]]\nname = 'a'\n" * 4000),
        ("pyproject.toml", "[a" + ".a" * 5000 + "]"),
    ],
)  # fmt: skip
def test_what_is_made_to_take_long(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("torch", encoding="utf-8")
    taken(DATA / "requirements.txt")

    def check(data: str) -> None:
        path.write_text(data, encoding="utf-8")
        taken(path)

    fuzz(st.just(text), check)
