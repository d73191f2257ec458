"""A disk that is full while an image is built: a small loop device with a private engine of the test's own on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import private_engine
from kit.private_engine import programs
from tests.engine.conftest import Kit
from tests.engine.short import Short

pytestmark = [pytest.mark.engine, pytest.mark.skipif(os.geteuid() != 0, reason="a loop device needs root")]
# Enough for the base, not for what the step writes.
SIZE = "900M"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk, folder = tmp_path / "disk.img", tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["truncate", "--size", SIZE, str(disk)], check=True)
    subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)
    command = ["mount", "-o", "loop", str(disk), str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"this machine has no loop devices: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_has_its_own_error_and_leaves_a_working_engine(kit: Kit, small_disk: Path, tmp_path: Path) -> None:
    shared = programs.ensure(private_engine.engine_paths().programs, say=lambda _: None)
    short = Short(kit, tmp_path / "root")
    short.write("head -c 4G /dev/zero > /big")
    environment = short.environment | dict(
        KIT_ENGINE="private", KIT_ENGINE_DIR=str(small_disk / "engine"), KIT_ENGINE_PROGRAMS=str(shared.folder)
    )
    kit("engine", "up", env=environment)
    try:
        done = short.build(code=14, env=environment)
        assert "no space left" in done.stderr
        assert "prune" in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) < 40
        assert kit("--json", "ps", "--all", env=environment).stdout.strip() == "[]"
    finally:
        kit("--yes", "engine", "down", "--purge", "--force", env=environment)
