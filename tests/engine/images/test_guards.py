"""What the guards of added packages say of whole images: nothing that stops, and nothing is written anywhere."""

from __future__ import annotations

import json

import pytest
from docker import DockerClient

from kit import layout, paths
from kit.catalog import Catalog
from kit.environment.guards import PROGRAM, arguments

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("image", ["tf_cpu", "torch_cuda"])
def test_an_image_passes(image: str, request: pytest.FixtureRequest, catalog: Catalog, docker: DockerClient) -> None:
    name = request.getfixturevalue(image)
    container = docker.containers.run(
        catalog.find(name).reference,
        [f"{layout.VENV}/bin/python", "-I", "/run/guards.py", *arguments(catalog, None)],
        entrypoint="",
        volumes={str(paths.templates_dir() / PROGRAM): {"bind": "/run/guards.py", "mode": "ro"}},
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": ""},
        detach=True,
    )
    try:
        code = container.wait(timeout=600)["StatusCode"]
        found = json.loads(container.logs(stdout=True, stderr=False))
        assert (code, [finding for finding in found if finding["stops"]]) == (0, [])
    finally:
        container.remove(force=True)
