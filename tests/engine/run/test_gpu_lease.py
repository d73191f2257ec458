"""Leases of GPUs on a real engine, between `kit run` processes that start at the same time.

No GPU is needed: CDI specifications name device files that every machine has, a device file says that a driver is
loaded, and a program called `nvidia-smi`, first in PATH, says what it would of two idle GPUs (element names as in the
output of driver 550).
"""

from __future__ import annotations

import json
import os
import pty
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from kit.labels import LEASE
from kit.remote import ssh
from tests.engine import witness
from tests.engine.conftest import KIT, Kit
from tests.engine.sshd import Server, needs_sshd
from tests.engine.witness import containers

pytestmark = pytest.mark.engine
SPECIFICATION = Path("/etc/cdi/kit-test.json")
DRIVER = Path("/dev/nvidiactl")
UUIDS = ("GPU-6b1ad2d0-0000-4000-8000-000000000000", "GPU-6b1ad2d0-0000-4000-8000-000000000001")
FACTS = [
    {
        "index": str(index),
        "name": "NVIDIA L4",
        "uuid": uuid,
        "compute_cap": "8.9",
        "driver_version": "550.54.15",
        "pci.bus_id": f"00000000:0{index + 1}:00.0",
    }
    for index, uuid in enumerate(UUIDS)
]
GPU = """<gpu id="{pci}">
<product_name>NVIDIA L4</product_name><product_architecture>Ada Lovelace</product_architecture>
<mig_mode><current_mig>N/A</current_mig><pending_mig>N/A</pending_mig></mig_mode><mig_devices>None</mig_devices>
<uuid>{uuid}</uuid><minor_number>{index}</minor_number>
<fb_memory_usage><total>23034 MiB</total><reserved>544 MiB</reserved><used>1 MiB</used><free>22490 MiB</free>
</fb_memory_usage><utilization><gpu_util>0 %</gpu_util><memory_util>0 %</memory_util></utilization>
<temperature><gpu_temp>36 C</gpu_temp></temperature>
<gpu_power_readings><power_state>P8</power_state><power_draw>12.10 W</power_draw>
<current_power_limit>72.00 W</current_power_limit><default_power_limit>72.00 W</default_power_limit>
</gpu_power_readings><processes></processes>
</gpu>"""
XML = (
    '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n<nvidia_smi_log>\n'
    "<driver_version>550.54.15</driver_version><cuda_version>12.4</cuda_version><attached_gpus>2</attached_gpus>\n"
    + "\n".join(GPU.format(pci=fact["pci.bus_id"], **fact) for fact in FACTS)
    + "\n</nvidia_smi_log>\n"
)
NVIDIA_SMI = f"""#!{sys.executable} -IS
import sys
arguments = dict(word.partition("=")[::2] for word in sys.argv[1:])
if "--query-gpu" in arguments:
    for facts in {FACTS!r}:
        print(", ".join(facts.get(name, "[N/A]") for name in arguments["--query-gpu"].split(",")))
elif "-x" in arguments:
    print({XML!r}, end="")
else:
    sys.exit(6)
"""
LOOK = "ls /dev | grep nvidia; cat"


