"""The private engine for real: a second one beside the machine's, started, broken and stopped; nothing may be left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kit import files, mounts, private_engine, process, procs
from kit.engine import Engine
from kit.errors import BadInputError, EngineError
from kit.image import base
from kit.private_engine import daemon, processes, subnet
from kit.private_engine.settings import Store

pytestmark = [pytest.mark.engine, pytest.mark.skipif(os.geteuid() != 0, reason="the private engine needs root")]


def this_engine() -> Engine:
    """The second engine, whichever other one `connect` would prefer."""
    return Engine(program=str(private_engine.docker_program()), environment=private_engine.environment())


@dataclass(frozen=True)
class Traces:
    """Everything an engine could leave on a machine."""

    processes: frozenset[str]
    mounts: frozenset[str]
    interfaces: frozenset[str]
    rules: tuple[str, ...]
    forwarding: dict[str, str]
    folders: frozenset[str]
    cgroups: frozenset[str]


def rules() -> tuple[str, ...]:
    programs = Path(os.environ["KIT_ENGINE_PROGRAMS"]) / "bin"
    found: list[str] = []
    for name in ("iptables", "ip6tables"):
        program = str(programs / name) if (programs / name).exists() else name
        for table in ("filter", "nat", "raw", "mangle"):
            listing = process.run([program, "-w", "10", "-t", table, "-S"], check=False).stdout
            found += [f"{name} {table} {line}" for line in listing.splitlines()]
    return tuple(found)


def traces(folder: Path) -> Traces:
    own, here = str(folder), private_engine.engine_paths()
    running = set(map(str, processes.belonging_to(here.mark, here.cgroup)))
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if own in (command := (entry / "cmdline").read_bytes().decode(errors="replace")):
                running.add(command)
    groups = [str(p) for p in Path("/sys/fs/cgroup").glob(f"**/{here.cgroup}")]
    return Traces(
        processes=frozenset(running),
        rules=rules(),
        mounts=frozenset(m for m in mounts.parse_mounts(mounts.MOUNTS.read_text()) if own in m),
        interfaces=frozenset(e.name for e in subnet.CLASS_NET.iterdir() if not e.name.startswith("veth")),
        forwarding={name: value for name, value in subnet.forwarding().items() if "/veth" not in name},
        cgroups=frozenset(groups),
        folders=frozenset(str(p) for p in (*Path("/run").iterdir(), *Path("/opt").iterdir())),
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An engine folder of the test's own, with the programs of the machine's engine (downloaded if it has none)."""
    from kit import paths
    from kit.private_engine import programs

    shared = Path(os.environ.get("KIT_ENGINE_PROGRAMS") or paths.engine_dir() / "programs")
    with files.locked(paths.engine_dir() / "lock"):
        programs.ensure(shared, say=print)
    monkeypatch.setenv("KIT_ENGINE_PROGRAMS", str(shared))
    monkeypatch.setenv("KIT_ENGINE_DIR", str(tmp_path / "e"))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path / "e"
    daemon.down(purge=True)


def docker(*args: str, timeout_s: float = 120) -> str:
    program = private_engine.docker_program()
    assert program is not None
    done = process.run([str(program), *args], check=False, env=private_engine.environment(), timeout_s=timeout_s)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("store", ["containerd", "overlay2"])
def test_up_serves_and_down_leaves_nothing(folder: Path, store: Store) -> None:
    before = traces(folder)
    assert daemon.up(store=store)
    found = private_engine.status()
    assert found.running
    assert found.store == store
    assert found.data_root.startswith(str(folder))
    info = json.loads(docker("info", "--format", "{{json .}}"))
    assert info["Driver"] == {"containerd": "overlayfs", "overlay2": "overlay2"}[store]
    assert info["CgroupDriver"] == "cgroupfs"
    assert docker("buildx", "version")
    assert docker("compose", "version")
    during = traces(folder)
    assert not during.mounts, "the engine's mounts are in its own namespace"
    assert private_engine.engine_paths().bridge in during.interfaces
    docker("network", "create", "own")

    started = time.monotonic()
    assert not daemon.up(), "up already"
    assert time.monotonic() - started < 2

    assert daemon.down()
    assert traces(folder) == before
    assert not private_engine.is_up()
    assert not daemon.down()
    assert (folder / "data").is_dir(), "images are kept"
    daemon.down(purge=True)
    assert not folder.exists()


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_down_ends_running_containers(folder: Path, kill: bool) -> None:
    before = traces(folder)
    daemon.up()
    image = base.ensure("bookworm", this_engine(), on_message=print).reference
    docker("network", "create", "own")
    for name, options in {"one": ["--init"], "two": ["--network", "own", "--restart", "always"]}.items():
        docker("run", "--detach", "--name", name, *options, "--publish", "127.0.0.1::80", image, "sleep", "1000")
    assert docker("exec", "two", "getent", "hosts", "two"), "containers of one network find each other by name"
    assert len(traces(folder).cgroups) > 0
    assert not traces(folder).mounts
    if kill:
        os.kill(private_engine.status().pid, signal.SIGKILL)
    daemon.down()
    assert traces(folder) == before

    daemon.up()
    assert docker("ps", "--format", "{{.Names}}") == "two", "it was to be started again always"


