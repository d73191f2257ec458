"""What the tests here that need an engine share with those of `tests/engine`."""

import subprocess

import pytest

from tests.engine.conftest import KIT, docker, workspace
from tests.engine.conftest import kit as engine_kit  # here `kit` is the command in this process

__all__ = ["docker", "engine_kit", "workspace"]


@pytest.fixture(scope="session")
def tf_cpu() -> str:
    """The small image, built on a registry-free base."""
    subprocess.run([KIT, "build", "tf-cpu", "--base", "archive"], check=True, capture_output=True, timeout=900)
    return "tf-cpu"
