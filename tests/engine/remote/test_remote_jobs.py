"""Training on a server as one user would: start, disconnect, reconnect, see the log, get exit code and model."""

from __future__ import annotations

import shlex
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.engine.conftest import KIT
from tests.engine.remote.client import Client, eventually
from tests.engine.remote.conftest import Host

pytestmark = pytest.mark.engine
# Real training, which goes on until it is told to end, so that a test may take its time in between.
TRAIN = """
import os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
print("begin", flush=True)
import keras
import numpy as np
import settings

generator = np.random.default_rng(0)
x = generator.normal(size=(64, 4))
model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
model.compile(optimizer="sgd", loss="mse")
step = 0
while step < settings.STEPS or not os.path.exists("end"):
    loss = model.fit(x, x.sum(axis=1), verbose=0).history["loss"][0]
    print(f"step {step} loss {loss:.4f}", flush=True)
    step += 1
    time.sleep(0.5)
os.makedirs("models", exist_ok=True)
model.save("models/final.keras")
print("saved", flush=True)
sys.exit(7)
"""
# The same without TensorFlow, whose import takes seconds.
COUNT = """
import os, sys, time
print("begin", flush=True)
step = 0
while not os.path.exists("end"):
    print(f"step {step}", flush=True)
    step += 1
    time.sleep(0.2)
print("over", flush=True)
sys.exit(7)
"""


@pytest.fixture
def counting(project: Path) -> Path:
    (project / "train.py").write_text(COUNT)
    return project


def end(host: Host) -> None:
    """Tell the job to come to its end, by a file in its folder on the server."""
    for script in host.account.home.rglob("train.py"):
        (script.parent / "end").touch()


def only_container(host: Host) -> str:
    names = host.containers()
    assert len(names) == 1
    return names[0]


def assert_whole_log(text: str) -> None:
    """The log from its first line, with no step left out and none twice."""
    lines = text.splitlines()
    assert lines[0] == "begin"
    steps = [int(line.split()[1]) for line in lines if line.startswith("step ")]
    assert steps == list(range(len(steps)))


def test_training(host: Host, client: Client, project: Path) -> None:
    (project / "train.py").write_text(TRAIN)
    (project / "settings.py").write_text("STEPS = 3\n")
    (project / ".gitignore").write_text("models/\n__pycache__/\n")
    job = client.start("--host", host.name, "run", "tf-cpu", "--", "python", "train.py", cwd=project)
    job.until("step 1")
    job.interrupt()
    assert job.code() == 130
    name = only_container(host)
    assert f"kit --host {host.name} logs -f {name}" in job.err
    assert f"kit --host {host.name} stop {name}" in job.err
    # The laptop is closed: not even the shared connection is left.
    client.close()
    eventually(client.is_quiet, "no process of the client's", timeout_s=20)

    seen = host.log(name).count("step ")
    eventually(lambda: host.log(name).count("step ") > seen, "the training goes on")
    assert [row["status"] for row in host.listed()] == ["running"]
    again = client.start("--host", host.name, "logs", "-f", name, cwd=project)
    again.until("step 2")
    end(host)
    assert again.code() == 7
    assert_whole_log(again.out)
    assert again.out.splitlines()[-1] == "saved"

    (row,) = host.listed("--all")
    assert (row["name"], row["status"], row["exit_code"]) == (name, "exited", 7)
    client.kit("--host", host.name, "fetch", cwd=project)
    with zipfile.ZipFile(project / "models/final.keras") as model:
        assert "config.json" in model.namelist()
    client.kit("--host", host.name, "rm", name)


def test_output_and_exit_code_come_back(host: Host, client: Client, project: Path) -> None:
    done = client.kit(
        *("--quiet", "--host", host.name, "run", "tf-cpu", "--", "sh", "-c", "echo out; echo err >&2; exit 7"),
        code=7,
        cwd=project,
    )
    assert done.stdout == "out\n"
    assert done.stderr.splitlines()[0] == "err"
    assert host.containers(everything=False) == []


