"""`kit doctor`: its whole output, its exit code, the keys programs read, and what it asks the network for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from textwrap import dedent
from typing import Any

import pytest

import kit.cli
from kit import redact
from kit.facts.engine import EngineFacts
from kit.facts.host import CdiSpec, Endpoint, Host, HostGpu, PciGpu
from kit.host.endpoints import build_endpoints as endpoints
from tests.unit.test_doctor import ADA, CPU_ONLY, SPEC, UBUNTU, WSL

Read = Callable[[Host], list[Any]]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Makes `kit doctor` see a machine; the list it returns gets what it was asked for."""

    def see(host: Host) -> list[Any]:
        asked: list[Any] = []

        def read_host(target: str = "", *, endpoints: tuple[Endpoint, ...] = (), engine: object = None) -> Host:
            asked.append((target, endpoints))
            return replace(host, target=target)

        monkeypatch.setattr("kit.cli.doctor.read_host", read_host)
        monkeypatch.setattr("kit.cli.doctor.to_json", lambda host: {"target": host.target, "driver": host.driver})
        monkeypatch.setitem(kit.cli.COMMANDS, "doctor", ("doctor", "Check the machine."))
        return asked

    return see


def test_a_healthy_machine(kit: Callable[..., Any], reads: Read) -> None:
    reads(UBUNTU)
    result = kit("doctor")
    assert result.code == 0
    assert result.out == dedent(
        """\
        host               this machine
        system             Ubuntu 24.04.3 LTS, kernel 6.8.0-87-generic, linux/amd64, 16 CPUs, 64.0 GiB
        driver             595.71.05 (CUDA 13.2 or older)
        GPU 0              NVIDIA GeForce RTX 4090, 8.9, 312 of 24564 MiB used
        Container Toolkit  1.18.2
        CDI                /etc/cdi/nvidia.yaml: 2 devices, driver 595.71.05
        engine             docker 28.5.2, overlay2, cgroups by systemd, buildx 0.29.1
        disk               400 GB free at /var/lib/docker
        registry           https://registry.example: answers in 0.10 s
        mirror             https://mirror.example: answers in 0.10 s
        index              https://index.example/simple: answers in 0.10 s
        """
    )
    assert result.err == "\nnothing found\n"


def test_a_machine_with_three_kinds_of_findings(kit: Callable[..., Any], reads: Read) -> None:
    reads(
        replace(
            UBUNTU,
            driver="",
            driver_cuda="",
            driver_library="",
            gpus=(),
            pci_gpus=(PciGpu(address="0000:01:00.0", device_id="2684"),),
            memory_bytes=3 * 2**30,
            busy_ports=(8888, 6006),
            cdi_specs=(),
            engine=replace(
                UBUNTU.engine, cdi_devices=(), cdi_spec_dirs=(), runtimes=("nvidia", "runc"), cgroup_driver=""
            ),
            endpoints=(),
        )
    )
    result = kit("doctor", "--host", "alice@lab1")
    assert result.code == 1
    assert result.out == dedent(
        """\
        host               alice@lab1
        system             Ubuntu 24.04.3 LTS, kernel 6.8.0-87-generic, linux/amd64, 16 CPUs, 3.0 GiB
        driver             none
        GPU                an NVIDIA GPU at 0000:01:00.0, no facts
        Container Toolkit  1.18.2
        engine             docker 28.5.2, overlay2, buildx 0.29.1
        disk               400 GB free at /var/lib/docker

        block: there is an NVIDIA GPU (NVIDIA GeForce RTX 4090) at 0000:01:00.0, but no NVIDIA driver [driver-missing]
          fix: `sudo ubuntu-drivers install`, then `sudo reboot`

        warn: 3.0 GiB of memory: a framework, its data and a notebook server share it [memory-low]
          fix: use a machine with more memory, or add swap to get through a build

        note: in use on this machine: port 8888 (Jupyter) and 6006 (TensorBoard); kit takes the next free one \
and prints its URL [ports-busy]
          fix: nothing; `kit ps` shows whether it is yours, `ss -ltnp 'sport = :8888'` whose else
        """
    )
    assert result.err == "\n1 block, 1 warn, 1 note\n"


