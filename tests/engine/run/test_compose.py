"""Compose files, rendered and written, with the real Compose on the real engine."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from kit import paths, ports, process
from kit.catalog import load_catalog
from kit.engine import Engine
from kit.errors import KitError
from kit.remote import ssh
from kit.render import compose_examples
from kit.spec.container import project_of
from tests.engine import witness
from tests.engine.conftest import Kit
from tests.engine.notebook import execute, get
from tests.engine.run.test_gpu_injection import LOOK
from tests.engine.run.test_gpu_injection import cdi as cdi
from tests.engine.sshd import Server, needs_sshd

pytestmark = pytest.mark.engine
# Nobody's, so that no test touches anybody's volumes.
UID = 54321
IMAGES = [image for image in load_catalog().images() if not image.flavor]

Compose = Callable[..., str]


@pytest.fixture
def compose(engine: Engine, workspace: Path, volumes: None) -> Iterator[Compose]:
    """Run Compose in the workspace; what it started there is taken down afterwards."""
    try:
        engine.call(["compose", "version"])
    except KitError:
        pytest.skip("this docker has no compose plugin")
    used: list[tuple[str, ...]] = []

    def run(*words: str, options: tuple[str, ...] = (), **variables: str) -> str:
        if words[0] in ("up", "run"):
            used.append(options)
        command = [engine.program, "compose", *options, *words]
        return process.run(command, cwd=workspace, env={**engine.environment, **variables}).stdout

    yield run
    for options in used:
        run("down", "--timeout", "2", options=options, JUPYTER_TOKEN="x")


@pytest.fixture(autouse=True)
def volumes(docker: DockerClient) -> Iterator[None]:
    """What the tests kept in volumes goes with them."""
    yield
    for volume in witness.volumes(docker, f"kit-{UID}-"):
        docker.volumes.get(volume).remove()


def free_port() -> str:
    """A port that nothing listens on, below those that systems give to outgoing connections: one could take it."""
    tries = (20000 + int.from_bytes(os.urandom(2), "big") % 12000 for _ in range(100))
    return str(next(port for port in tries if ports.is_free(port)))


def answer(url: str, *, token: str = "", timeout_s: float = 90) -> int:
    """The status of the first answer."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            return get(url, token=token)[0]
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_the_example_of_every_image_is_valid(compose: Compose, tmp_path: Path) -> None:
    examples = [(image, name, text) for image in IMAGES for name, text in compose_examples(image).items()]
    # One call for each; in one call for all the files would be merged.
    for image, name, text in examples:
        file = tmp_path / name
        file.write_text(text)
        form = "cdi" if ".cdi." in name else "nvidia"
        data = json.loads(compose("config", "--format=json", options=(f"--file={file}",), JUPYTER_TOKEN="x"))
        service = data["services"]["jupyter"]
        assert service["image"] == image.reference
        assert service["ports"][0]["host_ip"] == "127.0.0.1"
        devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        assert [device["driver"] for device in devices] == ([form] if image.is_gpu else [])


def test_no_token_no_server(compose: Compose) -> None:
    with pytest.raises(KitError) as caught:
        compose("config", options=(f"--file={paths.compose_dir() / 'tf-cpu.yaml'}",))
    assert "JUPYTER_TOKEN" in " ".join((caught.value.message, *caught.value.details))


def test_a_rendered_file_as_it_is(compose: Compose, tf_cpu: str, workspace: Path) -> None:
    port, token = free_port(), "a-token-of-the-test"
    settings = {"JUPYTER_TOKEN": token, "JUPYTER_PORT": port, "FOLDER": str(workspace)}
    # The engine of a container may give no more than it has itself.
    settings |= {"USER_ID": str(UID), "GROUP_ID": "54322", "OPEN_FILES": "4096"}
    options = (f"--file={paths.compose_dir() / f'{tf_cpu}.yaml'}", f"--project-name=kit-test-{UID}")
    compose("up", "--detach", options=options, **settings)
    address = f"http://127.0.0.1:{port}"
    assert answer(f"{address}/api/status", token=token) == 200
    assert get(f"{address}/api/status")[0] == 403
    who = "import getpass, os; open('made', 'w'); print(getpass.getuser(), os.getuid(), os.getgid())"
    assert execute(f"{address}/lab?token={token}", who) == f"kit {UID} 54322\n"
    made = (workspace / "made").stat()
    assert (made.st_uid, made.st_gid) == (UID, 54322)


