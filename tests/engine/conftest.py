"""Fixtures of the tests that build and run for real. They use the `kit` command as a user does."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from kit.engine import Engine, connect
from kit.network import ca_file
from tests.engine import witness
from tests.engine.podman_host import PodmanHost, running_host

KIT = str(Path(sys.executable).with_name("kit"))

CA_MARK = "a certificate of the test's own, which no image may have"

Kit = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "private_engine":  # it looks at the whole machine
            item.add_marker(pytest.mark.alone)


@pytest.fixture
def gpus_alone() -> Iterator[None]:
    """No other test gives this machine GPUs meanwhile, or counts on its having none."""
    with (Path(tempfile.gettempdir()) / "kit-tests-gpus.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def engine() -> Engine:
    return connect()


@pytest.fixture(scope="session")
def docker() -> DockerClient:
    """Who is asked what the engine really has."""
    return witness.client()


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
def ca_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificates of this machine in a file that has a mark in it, to be found where it must not be."""
    own = ca_file(None, os.environ) or Path("/etc/ssl/certs/ca-certificates.crt")
    bundle = tmp_path_factory.mktemp("ca") / "ca.pem"
    bundle.write_text(f"{own.read_text()}# {CA_MARK}\n")
    return bundle


@pytest.fixture(scope="session")
def began_cold(docker: DockerClient) -> bool:
    """Whether the engine had built nothing before this session: then every step ran in it, with `ca_bundle`."""
    return not witness.build_cache(docker)


@pytest.fixture(scope="session")
def tf_cpu(kit: Kit, began_cold: bool, ca_bundle: Path) -> str:
    """The small image, built on a registry-free base."""
    kit("build", "tf-cpu", "--base", "archive", "--ca-cert", str(ca_bundle))
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
def podman_tf_cpu(kit: Kit, podman_host: PodmanHost) -> str:
    """The small image, built on the host with Podman."""
    kit("--host", "machine", "build", "tf-cpu", "--base", "archive", env=as_environment(KIT_SSH=podman_host.ssh()))
    return "tf-cpu"


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


def as_environment(**variables: str) -> dict[str, str]:
    return {**os.environ, **variables}