def test_notes_alone_are_no_failure(kit: Callable[..., Any], reads: Read) -> None:
    reads(CPU_ONLY)
    result = kit("--quiet", "doctor")
    assert result.code == 0
    assert "note: no NVIDIA GPU on this machine: images run on the CPU [gpu-missing]\n" in result.out
    assert result.err == ""


def test_json_keys_are_an_interface(kit: Callable[..., Any], reads: Read) -> None:
    reads(replace(UBUNTU, engine=EngineFacts()))
    result = kit("doctor", "--json")
    assert result.code == 1
    assert json.loads(result.out) == {
        "host": {"target": "", "driver": "595.71.05"},
        "findings": [
            {
                "check": "engine-missing",
                "severity": "block",
                "message": "no container engine is installed",
                "fix": "`kit engine up` starts kit's own, nothing is installed",
            }
        ],
    }
    assert result.err == ""


def test_lines_for_what_is_not_well(kit: Callable[..., Any], reads: Read) -> None:
    broken = HostGpu(name="", index=1, problem="GPU is lost")
    mig = replace(ADA, index=2, memory_used_mib=None, is_mig_enabled=True)
    reads(
        replace(
            WSL,
            driver=None,
            gpus=(ADA, broken, mig),
            engine=EngineFacts(program="docker", problem="denied"),
            cdi_specs=(CdiSpec(path="/etc/cdi/nvidia.yaml", is_readable=False),),
            endpoints=(
                Endpoint(kind="registry", url="https://registry.example", is_reachable=False, problem="timeout"),
                Endpoint(kind="index", url="https://index.example/simple"),
            ),
        )
    )
    lines = kit("doctor").out.splitlines()
    assert lines[1].endswith("64.0 GiB, WSL2")
    assert lines[2] == "driver             unknown (CUDA 12.9 or older)"
    assert lines[4:9] == [
        "GPU 1              unknown: GPU is lost",
        "GPU 2              NVIDIA GeForce RTX 4090, 8.9, 24564 MiB, MIG, 0 instances",
        "Container Toolkit  1.18.2",
        "CDI                /etc/cdi/nvidia.yaml: not readable",
        "engine             no right to use it",
    ]
    assert "registry           https://registry.example: no answer (timeout)" in lines
    assert "index              https://index.example/simple: not asked" in lines


def test_the_kind_of_engine_is_said(kit: Callable[..., Any], reads: Read) -> None:
    reads(replace(UBUNTU, cdi_specs=(SPEC,), engine=replace(UBUNTU.engine, is_private=True, is_rootless=True)))
    assert "docker 28.5.2, kit's own, rootless, overlay2" in kit("doctor").out


def test_what_is_asked_comes_from_the_settings_of_this_machine(
    kit: Callable[..., Any], reads: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIT_REGISTRY_MIRROR", "http://mirror.example:5000")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://me:secret@index.example/simple")
    asked = reads(UBUNTU)
    assert kit("doctor", "--host", "lab1").code == 0
    ((target, urls),) = asked
    assert target == "lab1"
    assert [(e.kind, e.url) for e in urls[1:]] == [
        ("mirror", "http://mirror.example:5000"),
        ("index", "https://index.example/simple"),
    ]
    assert urls[0].kind == "registry"
    assert all(e.is_reachable is None for e in urls)


def test_without_settings_only_the_registry_is_asked() -> None:
    assert [e.kind for e in endpoints({"HOME": "/nonexistent"})] == ["registry"]


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("https://a:b@index.example/p@q", "https://index.example/p@q"),
        ("https://index.example", "https://index.example"),
        ("index.example/simple", "index.example/simple"),
    ],
)
def test_passwords_are_left_out(url: str, bare: str) -> None:
    assert redact.without_users(url) == bare
