"""`kit lock` and `kit update`: what they say and how they end. Solving itself is in tests/unit/test_locks.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kit import locks
from kit.catalog import load_catalog
from kit.errors import LockError, NetworkError
from kit.locks.popular import Found

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
