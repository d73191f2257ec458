"""A container takes neither all processes nor all memory of its machine, on engines that can see to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.engine import Engine
from kit.engine.info import parse_info
from kit.engine.podman import Podman
from kit.errors import BadInputError
from kit.network import NetworkSettings
from kit.spec.container import PIDS_LIMIT, ContainerSpec, Place, describe, memory_limit
from kit.spec.gpu_grant import GpuGrant
from kit.spec.request import RunRequest, parse_count, parse_size
from kit.targets import docker as target
from tests.conftest import Result
from tests.fake_docker import FakeDocker

GIB = 2**30


def described(*, can: tuple[Any, ...] = ("memory", "pids"), **asked: Any) -> ContainerSpec:
    from kit.catalog import load_catalog

    request = RunRequest(
        image=load_catalog().find("tf-cpu"), folder=Path("/x"), user="1:1", network=NetworkSettings(proxies={}), **asked
    )
    return describe(request, Place(memory_bytes=64 * GIB, can_limit=can, client="x"), GpuGrant())


def test_a_container_has_limits_unless_somebody_says_otherwise() -> None:
    assert {"--memory=64424509440", "--memory-swap=-1", "--pids-limit=16384"} <= set(target.arguments(described()))
    assert not [a for a in target.arguments(described(can=())) if "memory" in a or "pids" in a]
    asked = target.arguments(described(can=(), memory_bytes=GIB, pids=100))
    assert {f"--memory={GIB}", "--pids-limit=100"} <= set(asked)
    none = target.arguments(described(memory_bytes=0, pids=-1))
    assert "--pids-limit=-1" in none
    assert not [a for a in none if "memory" in a]


def test_the_machine_keeps_some_memory_and_half_of_the_fewest_processes() -> None:
    assert [memory_limit(size * GIB) / GIB for size in (0, 8, 32, 1024)] == [0, 7, 28, 1020]
    assert PIDS_LIMIT * 2 == 0x8000


@pytest.mark.parametrize("text", ["24g", "24G", "24gb", "24GiB", "25165824k", "25769803776"])
def test_a_size(text: str) -> None:
    assert parse_size(text) == 24 * GIB


@pytest.mark.parametrize("text", ["", "0", "1", "-1", "24 g", "1e9", "g", "24x", "٣g", "9" * 40, "1k"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadInputError):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "many", "٣", "9" * 40])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(BadInputError):
        parse_count(text)
    assert parse_count("none") == -1
    assert parse_size("none") == 0


def test_an_engine_without_the_means_is_asked_for_none(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine.can_limit == ("memory", "pids"), "Docker goes on without, with a warning"
    for controllers, can in ((["cpu", "memory", "pids"], ("memory", "pids")), (["cpu"], ()), (None, ())):
        podman, raw = Podman(), {"host": {"cgroupControllers": controllers}, "store": {}}
        podman.__dict__["_said"] = parse_info(json.dumps(raw), "", "podman")
        assert podman.can_limit == can


def test_options_and_the_configuration_reach_the_container(
    kit: Callable[..., Result], fake_docker: FakeDocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert kit("compose", "tf-cpu", "--memory", "10g", "--pids-limit", "none").code == 0
    text = Path("compose.yaml").read_text()
    assert f"mem_limit: {10 * GIB}\n" in text
    assert "pids_limit: -1\n" in text


@pytest.mark.engine
def test_the_kernel_holds_the_container_to_them(engine_kit: Any, tf_cpu: str, workspace: Path) -> None:
    look = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids/pids.max"
    look += " /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true"
    of = ("run", "-C", str(workspace))
    pids, memory = engine_kit(*of, tf_cpu, "sh", "-c", look).stdout.split()
    assert int(pids) == PIDS_LIMIT
    assert 0 < int(memory) < 2**50
    fork = "import os, time\nfor n in range(99):\n  if not os.fork(): time.sleep(9)\n"
    done = engine_kit(*of, "--pids-limit", "40", tf_cpu, "python", "-c", fork, code=1)
    assert "Resource temporarily unavailable" in done.stderr
