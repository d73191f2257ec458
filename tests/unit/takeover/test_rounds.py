"""Whatever lines a file is made of, each is in the environment or left with a reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.catalog import load_catalog
from kit.takeover import TakenOver, read

CATALOG = load_catalog()
NAMES = st.from_regex(r"[a-z][a-z0-9]{3,9}", fullmatch=True).map(lambda name: f"kit-{name}")
VERSIONS = st.sampled_from(["", "==1.2", ">=1.2,<2", "~=1.4", "===1.0", "!=3"])
KNOWN = st.sampled_from(
    ["torch", "tensorflow", "numpy", "pandas", "torchvision", "nvidia-nccl-cu12", "triton", "pip", "keras"]
)
MARKERS = st.sampled_from(["", " ; sys_platform == 'win32'", " ; python_version >= '3.8'", " ; extra == 'x'"])
LINES = st.one_of(
    st.builds(lambda name, version, marker: f"{name}{version}{marker}", st.one_of(NAMES, KNOWN), VERSIONS, MARKERS),
    st.builds(lambda name: f"-r {name}.txt", NAMES),
    st.builds(lambda name: f"git+https://host.example/{name}.git", NAMES),
    st.builds(lambda name: f"{name}==${{VERSION}}", NAMES),
    st.builds(lambda name: f"--find-links https://{name}.example/", NAMES),
    st.builds(lambda name: f"--extra-index-url https://{name}.example/simple", NAMES),
    st.builds(lambda name: f"--extra-index-url https://ada:hunter22@{name}.example/simple", NAMES),
)  # fmt: skip
SPECS = st.one_of(
    NAMES,
    st.builds(lambda name, version: f"{name}={version}", NAMES, st.sampled_from(["1.2", "1.2.3=py310_0", "*", "1|2"])),
    st.sampled_from(["pytorch=2.6", "cudatoolkit=11.8", "python=3.11", "ffmpeg", "r-base", "numpy=1.26", "libpng"]),
    st.sampled_from(["cudnn", "opencv", "git"]),
)
SETTINGS = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def is_accounted(found: TakenOver, line: str, number: int) -> bool:
    """Whether a line is in a part of what was taken over, or left."""
    if any(left.line == number for left in found.left):
        return True
    name = re.split(r"[=<>!~ ;\[]", line.removeprefix("--extra-index-url https://"))[0].removesuffix(".example/simple")
    parts = " ".join((*found.packages, *found.indexes, *found.system))
    return name in parts or (name in ("torch", "tensorflow") and bool(found.image))


@SETTINGS
@given(st.lists(LINES, max_size=12))
def test_requirements(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    found = read(path, CATALOG)
    for number, line in enumerate(lines, 1):
        assert is_accounted(found, line, number), line
    assert "hunter22" not in repr(found)


@SETTINGS
@given(st.lists(SPECS, max_size=10))
def test_conda(tmp_path: Path, specs: list[str]) -> None:
    path = tmp_path / "environment.yml"
    path.write_text("dependencies:\n" + "".join(f'  - "{spec}"\n' for spec in specs), encoding="utf-8")
    found = read(path, CATALOG)
    # The two that choose the image and are as they were asked for.
    chosen = {"pytorch": bool(found.image), "cudatoolkit": bool(found.image), "python": bool(found.image)}
    for number, spec in enumerate(specs, 2):
        name = spec.partition("=")[0]
        assert chosen.get(name) or is_accounted(found, name, number), spec


@pytest.mark.parametrize("word", ["einops", "torch==2.7.1", "git+https://a.example/b.git"])
@pytest.mark.parametrize(
    "command", ["pip install {}", "python3 -m pip install {}", "uv pip install {}", "pip3 install -q {}"]
)
@pytest.mark.parametrize("form", ["Dockerfile", "a.ipynb", "cog.yaml"])
def test_a_command_means_the_same_in_every_form(word: str, command: str, form: str, tmp_path: Path) -> None:
    line = command.format(f"'{word}'")
    text = {
        "Dockerfile": f"FROM ubuntu:24.04\nRUN {line}\n",
        "a.ipynb": f'{{"cells": [{{"cell_type": "code", "source": ["!{line}"]}}]}}',
        "cog.yaml": f"build:\n  run:\n    - {line}\n",
    }[form]
    (tmp_path / form).write_text(text, encoding="utf-8")
    found = read(tmp_path / form, CATALOG)
    if word == "einops":
        assert found.packages == ("einops",)
    elif word.startswith("torch"):
        assert found.image == "torch2.7"
    else:
        assert any("repository" in left.reason for left in found.left)
