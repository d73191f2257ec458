import json
import os

import pytest

from tests.fake_docker import container

NAME = "kit-tf-cpu-jupyter-ab12"


@pytest.fixture
def docker(fake_docker):
    own = {"kit.owner": str(os.getuid())}
    theirs = {"kit.owner": str(os.getuid() + 1)}
    fake_docker.reply("ps", stdout="a\nb\nc\n")
    containers = [
        container(NAME, labels=own),
        container("kit-tf-cpu-run-cd34", labels={**own, "kit.service": ""}, state={"Status": "exited"}),
        container("kit-torch-cpu-jupyter-ef56", labels=theirs),
    ]
    fake_docker.reply("container", "inspect", stdout=json.dumps(containers))
    return fake_docker


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A `code` on PATH that writes down what it is given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    file = folder / "code"
    file.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n')
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "arguments"


def uri(folder="/workspace"):
    text = f'{{"containerName":"/{NAME}","settings":{{"host":"unix:///fake.sock"}}}}'
    return f"vscode-remote://attached-container+{text.encode().hex()}{folder}"


def test_the_address_alone_is_data(kit, docker):
    result = kit("code", NAME)
    assert (result.code, result.out) == (0, f"{uri()}\n")
    assert len(result.err.splitlines()) == 1
    assert kit("--quiet", "code", NAME).err == ""


def test_another_folder(kit, docker):
    assert kit("code", "--folder", "/opt/kit", NAME).out == f"{uri('/opt/kit')}\n"
    result = kit("code", "--folder", "src", NAME)
    assert (result.code, result.out) == (2, "")


def test_for_programs(kit, docker):
    data = json.loads(kit("code", NAME, "--json").out)
    assert data == {"name": NAME, "folder": "/workspace", "uri": uri(), "opened": False}


def test_with_podman_vs_code_must_be_told(kit, docker, monkeypatch):
    docker.program.rename(docker.bin / "podman")
    monkeypatch.setenv("KIT_ENGINE", "podman")
    result = kit("code", NAME)
    text = f'{{"containerName":"/{NAME}"}}'
    assert (result.code, result.out) == (0, f"vscode-remote://attached-container+{text.encode().hex()}/workspace\n")
    assert result.err.splitlines()[-1].endswith('"dev.containers.dockerPath": "podman" in its settings')


def test_open_starts_vs_code(kit, docker, code):
    result = kit("code", "--open", NAME)
    assert (result.code, result.out) == (0, "")
    assert result.err == f"opened /workspace of {NAME} in VS Code\n"
    assert code.read_text() == f"--folder-uri\n{uri()}\n"


def test_open_without_vs_code(kit, docker):
    result = kit("code", "--open", "--program", "code-of-nobody", NAME)
    assert (result.code, result.out) == (21, "")
    assert "code-of-nobody" in result.err.splitlines()[0]
    assert result.err.splitlines()[1].startswith("hint: ")


def test_only_what_runs_can_be_attached_to(kit, docker):
    result = kit("code", "kit-tf-cpu-run-cd34")
    assert (result.code, result.out) == (13, "")
    assert "exited" in result.err
    assert kit("code", "nothing").code == 13


def test_another_users_container_is_theirs(kit, docker):
    result = kit("code", "torch-cpu")
    assert (result.code, result.out) == (2, "")
    assert kit("code", "--force", "torch-cpu").code == 0
