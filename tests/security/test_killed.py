"""What a kit leaves that is killed (SIGKILL: the kernel, or somebody out of memory), and who takes it away."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from kit import apt, files, procs
from kit.engine import Engine, connect
from kit.errors import EngineError
from kit.image import base
from kit.image.base import bootstrap
from kit.run.containers import sweep
from tests.fake_docker import FakeDocker, container

KIT = str(Path(sys.executable).with_name("kit"))
HOLD = """
import time
from kit import files
with files.scratch("try") as folder:
    (folder / "secret").write_text("x")
    print(folder, flush=True)
    time.sleep(100)
"""
STREAM = """
from kit import process
process.stream(["sh", "-c", "echo $$; exec sleep 100"], lambda line: print(line, flush=True))
"""
MAKE = """
import sys
from pathlib import Path
from kit.engine import connect
from kit.image import base
base.make("bookworm", Path(sys.argv[1]), connect(), on_message=lambda text: print(text, flush=True))
"""


def wait_until(done: Callable[[], bool], timeout_s: float = 20) -> bool:
    end = time.monotonic() + timeout_s
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def holding() -> tuple[subprocess.Popen[str], Path]:
    child = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, Path(child.stdout.readline().strip())


def test_temporary_folders_of_the_killed_go_with_the_next_and_others_stay(temporary: Path) -> None:
    (dead, left), (alive, used) = holding(), holding()
    (temporary / "elsewhere").mkdir()
    (temporary / "kit-try.link").symlink_to(temporary / "elsewhere")
    (temporary / "kit-try.file").touch()
    dead.kill()
    dead.wait()
    try:
        assert (left / "secret").exists()
        with files.scratch("try") as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert not left.exists()
            assert (used / "secret").exists()
        assert not folder.exists()
        assert (temporary / "elsewhere").exists()
        assert (temporary / "kit-try.file").exists()
    finally:
        alive.kill()
        alive.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another account")
def test_a_folder_of_another_account_is_left_alone(temporary: Path) -> None:
    other = temporary / "kit-try.other"
    other.mkdir()
    os.chown(other, 4246, 4246)
    with files.scratch("try"):
        assert other.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="Podman builds on Linux")
def test_secrets_of_a_podman_build_that_was_killed_go_with_the_next(tmp_path: Path) -> None:
    """The script runs on the engine's machine, and has them in files while it builds."""
    script = resources.files("kit.image.build").joinpath("podman.sh").read_text()
    program = tmp_path / "podman"
    program.write_text('#!/bin/sh\nfor last; do :; done\nexec sleep "$last"\n')
    program.chmod(0o755)
    (tmp_path / "run").mkdir()
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def build(seconds: int) -> subprocess.Popen[str]:
        command = ["sh", "-c", script, "sh", str(program), "environment:1", str(seconds)]
        child = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, text=True, start_new_session=True)
        assert child.stdin is not None
        child.stdin.write("export PASSWORD=x\n")
        child.stdin.flush()
        return child

    def folders() -> list[Path]:
        return [file.parent for file in (tmp_path / "run").glob("*/environment") if "PASSWORD" in file.read_text()]

    killed = build(100)
    assert wait_until(lambda: len(folders()) == 1)
    left = folders()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    running = build(100)
    assert wait_until(lambda: len(folders()) == 1 and folders() != left), "its own alone"
    with build(0) as done:
        assert done.wait(20) == 0
    assert len(folders()) == 1
    assert folders() != left, "one that is building keeps its own"
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")
def test_a_program_that_kit_watches_ends_with_it() -> None:
    with subprocess.Popen([sys.executable, "-c", STREAM], stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        pid = int(watching.stdout.readline())
        assert procs.is_alive(pid)
        watching.kill()
    assert wait_until(lambda: not procs.is_alive(pid))


def test_what_a_killed_make_of_a_base_left_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder it worked in; not that of another base."""
    for name in (".bookworm-amd64.old", ".trixie-amd64.old"):
        (tmp_path / name / "inside").mkdir(parents=True)

    def fail(*_: object) -> str:
        raise EngineError("far enough")

    monkeypatch.setattr(base, "choose_mirror", fail)
    with pytest.raises(EngineError, match="far enough"):
        base.make("bookworm", tmp_path / "bookworm-amd64.tar", Engine())
    assert [file.name for file in tmp_path.iterdir()] == [".trixie-amd64.old"]


def test_containers_that_go_with_a_process_are_swept_when_it_is_over(engine: Engine, fake_docker: FakeDocker) -> None:
    here = f"{socket.gethostname()}:{os.getpid()}"
    boot, start = procs.boot(), procs.start_time(os.getpid())
    own = str(os.getuid())
    odd = ("", " ", f"{boot} x y", f"{boot} {'9' * 50} 1", boot)
    cases = {
        "over": {"kit.bound": f"{boot} 4194305 77"},
        "reused": {"kit.bound": f"{boot} {os.getpid()} {start}9"},
        "mine": {"kit.bound": procs.identity()},
        "rebooted": {"kit.bound": "another-boot 4194305 77"},
        "anothers": {"kit.bound": f"{boot} 4194305 77", "kit.owner": str(os.getuid() + 1)},
        "of-another-machine": {"kit.bound": f"{boot} 4194305 77", "kit.client": "elsewhere:1"},
        "unbound": {},
        **{f"odd{number}": {"kit.bound": text} for number, text in enumerate(odd)},
    }
    common = {"kit.client": here, "kit.owner": own}
    raw = [container(f"kit-{name}", labels={**common, **labels}) for name, labels in cases.items()]
    fake_docker.reply("ps", stdout="".join(f"{number}\n" for number in range(len(raw))))
    fake_docker.reply("container", "inspect", stdout=json.dumps(raw))
    assert sweep(engine) == ["kit-over", "kit-reused"]


@pytest.mark.engine
def test_a_verify_that_was_killed_leaves_its_container_to_the_next(tf_cpu: str, tmp_path: Path) -> None:
    engine, said = connect(), tmp_path / "said"

    def there() -> list[str]:
        return [c.name for c in engine.containers(label="kit.bound")]

    with said.open("w") as output, subprocess.Popen([KIT, "verify", tf_cpu], stdout=output, stderr=output) as killed:
        assert wait_until(lambda: len(there()) > 0 or killed.poll() is not None, 60)
        assert killed.returncode is None, said.read_text()
        left = there()
        killed.kill()
    assert there() == left, "nobody was there to remove it"
    subprocess.run([KIT, "verify", tf_cpu, "--only", "image.labels"], capture_output=True, check=False)
    assert there() == []


@pytest.mark.engine
def test_a_base_that_was_killed_is_made_by_the_next(tmp_path: Path) -> None:
    engine, archive = connect(), tmp_path / f"bookworm-{apt.architecture()}.tar"
    name, reference = bootstrap.names("bookworm", tmp_path)
    with subprocess.Popen([sys.executable, "-c", MAKE, str(archive)], stdout=subprocess.PIPE, text=True) as killed:
        assert wait_until(lambda: engine.is_listed(name), 300)
        killed.kill()
    assert engine.image_id(reference)
    base.make("bookworm", archive, engine)
    assert not engine.is_listed(name)
    assert not engine.image_id(reference)
    assert [file.name for file in tmp_path.iterdir()] == [archive.name]