def test_containers_reach_the_network_and_ports_are_on_loopback_only(folder: Path) -> None:
    daemon.up()
    image = base.ensure("bookworm", this_engine(), on_message=print).reference
    docker("network", "create", "own")
    for network_name in ("bridge", "own"):
        said = docker(
            "run",
            "--rm",
            "--network",
            network_name,
            image,
            "sh",
            "-c",
            "cat /proc/net/route; apt-get -o APT::Update::Error-Mode=any update && echo reached",
        )
        assert said.endswith("reached"), said
    docker("run", "--detach", "--name", "published", "--publish", "127.0.0.1::80", image, "sleep", "1000")
    port = int(docker("port", "published", "80").rpartition(":")[2])
    listening = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")
    ]
    assert listening == [f"0100007F:{port:04X}"]


def test_killed_daemon_is_cleared_and_started_again(folder: Path) -> None:
    before = traces(folder)
    daemon.up()
    docker("network", "create", "own")
    first = private_engine.status().pid
    os.kill(first, signal.SIGKILL)
    assert processes.wait_until(lambda: not procs.is_alive(first), 10)
    assert not private_engine.is_up()
    assert private_engine.engine_paths().socket.exists(), "a stale socket"
    assert daemon.up()
    assert private_engine.status().pid != first
    os.kill(private_engine.status().pid, signal.SIGKILL)
    daemon.down()
    assert traces(folder) == before, "down clears after a killed daemon as well"


def test_stale_pid_of_another_program_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps({"pid": os.getppid(), "store": "containerd"}))
    (folder / "run").mkdir()
    (folder / "run/docker.sock").touch()
    (folder / "run/docker.pid").write_text(str(os.getppid()))
    assert daemon.up()
    assert procs.is_alive(os.getppid())


def test_calls_at_once_start_one_engine(folder: Path) -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(daemon.up())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, False, True]


def test_two_engines_do_not_touch_each_other(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.up()
    first = rules()
    addresses = docker("network", "inspect", "bridge", "--format", "{{range .IPAM.Config}}{{.Subnet}}{{end}}")
    with monkeypatch.context() as other:
        other.setenv("KIT_ENGINE_DIR", str(tmp_path / "f"))
        daemon.up(store="overlay2")
        assert (
            docker("network", "inspect", "bridge", "--format", "{{range .IPAM.Config}}{{.Subnet}}{{end}}") != addresses
        )
        daemon.down(purge=True)
    assert private_engine.is_up()
    assert rules() == first
    assert subnet.forwarding()["ip_forward"] == "1"


def test_another_store_needs_a_restart(folder: Path) -> None:
    daemon.up()
    with pytest.raises(BadInputError, match="containerd"):
        daemon.up(store="overlay2")
    daemon.down()
    daemon.up(store="overlay2")
    daemon.down()
    daemon.up()
    assert private_engine.status().store == "overlay2", "the last one used"


def test_daemon_that_cannot_start_says_why_and_leaves_nothing(folder: Path) -> None:
    before = traces(folder)
    with pytest.raises(EngineError) as caught:
        daemon.up(registry_mirrors=["no url at all"])
    assert any("mirror" in line for line in caught.value.details)
    assert str(folder / "engine.log") in caught.value.hint
    assert traces(folder) == before


def test_registry_mirror_reaches_the_daemon(folder: Path) -> None:
    daemon.up(registry_mirrors=["https://mirror.invalid"], insecure_registries=["registry.invalid:5000"])
    found = json.loads(docker("info", "--format", "{{json .RegistryConfig}}"))
    assert found["Mirrors"] == ["https://mirror.invalid/"]
    assert "registry.invalid:5000" in found["IndexConfigs"]
    assert "127.0.0.0/8" in found["InsecureRegistryCIDRs"]


def test_socket_belongs_to_the_user_who_called_sudo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "1234")
    daemon.up()
    assert private_engine.socket_path().stat().st_uid == 1234
    assert private_engine.socket_path().stat().st_mode & 0o007 == 0
