"""Bases made for real, from the mirror this machine uses."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from docker import DockerClient

from kit import process
from kit.engine import Engine, connect
from kit.errors import DiskFullError, NetworkError, NoEngineError
from kit.image import base
from tests.engine import witness

pytestmark = pytest.mark.engine


@pytest.fixture
def engine() -> Engine:
    return connect()


def test_two_makes_are_byte_for_byte_equal(engine: Engine, tmp_path: Path) -> None:
    archives = [tmp_path / "one/x.tar", tmp_path / "two/x.tar"]
    hashes = {base.make("bookworm", archive, engine, on_message=print) for archive in archives}
    assert len(hashes) == 1
    assert len({hashlib.sha256(archive.read_bytes()).hexdigest() for archive in archives}) == 1
    assert [entry.name for archive in archives for entry in archive.parent.iterdir()] == ["x.tar", "x.tar"]


def test_base_is_made_once_and_then_kept(engine: Engine) -> None:
    made = base.ensure("bookworm", engine, on_message=print)
    assert base.find("bookworm", engine) == made
    started, said = time.monotonic(), list[str]()
    assert base.ensure("bookworm", engine, on_message=said.append) == made
    assert time.monotonic() - started < 3
    assert "is there already" in said[0]


def test_base_removed_from_the_engine_is_loaded_from_disk(
    engine: Engine, docker: DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(base, "REPOSITORY", "kit/base-of-a-test")
    try:
        made = base.ensure("bookworm", engine, on_message=print)
        docker.images.remove(made.reference)
        said: list[str] = []
        assert base.ensure("bookworm", engine, on_message=said.append) == made
        assert said == [f"loading {made.reference} as it was made before"]
        base.archive_of("bookworm").write_bytes(b"no archive")
        docker.images.remove(made.reference)
        assert base.ensure("bookworm", engine, on_message=print) == made, "a broken archive is made anew"
    finally:
        docker.images.remove("kit/base-of-a-test:bookworm", force=True)


@pytest.mark.parametrize(("suite", "python"), [("bullseye", "3.9"), ("trixie", "3.13")])
def test_other_suites_install_their_python(engine: Engine, docker: DockerClient, suite: str, python: str) -> None:
    made = base.ensure(suite, engine, on_message=print)
    command = "apt-get -qq update && apt-cache policy python3 | grep Candidate"
    said = witness.run(docker, made.reference, "sh", "-c", command)
    assert f"Candidate: {python}." in said


def test_mirror_that_does_not_answer(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NetworkError, match=r"127\.0\.0\.1:9"):
        base.ensure("bookworm", engine, mirror="http://127.0.0.1:9/debian", force=True)
    assert [entry.name for entry in (tmp_path / "kit/base").iterdir()] == ["bookworm.lock"]


def test_no_engine_is_said_before_a_base_is_made(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NoEngineError):
        base.ensure("bookworm", Engine(program=engine.program, environment={"DOCKER_HOST": f"unix://{tmp_path}/none"}))
    assert not list(tmp_path.rglob("*bookworm*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, which needs root")
def test_disk_full(engine: Engine, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    process.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(small)])
    try:
        with pytest.raises(DiskFullError, match="no space left"):
            base.make("bookworm", small / "base/x.tar", engine, on_message=print)
        assert list((small / "base").iterdir()) == []
    finally:
        process.run(["umount", "--lazy", str(small)])


def architecture() -> str:
    return process.run(["dpkg", "--print-architecture"]).stdout.strip()
