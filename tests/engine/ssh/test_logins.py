"""How often a command logs in to a machine: once, as what a login reads first may take long."""
# ruff: noqa: F401, F811 (fixtures are imported, and then arguments)

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from kit.errors import GpuUnavailableError, NetworkError
from kit.remote import ssh, sync
from kit.run import lease
from tests.engine.ssh.test_sync import at_home, forced, home, machine, project, server, write
from tests.engine.sshd import needs_sshd

pytestmark = needs_sshd
KIT = str(Path(sys.executable).with_name("kit"))


@pytest.fixture
def logins(server, forced, home, tmp_path, monkeypatch):
    """A server whose login takes a moment, and a function that says how many there were since it was last asked."""
    monkeypatch.setenv("KIT_SSH", server.ssh())
    count = tmp_path / "logins"
    count.touch()
    forced(f"echo x >>'{count}'; sleep 0.3; HOME='{home}'; export HOME; cd; eval \\\"$SSH_ORIGINAL_COMMAND\\\"")

    def since():
        found = count.read_text().count("x")
        count.write_text("")
        return found

    yield since
    ssh.close("machine")


def kit(folder, *arguments):
    done = subprocess.run(
        [KIT, "--host", "machine", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    "command", [("sync",), ("sync", "--dry-run"), ("fetch",), ("gpus",), ("doctor",), ("resolve", "tf"), ("ps",)]
)
def test_each_command_logs_in_once(logins, project, command):
    assert kit(project, "sync").returncode == 0
    ssh.close("machine")
    assert logins() == 1
    cold = kit(project, *command)
    assert logins() == 1, cold.stderr
    warm = kit(project, *command)
    assert logins() <= 1, warm.stderr
    assert cold.returncode == warm.returncode


def test_a_sync_that_has_much_to_ask_logs_in_once(logins, project, home):
    connection = at_home(ssh.connect("machine"), home)
    there = Path(sync.push(connection, project).remote_folder)
    assert logins() == 1
    write(there, {"train.py": "changed there"}, age=500)
    write(project, {"train.py": "changed here"}, age=10)
    write(there, {"src/model.py": "newer there"}, age=5)
    done = sync.push(connection, project)
    assert (done.put_aside, done.kept_newer) == (("train.py",), ("src/model.py",))
    assert sync.fetch(connection, project).sent_files == 1
    (project / "src/model.py").unlink()
    sync.push(connection, project, delete=True)
    assert logins() == 0, "all of it in the shell that was there"


def test_what_rests_logs_in_again(logins):
    connection = ssh.connect("machine")
    connection.run("true")
    connection.rest()
    connection.ping(5)
    assert logins() == 1
    connection.run("true")
    assert logins() == 1


def test_a_login_that_takes_too_long_is_named(server, forced, monkeypatch):
    monkeypatch.setenv("KIT_SSH", server.ssh())
    monkeypatch.setattr(ssh, "LOGIN_S", 2)
    forced("sleep 60")
    with pytest.raises(NetworkError, match="you are in, and its login shell has not answered"):
        ssh.connect("machine")


def test_a_machine_that_sleeps_is_noticed_without_a_login(server, logins):
    connection = ssh.connect("machine")
    server.kill_sessions()
    server.process.send_signal(19)
    try:
        begun = time.monotonic()
        with pytest.raises(NetworkError):
            connection.ping(1)
        assert time.monotonic() - begun < 5
    finally:
        server.process.send_signal(18)


def test_settings_that_ask_for_a_terminal_or_a_command_are_not_obeyed(server, project, home, monkeypatch):
    monkeypatch.setenv("KIT_SSH", server.ssh())
    config = server.folder / "ssh_config"
    config.write_text(f"Host machine\n  RequestTTY force\n  RemoteCommand top\n{config.read_text()}")
    try:
        connection = at_home(ssh.connect("machine"), home)
        assert connection.run("test -t 0 || echo none").stdout == "none\n"
        assert sync.push(connection, project).sent_files == 3
        assert sync.fetch(connection, project).sent_files == 0
    finally:
        ssh.close("machine")


def test_a_home_folder_with_odd_signs(server, project, tmp_path, monkeypatch):
    from kit.engine.remote import RemoteEngine

    monkeypatch.setenv("KIT_SSH", server.ssh())
    odd = tmp_path / "CORP\\bob x,y@ex.com"
    odd.mkdir()
    try:
        connection = at_home(ssh.connect("machine"), odd)
        there = Path(sync.push(connection, project).remote_folder)
        assert there.is_relative_to(odd)
        assert (there / "train.py").read_text() == "train"
        (there / "runs").mkdir()
        (there / "runs" / "x").write_text("result")
        assert sync.fetch(connection, project).sent_files == 1
        engine = RemoteEngine(connection)
        file = tmp_path / "passwd"
        file.write_text("root\n")
        provided = Path(engine.provide(file))
        assert provided.is_relative_to(odd)
        assert provided.read_text() == "root\n"
    finally:
        ssh.close("machine")


def test_a_strict_umask_on_both_sides(server, forced, project, home, tmp_path, monkeypatch):
    from kit.engine.remote import RemoteEngine

    monkeypatch.setenv("KIT_SSH", server.ssh())
    forced('umask 077; eval \\"$SSH_ORIGINAL_COMMAND\\"')
    before = os.umask(0o077)
    try:
        connection = at_home(ssh.connect("machine"), home)
        folder = tmp_path / "inside"
        folder.mkdir()
        (folder / "passwd").write_text("root\n")
        provided = Path(RemoteEngine(connection).provide(folder))
        # A container of another user reads it.
        assert provided.stat().st_mode & 0o777 == 0o755
        assert (provided / "passwd").stat().st_mode & 0o777 == 0o644
        assert sync.push(connection, project).sent_files == 3
        with RemoteEngine(connection).scratch("1000:1000") as scratch:
            assert Path(scratch).stat().st_mode & 0o777 == 0o777
    finally:
        os.umask(before)
        ssh.close("machine")


def test_the_lock_of_leases_is_held_in_the_same_login(logins, tmp_path, monkeypatch):
    folder = tmp_path / "lock"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(lease, "LOCK_FOLDERS", (folder,))
    monkeypatch.setattr(lease, "LOCK_WAIT_S", 0.5)
    monkeypatch.setattr(lease, "LOCK_NOTICE_S", 0.2)
    connection = ssh.connect("machine")
    engine = SimpleNamespace(connection=connection, target="machine")
    told = []
    file = folder / lease.LOCK_NAME
    with lease.held(engine) as release:
        assert file.stat().st_mode & 0o777 == 0o444
        with pytest.raises(GpuUnavailableError), lease.locked(file, wait_s=0.3):
            pass
        # What is left running there meanwhile does not hold it.
        connection.run("(exec >/dev/null 2>&1; sleep 20) &")
        release()
        with lease.locked(file, wait_s=5):
            pass
    with (
        lease.locked(file, wait_s=5),
        pytest.raises(GpuUnavailableError, match="cannot be had"),
        lease.held(engine, on_wait=told.append),
    ):
        pass
    assert "waiting for another" in told[0]
    with lease.held(engine):
        connection.rest()
        with lease.locked(file, wait_s=5):
            pass
    assert logins() == 1
    file.unlink()
    file.symlink_to(tmp_path)
    with pytest.raises(GpuUnavailableError, match="cannot be had"), lease.held(engine):
        pass


def test_threads_share_one_login(logins, tmp_path):
    connection = ssh.connect("machine")
    found = []
    threads = [threading.Thread(target=lambda n=n: found.append(connection.run(f"echo {n}").stdout)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == sorted(f"{n}\n" for n in range(12))
    assert logins() == 1
