"""Fixtures of the tests that build and run for real. They use the `kit` command as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.engine import Engine, connect
from tests.engine.podman_host import PodmanHost, running_host

KIT = str(Path(sys.executable).with_name("kit"))

Kit = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def engine() -> Engine:
    return connect()


@pytest.fixture(scope="session")
def kit() -> Kit:
    """Run `kit` with arguments; fails the test on a non-zero exit code unless `code` says another."""

    def call(*args: str, code: int = 0, timeout: float = 900, **options: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [KIT, *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
            **options,
        )
        assert done.returncode == code, (
            f"kit {' '.join(args)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    return call


@pytest.fixture(scope="session")
def tf_cpu(kit: Kit) -> str:
    """The small image, built on a registry-free base."""
    kit("build", "tf-cpu", "--base", "archive")
    return "tf-cpu"


@pytest.fixture(scope="session")
def torch_cuda(kit: Kit) -> str:
    """A real CUDA image of PyTorch, built on a registry-free base."""
    kit("build", "torch-cu126", "--base", "archive", timeout=1800)
    return "torch2.7-cu126"


@pytest.fixture(scope="session")
def podman_host() -> Iterator[PodmanHost]:
    """A host behind SSH with rootless Podman and kit's Debian base, `tests.engine.podman_host.BASE`, and no Docker."""
    with running_host() as host:
        yield host


@pytest.fixture(scope="session")
def podman_tf_cpu(podman_host: PodmanHost, engine: Engine, tf_cpu: str) -> str:
    """The small image, on the host with Podman too."""
    podman_host.account.load_from(engine, f"kit/{tf_cpu}:latest")
    return tf_cpu


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def jupyter(kit: Kit, tf_cpu: str, workspace: Path) -> Iterator[dict[str, str]]:
    """A JupyterLab of the small image: {name, image, service, url}."""
    started = json.loads(kit("--json", "run", "-C", str(workspace), tf_cpu, "jupyter").stdout)
    yield started
    kit("rm", "--force", started["name"])


def containers(engine: Engine) -> set[str]:
    """The names of all containers of kit's, running or not."""
    return {c.name for c in engine.containers()}


def as_environment(**variables: str) -> dict[str, str]:
    return {**os.environ, **variables}
