"""A project's own environment on a server: built there on its image, run with the folder that was sent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from docker import DockerClient

from kit.catalog import load_catalog
from tests.engine.conftest import Kit
from tests.engine.environment.test_environment import CODE, EINOPS, PYPROJECT
from tests.engine.remote.client import Client
from tests.engine.remote.conftest import Host
from tests.unit.test_environment_image import make

pytestmark = pytest.mark.engine
# How whoever runs the tests reaches an index.
INDEX = ("SSL_CERT_FILE", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")


def test_a_projects_environment_is_built_and_run_there(
    kit: Kit, host: Host, client: Client, project: Path, docker: DockerClient
) -> None:
    (project / "pyproject.toml").write_text(PYPROJECT)
    (project / "my_lab.py").write_text(CODE)
    # Of this test alone: no other has built it.
    table = f'project = true\nenv = {{ MARK = "{host.name}-{os.getpid()}" }}\n'
    make(project, load_catalog(), EINOPS, table=table)
    words = ("--host", host.name, "run", "my-lab")
    if not host.podman:
        # The laptop has no buildx. The engine there is this machine's.
        (built,) = json.loads(kit("--json", "build", "--base", "archive", cwd=project).stdout)
    try:
        network = {variable: os.environ[variable] for variable in INDEX if variable in os.environ}
        done = client.kit(*words, cwd=project, timeout_s=300, **network)
        assert done.stdout == "the code of the project with 0.8.1\n"
        assert ("env-tf-cpu: built in" in done.stderr) == bool(host.podman)
        again = client.kit(*words, cwd=project)
        assert (again.stdout, "built in" in again.stderr) == (done.stdout, False)
        name = client.kit("--host", host.name, "run", "-d", "sleep", "600", cwd=project).stdout.strip()
        assert {row["image"] for row in host.listed() if row["name"] == name} == {"env-tf-cpu"}
        client.kit("--host", host.name, "rm", "--force", name)
    finally:
        if not host.podman:
            docker.images.remove(built["reference"], force=True)
    if host.podman:
        rows = client.json("--host", host.name, "clean", "images")
        own = [row["name"] for row in rows if row["name"].startswith("kit/env-tf-cpu:") and not row["stays"]]
        assert own
        client.kit("--yes", "--host", host.name, "clean", *own)
