"""`kit export`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kit import config
from kit.environment.current import inputs_hash
from kit.environment.declared import declared
from kit.environment.format import write
from tests.conftest import Result
from tests.unit.test_export import EINOPS, FFMPEG, lock

Kit = Callable[..., Result]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    (folder / "kit.toml").write_text('[environment]\nimage = "tf-cpu"\npackages = ["einops"]\n', encoding="utf-8")
    project = declared(config.load(folder, {}))
    assert project is not None
    write(folder, replace(lock(EINOPS, system=(FFMPEG,)), inputs_hash=inputs_hash(project)))
    monkeypatch.chdir(folder / "sub")
    return folder


def test_the_text_is_on_stdout_and_what_it_lacks_on_stderr(kit: Kit, project: Path) -> None:
    result = kit("export", "requirements")
    assert result.code == 0
    assert "einops==0.8.0 \\\n    --hash=sha256:" in result.out
    assert result.err == "not in it: packages of the distribution: ffmpeg\n"
    assert kit("-q", "export", "environment.yml").err == ""


def test_without_a_project_or_a_lock(kit: Kit, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "kit.lock").unlink()
    result = kit("export", "pylock")
    assert result.code == 6
    assert "kit lock" in result.err
    (project / "kit.toml").unlink()
    monkeypatch.chdir(tmp_path)
    result = kit("export", "requirements")
    assert result.code == 2
    assert "kit init" in result.err


def test_a_form_that_is_none(kit: Kit, project: Path) -> None:
    result = kit("export", "conda")
    assert result.code == 2
    assert "'requirements', 'environment.yml', 'pylock'" in result.err


def test_a_lock_that_is_behind_is_said(kit: Kit, project: Path) -> None:
    (project / "kit.toml").write_text('[environment]\nimage = "tf-cpu"\npackages = ["rich"]\n', encoding="utf-8")
    result = kit("export", "requirements")
    assert result.code == 0
    assert "warning: what kit.toml asks for has changed" in result.err
