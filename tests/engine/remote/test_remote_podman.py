"""A server with Podman beside one with Docker."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.engine.remote.client import Client
from tests.engine.remote.conftest import Host

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("host", ["podman"], indirect=True)
def test_link_cut_under_an_open_connection(host: Host, client: Client) -> None:
    """Each command asks Podman through that connection; a notebook is at the end of a tunnel, whatever the engine."""
    assert client.json("--host", host.name, "ps") == []
    client.link.cut()
    try:
        began = time.monotonic()
        done = client.kit("--host", host.name, "ps", code=19)
        assert f"{host.name} cannot be reached" in done.stderr
        assert time.monotonic() - began < 30
    finally:
        client.link.restore()
    assert client.json("--host", host.name, "ps") == []


@pytest.mark.parametrize("host", ["podman"], indirect=True)
def test_all_hosts_at_once(host: Host, client: Client, project: Path) -> None:
    config = client.folder / "config/kit/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f"hosts = {json.dumps(['server', host.name])}\n")
    try:
        for name in ("server", host.name):
            client.kit("--host", name, "run", "--detach", "tf-cpu", "--", "sleep", "100", cwd=project)
        owners = (host.account.name, host.lab.alice.name)
        rows = [row for row in client.json("ps", "--all-hosts") if row["name"] and row["owner"] in owners]
        assert [row["name"] for row in rows if row["host"] == host.name] == host.containers()
        assert {row["host"] for row in rows} == {"server", host.name}
        assert {row["image"] for row in rows} == {"tf-cpu"}
    finally:
        config.unlink()
    client.kit("--host", "server", "rm", "--all", "--force")
    client.kit("--host", host.name, "rm", "--all", "--force")


@pytest.mark.parametrize("host", ["podman"], indirect=True)
def test_a_gpu_that_the_host_has_not(host: Host, client: Client, project: Path) -> None:
    done = client.kit("--host", host.name, "run", "--gpus", "all", "tf-cpu", "--", "true", code=17, cwd=project)
    assert "Traceback" not in done.stderr
    assert host.containers() == []


@pytest.mark.parametrize("host", ["podman"], indirect=True)
def test_podman_is_taken_where_docker_may_not_be_used_unless_told_otherwise(host: Host, client: Client) -> None:
    assert client.json("--host", host.name, "ps") == []
    done = client.kit("--host", host.name, "ps", code=23, KIT_ENGINE="system")
    assert "no right to use the container engine" in done.stderr
    assert client.json("--host", "server", "ps", KIT_ENGINE="podman") == []
