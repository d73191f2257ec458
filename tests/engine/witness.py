"""What the engine has, asked of Docker's own SDK: a fault in kit's adapter cannot hide itself.

On a host with Podman alone the witness is `podman` itself (tests/engine/podman_host.py).
"""

from __future__ import annotations

import os
from typing import Any

from docker import DockerClient

from kit.engine import connect


def client() -> DockerClient:
    """The engine under test, by its socket, or by the address in the environment where it has none here."""
    socket = connect().socket_path
    return DockerClient(base_url=f"unix://{socket}", timeout=600) if socket else DockerClient.from_env(timeout=600)


def containers(docker: DockerClient, label: str = "kit.image") -> set[str]:
    """The names of this user's containers with a label, running or not; others may use the engine too."""
    return set(labels(docker, label))


def labels(docker: DockerClient, label: str = "kit.image") -> dict[str, dict[str, str]]:
    """The labels of this user's containers with a label, by name."""
    mine = {"label": [label, f"kit.owner={os.getuid()}"]}
    found = docker.containers.list(all=True, filters=mine, ignore_removed=True)
    return {container.name: container.labels for container in found}


def volumes(docker: DockerClient, prefix: str = "") -> set[str]:
    """The names of all volumes that begin so."""
    return {volume.name for volume in docker.volumes.list() if volume.name.startswith(prefix)}


def run(docker: DockerClient, image: str, *command: str, **options: object) -> str:
    """What a command prints in a container that is then removed; ContainerError when it fails."""
    printed: bytes = docker.containers.run(image, list(command), remove=True, **options)
    return printed.decode()


def remove(docker: DockerClient, *names: str) -> None:
    """Remove containers, running or not; one that is gone already is none."""
    for container in docker.containers.list(all=True, ignore_removed=True):
        if container.name in names:
            container.remove(force=True, v=True)


def build_cache(docker: DockerClient) -> list[Any]:
    """What builds have left. The SDK's `df` measures images as well, and fails while one is being unpacked."""
    api = docker.api
    answer = api._result(api._get(api._url("/system/df"), params={"type": "build-cache"}), json=True)
    return list(answer["BuildCache"] or [])
