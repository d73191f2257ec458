import dataclasses
import json
import os
import pty
import re
import select
import sys

import pytest

from kit.cli import gpus as gpus_command
from kit.cli.gpus import print_units
from kit.decide.gpus import units
from kit.errors import NetworkError
from kit.facts.host import GpuContainer, GpuProcess, Host, HostGpu, MigInstance, PciGpu

A100 = HostGpu(
    index=0,
    uuid="GPU-aa",
    name="NVIDIA A100-SXM4-80GB",
    compute_capability="8.0",
    memory_mib=81920,
    memory_used_mib=0,
    utilisation_percent=0,
    temperature_c=31,
    power_draw_w=62.5,
    power_limit_w=400.0,
    processes=(),
)
LEASE = GpuContainer(
    name="kit-torch2.7-cu126-jupyter-ab12",
    id="0123",
    image="torch2.7-cu126",
    service="jupyter",
    user="4123456:1000",
    status="running",
    devices=("nvidia.com/gpu=GPU-bb",),
    lease=("GPU-bb",),
)
PROCESS = GpuProcess(pid=4711, name="python3", user="ada", memory_mib=5120, container=LEASE.name)
HOST = Host(
    driver="580.65.06",
    gpus=(
        A100,
        dataclasses.replace(A100, index=1, uuid="GPU-bb", memory_used_mib=5376, processes=(PROCESS,)),
        dataclasses.replace(
            A100, index=2, uuid="GPU-cc", memory_used_mib=9216, processes=(dataclasses.replace(PROCESS, container=""),)
        ),
    ),
    containers=(LEASE,),
)
MIG = dataclasses.replace(
    A100,
    is_mig_enabled=True,
    processes=(dataclasses.replace(PROCESS, mig_uuid="MIG-b"),),
    mig_instances=(
        MigInstance(uuid="MIG-a", profile="3g.40gb", index=0, memory_mib=40192, memory_used_mib=37),
        MigInstance(uuid="MIG-b", profile="3g.40gb", index=1, memory_mib=40192, memory_used_mib=5157),
    ),
)


@pytest.fixture
def host(monkeypatch):
    """Says what `read_gpus` answers; returns the calls it got."""

    def set_host(value):
        calls = []

        def read_gpus(target="", *, with_use=False, engine=None):
            calls.append((target, with_use))
            return dataclasses.replace(value, target=target)

        monkeypatch.setattr(gpus_command, "read_gpus", read_gpus)
        return calls

    return set_host


def test_a_row_for_each_gpu_and_a_line_for_each_user(kit, host):
    host(HOST)
    result = kit("gpus")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "GPU  NAME                   MEMORY        USE  TEMP  STATE",
        "0    NVIDIA A100-SXM4-80GB  0.0/80.0 GiB  0%   31C   free",
        "1    NVIDIA A100-SXM4-80GB  5.2/80.0 GiB  0%   31C   leased",
        "     lease  kit-torch2.7-cu126-jupyter-ab12  4123456:1000",
        "     4711  python3  ada  5120 MiB  in kit-torch2.7-cu126-jupyter-ab12",
        "2    NVIDIA A100-SXM4-80GB  9.0/80.0 GiB  0%   31C   in use",
        "     4711  python3  ada  5120 MiB",
        "",
        "free: 0 (1 of 3)",
    ]


def test_for_programs_every_key_is_there(kit, host):
    host(HOST)
    data = json.loads(kit("--json", "gpus").out)
    assert data[1] == {
        "index": 1,
        "name": "NVIDIA A100-SXM4-80GB",
        "uuid": "GPU-bb",
        "compute_capability": "8.0",
        "memory_mib": 81920,
        "memory_used_mib": 5376,
        "utilisation_percent": 0,
        "temperature_c": 31,
        "power_draw_w": 62.5,
        "power_limit_w": 400.0,
        "is_free": False,
        "problem": "",
        "mig_instances": [],
        "processes": [{"pid": 4711, "name": "python3", "user": "ada", "memory_mib": 5120, "container": LEASE.name}],
        "containers": [
            {
                "name": LEASE.name,
                "image": "torch2.7-cu126",
                "service": "jupyter",
                "user": "4123456:1000",
                "is_lease": True,
            }
        ],
    }
    assert [gpu["is_free"] for gpu in data] == [True, False, False]


