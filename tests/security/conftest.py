"""What the tests of `tests/engine` use, for those here that need an engine too."""

from pathlib import Path

import pytest

from tests.engine.conftest import Kit, began_cold, ca_bundle, docker, jupyter, workspace
from tests.engine.conftest import kit as engine_kit

__all__ = ["began_cold", "ca_bundle", "docker", "engine_kit", "jupyter", "tf_cpu", "workspace"]


@pytest.fixture(scope="session")
def tf_cpu(engine_kit: Kit, began_cold: bool, ca_bundle: Path) -> str:
    """The small image. Here `kit` is the command in this process."""
    engine_kit("build", "tf-cpu", "--base", "archive", "--ca-cert", str(ca_bundle))
    return "tf-cpu"
