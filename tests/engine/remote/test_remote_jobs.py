"""Training on a server as one user would: start, disconnect, reconnect, see the log, get exit code and model."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import pytest

from tests.engine.remote.client import Client, eventually
from tests.engine.remote.conftest import Lab

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


def end(lab: Lab) -> None:
    """Tell the job to come to its end, by a file in its folder on the server."""
    for script in lab.alice.home.rglob("train.py"):
        (script.parent / "end").touch()


def only_container(lab: Lab) -> str:
    names = lab.containers(lab.alice)
    assert len(names) == 1
    return names[0]


def assert_whole_log(text: str) -> None:
    """The log from its first line, with no step left out and none twice."""
    lines = text.splitlines()
    assert lines[0] == "begin"
    steps = [int(line.split()[1]) for line in lines if line.startswith("step ")]
    assert steps == list(range(len(steps)))


def test_training(lab: Lab, client: Client, project: Path) -> None:
    (project / "train.py").write_text(TRAIN)
    (project / "settings.py").write_text("STEPS = 3\n")
    (project / ".gitignore").write_text("models/\n__pycache__/\n")
    job = client.start("--host", "server", "run", "tf-cpu", "--", "python", "train.py", cwd=project)
    job.until("step 1")
    job.interrupt()
    assert job.code() == 130
    name = only_container(lab)
    assert f"kit --host server logs -f {name}" in job.err
    assert f"kit --host server stop {name}" in job.err
    # The laptop is closed: not even the shared connection is left.
    client.close()
    eventually(client.is_quiet, "no process of the client's", timeout_s=20)

    seen = lab.docker_logs(name).count("step ")
    eventually(lambda: lab.docker_logs(name).count("step ") > seen, "the training goes on")
    assert [row["status"] for row in lab.listed("server", lab.alice)] == ["running"]
    again = client.start("--host", "server", "logs", "-f", name, cwd=project)
    again.until("step 2")
    end(lab)
    assert again.code() == 7
    assert_whole_log(again.out)
    assert again.out.splitlines()[-1] == "saved"

    (row,) = lab.listed("server", lab.alice, "--all")
    assert (row["name"], row["status"], row["exit_code"]) == (name, "exited", 7)
    client.kit("--host", "server", "fetch", cwd=project)
    with zipfile.ZipFile(project / "models/final.keras") as model:
        assert "config.json" in model.namelist()
    client.kit("--host", "server", "rm", name)


def test_output_and_exit_code_come_back(lab: Lab, client: Client, project: Path) -> None:
    done = client.kit(
        *("--quiet", "--host", "server", "run", "tf-cpu", "--", "sh", "-c", "echo out; echo err >&2; exit 7"),
        code=7,
        cwd=project,
    )
    assert done.stdout == "out\n"
    assert done.stderr.splitlines()[0] == "err"
    assert lab.containers(lab.alice, everything=False) == []


def test_detached_from_the_beginning(lab: Lab, client: Client, counting: Path) -> None:
    began = time.monotonic()
    client.kit("--host", "server", "run", "--detach", "tf-cpu", "--", "python", "train.py", cwd=counting)
    assert time.monotonic() - began < 30
    name = only_container(lab)
    eventually(lambda: "step 3" in lab.docker_logs(name), "the job counts")
    end(lab)
    follow = client.start("--host", "server", "logs", "-f", name, cwd=counting)
    assert follow.code() == 7
    assert_whole_log(follow.out)


def test_killed_client_leaves_the_job_and_no_orphan(lab: Lab, client: Client, counting: Path) -> None:
    job = client.start("--host", "server", "run", "tf-cpu", "--", "python", "train.py", cwd=counting)
    job.until("step 2")
    job.kill()
    eventually(lambda: not client.leftovers(), "nothing that the killed kit started", timeout_s=30)
    name = only_container(lab)
    assert [row["name"] for row in lab.listed("server", lab.alice)] == [name]
    end(lab)
    follow = client.start("--host", "server", "logs", "-f", name, cwd=counting)
    assert follow.code() == 7
    assert_whole_log(follow.out)


@pytest.mark.parametrize("how", ["sshd", "link"])
def test_output_goes_on_after_the_connection_broke(lab: Lab, client: Client, counting: Path, how: str) -> None:
    job = client.start("--host", "server", "run", "tf-cpu", "--", "python", "train.py", cwd=counting)
    job.until("step 2")
    name = only_container(lab)
    if how == "sshd":
        lab.sshd.kill()
        eventually(lambda: "connection to server is lost" in job.err, "kit says that it lost the connection")
        lab.sshd.start()
    else:
        client.link.cut()
        # It is noticed after half a minute.
        eventually(lambda: "connection to server is lost" in job.err, "kit says that it lost the connection")
        client.link.restore()
    step = lab.docker_logs(name).count("step ")
    # It finds its way back by itself, and tells what it missed.
    job.until(f"step {step}")
    end(lab)
    assert job.code() == 7
    assert_whole_log(job.out)
    assert job.out.splitlines()[-1] == "over"
    assert lab.containers(lab.alice) == []
