"""The addresses VS Code attaches under: what they say of the engine leads docker to the container."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import process
from kit.engine import connect
from kit.remote import ssh
from tests.engine.conftest import Kit, as_environment
from tests.engine.sshd import Server, needs_sshd

pytestmark = pytest.mark.engine
TARGET = "kit-test-code"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("sshd"))
    yield running
    running.stop()


def payload(uri: str) -> dict[str, object]:
    authority, _, path = uri.strip().removeprefix("vscode-remote://attached-container+").partition("/")
    assert path == "workspace"
    found: dict[str, object] = json.loads(bytes.fromhex(authority))
    return found


def names_through(found: dict[str, object], environment: dict[str, str]) -> str:
    """The name that docker, told only what VS Code is told, has for the container."""
    settings = found.get("settings") or {}
    assert isinstance(settings, dict)
    docker = [shutil.which("docker", path=environment["PATH"]) or connect().program]
    docker += [f"--host={settings['host']}"] if settings else []
    command = [*docker, "container", "inspect", "--format={{.Name}}", str(found["containerName"])]
    return process.run(command, env={**environment, "DOCKER_CONTEXT": "", "DOCKER_HOST": ""}).stdout.strip()


def test_on_this_machine(kit: Kit, jupyter: dict[str, str]) -> None:
    found = payload(kit("code", jupyter["name"]).stdout)
    assert found["containerName"] == f"/{jupyter['name']}"
    assert names_through(found, dict(os.environ)) == f"/{jupyter['name']}"


@needs_sshd
def test_on_a_machine_behind_ssh(
    kit: Kit, jupyter: dict[str, str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, command = jupyter["name"], server.ssh(hosts=TARGET)
    # An ssh that only kit knows: docker goes through kit's connection.
    monkeypatch.setenv("KIT_SSH", command)
    done = kit("--host", TARGET, "code", name)
    found = payload(done.stdout)
    assert "kit's connection" in done.stderr
    assert names_through(found, dict(os.environ)) == f"/{name}"
    assert ssh.close(TARGET)

    # The `ssh` that docker uses too.
    monkeypatch.delenv("KIT_SSH")
    wrapper = tmp_path / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} {command.partition(" ")[2]} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    try:
        found = payload(kit("code", "--host", TARGET, name, env=as_environment()).stdout)
        if not ssh.connect(TARGET).account.has_docker:
            pytest.skip("a login on this machine finds no `docker`, so docker cannot be used over SSH")
    finally:
        ssh.close(TARGET)
    settings = found["settings"]
    assert isinstance(settings, dict)
    assert settings["host"].startswith(f"ssh://{TARGET}")
    assert names_through(found, dict(os.environ)) == f"/{name}"
