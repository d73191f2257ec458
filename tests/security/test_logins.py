"""A registry with a user in its name is refused before anything shows it or passes it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Result

ADDRESS = "https://ru:PW-of-it@registry.example"


@pytest.mark.parametrize(
    "words",
    [
        ("build", "tf-cpu", "--registry-mirror", ADDRESS),
        ("build", "tf-cpu", "--push", "ru:PW-of-it@registry.example/team"),
        ("update", "--registry-mirror", ADDRESS),
        ("run", "--registry-mirror", ADDRESS, "tf-cpu", "true"),
        ("run", "--pull", "ru:PW-of-it@registry.example/team", "tf-cpu", "true"),
        ("verify", "tf-cpu", "--pull", "ru:PW-of-it@registry.example/team"),
        ("engine", "up", "--registry-mirror", "https://mirror.example", "--registry-mirror", ADDRESS),
        ("engine", "up", "--insecure-registry", "ru:PW-of-it@registry.example"),
    ],
)
def test_a_login_in_an_address_is_refused(kit: Callable[..., Result], words: tuple[str, ...]) -> None:
    done = kit(*words)
    assert done.code == 2
    assert "has a user in it" in done.err
    assert "PW-of-it" not in done.err + done.out


@pytest.mark.parametrize("key", ["registry_mirror", "pull"])
def test_nor_does_the_configuration_or_the_environment_have_one(
    kit: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    (tmp_path / "config.toml").write_text(f'{key} = "{ADDRESS}"\n')
    monkeypatch.setenv("KIT_CONFIG", str(tmp_path / "config.toml"))
    done = kit("run", "tf-cpu", "true")
    assert done.code == 2
    assert "PW-of-it" not in done.err + done.out
    monkeypatch.delenv("KIT_CONFIG")
    monkeypatch.setenv("KIT_REGISTRY_MIRROR", ADDRESS)
    done = kit("run", "tf-cpu", "true")
    assert done.code == 2
    assert "PW-of-it" not in done.err + done.out


def test_a_digest_is_no_login(kit: Callable[..., Result]) -> None:
    done = kit("run", "--pull", f"registry.example/team/tf-cpu@sha256:{'0' * 64}", "tf-cpu", "true")
    assert "has a user in it" not in done.err
    done = kit("run", "--pull", f"ru:PW-of-it@registry.example/tf-cpu@sha256:{'0' * 64}", "tf-cpu", "true")
    assert "has a user in it" in done.err
