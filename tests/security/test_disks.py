"""A disk that is full or read-only under the private engine and where bases are made: the code says so, and nothing is
left half done, on the disk or on the machine.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import files, private_engine, process
from kit.errors import DiskFullError, FilesError
from kit.private_engine import machine, programs, subnet
from tests.engine.conftest import as_environment

pytestmark = [
    pytest.mark.engine,
    pytest.mark.alone,
    pytest.mark.skipif(os.geteuid() != 0, reason="a loop device needs root"),
]
KIT = str(Path(sys.executable).with_name("kit"))


class Disk:
    """A small disk with a folder for an engine on it."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.image, self.folder, self.engine = image, folder, folder / "engine"

    def mount(self, megabytes: int) -> None:
        subprocess.run(["truncate", f"--size={megabytes}M", str(self.image)], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-m0", "-O^has_journal", str(self.image)], check=True)
        command = ["mount", "-o", "loop", str(self.image), str(self.folder)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            pytest.skip(f"this machine has no loop devices: {mounted.stderr.strip()}")

    def fill(self) -> None:
        """Leave nothing."""
        done = subprocess.run(["dd", "if=/dev/zero", f"of={self.folder}/filling"], capture_output=True, check=False)
        assert b"No space left" in done.stderr

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """As whoever opens a file sees it; who has one open goes on writing it."""
        folder = str(self.folder)
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)

    def kit(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = as_environment(KIT_ENGINE_DIR=str(self.engine), **variables)
        done = subprocess.run([KIT, *words], capture_output=True, text=True, check=False, env=environment)
        assert "Traceback" not in done.stderr
        assert "unexpected" not in done.stderr
        return done


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "disk").mkdir()
    made = Disk(tmp_path / "image", tmp_path / "disk")
    yield made
    if made.engine.is_dir():
        made.kit("--yes", "engine", "down", "--purge", "--force")
    subprocess.run(["umount", "--lazy", str(made.folder)], check=False)


@pytest.fixture(scope="module")
def shared() -> str:
    """The programs of the machine's engine."""
    folder = Path(os.environ.get("KIT_ENGINE_PROGRAMS") or private_engine.engine_paths().programs)
    with files.locked(private_engine.engine_paths().lock_file):
        programs.ensure(folder, say=print)
    return str(folder)


def state() -> tuple[object, ...]:
    """What an engine would leave on the machine."""
    iptables = subnet.working_iptables(["/usr/sbin/iptables", "iptables"])
    rules = [process.run([iptables, "-t", table, "-S"]).stdout for table in ("filter", "nat")]
    bridges = sorted(file.name for file in subnet.CLASS_NET.glob("kitbr-*"))
    return (*rules, *bridges, *sorted(file.name for file in machine.USERS.glob("*")), subnet.forwarding()["ip_forward"])


def left(disk: Disk) -> list[str]:
    known = {"lock", "lost+found", "filling", "engine"}
    return sorted(str(file.relative_to(disk.folder)) for file in disk.folder.rglob("*") if file.name not in known)


def test_programs_that_do_not_fit(disk: Disk) -> None:
    disk.mount(100)
    before = state()
    done = disk.kit("engine", "up")
    assert done.returncode == DiskFullError.exit_code, done.stderr
    assert "no space left" in done.stderr
    assert left(disk) == []
    assert state() == before


def test_an_engine_on_a_full_disk(disk: Disk, shared: str) -> None:
    disk.mount(10)
    disk.engine.mkdir()
    disk.fill()
    before = state()
    done = disk.kit("engine", "up", KIT_ENGINE_PROGRAMS=shared)
    assert done.returncode == DiskFullError.exit_code, done.stderr
    assert state() == before
    assert disk.kit("--yes", "engine", "down", "--purge", "--force", KIT_ENGINE_PROGRAMS=shared).returncode == 0
    assert not disk.engine.exists()


def test_an_engine_on_a_read_only_disk(disk: Disk, shared: str) -> None:
    disk.mount(10)
    disk.engine.mkdir()
    before = state()
    with disk.read_only():
        done = disk.kit("engine", "up", KIT_ENGINE_PROGRAMS=shared)
    assert done.returncode == FilesError.exit_code, done.stderr
    assert "Read-only file system" in done.stderr
    assert state() == before


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_an_engine_whose_disk_fails_while_it_runs_is_stopped_all_the_same(disk: Disk, shared: str, fault: str) -> None:
    disk.mount(100)
    before = state()
    assert disk.kit("engine", "up", KIT_ENGINE_PROGRAMS=shared).returncode == 0
    if fault == "full":
        disk.fill()
    with disk.read_only() if fault == "read-only" else contextlib.nullcontext():
        done = disk.kit("engine", "down", KIT_ENGINE_PROGRAMS=shared)
        assert done.returncode == 0, done.stderr
        assert state() == before
        assert disk.kit("engine", "status").returncode == 1
        if fault == "read-only":
            done = disk.kit("--yes", "engine", "down", "--purge", "--force", KIT_ENGINE_PROGRAMS=shared)
            assert done.returncode != 0, "nothing is deleted, and it is said"
    assert disk.kit("engine", "up", KIT_ENGINE_PROGRAMS=shared).returncode == (0 if fault == "read-only" else 14)


@pytest.mark.parametrize(("fault", "code"), [("full", DiskFullError.exit_code), ("read-only", FilesError.exit_code)])
def test_a_base_is_made_whole_or_not_at_all(disk: Disk, fault: str, code: int) -> None:
    disk.mount(150)
    (disk.folder / "kit").mkdir()
    environment = as_environment(XDG_CACHE_HOME=str(disk.folder))
    command = [KIT, "base", "make", "bookworm", "--force"]
    with disk.read_only() if fault == "read-only" else contextlib.nullcontext():
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert [name for name in left(disk) if name.startswith("kit/base/") and not name.endswith(".lock")] == []
