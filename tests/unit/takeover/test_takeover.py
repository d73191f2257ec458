"""Files as people have them, one of each form: what of them becomes a project's environment, and what is left."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from kit.catalog import load_catalog
from kit.catalog.rows import KnownIndex
from kit.environment.declared import wrong_package
from kit.errors import BadInputError
from kit.takeover import TakenOver, read

DATA = Path(__file__).parent / "data"
CATALOG = load_catalog()
# The files name a PyPI of their own. The catalog reads its rows when it is asked for them.
CATALOG.__dict__["known_indexes"] = (
    *CATALOG.known_indexes,
    KnownIndex(pattern="https://index[.]example/simple", is_pypi=True, source="the files in data/"),
)


def taken(name: str) -> TakenOver:
    return read(DATA / name, CATALOG)


def reasons(found: TakenOver) -> dict[str, str]:
    """The reason of each line that was left, by its text up to the first blank."""
    return {re.split(r"\s(?!.*: )", left.text)[0]: left.reason for left in found.left}


WANTED: dict[str, TakenOver] = {
    "requirements.txt": TakenOver(
        image="torch2.6-cu124",
        packages=(
            "scipy>=1.11",
            'transformers[torch]>=4.40,<5 ; python_version >= "3.9"',
            "opencv-python-headless==4.10.0.84",
            "einops==0.8.0",
            "apex",
        ),
        indexes=("https://wheels.example/simple/",),
    ),
    "split/requirements.txt": TakenOver(image="torch>=2.4", packages=("lightning", "rich", "timm>=0.9,<1.1")),
    "environment.yml": TakenOver(
        image="torch2.4-cu121",
        packages=("opencv-python-headless", "tables", "scikit-image==0.22.*", "samfoo", "monai==1.3.0"),
        system=("ffmpeg", "libsndfile1", "gcc"),
        indexes=("https://wheels.example/simple",),
        env=(("WANDB_MODE", "offline"),),
    ),
    "export.yml": TakenOver(
        image="torch1.13",
        packages=(
            *("pillow==9.4.0", "tqdm==4.65.0", "typing-extensions==4.7.1", "addict==2.4.0", "protobuf==3.20.3"),
            "pytz==2023.3.post1",
        ),
        system=("ffmpeg",),
    ),
    "project/pyproject.toml": TakenOver(
        image="torch>=2.6,<2.8", indexes=("https://wheels.example/simple",), project=True
    ),
    "poetry/pyproject.toml": TakenOver(
        image="tf>=2.17,<3",
        packages=("keras-tuner>=1.4,<1.5", "pandas[excel]>=2.2.2"),
        indexes=("https://wheels.example/simple",),
    ),
    "Pipfile": TakenOver(image="tf2.15", packages=("requests", "uvicorn[standard]>=0.20")),
    "Pipfile.lock": TakenOver(image="torch2.7", packages=("einops==0.8.0",)),
    "uv.lock": TakenOver(
        image="torch2.7",
        packages=(
            'contourpy==1.3.2 ; python_full_version < "3.12"',
            'contourpy==1.3.3 ; python_full_version >= "3.12"',
            "einx==0.3.0",
            "tqdm==4.67.1",
        ),
        indexes=("https://wheels.example/simple",),
    ),
    "poetry.lock": TakenOver(
        image="tf2.19",
        packages=('einops==0.8.0 ; python_version >= "3.9"', "team-tools==1.0", "tqdm==4.67.1"),
        indexes=("https://wheels.example/simple",),
    ),
    "pylock.toml": TakenOver(
        image="torch2.10", packages=("einops==0.8.0", "team-tools==1.0"), indexes=("https://wheels.example/simple",)
    ),
    "cog.yaml": TakenOver(
        image="torch2.4-cu121",
        packages=("diffusers==0.30.0", "xformers==0.0.27", "dlib", "flash-attn==2.6.3"),
        system=("libgl1", "ffmpeg", "sox"),
    ),
    "build.envd": TakenOver(
        image="torch1.13-cu117",
        packages=("einops", "lightning", "tables==3.8.*", "timm"),
        system=("ffmpeg", "libsndfile1"),
        indexes=("https://wheels.example/simple",),
        env=(("WANDB_MODE", "offline"),),
    ),
    "Dockerfile": TakenOver(
        image="torch2.7-cu126",
        packages=("einops==0.8.0", "timm>=1.0,<2", "lightning", "tables", "rich", "polars"),
        system=("ffmpeg", "libgl1", "libglib2.0-0"),
        env=(("HF_HOME", "/data/hf"),),
    ),
    "lines.ipynb": TakenOver(
        image="torch", packages=("einops==0.8.0", "timm>=1.0", "rich", "polars", "seaborn"), system=("ffmpeg",)
    ),
    "imports.ipynb": TakenOver(
        image="tf",
        packages=("opencv-python-headless", "pillow", "scikit-learn", "matplotlib", "keras-tuner"),
    ),
}


@pytest.mark.parametrize("name", WANTED)
def test_a_file_of_each_form(name: str) -> None:
    found, wanted = taken(name), WANTED[name]
    for part in ("image", "packages", "system", "indexes", "project", "env"):
        assert getattr(found, part) == getattr(wanted, part), part


@pytest.mark.parametrize("name", WANTED)
def test_kit_toml_takes_what_is_handed_on(name: str) -> None:
    for package in taken(name).packages:
        assert wrong_package(package) == ""


# Lines without which a file asks for the same: comments, hashes, what a lock says of itself and of wheels, PyPI's own
# index, and what another line says too.
_NOTHING = {
    # The CUDA is said twice, so that either line is enough.
    "requirements.txt": r"\s+--hash=.*|--index-url .*|--extra.*/whl/cu124|torch==2.6.0\+cu124",
    # The project's own packages, which come with it; a Python that every image has.
    "project/pyproject.toml": r"\[build-system\]|(requires|build-backend|version|requires-python|name) = .*|    .*,",
    "poetry/pyproject.toml": r"\[tool.poetry\]|(name|version|python) = .*",
    "Pipfile": r"\[\[source\]\]|(url|verify_ssl|name) = .*",
    "Pipfile.lock": r'\s+"(hash|pipfile-spec|hashes|index)": .*',
    "uv.lock": r"(version|revision|requires-python|name|requires-dist|wheels) = .*|\[package.metadata\]|    .python.*"
    r"|source = .*registry = .*|dependencies = .*win32.*",
    "poetry.lock": r"(description|optional|python-versions|groups|files|type|url|(resolved_)?reference|lock-version"
    r"|content-hash) = .*|\[metadata\]",
    "pylock.toml": r"(lock-version|requires-python|created-by|wheels) = .*",
    "cog.yaml": r"  gpu: true",
    "build.envd": r"    base\(dev=True\)",
}


@pytest.mark.parametrize("name", [name for name in WANTED if not name.endswith(".ipynb")])
def test_no_line_that_asks_for_something_is_dropped_in_silence(name: str, tmp_path: Path) -> None:
    """Each line without which neither a part nor what is left is another must be one of those."""
    shutil.copytree(DATA, tmp_path / "data")
    path = tmp_path / "data" / name
    whole = read(path, CATALOG)
    lines = path.read_text(encoding="utf-8").splitlines()
    silent = []
    for number, line in enumerate(lines):
        path.write_text("\n".join([*lines[:number], "", *lines[number + 1 :]]), encoding="utf-8")
        try:
            if line.strip() and read(path, CATALOG) == whole:
                silent.append(line)
        except BadInputError:
            continue
    assert [line for line in silent if not re.fullmatch(rf"\s*#.*|{_NOTHING.get(name, '')}", line)] == []


def test_what_is_said_of_lines_that_are_left() -> None:
    said = reasons(taken("requirements.txt"))
    assert said["torchvision==0.21.0+cu124"] == "the image has it: 0.21.0"
    assert said["torchaudio==2.5.1"] == "the image holds 2.6.0, which its framework is built with"
    assert said["numpy==1.26.4"].startswith("the image holds 2.")
    assert said["pandas==1.5.3"].startswith("the image's NumPy needs pandas>=2.2.2")
    assert said["privatepkg==${PRIVATE_VERSION}"].startswith("reads a variable")
    assert said["opencv-python==4.10.0.84"].startswith("taken as `opencv-python-headless`")
    poetry = taken("poetry/pyproject.toml")
    assert "no table [project]" in poetry.left[0].reason


def test_lines_are_counted_in_the_file_they_stand_in() -> None:
    found = taken("split/requirements.txt")
    assert [(left.line, left.text) for left in found.left] == [
        (2, "constraints.txt: protobuf<5"),
        (3, "-r ../requirements.txt"),
        (1, "loop.txt: -r loop.txt"),
    ]


def test_nothing_of_a_file_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    for name, text in {
        "build.envd": f"open({str(trace)!r}, 'w')\ninstall.python_packages(name=open({str(trace)!r}, 'w'))\n",
        "a.ipynb": json.dumps(
            {"cells": [{"cell_type": "code", "source": f"open({str(trace)!r}, 'w')\n!touch {trace}"}]}
        ),
        "a.yml": f"dependencies:\n  - !!python/object/apply:os.system ['touch {trace}']\n",
        "Dockerfile": f"FROM python:3.12\nRUN touch {trace} && pip install $(touch {trace})\n",
        "requirements.txt": f"$(touch {trace})\n-r `touch {trace}`\n",
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        found = read(tmp_path / name, CATALOG)
        assert not trace.exists()
        assert found.packages == ()
        assert found.left or name == "a.ipynb"  # whose commands that install nothing are its own
