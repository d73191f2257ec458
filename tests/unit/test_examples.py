"""The examples: each is a whole project that kit reads, and is copied without ever writing over anything."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from kit import config, paths
from kit.catalog import load_catalog
from kit.environment import format
from kit.environment.current import differences
from kit.environment.declared import declared
from kit.errors import BadInputError
from kit.project.example import SUFFIXES, copy_example, example_names


def test_the_examples_that_are_promised_are_there() -> None:
    assert example_names() == [
        "distributed",
        "graph-network",
        "keras-tuner",
        "lenet-tf",
        "lenet-torch",
        "tiny-transformer",
    ]


@pytest.mark.parametrize("name", example_names())
def test_an_example_is_a_project_whose_script_says_how_it_is_run(name: str, tmp_path: Path) -> None:
    first, *others = copy_example(name, tmp_path)
    assert first == tmp_path / "kit.toml"
    found = declared(config.load(tmp_path, {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "none")}))
    assert found is not None
    assert load_catalog().find(found.image).name
    (script,) = (file for file in others if file.suffix == ".py")
    tree = ast.parse(script.read_text())
    assert f"python {script.name}" in (ast.get_docstring(tree) or "")
    assert f"kit run python {script.name}" in first.read_text(), "the comment above says how it is started"
    # What the script has of others is in the image, or named in kit.toml.
    text = first.read_text()
    modules = {
        word.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for word in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    for module in modules & {"transformers", "torch_geometric", "keras_tuner"}:
        assert f'"{module.replace("_", "-")}"' in text


@pytest.mark.parametrize("name", example_names())
def test_the_lock_of_an_example_is_up_to_date(name: str) -> None:
    folder = paths.examples_dir() / name
    found, lock = declared(config.load(folder, {"KIT_CONFIG": os.devnull})), format.read(folder)
    assert found is not None
    assert lock is not None
    assert differences(load_catalog(), found, lock) == [], f"`kit lock` in {folder} writes it anew"


@pytest.mark.parametrize("name", example_names())
def test_every_file_of_an_example_is_copied(name: str, tmp_path: Path) -> None:
    committed = {file.name for file in (paths.examples_dir() / name).iterdir() if file.is_file()}
    assert {file.name for file in copy_example(name, tmp_path)} == committed
    assert all(Path(file).suffix in SUFFIXES for file in committed)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "lenet.py").symlink_to("nowhere")
    with pytest.raises(BadInputError, match=r"has lenet\.py already"):
        copy_example("lenet-torch", tmp_path)
    assert not (tmp_path / "kit.toml").exists(), "and nothing is half copied"


@pytest.mark.parametrize("name", ["lenet", "../examples/lenet-tf", "", "."])
def test_a_name_that_no_example_has(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no example") as e:
        copy_example(name, tmp_path)
    assert "lenet-torch" in e.value.hint
    assert list(tmp_path.iterdir()) == []


def test_what_running_an_example_left_is_no_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "root/examples/mine"
    (mine / "runs").mkdir(parents=True)
    (mine / "kit.toml").write_text("")
    (mine / "model.pt").write_bytes(b"\xff")
    monkeypatch.setattr(paths, "examples_dir", lambda: mine.parent)
    folder = tmp_path / "new"
    assert copy_example("mine", folder) == [folder / "kit.toml"]
