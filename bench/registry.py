"""A container registry on this machine, from the distribution's `docker-registry` package, for benchmarks and tests."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kit import apt, paths

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
)


def registry_program() -> Path:
    """The registry's program, unpacked privately once."""
    folder = paths.cache_dir() / "docker-registry"
    program = folder / "root/usr/bin/docker-registry"
    if not program.is_file():
        distribution = apt.host_distribution()
        archive = apt.main_archive(apt.host_sources(), distribution)
        source = apt.suite_of(
            archive, archive.suite, ["universe" if distribution.family == "ubuntu" else "main"], distribution
        )
        fetcher = apt.Apt(folder=folder / "apt", sources=(source,))
        fetcher.update()
        apt.unpack(fetcher.download(["docker-registry"], folder / "debs"), folder / "root")
    return program


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def local_registry(folder: Path) -> Iterator[str]:
    """A registry on 127.0.0.1 that keeps its data in `folder`; yields `host:port`."""
    port = free_port()
    configuration = folder / "registry.json"
    configuration.write_text(
        json.dumps(
            {  # JSON is YAML
                "version": 0.1,
                "log": {"level": "error", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
                "http": {"addr": f"127.0.0.1:{port}"},
            }
        )
    )
    with (folder / "registry.log").open("wb") as log:
        server = subprocess.Popen([str(registry_program()), "serve", str(configuration)], stdout=log, stderr=log)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        else:
            raise RuntimeError((folder / "registry.log").read_text())
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def get_manifest(registry: str, name: str, tag: str = "latest") -> dict[str, Any]:
    """The manifest of one platform's image in a registry."""
    request = urllib.request.Request(f"http://{registry}/v2/{name}/manifests/{tag}", headers={"Accept": MANIFEST_TYPES})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
        found: dict[str, Any] = json.load(response)
    return get_manifest(registry, name, found["manifests"][0]["digest"]) if "manifests" in found else found


def layer_sizes(manifest: dict[str, Any]) -> dict[str, int]:
    """Compressed bytes of each layer, by digest."""
    return {layer["digest"]: layer["size"] for layer in manifest["layers"]}
