"""Which image a file leads to, and what is said of what it asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.catalog import load_catalog
from kit.takeover import TakenOver, read

CATALOG = load_catalog()


def of(folder: Path, text: str, name: str = "requirements.txt") -> TakenOver:
    (folder / name).write_text(text, encoding="utf-8")
    return read(folder / name, CATALOG)


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("torch", "torch"),
        ("torch==2.7.1", "torch2.7"),
        ("torch==2.7.0", "torch2.7"),
        ("torch==2.7.*", "torch2.7"),
        ("torch==2.6.0+cu124", "torch2.6-cu124"),
        ("torch>=2.6", "torch>=2.6"),
        ("torch~=2.6", "torch~=2.6"),
        ("torch==2.13.0+cpu", "torch2.13-cpu"),
        ("torch==2.7.1+cpu", "torch2.7"),
        ("--index-url https://download.pytorch.org/whl/cpu\ntorch", "torch-cpu"),
        ("--index-url https://download.pytorch.org/whl/cu128\ntorch", "torch-cu128"),
        ("torchvision==0.19.1", "torch2.4"),
        ("torch\ntorchvision==0.22.1", "torch2.7"),
        ("torch==1.12.1", "torch1.13"),
        ("torch==1.4", "torch1.13"),
        ("torch==1.5.1", "torch1.13"),
        ("torch==9.0", "torch2.15"),
        ("torch<1", "torch1.13"),
        ("tensorflow", "tf"),
        ("tensorflow==2.17.0", "tf2.17"),
        ("tensorflow-gpu==2.10.1", "tf2.10"),
        ("tensorflow[and-cuda]>=2.15", "tf>=2.15"),
        ("tensorflow-cpu", "tf-cpu"),
        ("tensorflow-cpu==2.17.1", "tf2.17"),
        ("tensorflow==1.15.5", "tf2.4"),
        ("keras-tuner", "tf"),
        ("pytorch-lightning", "torch"),
        ("tensorflow\ntorch==2.7.1", "tf"),
        ("torch==2.7.1 ; sys_platform == 'darwin'\nrich", ""),
        ("numpy\npandas", ""),
    ],
)
def test_the_wish(text: str, image: str, tmp_path: Path) -> None:
    assert of(tmp_path, text).image == image


def test_a_wish_is_one_that_kit_toml_can_have(tmp_path: Path) -> None:
    for release in CATALOG.releases:
        main = "torch" if release.framework == "torch" else "tensorflow"
        wish = of(tmp_path, f"{main}=={release.version}").image
        found = CATALOG.find(wish)
        assert not CATALOG.unlocked_reason(found)
        if not CATALOG.unlocked_reason(CATALOG.find(release.name)) and release.cuda:
            assert found.release.version == release.version


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("torch==2.7.0", "the image has torch 2.7.1"),
        ("torch==1.4", "no image has torch 1.4: `torch1.13-cu117` with 1.13.1 is the nearest"),
        ("torch==1.5.1", "the image of torch 1.5.1, `torch1.5-cu101`, has no lock and cannot be built"),
        ("tensorflow==1.15.5", "a program for another major release may not run with it"),
        ("torch==2.6.0+cu118", "no image of this framework's release has CUDA 11.8: `torch2.6-cu124` has CUDA 12.4"),
        ("torch\ntensorflow", "an image has one framework, and this one is for torch"),
    ],
)  # fmt: skip
def test_what_is_not_as_it_was_asked_for(text: str, said: str, tmp_path: Path) -> None:
    reasons = [left.reason for left in of(tmp_path, text).left]
    assert any(said in reason for reason in reasons), reasons


@pytest.mark.parametrize(
    ("image", "wish"),
    [
        ("pytorch/pytorch:2.7.1-cuda12.6-cudnn9-runtime", "torch2.7-cu126"),
        ("docker.io/pytorch/pytorch:2.6.0-cuda12.4-cudnn9-devel", "torch2.6-cu124"),
        ("pytorch/pytorch:latest", "torch"),
        ("tensorflow/tensorflow:2.17.0-gpu", "tf2.17"),
        ("tensorflow/tensorflow:2.21.0", "tf2.21-cpu"),
        ("tensorflow/tensorflow:latest-gpu-jupyter", "tf"),
        ("nvidia/cuda:12.6.3-runtime-ubuntu22.04", ""),
        ("ubuntu:22.04", ""),
        ("registry.example/team/base", ""),
    ],
)
def test_a_base_image_chooses_the_image(image: str, wish: str, tmp_path: Path) -> None:
    found = of(tmp_path, f"FROM {image}\nRUN pip install einops\n", "Dockerfile")
    assert found.image == wish
    assert found.packages == ("einops",)
    assert wish.partition("-")[0] not in ("", "torch", "tf") or wish or found.left


def test_the_cuda_of_a_base_image_chooses_among_the_framework_s(tmp_path: Path) -> None:
    text = "FROM nvidia/cuda:12.6.3-cudnn-devel-ubuntu22.04\nRUN pip install torch\n"
    assert of(tmp_path, text, "Dockerfile").image == "torch-cu126"


def test_conda_s_python_chooses_when_nothing_else_does(tmp_path: Path) -> None:
    text = "dependencies:\n  - python=3.10\n  - pytorch\n"
    found = of(tmp_path, text, "environment.yml")
    assert "3.10" in CATALOG.pythons_for(CATALOG.find(found.image))
    found = of(tmp_path, text.replace("3.10", "3.7"), "environment.yml")
    assert found.image == "torch"
    assert "no image that fits has it" in found.left[0].reason


@pytest.mark.parametrize(
    ("needs", "is_installed"),
    [
        ('"torch>=2.6"', True),
        ('"numpy>=1.20"', True),
        ('"torch==2.7.1", "numpy==1.26.4"', False),
        ('"torch==2.5.1"', False),
        ('"torch", "clip @ git+https://github.com/openai/CLIP.git"', False),
    ],
)
def test_a_project_is_installed_when_an_image_can_meet_it(needs: str, is_installed: bool, tmp_path: Path) -> None:
    text = f'[project]\nname = "mine"\nversion = "1"\ndependencies = [{needs}, "einops"]\n'
    found = of(tmp_path, text, "pyproject.toml")
    assert found.project is is_installed
    assert found.packages == (() if is_installed else ("einops",))
    assert any("the project itself is not installed" in left.reason for left in found.left) is not is_installed


def test_a_project_with_dynamic_dependencies_or_sources_of_its_own_is_not_installed(tmp_path: Path) -> None:
    head = '[project]\nname = "mine"\nversion = "1"\n'
    for text in (
        f'{head}dynamic = ["dependencies"]\n',
        f'{head}dependencies = ["own"]\n[tool.uv.sources]\nown = {{ path = "../own" }}\n',
        f"{head}[tool.uv]\npackage = false\n",
    ):
        assert not of(tmp_path, text, "pyproject.toml").project


def test_the_editable_project_of_a_requirements_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "1"\n', encoding="utf-8")
    assert of(tmp_path, "-e .\n").project
    with_extra = of(tmp_path, "-e .[plots]\n")
    assert with_extra.project
    assert "without its extras (plots)" in with_extra.left[0].reason
    assert not of(tmp_path, "-e ../other\n").project


def test_a_project_in_another_folder_than_kit_toml_is_not_installed(tmp_path: Path) -> None:
    text = '[project]\nname = "mine"\nversion = "1"\ndependencies = ["einops"]\n'
    assert of(tmp_path, text, "pyproject.toml").project
    for name in ("pyproject.toml", "requirements.txt"):
        (tmp_path / "requirements.txt").write_text("-e .\neinops\n", encoding="utf-8")
        found = read(tmp_path / name, CATALOG, folder=tmp_path / "elsewhere")
        assert not found.project
        assert found.packages == ("einops",)
        assert len(found.left) == 1
