"""`kit lock` and `kit update`: what they say and how they end. Solving itself is in tests/unit/test_locks.py."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit import locks
from kit.catalog import load_catalog
from kit.environment.format import EnvironmentLock, Package
from kit.errors import CheckFailedError, LockError, NetworkError
from kit.locks.format import sha256
from kit.locks.popular import Found
from kit.project import lock as project_lock

Kit = Callable[..., Any]


def test_check_passes_on_what_is_committed(kit: Kit) -> None:
    result = kit("lock", "--check")
    assert (result.code, result.out) == (0, "")
    count = len(load_catalog().images())
    assert result.err.splitlines()[-1] == f"{count} images: lock is up to date"
    assert f"[{count}/{count}] tf-cpu: up to date" in result.err


def test_check_json(kit: Kit) -> None:
    assert json.loads(kit("--json", "lock", "--check", "tf-cpu").out) == [{"image": "tf-cpu", "outcome": "up to date"}]


def test_check_of_a_tampered_lock(kit: Kit, project: Any) -> None:
    path = project.folder / "requirements.lock"
    path.write_text(path.read_text().replace("tensorflow==2.21.0", "tensorflow==2.21.1"))
    result = kit("lock", "--check", "tf-cpu")
    assert result.code == LockError.exit_code
    assert result.err.splitlines() == [
        f"error: {path} is not what kit wrote: its hash is not the one in lock.json",
        "hint: it was edited or half updated; `kit lock tf-cpu` writes it anew",
    ]


def test_check_of_an_unreadable_lock(kit: Kit, project: Any) -> None:
    (project.folder / "lock.json").write_text("{")
    result = kit("lock", "--check", "tf-cpu")
    assert result.code == LockError.exit_code
    assert "lock.json is not valid JSON" in result.err


def test_one_failure_does_not_stop_the_others(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    def solve(catalog: object, image: Any, *, upgrade: bool) -> bool:
        if image.name == "tf-cpu":
            raise NetworkError("the package index does not answer", hint="set UV_DEFAULT_INDEX", details=("dns error",))
        return not upgrade

    monkeypatch.setattr(locks, "solve", solve)
    result = kit("lock", "torch2.7-cu126", "tf-cpu", "torch-cu124")
    assert result.code == 1
    said = result.err.splitlines()
    assert said[:7] == [
        "[1/3] torch2.7-cu126: written",
        "[2/3] tf-cpu: failed: the package index does not answer",
        "[3/3] torch2.6-cu124: written",
        "error: 1 of 3 images could not be locked",
        "  tf-cpu: the package index does not answer",
        "    dns error",
        "hint: set UV_DEFAULT_INDEX",
    ]
    assert said[7].startswith("cause: The name of the server cannot be turned into an address")
    assert kit("lock", "tf-cpu").code == NetworkError.exit_code
    assert "unchanged" in kit("lock", "--upgrade", "torch-cu124").err


def test_an_image_that_may_be_unlocked_is_tried_when_named(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def solve(catalog: object, image: Any, *, upgrade: bool) -> bool:
        tried.append(image.name)
        return True

    monkeypatch.setattr(locks, "solve", solve)
    monkeypatch.setattr(locks, "write_unlocked", lambda catalog, image: False)
    assert kit("lock", "torch-cu118").code == 0
    assert tried == ["torch-cu118"]
    tried.clear()
    result = kit("lock")
    assert "torch-cu118" not in tried
    assert "tf-cpu" in tried
    assert "torch-cu118: unlocked: the PyTorch wheel index" in result.err


def test_hashes_that_the_index_has_not_confirmed_are_said(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "solve", lambda *_, **__: False)
    said = "hashes from public lock files, not confirmed by the index"
    assert f"torch-cpu: unchanged; {said}" in kit("lock", "torch-cpu").err
    assert f"torch-cpu: up to date; {said}" in kit("lock", "--check", "torch-cpu").err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--solve",), "--solve goes with --check"),
        (("--check", "--upgrade"), "--check writes nothing, so it cannot --upgrade"),
    ],
)
def test_options_that_do_not_go_together(kit: Kit, arguments: tuple[str, ...], message: str) -> None:
    result = kit("lock", *arguments)
    assert result.code == 2
    assert f"error: {message}" in result.err


@pytest.mark.parametrize("command", ["lock", "update"])
def test_an_installed_kit_writes_no_catalog(kit: Kit, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.paths.is_checkout", lambda: False)
    result = kit(command)
    assert result.code == 2
    assert "an installed package" in result.err


def test_update_without_a_registry(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    result = kit("update", "tf-cpu", "--registry-mirror", "127.0.0.1:9")
    assert result.code == NetworkError.exit_code
    lines = result.err.splitlines()
    assert lines[0] == "asking 127.0.0.1:9 for ubuntu:24.04"
    assert lines[1].startswith("error: the registry 127.0.0.1:9 does not answer: ")
    assert lines[2] == "hint: give a registry that can be reached from here: `kit update --registry-mirror HOST`"


def test_popular_goes_with_check(kit: Kit) -> None:
    assert kit("lock", "--popular").code == 2


def test_popular_says_what_keeps_a_package_out(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def check(self: Any, image: Any, lock: Any) -> Any:
        asked.append(image.name)
        beside = "1.0" if image.name == "tf-cpu" else "0.1"
        yield Found(package="some", alone="1.0", beside=beside, known=None)

    monkeypatch.setattr("kit.locks.popular.Popular.check", check)
    result = kit("lock", "--check", "--popular", "tf-cpu", "torch2.7-cu126", "torch2.7-cu126-devel")
    assert result.code == 1
    assert asked == ["tf-cpu", "torch2.7-cu126"]
    assert "tf-cpu: 1 packages, 0 known to differ" in result.err
    assert "some: 0.1 beside what the image holds, 1.0 by itself" in result.err


# In the folder of a project.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose packages are all in its image, so that no index is asked."""
    (tmp_path / "kit.toml").write_text('[environment]\nimage = "tf-cpu"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_lock_of_a_project(kit: Kit, folder: Path) -> None:
    result = kit("lock", "--check")
    assert result.code == CheckFailedError.exit_code
    assert f"error: {folder}/kit.lock is missing" in result.err
    result = kit("lock")
    assert (result.code, result.out) == (0, "")
    assert result.err == "kit.lock written: tf-cpu, 0 packages\n"
    assert kit("lock").err == "kit.lock is unchanged: tf-cpu, 0 packages\n"
    assert kit("lock", "--check").err == "kit.lock is up to date: tf-cpu, 0 packages\n"
    (folder / "kit.toml").write_text('[environment]\nimage = "tf-cpu"\npackages = ["einops"]\n')
    result = kit("lock", "--check")
    assert result.code == CheckFailedError.exit_code
    assert result.err.splitlines()[1].startswith("  what kit.toml asks for has changed")
    (folder / "kit.lock").write_text("{}")
    assert kit("lock", "--check").code == LockError.exit_code


def test_what_has_changed_in_a_project_is_said(kit: Kit, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def package(name: str, version: str, replaces: str = "") -> Package:
        return Package(name=name, version=version, replaces=replaces, hashes=(f"sha256:{'0' * 64}",))

    states = [
        (package("einops", "0.8.0"), package("old", "1.0")),
        (package("einops", "0.8.1"), package("rich", "13.0", replaces="14.0")),
    ]

    def solve(*_: Any, present: EnvironmentLock | None, say: Callable[[str], None], **__: Any) -> EnvironmentLock:
        say("gradio needs rich<14: rich 13.0 takes the place of the image's 14.0")
        packages = states[1 if present else 0]
        lock = EnvironmentLock(
            kit="0",
            uv="0",
            inputs_hash="sha256:0",
            image="tf-cpu",
            image_lock="sha256:0",
            pythons=("3.12",),
            source_date_epoch=0,
            requirements_hash="",
            packages=packages,
        )
        return dataclasses.replace(lock, requirements_hash=sha256(lock.requirements))

    monkeypatch.setattr(project_lock, "solve", solve)
    kit("lock")
    result = kit("--json", "lock")
    assert json.loads(result.out) == {
        "file": str(folder / "kit.lock"),
        "image": "tf-cpu",
        "outcome": "written",
        "packages": 2,
        "changes": [
            {"name": "einops", "before": "0.8.0", "after": "0.8.1"},
            {"name": "old", "before": "1.0", "after": ""},
            {"name": "rich", "before": "", "after": "13.0"},
        ],
        "replaced": [{"name": "rich", "version": "13.0", "replaces": "14.0"}],
    }
    assert result.err.splitlines() == [
        "gradio needs rich<14: rich 13.0 takes the place of the image's 14.0",
        "einops 0.8.0 -> 0.8.1",
        "- old 1.0",
        "+ rich 13.0",
        "kit.lock written: tf-cpu, 2 packages",
    ]


def test_what_goes_with_a_project_and_what_with_images(kit: Kit, folder: Path) -> None:
    for arguments in (
        ("--check", "--solve"),
        ("--check", "--popular"),
        ("--check", "--upgrade"),
        ("--check", "--upgrade-package", "einops"),
        ("--upgrade-package", "einops", "tf-cpu"),
    ):
        assert kit("lock", *arguments).code == 2, arguments
    assert "no package of this project is `einops`" in kit("lock", "--upgrade-package", "einops").err
    assert kit("lock", "--check", "tf-cpu").err.splitlines()[-1] == "lock is up to date"


def test_an_index_that_a_project_names_is_asked_about_first(kit: Kit, folder: Path) -> None:
    (folder / "kit.toml").write_text('[environment]\nimage = "tf-cpu"\nindexes = ["https://index.example/simple"]\n')
    result = kit("lock")
    assert result.code == 2
    assert "reaches out of its project" in result.err
    assert not (folder / "kit.lock").exists()