def test_what_kit_compose_writes(
    kit: Kit, compose: Compose, docker: DockerClient, tf_cpu: str, workspace: Path
) -> None:
    board = workspace / "runs"
    board.mkdir()
    workspace.chmod(0o777)
    port, board_port = free_port(), free_port()
    words = ("--with", "tensorboard", "--user", str(UID), "--port", port, "--logdir", "runs", "-e", "LIMIT=a $HOME")
    kit("compose", tf_cpu, *words, cwd=workspace)
    project = f"kit-{UID}-{project_of(workspace)}"
    assert {f"{project}-home", f"{project}-{tf_cpu}-local"} <= witness.volumes(docker)
    compose("up", "--detach", TENSORBOARD_PORT=board_port)
    token = (workspace / ".env").read_text().split("JUPYTER_TOKEN=")[1].strip()
    address = f"http://127.0.0.1:{port}"
    assert answer(f"{address}/api/status", token=token) == 200
    assert get(f"{address}/api/status")[0] == 403
    assert answer(f"http://127.0.0.1:{board_port}/", token=token) == 200
    assert get(f"http://127.0.0.1:{board_port}/")[0] == 403

    name = f"kit-workspace-{UID}"
    listed = {c["name"]: c for c in json.loads(kit("--json", "ps").stdout) if c["name"].startswith(name)}
    assert {c["service"] for c in listed.values()} == {"jupyter", "tensorboard"}
    notebook = listed[f"{name}-jupyter-1"]
    assert (notebook["image"], notebook["user"]) == (tf_cpu, f"{UID}:{UID}")
    assert notebook["url"] == f"{address}/lab?token={token}" == kit("url", f"{name}-jupyter").stdout.strip()
    look = (
        'echo "$LIMIT" $(id -un) $(stat -c %a:%u /etc/passwd) $(ulimit -c >/dev/null && grep CapEff /proc/self/status)'
    )
    done = kit("exec", f"{name}-jupyter", "sh", "-c", look).stdout.split()
    assert done == ["a", "$HOME", "kit", "444:0", "CapEff:", "0000000000000000"]

    # A container of `kit run` has the same home; what one keeps there, the other finds.
    kit("exec", f"{name}-jupyter", "sh", "-c", "echo kept > ~/kept")
    same = kit("run", "-C", str(workspace), "--user", str(UID), tf_cpu, "cat", "/home/kit/kept")
    assert same.stdout == "kept\n"
    kit("stop", "--time", "2", f"{name}-jupyter", f"{name}-tensorboard")
    compose("down", "--volumes", "--timeout", "2")
    assert kit("run", "-C", str(workspace), "--user", str(UID), tf_cpu, "cat", "/home/kit/kept").stdout == "kept\n"


@needs_sshd
def test_for_a_machine_behind_ssh(
    kit: Kit, docker: DockerClient, tf_cpu: str, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sshd").mkdir()
    server = Server(tmp_path / "sshd")
    monkeypatch.setenv("KIT_SSH", server.ssh(hosts="kit-test-compose"))
    try:
        done = kit("--host", "kit-test-compose", "compose", tf_cpu, "--user", str(UID), cwd=workspace)
        account = ssh.connect("kit-test-compose").account
        ssh.close("kit-test-compose")
    finally:
        server.stop()
    text = (workspace / "compose.yaml").read_text()
    assert f'kit.owner: "{account.uid}"' in text
    assert "external: true" in text
    assert any(re.fullmatch(rf"kit-{UID}-workspace-\w+-\w+-home", name) for name in witness.volumes(docker))
    assert "it is for kit-test-compose" in done.stderr


def test_a_gpu_by_cdi(kit: Kit, compose: Compose, tf_cpu: str, workspace: Path, cdi: None) -> None:
    # Any image can be given a device; that of the file is several gigabytes.
    substitute = {"image": f"kit/{tf_cpu}:latest"}
    for which, expected in (
        ("all", "nvidia0 nvidia1 injected\nlibrary\n"),
        ("device=1", "nvidia1 injected\nlibrary\n"),
    ):
        written = kit("compose", "torch2.7-cu126", "--user", str(UID), "--gpus", which, cwd=workspace).stderr
        assert "GPUs by CDI\n" in written
        (workspace / "image.json").write_text(json.dumps({"services": {"jupyter": substitute}}))
        options = ("--file=compose.yaml", "--file=image.json")
        command = ("run", "--rm", "--no-TTY", "jupyter", "sh", "-c", f"{LOOK}; echo $NVIDIA_VISIBLE_DEVICES")
        assert compose(*command, options=options) == f"{expected}void\n"


def test_a_gpu_the_engine_cannot_give(
    kit: Kit, compose: Compose, tf_cpu: str, workspace: Path, gpus_alone: None
) -> None:
    written = kit("compose", "torch2.7-cu126", "--user", str(UID), "--gpu-form", "nvidia", cwd=workspace).stderr
    assert "passes no GPU in" in written or Path("/dev/nvidiactl").exists()
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this host has an NVIDIA GPU")
    (workspace / "image.json").write_text(json.dumps({"services": {"jupyter": {"image": f"kit/{tf_cpu}:latest"}}}))
    with pytest.raises(KitError) as caught:
        compose("run", "--rm", "jupyter", "true", options=("--file=compose.yaml", "--file=image.json"))
    # The engine took the request for what it is, and has nobody to answer it.
    assert 'could not select device driver "nvidia"' in " ".join((caught.value.message, *caught.value.details))