def test_mig_instances_have_rows_of_their_own(kit, host):
    host(dataclasses.replace(HOST, gpus=(MIG,), containers=()))
    lines = kit("gpus").out.splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["MIG", "free", "use"]
    assert lines[2].split()[:4] == ["0:0", "MIG", "3g.40gb", "0.0/39.2"]
    assert lines[-1] == "free: 0:0 (1 of 2)"
    (data,) = json.loads(kit("gpus", "--json").out)
    assert data["is_free"] is False
    assert [(i["index"], i["uuid"], i["is_free"]) for i in data["mig_instances"]] == [
        ("0:0", "MIG-a", True),
        ("0:1", "MIG-b", False),
    ]


def test_mig_without_an_instance_says_so(kit, host):
    host(Host(driver="580.65.06", gpus=(dataclasses.replace(MIG, mig_instances=()),)))
    result = kit("gpus")
    assert "MIG is on, without an instance: nothing to give" in result.out
    assert result.out.splitlines()[-1] == "free: none (0 of 0)"
    assert json.loads(kit("gpus", "--json").out)[0]["is_free"] is False


def test_what_the_driver_does_not_say_is_said(kit, host):
    bare = HostGpu(index=0, uuid="GPU-aa", name="NVIDIA GeForce RTX 4060 Ti", processes=None)
    host(Host(driver="580.65.06", gpus=(bare,)))
    result = kit("gpus")
    assert result.out.splitlines()[1].split() == ["0", *bare.name.split(), "-", "-", "-", "free"]
    assert "the driver does not say which processes use it" in result.out
    assert json.loads(kit("gpus", "--json").out)[0]["processes"] is None


def test_a_faulty_gpu_is_not_free(kit, host):
    host(Host(driver="580.65.06", gpus=(dataclasses.replace(A100, problem="GPU is lost"),)))
    result = kit("gpus")
    assert result.out.splitlines()[1].endswith("faulty")
    assert "the driver reports: GPU is lost" in result.out


def test_no_gpu_is_no_error(kit, host):
    host(Host())
    result = kit("gpus")
    assert (result.code, result.out, result.err) == (0, "no NVIDIA GPU on this host\n", "")
    assert json.loads(kit("--json", "gpus").out) == []
    assert kit("--host", "lab1", "gpus").out == "no NVIDIA GPU on lab1\n"


@pytest.mark.parametrize("arguments", [("gpus",), ("--json", "gpus")])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Host(driver=None, driver_problem="NVIDIA-SMI has failed"), "the NVIDIA driver of this host does not answer"),
        (Host(pci_gpus=(PciGpu(address="0000:01:00.0", device_id="2803"),)), "has an NVIDIA GPU (0000:01:00.0), but"),
        (Host(driver=None, unread=("nvidia-smi: timed out after 10 s",)), "the GPUs of this host could not be read"),
    ],
)
def test_a_driver_that_does_not_answer_is_an_error(kit, host, arguments, value, said):
    host(value)
    result = kit(*arguments)
    assert (result.code, result.out) == (17, "")
    assert said in result.err
    assert "kit doctor" in result.err


def test_another_machine_is_asked_and_its_users_are_not_looked_up_here(kit, host):
    calls = host(dataclasses.replace(HOST, containers=(dataclasses.replace(LEASE, user="0:0"),)))
    assert kit("gpus", "--host", "ada@lab1").out.splitlines()[3].endswith("  0:0")
    assert calls == [("ada@lab1", True)]
    assert kit("gpus").out.splitlines()[3].endswith("  root")


def test_a_machine_that_cannot_be_reached_is_an_error_of_its_kind(kit, monkeypatch):
    def read_gpus(target="", *, with_use=False, engine=None):
        raise NetworkError(f"{target} does not answer")

    monkeypatch.setattr(gpus_command, "read_gpus", read_gpus)
    assert kit("--host", "lab1", "gpus").code == 19


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (60, "RTX PRO 6000 Blackwel…"),
        (80, "RTX PRO 6000 Blackwell Workstation Edition"),
        (100, "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"),
    ],
)
def test_rows_fit_the_terminal_by_shortening_the_gpus_name(monkeypatch, columns, name):
    wide = tuple(dataclasses.replace(g, name="NVIDIA RTX PRO 6000 Blackwell Workstation Edition") for g in HOST.gpus)
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setenv("COLUMNS", str(columns))
        print_units(dataclasses.replace(HOST, gpus=wide), units(dataclasses.replace(HOST, gpus=wide)))
        print("end", file=terminal, flush=True)
        # A terminal hands over what has come so far.
        printed = ""
        while "end" not in printed and select.select([leader], [], [], 5)[0]:
            printed += os.read(leader, 65536).decode()
    os.close(leader)
    rows = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in printed.splitlines() if re.match(r"[0-9] ", line)]
    assert len(rows) == 3
    assert all(len(row) <= columns and f"  {name}  " in row for row in rows)
