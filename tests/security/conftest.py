"""What the tests of `tests/engine` use, for those here that need an engine too."""

from tests.engine.conftest import began_cold, ca_bundle, docker, jupyter, tf_cpu, workspace
from tests.engine.conftest import kit as engine_kit

__all__ = ["began_cold", "ca_bundle", "docker", "engine_kit", "jupyter", "tf_cpu", "workspace"]