@pytest.fixture
def machine(gpus_alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two GPUs, by number and UUID, that are /dev/null and /dev/zero; none of them leased."""
    if any(SPECIFICATION.parent.glob("nvidia*")) or DRIVER.exists():
        pytest.skip("this machine has GPUs or a CDI specification of its own")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "nvidia-smi").write_text(NVIDIA_SMI)
    (programs / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)
    devices = [
        {
            "name": name,
            "containerEdits": {"deviceNodes": [{"path": f"/dev/nvidia{n}", "hostPath": path, "type": "c"}]},
        }
        for n, path in enumerate(("/dev/null", "/dev/zero"))
        for name in (str(n), UUIDS[n])
    ]
    SPECIFICATION.parent.mkdir(parents=True, exist_ok=True)
    SPECIFICATION.write_text(json.dumps({"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": devices}))
    # What /dev/null is, under the name by which kit sees that there is a driver to ask.
    os.mknod(DRIVER, stat.S_IFCHR | 0o666, Path(os.devnull).stat().st_rdev)
    yield
    DRIVER.unlink()
    SPECIFICATION.unlink()


def start(workspace: Path, image: str, *words: str, gpus: str = "free") -> subprocess.Popen[str]:
    """`kit run` with a command that ends with its input."""
    return subprocess.Popen(
        [KIT, "run", "-C", str(workspace), "--gpus", gpus, image, *(words or ("sh", "-c", LOOK))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, output + errors


def test_two_at_once_never_get_the_same_gpu(
    torch_cuda: str, docker: DockerClient, workspace: Path, machine: None
) -> None:
    before = containers(docker)
    for _ in range(5):
        both = [start(workspace, torch_cuda) for _ in range(2)]
        assert {first_line(process) for process in both} == {"nvidia0", "nvidia1"}
        end(*both)
    assert containers(docker) == before


def test_who_holds_the_gpus_is_named_and_they_come_back(
    kit: Kit, torch_cuda: str, docker: DockerClient, workspace: Path, machine: None
) -> None:
    both = [start(workspace, torch_cuda) for _ in range(2)]
    assert {first_line(process) for process in both} == {"nvidia0", "nvidia1"}
    holders = witness.labels(docker, LEASE)
    assert {labels[LEASE] for labels in holders.values()} == set(UUIDS)
    for gpus in ("free", "1", "2"):
        refused = kit("run", "-C", str(workspace), "--gpus", gpus, torch_cuda, "true", code=17).stderr
        assert all(f"leased by {name} (user " in refused for name in holders), refused
    # What is named is given, with a warning.
    shared = kit("run", "-C", str(workspace), "--gpus", "device=1", torch_cuda, "sh", "-c", "ls /dev | grep nvidia")
    assert shared.stdout == "nvidia1\n"
    assert sum("leased to" in line for line in shared.stderr.splitlines()) == 1
    rows = json.loads(kit("--json", "gpus").stdout)
    assert [row["is_free"] for row in rows] == [False, False]
    assert {c["name"] for row in rows for c in row["containers"] if c["is_lease"]} == set(holders)
    assert {tuple(r["lease"]) for r in json.loads(kit("--json", "ps").stdout)} >= {(uuid,) for uuid in UUIDS}
    stopped, removed = holders
    kit("stop", "--time", "0", stopped)
    found = kit("run", "-C", str(workspace), "--gpus", "free", torch_cuda, "sh", "-c", "ls /dev | grep nvidia")
    assert found.stdout == f"nvidia{UUIDS.index(holders[stopped][LEASE])}\n"
    kit("rm", "--force", removed)
    found = kit("run", "-C", str(workspace), "--gpus", "2", torch_cuda, "sh", "-c", "ls /dev | grep nvidia")
    assert found.stdout == "nvidia0\nnvidia1\n"
    for process in both:
        process.communicate(timeout=60)
    assert [row["is_free"] for row in json.loads(kit("--json", "gpus").stdout)] == [True, True]


def test_a_notebook_leases_until_it_is_stopped(
    kit: Kit, torch_cuda: str, docker: DockerClient, workspace: Path, machine: None
) -> None:
    arguments = ("run", "-C", str(workspace), "--gpus", "2")
    started = json.loads(kit("--json", *arguments, torch_cuda, "jupyter").stdout)
    try:
        assert docker.containers.get(started["name"]).labels[LEASE] == " ".join(UUIDS)
        assert started["name"] in kit(*arguments, torch_cuda, "true", code=17).stderr
        kit("stop", started["name"])
        kit(*arguments, torch_cuda, "true")
    finally:
        kit("rm", "--force", started["name"])


@pytest.mark.parametrize(
    ("words", "code"), [(("sh", "-c", "exit 7"), 7), (("no-such-program",), 127), (("/etc/passwd",), 126)]
)
def test_exit_codes_are_those_without_a_lease(
    kit: Kit, torch_cuda: str, docker: DockerClient, workspace: Path, machine: None, words: tuple[str, ...], code: int
) -> None:
    before = containers(docker)
    for gpus in ("free", "none"):
        kit("run", "-C", str(workspace), "--gpus", gpus, torch_cuda, *words, code=code)
    assert containers(docker) == before


def test_input_and_both_outputs_pass_through(
    torch_cuda: str, docker: DockerClient, workspace: Path, machine: None
) -> None:
    before = containers(docker)
    process = start(workspace, torch_cuda, "sh", "-c", "cat; echo err >&2")
    output, errors = process.communicate("through\n", timeout=60)
    assert (process.returncode, output) == (0, "through\n")
    assert errors.splitlines()[-1] == "err"
    assert containers(docker) == before


def test_ctrl_c_on_a_terminal_reaches_the_program_and_leaves_no_container(
    torch_cuda: str, docker: DockerClient, workspace: Path, machine: None
) -> None:
    before = containers(docker)
    script = "trap 'echo caught; exit 9' INT; stty size; while :; do sleep 0.1; done"
    child, terminal = pty.fork()
    if child == 0:
        os.execv(KIT, [KIT, "-q", "run", "-C", str(workspace), "--gpus", "free", torch_cuda, "sh", "-c", script])
    printed = b""
    while not re.search(rb"\d+ \d+", printed):
        printed += os.read(terminal, 1024)
    assert len(containers(docker) - before) == 1
    os.write(terminal, b"\x03")
    while b"caught" not in printed:
        printed += os.read(terminal, 1024)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    os.close(terminal)
    assert containers(docker) == before


def test_a_lease_outlives_a_killed_kit_and_ends_with_its_container(
    kit: Kit, torch_cuda: str, docker: DockerClient, workspace: Path, machine: None
) -> None:
    before = containers(docker)
    killed = start(workspace, torch_cuda)
    assert first_line(killed) == "nvidia0"
    killed.kill()
    killed.wait()
    other = start(workspace, torch_cuda)
    assert first_line(other) == "nvidia1"
    end(other)
    assert killed.stdin is not None
    killed.stdin.close()  # the command's end
    until = time.monotonic() + 30
    while containers(docker) != before and time.monotonic() < until:
        time.sleep(0.1)
    found = kit("run", "-C", str(workspace), "--gpus", "2", torch_cuda, "sh", "-c", "ls /dev | grep nvidia")
    assert found.stdout == "nvidia0\nnvidia1\n"


@pytest.fixture
def host(machine: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same machine behind SSH: what tells of the GPUs is in the PATH there, and not here."""
    path = os.environ["PATH"]
    server = Server(tmp_path_factory.mktemp("sshd"), environment={"PATH": path})
    monkeypatch.setenv("PATH", path.partition(os.pathsep)[2])
    monkeypatch.setenv("KIT_SSH", server.ssh())
    yield "machine"
    ssh.close("machine")
    server.stop()


@needs_sshd
def test_over_ssh_two_at_once_never_get_the_same_gpu(
    kit: Kit, torch_cuda: str, docker: DockerClient, workspace: Path, host: str
) -> None:
    before = containers(docker)
    command = ["--host", host, "--json", "run", "--detach", "-C", str(workspace), "--gpus", "free", torch_cuda, "--"]
    command += ["sh", "-c", "ls /dev | grep nvidia; exec sleep 900"]
    try:
        starting = [subprocess.Popen([KIT, *command], stdout=subprocess.PIPE, text=True) for _ in range(2)]
        names = [json.loads(process.communicate(timeout=120)[0])["name"] for process in starting]
        printed = [kit("--host", host, "logs", name).stdout for name in names]
        assert sorted(printed) == ["nvidia0\n", "nvidia1\n"]
        leased = witness.labels(docker, LEASE)
        assert {leased[name][LEASE] for name in names} == set(UUIDS)
        refused = kit(*command, code=17).stderr
        assert all(f"leased by {name} (user " in refused for name in names), refused
        rows = json.loads(kit("--host", host, "--json", "gpus").stdout)
        assert [row["is_free"] for row in rows] == [False, False]
        kit("--host", host, "stop", "--time", "0", names[0])
        again = json.loads(kit(*command).stdout)["name"]
        assert kit("--host", host, "logs", again).stdout == printed[0]
    finally:
        witness.remove(docker, *(containers(docker) - before))
