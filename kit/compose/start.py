"""What starting a compose file needs: a docker command line with a Compose that is new enough."""

from __future__ import annotations

import re
import shlex

from kit.engine import Engine
from kit.errors import KitError

# `podman compose` (since 4.7) starts docker-compose or podman-compose. The first asks Podman's Docker interface, which
# has not passed CDI devices on: https://github.com/containers/podman/issues/19338 and 28436 (both open).
PODMAN_NOTE = (
    "it is for Docker Compose with Docker. It has not been tried with `podman compose`, where GPUs have been seen not "
    "to reach the containers (containers/podman issues 19338 and 28436); `kit run` starts the same with Podman"
)


def docker_words(engine: Engine | None) -> str:
    """How a user of this machine starts the docker command line of the engine."""
    if engine is None:
        return "docker"
    names = [name for name in ("DOCKER_HOST", "DOCKER_CONFIG") if name in engine.environment]
    return " ".join([*(f"{name}={shlex.quote(engine.environment[name])}" for name in names), engine.program])


def version_problem(engine: Engine, needed: str) -> str:
    """Why this docker cannot start a file that needs a version of Compose; empty when it can."""
    try:
        version = engine.call(["compose", "version", "--short"], timeout_s=20).strip().removeprefix("v")
    except KitError:
        return "this docker has no Compose: install docker-compose-plugin (on Ubuntu docker-compose-v2)"
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if found and tuple(map(int, found.groups())) < tuple(map(int, needed.split("."))):
        return f"this Docker Compose is {version}, and the file needs {needed} or newer"
    return ""
