"""`kit run` and the life of its containers, on a real engine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from docker import DockerClient

from kit.spec.container import project_of
from tests.engine.conftest import KIT, Kit
from tests.engine.notebook import execute, get, split
from tests.engine.remote.client import eventually
from tests.engine.witness import containers, volumes

pytestmark = pytest.mark.engine
HUGE_UID = 1234567890


def test_exit_code_output_and_input_pass_through(kit: Kit, tf_cpu: str, docker: DockerClient, workspace: Path) -> None:
    before = containers(docker)
    done = kit("-q", "run", "-C", str(workspace), tf_cpu, "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    piped = subprocess.run(
        [KIT, "-q", "run", "-C", str(workspace), tf_cpu, "cat"],
        input="through\n",
        text=True,
        capture_output=True,
        check=True,
    )
    assert piped.stdout == "through\n"
    assert containers(docker) == before


def test_huge_uid_writes_as_itself(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    script = "id -u; id -un; touch made ~/x ~/.cache/pip/x && python -c 'import getpass; print(getpass.getuser())'"
    done = kit("-q", "run", "-C", str(workspace), "--user", str(HUGE_UID), tf_cpu, "sh", "-c", script)
    assert done.stdout.split() == [str(HUGE_UID), "kit", "kit"]
    assert (workspace / "made").stat().st_uid == HUGE_UID


def test_home_and_caches_outlive_the_container(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    arguments = ("-q", "run", "-C", str(workspace), "--user", "54321", tf_cpu, "sh", "-c")
    kit(*arguments, "date > ~/.cache/huggingface/kept")
    assert kit(*arguments, "cat ~/.cache/huggingface/kept").stdout.strip()


def test_container_has_no_privileges(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    done = kit("-q", "run", "-C", str(workspace), tf_cpu, "grep", "-E", "CapEff|NoNewPrivs|CapBnd", "/proc/self/status")
    fields = dict(line.split(":\t") for line in done.stdout.splitlines())
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"


def test_shared_memory_is_half_the_machine(kit: Kit, tf_cpu: str, docker: DockerClient, workspace: Path) -> None:
    done = kit("-q", "run", "-C", str(workspace), tf_cpu, "df", "--output=size", "-B1", "/dev/shm")
    expected = min(docker.info()["MemTotal"] // 2, 16 * 2**30)
    assert abs(int(done.stdout.split()[-1]) - expected) < 2**20


PIP_IN_ONE_PROCESS = (
    "import subprocess, sys\n"
    "subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', 'cowsay'], check=True)\n"
    "import cowsay; print(cowsay.__name__)"
)


def test_pip_adds_packages_and_leaves_the_framework_alone(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    arguments = ("-q", "run", "-C", str(workspace), "--user", "54322", tf_cpu)
    assert kit(*arguments, "python", "-c", PIP_IN_ONE_PROCESS).stdout == "cowsay\n", "without another start"
    assert kit(*arguments, "python", "-c", "import cowsay; print(cowsay.__name__)").stdout == "cowsay\n"
    refused = kit(*arguments, "pip", "install", "--quiet", "tensorflow-cpu==2.19.1", code=1)
    assert "kit: this image is the one for tensorflow-cpu==" in refused.stderr
    assert "named `tf2.19`" in refused.stderr
    listed = kit(*arguments, "pip", "list", "--format=freeze").stdout
    assert "\nkeras==" in listed, "what is locked"
    assert "\ncowsay==" in listed, "and what was added"
    kit(*arguments, "pip", "uninstall", "--yes", "--quiet", "cowsay")
    assert "No module named" in kit(*arguments, "python", "-c", "import cowsay", code=1).stderr


def test_reset_takes_out_all_that_was_added(kit: Kit, tf_cpu: str, docker: DockerClient, workspace: Path) -> None:
    run = ("-q", "run", "-C", str(workspace), tf_cpu)
    kit(*run, "sh", "-c", "pip install --quiet cowsay && echo kept > ~/kept")
    name = next(n for n in volumes(docker, "kit-") if f"{project_of(workspace)}-tf-cpu-local" in n)
    users = docker.containers.run(f"kit/{tf_cpu}", "sleep 60", detach=True, volumes=[f"{name}:/home/kit/.local"])
    try:
        assert users.name in kit("--yes", "reset", "-C", str(workspace), "tf-cpu", code=2).stderr
    finally:
        users.remove(force=True)
    kit("--yes", "reset", "-C", str(workspace), "tf-cpu")
    assert name not in volumes(docker, "kit-")
    assert "No module named" in kit(*run, "python", "-c", "import cowsay", code=1).stderr
    assert kit(*run, "cat", "/home/kit/kept").stdout == "kept\n", "the rest of the home folder stays"


def test_pip_may_replace_what_the_framework_is_not_built_with(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    shell = ("-q", "run", "-C", str(workspace), tf_cpu, "sh", "-c")
    kit(*shell, "pip install --quiet 'tqdm<4.67'")
    version = "python -c 'import tqdm; print(tqdm.__version__)'"
    assert kit(*shell, version).stdout.startswith("4.66")
    kit(*shell, "pip uninstall --yes --quiet tqdm")
    assert not kit(*shell, version).stdout.startswith("4.66")
    kit(*shell, "pip install --quiet --target /workspace/target cowsay")
    assert (workspace / "target/cowsay").is_dir()


def test_an_environment_of_the_users_own_is_not_bound(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    shell = ("-q", "run", "-C", str(workspace), tf_cpu, "sh", "-c")
    # Without ensurepip: the pip of the image installs into it.
    kit(*shell, "python -m venv --without-pip own && pip --python own install --quiet 'numpy<2' pip")
    assert kit(*shell, "own/bin/python -c 'import numpy; print(numpy.__version__)'").stdout.startswith("1.")
    assert "constraint" not in kit(*shell, "own/bin/python -m pip config list").stdout


def test_jupyter_answers_with_its_token_only(jupyter: dict[str, str]) -> None:
    address, token = split(jupyter["url"])
    assert get(f"{address}/api/status", token=token)[0] == 200
    assert get(f"{address}/api/status")[0] == 403
    assert get(f"{address}/api/status", token="0" * len(token))[0] == 403
    assert len(token) >= 32


def test_notebook_cell_runs_tensorflow(jupyter: dict[str, str], workspace: Path) -> None:
    code = (
        "import tensorflow as tf, os\n"
        "print(int(tf.reduce_sum(tf.ones((3, 4)))), os.getcwd())\nopen('from-kernel', 'w').write('x')"
    )
    assert execute(jupyter["url"], code) == "12 /workspace\n"
    assert (workspace / "from-kernel").read_text() == "x"


def test_life_cycle_by_name(kit: Kit, jupyter: dict[str, str]) -> None:
    name = jupyter["name"]
    row = next(r for r in json.loads(kit("--json", "ps").stdout) if r["name"] == name)
    assert (row["image"], row["service"], row["status"], row["url"]) == ("tf-cpu", "jupyter", "running", jupyter["url"])
    assert kit("url", name).stdout.strip() == jupyter["url"]
    assert kit("url", name.removeprefix("kit-")).stdout.strip() == jupyter["url"]
    assert kit("exec", name, "sh", "-c", "pwd; exit 3", code=3).stdout == "/workspace\n"
    logs = kit("logs", name)
    assert "Jupyter Server" in logs.stdout + logs.stderr
    assert "running" in kit("rm", name, code=2).stderr
    kit("stop", name)
    assert all(r["name"] != name for r in json.loads(kit("--json", "ps").stdout))
    assert next(r for r in json.loads(kit("--json", "ps", "--all").stdout) if r["name"] == name)["url"] == ""
    kit("url", name, code=13)


def test_token_is_in_no_argument_list(jupyter: dict[str, str]) -> None:
    _, token = split(jupyter["url"])
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert token.encode() not in process.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue


def listening() -> set[tuple[str, int]]:
    """(address, port) of every TCP socket that listens on this machine."""
    found = set()
    for table, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A":
                address, port = local.split(":")
                words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
                found.add((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
    return found


def test_notebooks_at_once_get_a_port_each_on_loopback(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    before = listening()

    def start(_: int) -> dict[str, str]:
        started: dict[str, str] = json.loads(kit("--json", "run", "-C", str(workspace), tf_cpu, "jupyter").stdout)
        return started

    # Twenty processes draw twenty ports in tests/unit/test_ports.py.
    with ThreadPoolExecutor(8) as pool:
        started = list(pool.map(start, range(8)))
    try:
        new = listening() - before
        ports = {int(split(s["url"])[0].rpartition(":")[2]) for s in started}
        assert len(ports) == 8
        assert ports <= {port for _, port in new}
        assert {address for address, port in new if port in ports} == {"127.0.0.1"}
        for s in started:
            address, token = split(s["url"])
            assert get(f"{address}/api/status", token=token)[0] == 200
    finally:
        kit("rm", "--force", *(s["name"] for s in started))


def test_tensorboard_answers(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    started = json.loads(kit("--json", "run", "-C", str(workspace), "--logdir", "runs", tf_cpu, "tensorboard").stdout)
    try:
        status, body = get(started["url"])
        assert status == 200
        assert b"TensorBoard" in body
        assert get(started["url"].partition("?")[0])[0] == 403
    finally:
        kit("rm", "--force", started["name"])


def test_asked_port_in_use_is_refused_and_leaves_nothing(
    kit: Kit, tf_cpu: str, docker: DockerClient, workspace: Path
) -> None:
    before = containers(docker)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = kit("run", "-C", str(workspace), "--port", str(port), tf_cpu, "jupyter", code=16)
    assert f"port {port}" in done.stderr
    assert "Traceback" not in done.stderr
    assert containers(docker) == before


def test_service_that_ends_is_reported_with_its_last_lines(
    kit: Kit, tf_cpu: str, docker: DockerClient, workspace: Path
) -> None:
    before = containers(docker)
    done = kit(
        "run",
        "-C",
        str(workspace),
        "--env",
        "JUPYTER_CONFIG_PATH=/nowhere",
        "--env",
        "JUPYTER_PREFER_ENV_PATH=x",
        "--env",
        "PYTHONHOME=/nowhere",
        tf_cpu,
        "jupyter",
        code=18,
    )
    assert "ended with exit code" in done.stderr
    assert containers(docker) == before


def calls_docker(process: subprocess.Popen[bytes]) -> bool:
    """Whether a program that the process started is docker."""
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "docker":
                return True
    return False


@pytest.mark.parametrize("moment", ["docker-is-called", "container-is-made", "container-runs"])
def test_interrupt_during_start_leaves_no_container(
    tf_cpu: str, docker: DockerClient, workspace: Path, moment: str
) -> None:
    before = containers(docker)
    process = subprocess.Popen(
        [KIT, "run", "-C", str(workspace), tf_cpu, "jupyter"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )

    def has_come() -> bool:
        if moment == "docker-is-called":
            return calls_docker(process)
        return any(
            moment == "container-is-made" or docker.containers.get(name).status == "running"
            for name in containers(docker) - before
        )

    # JupyterLab takes a second or more from here until it answers, which is when the start is over.
    eventually(has_come, moment, interval_s=0.01)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert containers(docker) == before


def test_killed_during_start_then_the_same_command_succeeds(
    kit: Kit, tf_cpu: str, docker: DockerClient, workspace: Path
) -> None:
    before = containers(docker)
    process = subprocess.Popen(
        [KIT, "run", "-C", str(workspace), tf_cpu, "jupyter"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: containers(docker) - before, "its container", interval_s=0.01)
    process.kill()
    process.wait()
    started = json.loads(kit("--json", "run", "-C", str(workspace), tf_cpu, "jupyter").stdout)
    address, token = split(started["url"])
    assert get(f"{address}/api/status", token=token)[0] == 200
    # What the killed one may have left is either running, and `kit ps` shows it, or swept away.
    left = containers(docker) - before - {started["name"]}
    shown = {r["name"] for r in json.loads(kit("--json", "ps").stdout)}
    assert left <= shown
    kit("rm", "--force", started["name"], *left)


def test_a_detached_command_is_followed_to_its_exit_code(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    script = "for n in 1 2 3; do echo $n; sleep 0.5; done; echo err >&2; exit 9"
    started = json.loads(kit("--json", "run", "-d", "-C", str(workspace), tf_cpu, "--", "sh", "-c", script).stdout)
    name = started["name"]
    try:
        assert (started["image"], started["service"], started["host"]) == (tf_cpu, "", "")
        followed = kit("logs", "-f", name, code=9)
        assert (followed.stdout, followed.stderr) == ("1\n2\n3\n", "err\n")
        assert kit("logs", "-f", name, code=9).stdout == followed.stdout, "the log of one that ended"
        ended = next(row for row in json.loads(kit("--json", "ps", "--all").stdout) if row["name"] == name)
        assert (ended["status"], ended["exit_code"]) == ("exited", 9)
        (line,) = [line for line in kit("ps", "--all").stdout.splitlines() if line.startswith(name)]
        assert "exited (9)" in line
    finally:
        kit("rm", "--force", name)


def test_tensorboard_beside_the_notebook(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    started = json.loads(kit("--json", "run", "-C", str(workspace), "--tensorboard", tf_cpu, "jupyter").stdout)
    (beside,) = started["beside"]
    try:
        assert (started["service"], beside["service"]) == ("jupyter", "tensorboard")
        assert get(beside["url"])[0] == 200
        shown = {row["name"]: row["url"] for row in json.loads(kit("--json", "ps").stdout)}
        assert shown[started["name"]] == started["url"]
        assert shown[beside["name"]] == beside["url"]
    finally:
        kit("rm", "--force", started["name"], beside["name"])


def test_variables_of_a_file_are_in_no_argument_list(tf_cpu: str, workspace: Path, tmp_path: Path) -> None:
    file = tmp_path / "secrets.env"
    file.write_text("# for the test\nTOKEN=top-secret-71\nLANGUAGE=de\n")
    arguments = ("-q", "run", "--env-file", str(file), "-e", "LANGUAGE=fr", "-C", str(workspace), tf_cpu)
    command = [KIT, *arguments, "sh", "-c", "echo $TOKEN $LANGUAGE; sleep 1"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    seen: set[str] = set()
    while process.poll() is None:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                seen.add(entry.read_text(errors="replace"))
        time.sleep(0.02)
    assert process.communicate(timeout=30)[0] == "top-secret-71 fr\n"
    assert any(f"source={workspace}" in line for line in seen), "the docker command was seen"
    assert not any("top-secret-71" in line for line in seen)
