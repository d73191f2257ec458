"""The rendered compose files, with the real Compose on the real engine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kit import paths
from kit.catalog import load_catalog
from kit.engine import Engine
from kit.errors import KitError
from tests.engine.notebook import get

pytestmark = pytest.mark.engine


@pytest.fixture
def compose(engine: Engine) -> list[str]:
    try:
        engine.call(["compose", "version"])
    except KitError:
        pytest.skip("this docker has no compose plugin")
    return ["compose"]


@pytest.mark.parametrize("image", [i for i in load_catalog().images() if not i.flavor], ids=lambda i: i.name)
def test_every_compose_file_is_valid(engine: Engine, compose: list[str], image) -> None:  # type: ignore[no-untyped-def]
    file = paths.compose_dir() / f"{image.name}.yaml"
    text = engine.call([*compose, "--file", str(file), "config"], environment={"JUPYTER_TOKEN": "x"})
    assert image.reference in text
    assert ("driver: nvidia" in text) == image.is_gpu


def test_no_token_no_server(engine: Engine, compose: list[str]) -> None:
    with pytest.raises(KitError) as caught:
        engine.call([*compose, "--file", str(paths.compose_dir() / "tf-cpu.yaml"), "config"])
    assert "JUPYTER_TOKEN" in " ".join((caught.value.message, *caught.value.details))


def test_notebook_server_comes_up(engine: Engine, compose: list[str], tf_cpu: str, workspace: Path) -> None:
    port, token = "18888", "a-token-of-the-test"
    settings = {"JUPYTER_TOKEN": token, "PORT": port, "FOLDER": str(workspace)}
    command = [*compose, "--project-name", "kit-test", "--file", str(paths.compose_dir() / f"{tf_cpu}.yaml")]
    engine.call([*command, "up", "--detach"], environment=settings)
    try:
        status = 0
        for _ in range(200):
            try:
                status, _body = get(f"http://127.0.0.1:{port}/api/status", token=token)
                break
            except OSError:
                time.sleep(0.2)
        assert status == 200
        assert get(f"http://127.0.0.1:{port}/api/status")[0] == 403
    finally:
        engine.call([*command, "down", "--volumes", "--timeout", "2"], environment=settings)