def test_standard_input_goes_there(host: Host, client: Client, project: Path) -> None:
    (project / "s.py").write_text("import sys\nprint(6 * 7)\nsys.exit(3)\n" + "# more\n" * 50_000)
    kit = f"{shlex.quote(KIT)} -q --host {host.name} run tf-cpu --"
    done = client.run("sh", "-c", f"{kit} python - <s.py", cwd=project)
    assert (done.returncode, done.stdout) == (3, "42\n"), done.stderr
    done = client.run("sh", "-c", f"{{ echo one; sleep 3; echo two; }} | {kit} cat", cwd=project)
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n"), done.stderr
    assert host.containers(everything=False) == []


def test_python_alone_has_the_terminal(host: Host, client: Client, project: Path) -> None:
    typed = "printf 'print(6 * 7)\\nexit()\\n'; sleep 20"
    spawn = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    words = [sys.executable, "-c", spawn, KIT, "--host", host.name, "run", "tf-cpu", "--", "python"]
    done = client.run("sh", "-c", f"{{ {typed}; }} | {shlex.join(words)}", cwd=project)
    assert "\n42" in done.stdout.replace("\r", ""), done.stdout + done.stderr
    assert ">>>" in done.stdout
    assert host.containers(everything=False) == []


def test_what_is_printed_shows_at_once(host: Host, client: Client, project: Path) -> None:
    (project / "train.py").write_text(
        "import os, time\nprint('begun')\nwhile not os.path.exists('end'): time.sleep(0.1)\n"
    )
    job = client.start("--host", host.name, "run", "tf-cpu", "--", "python", "train.py", cwd=project)
    job.until("begun", timeout_s=60)
    end(host)
    assert job.code() == 0


def test_detached_from_the_beginning(host: Host, client: Client, counting: Path) -> None:
    began = time.monotonic()
    client.kit("--host", host.name, "run", "--detach", "tf-cpu", "--", "python", "train.py", cwd=counting)
    assert time.monotonic() - began < 30
    name = only_container(host)
    eventually(lambda: "step 3" in host.log(name), "the job counts")
    end(host)
    follow = client.start("--host", host.name, "logs", "-f", name, cwd=counting)
    assert follow.code() == 7
    assert_whole_log(follow.out)


def test_killed_client_leaves_the_job_and_no_orphan(host: Host, client: Client, counting: Path) -> None:
    job = client.start("--host", host.name, "run", "tf-cpu", "--", "python", "train.py", cwd=counting)
    job.until("step 2")
    job.kill()
    eventually(lambda: not client.leftovers(), "nothing that the killed kit started", timeout_s=30)
    name = only_container(host)
    assert [row["name"] for row in host.listed()] == [name]
    end(host)
    follow = client.start("--host", host.name, "logs", "-f", name, cwd=counting)
    assert follow.code() == 7
    assert_whole_log(follow.out)


# What reads a log on is other code with Podman; that a link is cut is noticed by ssh, whatever the engine.
@pytest.mark.parametrize(
    ("host", "how"), [("docker", "sshd"), ("docker", "link"), ("podman", "sshd")], indirect=["host"]
)
def test_output_goes_on_after_the_connection_broke(host: Host, client: Client, counting: Path, how: str) -> None:
    job = client.start("--host", host.name, "run", "tf-cpu", "--", "python", "train.py", cwd=counting)
    job.until("step 2")
    name = only_container(host)
    if how == "sshd":
        host.lab.sshd.kill()
        eventually(lambda: f"connection to {host.name} is lost" in job.err, "kit says that it lost the connection")
        host.lab.sshd.start()
    else:
        client.link.cut()
        # It is noticed after half a minute.
        eventually(lambda: f"connection to {host.name} is lost" in job.err, "kit says that it lost the connection")
        client.link.restore()
    step = host.log(name).count("step ")
    # It finds its way back by itself, and tells what it missed.
    job.until(f"step {step}")
    end(host)
    assert job.code() == 7
    assert_whole_log(job.out)
    assert job.out.splitlines()[-1] == "over"
    assert host.containers() == []
