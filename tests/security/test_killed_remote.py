"""Commands that work on another machine are ended at any point: nothing is lost, nothing is left, the code is right."""
# ruff: noqa: F401, F811 (fixtures are imported, and then arguments)

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.remote import ssh
from tests import fake_ssh
from tests.engine.ssh.test_host_ssh import children
from tests.engine.ssh.test_sync import forced, home, large, project, server, wait_for, write
from tests.engine.sshd import needs_sshd

pytestmark = [needs_sshd, pytest.mark.skipif(not shutil.which("rsync"), reason="needs rsync: install rsync")]
KIT = str(Path(sys.executable).with_name("kit"))
GENTLE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where what a command needs for a moment is."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return folder


@pytest.fixture
def there(server, forced, home, project, temporary, monkeypatch):
    """The folder's copy on a server whose home directory is `home`; starts commands, which a signal reaches alone."""
    command = server.ssh()
    monkeypatch.setenv("KIT_SSH", command)
    forced(f"HOME='{home}'; export HOME; cd; eval \\\"$SSH_ORIGINAL_COMMAND\\\"")
    subprocess.run([KIT, "--host", "machine", "sync"], cwd=project, check=True, timeout=60, capture_output=True)
    yield next((home / "kit-workspaces").glob("project-????????"))
    ssh.close("machine")


def start(folder, temporary, *arguments, **variables):
    return subprocess.Popen(
        [KIT, "--host", "machine", *arguments],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(child, number, temporary, timeout_s=15):
    """Send the signal, and see that all is gone that was begun."""
    begun = children(child.pid)
    child.send_signal(number)
    _, err = child.communicate(timeout=timeout_s)
    assert child.returncode == (128 + number if number != signal.SIGKILL else -number), err
    assert "Traceback" not in err
    # The shared connection stays, as after every command.
    wait_for(lambda: not [pid for pid in begun if is_running(pid)], "the end of what it had begun")
    if number != signal.SIGKILL:
        assert list(temporary.iterdir()) == []


def is_running(pid):
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return words[0] not in "ZX" and b"ControlPersist" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize("number", [*GENTLE, signal.SIGKILL])
@pytest.mark.parametrize("command", ["sync", "fetch"])
def test_while_a_file_is_on_its_way(there, project, temporary, command, number):
    here, other = (project, there) if command == "sync" else (there, project)
    write(here, {"small": "x"})
    name = large(here)
    child = start(project, temporary, command)
    wait_for(lambda: list(other.glob(f".{name}.*")) or child.poll() is not None, "the file on its way")
    end(child, number, temporary)
    wait_for(lambda: not list(other.glob(f".{name}.*")), "the end of the other side")
    assert not (other / name).exists()
    (here / name).unlink()
    done = subprocess.run(
        [KIT, "--host", "machine", command], cwd=project, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (other / "small").read_text() == "x"
    assert not [path for path in other.iterdir() if path.name.startswith(".") and path.name not in OWN]


OWN = (".gitignore", ".git", ".kit-partial")


@pytest.mark.parametrize("number", GENTLE)
@pytest.mark.parametrize("command", ["sync", "fetch", "ps", "run tf-cpu true", "tunnel open x"])
def test_while_ssh_logs_in(project, temporary, tmp_path, command, number):
    (tmp_path / "hang").touch()
    child = start(project, temporary, *command.split(), KIT_SSH=fake_ssh.command(tmp_path))
    wait_for(lambda: (tmp_path / "tries").exists(), "ssh")
    end(child, number, temporary)
    assert not list((tmp_path / "kit").glob("*"))


@pytest.mark.parametrize("number", GENTLE)
@pytest.mark.parametrize("program", ["git", "rsync"])
def test_while_a_program_is_waited_for(there, project, temporary, tmp_path, program, number):
    write(project, {"new": "x"}, age=5)
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / program).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 60\n")
    (folder / program).chmod(0o755)
    child = start(project, temporary, "sync", PATH=f"{folder}:{os.environ['PATH']}")
    wait_for(lambda: (tmp_path / "started").exists(), program)
    end(child, number, temporary)
    again = subprocess.run([KIT, "--host", "machine", "sync"], cwd=project, capture_output=True, timeout=60, check=True)
    assert b"sent 1 file" in again.stderr
    assert (there / "new").exists()
