"""What `kit lock` does in a project's folder: which image, what is written, and that nothing is when it fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kit import paths
from kit.catalog import Catalog, load_catalog
from kit.environment import format
from kit.environment.current import inputs_hash
from kit.environment.declared import Declared
from kit.environment.format import EnvironmentLock, SystemLayer
from kit.environment.guards import Finding
from kit.errors import CheckFailedError, LockError, NoEngineError
from kit.facts.host import Host
from kit.locks.format import sha256
from kit.project import lock as project
from kit.project.lock import Change, LockAsk
from kit.project.turn import turn
from tests.environment_world import make_world, variables

CPU = Host(platform="linux/amd64", driver="", gpus=())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def catalog(world: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    for name, value in variables(world).items():
        monkeypatch.setenv(name, value)
    found = load_catalog(world / "catalog")
    monkeypatch.setattr(paths, "images_dir", lambda: world / "images")
    monkeypatch.setattr(project, "load_catalog", lambda: found)
    return found


class Screen:
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was called")


@pytest.fixture
def screen() -> Any:
    return Screen()


def declared(folder: Path, *packages: str, image: str = "torch2.6-cu124", system: tuple[str, ...] = ()) -> Declared:
    return Declared(folder=folder, image=image, packages=packages, system=system)


def test_it_is_written_checked_and_kept(catalog: Catalog, tmp_path: Path, screen: Any) -> None:
    with pytest.raises(CheckFailedError, match="is missing"):
        project.check(declared(tmp_path))
    first = project.lock(declared(tmp_path, "einops==0.8.0", "gradio==5.0"), LockAsk(), screen)
    assert first.is_new
    assert first.changes == (Change(name="einops", after="0.8.0"), Change(name="gradio", after="5.0"))
    assert format.read(tmp_path) == first.lock == project.check(declared(tmp_path, "einops==0.8.0", "gradio==5.0"))
    with pytest.raises(CheckFailedError) as caught:
        project.check(declared(tmp_path, "einops"))
    assert caught.value.details == ("what kit.toml asks for has changed (image, packages, system packages or indexes)",)
    second = project.lock(declared(tmp_path, "einops"), LockAsk(), screen)
    assert second.changes == (Change(name="gradio", before="5.0"),)
    third = project.lock(declared(tmp_path, "einops"), LockAsk(upgrade_packages=frozenset({"einops"})), screen)
    assert third.changes == (Change(name="einops", before="0.8.0", after="0.8.1"),)
    assert not project.lock(declared(tmp_path, "einops"), LockAsk(), screen).is_new
    assert screen.said == []


def test_nothing_is_written_when_nothing_fits(catalog: Catalog, tmp_path: Path, screen: Any) -> None:
    project.lock(declared(tmp_path, "einops"), LockAsk(), screen)
    before = (tmp_path / "kit.lock").read_bytes()
    with pytest.raises(LockError):
        project.lock_project(declared(tmp_path, "einops", "never"), LockAsk(), screen)
    assert (tmp_path / "kit.lock").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["kit.lock"]


@pytest.mark.parametrize("text", ['{"<<<<<<< HEAD', "edited"])
def test_a_lock_that_kit_did_not_write_is_no_lock(catalog: Catalog, tmp_path: Path, screen: Any, text: str) -> None:
    wanted = declared(tmp_path, "einops")
    path = tmp_path / "kit.lock"
    project.lock(wanted, LockAsk(), screen)
    path.write_text(path.read_text().replace('"0.8.1"', '"0.8.0"') if text == "edited" else text)
    with pytest.raises(LockError):
        project.check(wanted)
    project.lock(wanted, LockAsk(), screen)
    assert project.check(wanted).packages[0].version == "0.8.1"
    assert "it is written anew" in screen.said[0]


# Which image.


def test_a_wish_is_the_image_for_the_machine_and_stays_it(
    catalog: Catalog, tmp_path: Path, screen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def read_gpus(target: str) -> Host:
        asked.append(target)
        return CPU

    monkeypatch.setattr(project, "read_gpus", read_gpus)
    first = project.lock(declared(tmp_path, image="torch<2.5"), LockAsk(target="gpu1"), screen)
    assert (first.lock.image, asked) == ("torch2.4-cu124", ["gpu1"])
    assert screen.said[0] == "torch<2.5: torch2.4-cu124 (no NVIDIA GPU, linux/amd64)"
    # A newer one is admitted now, and the lock stays what it is until it is let go of.
    assert project.lock(declared(tmp_path, image="torch"), LockAsk(), screen).lock.image == "torch2.4-cu124"
    assert asked == ["gpu1"]
    assert project.lock(declared(tmp_path, image="torch"), LockAsk(upgrade=True), screen).lock.image == "torch2.6-cu124"
    assert project.lock(declared(tmp_path, image="torch<2.6"), LockAsk(), screen).lock.image == "torch2.4-cu124"


def test_what_to_write_for_a_gpu_is_said_where_there_is_none(
    tmp_path: Path, screen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "read_gpus", lambda _: CPU)
    assert project.lock(declared(tmp_path, image="torch"), LockAsk(), screen).lock.image == "torch-cpu"
    newest = load_catalog().find("torch").name
    assert screen.said == [
        "torch: torch-cpu (no NVIDIA GPU, linux/amd64)",
        f'for a machine with a GPU write `image = "{newest}"`, or lock with --host for one that has it',
    ]


# Packages of the distribution.


def layer(*wanted: str) -> SystemLayer:
    return SystemLayer(suite="bookworm", architecture="amd64", wanted=wanted, packages=())


def test_packages_of_the_distribution_are_locked_beside(
    catalog: Catalog, tmp_path: Path, screen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def lock_system(*arguments: Any, upgrade: bool) -> tuple[SystemLayer, ...]:
        seen.append((arguments[1].system, arguments[3], upgrade))
        return (layer("ffmpeg"),)

    def no_engine(target: str) -> Any:
        raise NoEngineError("no engine")

    monkeypatch.setattr(project, "lock_system", lock_system)
    monkeypatch.setattr(project, "connect", lambda target: f"engine of {target or 'here'}")
    wanted = declared(tmp_path, system=("ffmpeg",))
    assert project.lock(wanted, LockAsk(), screen).lock.system == (layer("ffmpeg"),)
    assert seen == [(("ffmpeg",), "engine of here", False)]
    monkeypatch.setattr(project, "connect", no_engine)
    assert project.lock(wanted, LockAsk(), screen).lock.system == (layer("ffmpeg"),)
    assert screen.said == ["no engine answers: packages of the distribution stay as they are locked"]
    with pytest.raises(NoEngineError):
        project.lock(declared(tmp_path, system=("ffmpeg", "graphviz")), LockAsk(), screen)
    with pytest.raises(NoEngineError):
        project.lock(wanted, LockAsk(upgrade=True), screen)
    assert project.lock(declared(tmp_path), LockAsk(), screen).lock.system == ()


# Faults.


def test_two_at_once_queue(catalog: Catalog, tmp_path: Path, screen: Any) -> None:
    is_locked = threading.Event()

    def other() -> None:
        project.lock(declared(tmp_path, "einops"), LockAsk(), screen)
        is_locked.set()

    holder = "import sys; from pathlib import Path; from kit.project.turn import turn\n"
    holder += "with turn(Path(sys.argv[1])): print(flush=True); sys.stdin.readline()"
    command = [sys.executable, "-c", holder, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdin
        assert first.stdout
        first.stdout.readline()
        second = threading.Thread(target=other)
        second.start()
        assert not is_locked.wait(1)
        assert not (tmp_path / "kit.lock").exists()
        first.stdin.close()
        assert is_locked.wait(30)
        second.join()


def test_a_lock_is_whole_when_locking_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kit.toml").write_text('[environment]\nimage = "tf-cpu"\npackages = ["einops"]\n')
    old = EnvironmentLock(
        kit="0",
        uv="0",
        inputs_hash=inputs_hash(declared(tmp_path, image="tf-cpu")),
        image="tf-cpu",
        image_lock="sha256:0",
        pythons=("3.12",),
        source_date_epoch=0,
        requirements_hash=sha256(""),
    )
    format.write(tmp_path, old)
    with socket.create_server(("127.0.0.1", 0)) as server:  # which never answers
        index = f"http://127.0.0.1:{server.getsockname()[1]}"
        variables = {"UV_DEFAULT_INDEX": index, "UV_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "kit", "lock"]
        with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **variables}, start_new_session=True) as killed:
            server.settimeout(30)
            taken, _ = server.accept()
            os.killpg(killed.pid, signal.SIGKILL)
        taken.close()
    assert format.read(tmp_path) == old
    assert {path.name for path in tmp_path.iterdir()} <= {"kit.toml", "kit.lock", "cache"}
    begun = time.monotonic()
    with turn(tmp_path):
        assert time.monotonic() - begun < 5


def test_what_a_guard_stops_is_not_written(
    catalog: Catalog, tmp_path: Path, screen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        Finding(guard="cpu", package="x", message="x is built for the CPU", hint="take y", stops=stops)
        for stops in (True, False)
    ]
    monkeypatch.setattr(project, "after_solve", lambda *_: found)
    with pytest.raises(LockError, match="x is built for the CPU") as raised:
        project.lock(declared(tmp_path, "einops"), LockAsk(), screen)
    assert raised.value.hint == "take y"
    assert format.read(tmp_path) is None
    del found[0]
    project.lock(declared(tmp_path, "einops"), LockAsk(), screen)
    assert "warning: x is built for the CPU; take y" in screen.said
