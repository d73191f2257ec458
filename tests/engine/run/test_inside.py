"""A day of work inside a container: shells, names, output, signals, and plain `docker run`."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest
from docker import DockerClient

from kit import layout
from tests.engine import witness
from tests.engine.conftest import KIT, Kit
from tests.engine.notebook import execute, get, split
from tests.engine.remote.client import eventually

pytestmark = pytest.mark.engine
PYTHON = f"{layout.VENV}/bin/python"
# A training that saves what it has when it is told to end, which takes it a moment.
TRAINING = """
import pathlib, signal, sys, time
def save(number, _):
    time.sleep(2)
    pathlib.Path("checkpoint").write_text(str(number))
    sys.exit(0)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, save)
print("step 1")
pathlib.Path("started").touch()
time.sleep(600)
"""
BEHIND_A_SHELL = ("bash", "-c", "python train.py; echo done")


@pytest.mark.parametrize("shell", ["bash -lc", "bash -lic", "sh -lc", "bash -c"])
def test_every_shell_has_the_image_s_programs(kit: Kit, tf_cpu: str, workspace: Path, shell: str) -> None:
    done = kit("-q", "run", "-C", str(workspace), tf_cpu, *shell.split(), "command -v python; echo $SHELL; echo $PATH")
    program, variable, path = done.stdout.split()
    assert (program, variable) == (PYTHON, "/bin/bash")
    plain = kit("-q", "run", "-C", str(workspace), tf_cpu, "printenv", "PATH").stdout.strip()
    assert path == plain


def test_plain_docker_run_has_a_name_and_shells_for_any_user(docker: DockerClient, tf_cpu: str) -> None:
    program = "import getpass, tempfile; print(getpass.getuser())"
    for user in ("1000:1000", "4321", "4321:100"):
        words = ("bash", "-lc", f"touch ~/x /workspace/x && python -c '{program}'")
        assert witness.run(docker, f"kit/{tf_cpu}:latest", *words, user=user, cap_drop=["ALL"]) == "kit\n"


def test_torch_compile_works_for_a_user_whom_nothing_knows(docker: DockerClient, torch_cuda: str) -> None:
    program = "import torch; print(torch.compile(lambda x: (x * 2 + 1).sum())(torch.ones(64)).item())"
    words = ("python", "-c", program)
    assert witness.run(docker, f"kit/{torch_cuda}:latest", *words, user="4321", cap_drop=["ALL"]) == "192.0\n"


def test_dev_containers_are_told_the_user_by_name(docker: DockerClient, tf_cpu: str) -> None:
    image = docker.images.get(f"kit/{tf_cpu}:latest")
    assert json.loads(image.labels["devcontainer.metadata"]) == [{"remoteUser": "kit"}]
    assert witness.run(docker, image.id, "id", "-u", "kit") == f"{layout.UID}\n"


@pytest.fixture
def training(workspace: Path) -> Path:
    (workspace / "train.py").write_text(TRAINING)
    return workspace


def is_saved(workspace: Path, number: int) -> bool:
    file = workspace / "checkpoint"
    return file.exists() and file.read_text() == str(int(number))


def test_what_a_detached_training_prints_is_seen_at_once(kit: Kit, tf_cpu: str, training: Path) -> None:
    name = kit("run", "-d", "-C", str(training), tf_cpu, "python", "train.py").stdout.strip()
    try:
        eventually((training / "started").exists, "its start", timeout_s=60)
        assert kit("logs", name).stdout == "step 1\n"
    finally:
        kit("rm", "--force", name)


@pytest.mark.parametrize("command", [("python", "train.py"), BEHIND_A_SHELL], ids=["alone", "behind-a-shell"])
def test_a_training_that_is_stopped_saves_first(
    kit: Kit, tf_cpu: str, training: Path, command: tuple[str, ...]
) -> None:
    name = kit("run", "-d", "-C", str(training), tf_cpu, "--", *command).stdout.strip()
    try:
        eventually((training / "started").exists, "its start", timeout_s=60)
        kit("stop", name)
        assert is_saved(training, signal.SIGTERM)
    finally:
        kit("rm", "--force", name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", [("python", "train.py"), BEHIND_A_SHELL], ids=["alone", "behind-a-shell"])
def test_what_tells_kit_run_to_end_reaches_the_training(
    tf_cpu: str, docker: DockerClient, training: Path, command: tuple[str, ...], number: int
) -> None:
    before = witness.containers(docker)
    process = subprocess.Popen(
        [KIT, "run", "-C", str(training), tf_cpu, "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    eventually((training / "started").exists, "its start", timeout_s=60)
    process.send_signal(number)
    process.wait(timeout=60)
    assert is_saved(training, number)
    eventually(lambda: witness.containers(docker) == before, "its end")


def test_a_terminal_that_goes_away_lets_the_training_save(tf_cpu: str, docker: DockerClient, training: Path) -> None:
    before = witness.containers(docker)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(KIT, [KIT, "run", "-C", str(training), tf_cpu, "--", *BEHIND_A_SHELL])
    eventually((training / "started").exists, "its start", timeout_s=60)
    os.close(terminal)
    end = time.monotonic() + 60
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert (training / "checkpoint").exists()
    eventually(lambda: witness.containers(docker) == before, "its end")


def test_a_program_that_is_not_there_is_named(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    done = kit("-q", "run", "-C", str(workspace), tf_cpu, "no-such-program", code=127)
    assert "no-such-program: No such file or directory" in done.stderr


@pytest.mark.parametrize("base_url", ["/", "/user/me/"])
def test_the_health_check_finds_the_server_whatever_proxy_there_is(
    docker: DockerClient, tf_cpu: str, base_url: str
) -> None:
    image = docker.images.get(f"kit/{tf_cpu}:latest")
    check = image.attrs["Config"]["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    container = docker.containers.run(
        image.id,
        [*image.attrs["Config"]["Cmd"], f"--ServerApp.base_url={base_url}"],
        environment={"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},
        detach=True,
    )
    try:
        eventually(lambda: container.exec_run(check[1:]).exit_code == 0, "its health", timeout_s=60)
        container.exec_run(["pkill", "-STOP", "jupyter-lab"])
        assert container.exec_run(check[1:]).exit_code != 0
    finally:
        container.remove(force=True, v=True)


def test_tensorboard_in_a_notebook_is_at_the_notebook_s_address(jupyter: dict[str, str]) -> None:
    address, token = split(jupyter["url"])
    # What the browser would ask for, while the kernel is there: TensorBoard ends with it.
    shown = execute(
        jupyter["url"],
        "import time, urllib.request\n"
        "from tensorboard import notebook\n"
        "from unittest.mock import patch\n"
        "with patch('IPython.display.display', lambda found, **_: print(found.data)):\n"
        "    notebook.start('--logdir /tmp/logs --port 6123')\n"
        "address = 'http://127.0.0.1:8888/proxy/6123/'\n"
        f"asked = urllib.request.Request(address, headers={{'Authorization': 'token {token}'}})\n"
        "for _ in range(60):\n"
        "    try:\n"
        "        print(b'<title>TensorBoard' in urllib.request.urlopen(asked).read())\n"
        "        break\n"
        "    except OSError:\n"
        "        time.sleep(1)",
    )
    assert '"/proxy/6123/"' in shown
    assert shown.endswith("True\n")
    assert b"<title>TensorBoard" not in get(f"{address}/proxy/6123/")[1]


def test_two_projects_have_a_layout_of_jupyterlab_each(kit: Kit, tf_cpu: str, workspace: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o777)
    other.chmod(0o777)
    kept = f"{layout.HOME}/.jupyter/lab/workspaces"
    kit("-q", "run", "-C", str(workspace), tf_cpu, "sh", "-c", f"mkdir -p {kept} && echo {{}} > {kept}/default.json")
    assert kit("-q", "run", "-C", str(workspace), tf_cpu, "ls", kept).stdout == "default.json\n"
    kit("-q", "run", "-C", str(other), tf_cpu, "ls", kept, code=2)
