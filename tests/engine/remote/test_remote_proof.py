"""An image proven and measured on a server, and the server examined, from a laptop without engine or image."""

from __future__ import annotations

import json

import pytest

from tests.engine.conftest import KIT
from tests.engine.remote.client import Client
from tests.engine.remote.conftest import Lab

pytestmark = pytest.mark.engine


def test_an_image_is_verified_there(lab: Lab, client: Client) -> None:
    # Files that are sent, a container, a service behind a tunnel, and what testinfra asks of the engine.
    chosen = [word for name in ("packages.locked", "jupyter.token", "training") for word in ("--only", name)]
    report = client.json("--host", "server", "verify", "tf-cpu", *chosen)
    outcomes = {check["name"]: check["outcome"] for check in report["checks"]}
    assert outcomes["packages.locked"] == outcomes["jupyter.token"] == "passed"
    assert any(name.startswith("training.") and outcome == "passed" for name, outcome in outcomes.items())
    assert "failed" not in outcomes.values()
    assert lab.containers(lab.alice) == []
    assert client.json("tunnel", "ls") == []
    assert list((lab.alice.home / ".cache/kit").glob("scratch.*")) == []


def test_the_host_is_measured_there(lab: Lab, client: Client) -> None:
    result = client.json("--host", "server", "bench", "tf-cpu", "--device", "cpu", "--only", "memory_copy")
    assert result["summary"]["outcome"] == "NOT_APPLICABLE"
    assert result["image"]["name"] == "tf-cpu"
    assert lab.containers(lab.alice) == []
    refused = client.kit("--host", "server", "bench", "tf-cpu", "--device", "cpu", "--host-compare", code=2)
    assert "measures on this machine" in refused.stderr


def test_the_host_is_examined(lab: Lab, client: Client, gpus_alone: None) -> None:
    # What it finds depends on the machine, and so does its exit code.
    there = client.run(KIT, "--host", "server", "doctor", "--json")
    assert there.returncode in (0, 1)
    host = json.loads(there.stdout)["host"]
    assert host["target"] == "remote"
    assert host["engine"]["version"], "kit's own engine is found over there"
    assert lab.alice.name not in there.stdout
    assert client.json("--host", "server", "gpus") == []
    assert client.json("--host", "server", "resolve", "tf")["image"] == "tf-cpu"
