"""Facts of a machine read over SSH: a real sshd on loopback, with keys, configuration and port of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.errors import NetworkError
from kit.host import read_gpus, read_host
from tests.engine.sshd import USER, Server, needs_sshd

pytestmark = needs_sshd
# What does not change from one moment to the next, nor with the way the machine is asked.
STABLE = ("platform", "os", "os_id", "kernel", "driver", "pci_gpus", "gpus", "toolkit", "cdi_specs", "cpus")
STABLE += ("memory_bytes", "shm_bytes", "disk_path", "has_private_ca", "unread", "is_wsl", "driver_library")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sshd")
    # Without an engine of kit's, as the tests themselves are.
    running = Server(folder, environment={"KIT_ENGINE_DIR": str(folder / "no-engine")})
    yield running
    running.stop()


def test_the_machine_is_the_same_over_ssh(server, monkeypatch):
    monkeypatch.setenv("KIT_SSH", server.ssh())
    # Where no Docker answers a Podman is taken on a host, and here only where there is no docker at all.
    monkeypatch.setenv("KIT_ENGINE", "system")
    here, there = read_host(), read_host("machine")
    assert there.target == "machine"
    for field in STABLE:
        assert getattr(there, field) == getattr(here, field), field
    assert (there.engine.program, there.engine.version) == (here.engine.program, here.engine.version)


@pytest.mark.parametrize("target", ["{user}@machine", "ssh://machine", "ssh://{user}@machine:{port}"])
def test_every_way_to_name_it(server, monkeypatch, target):
    monkeypatch.setenv("KIT_SSH", server.ssh())
    target = target.format(user=USER, port=server.port)
    host = read_gpus(target, with_use=True)
    assert (host.target, host.unread) == (target, ())
    assert host.kernel == os.uname().release


def test_a_login_that_greets(server, monkeypatch):
    monkeypatch.setenv("KIT_SSH", server.ssh())
    keys = server.folder / "authorized_keys"
    before = keys.read_text()
    # What a chatty ~/.bashrc does to a command run through ssh.
    keys.write_text(f'command="echo Welcome; echo; $SSH_ORIGINAL_COMMAND" {before}')
    try:
        assert read_host("machine").kernel == os.uname().release
    finally:
        keys.write_text(before)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"key": "other_key"}, "does not let you in"),
        ({"known": False}, "host key is not known"),
        ({"port": 9}, "refuses the connection"),
        ({"hosts": "another"}, "no machine of that name"),
    ],
)
def test_why_it_cannot_be_reached(server, monkeypatch, changes, what):
    monkeypatch.setenv("KIT_SSH", server.ssh(**changes))
    with pytest.raises(NetworkError, match=what) as caught:
        read_host("machine.invalid" if "hosts" in changes else "machine")
    assert caught.value.details


def test_another_host_key_is_refused(server, monkeypatch):
    monkeypatch.setenv("KIT_SSH", server.ssh())
    kind, key = (server.folder / "other_key.pub").read_text().split()[:2]
    (server.folder / "known_hosts").write_text(f"kit-test {kind} {key}\n")
    with pytest.raises(NetworkError, match="not the one known here"):
        read_host("machine")


def test_an_account_without_a_shell(server, monkeypatch):
    monkeypatch.setenv("KIT_SSH", server.ssh())
    keys = server.folder / "authorized_keys"
    before = keys.read_text()
    keys.write_text(f'command="echo This account is not available; exit 1" {before}')
    try:
        with pytest.raises(NetworkError, match="ran no shell") as caught:
            read_host("machine")
    finally:
        keys.write_text(before)
    assert caught.value.details == ("This account is not available",)


def children(pid):
    """The processes a process started, and those that these started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == pid:
            found += [int(stat.parent.name), *children(int(stat.parent.name))]
    return found


def test_ctrl_c_leaves_no_ssh_behind(server, monkeypatch):
    monkeypatch.setenv("KIT_SSH", server.ssh())
    keys = server.folder / "authorized_keys"
    before = keys.read_text()
    keys.write_text(f'command="sleep 60" {before}')
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", "from kit.host import read_host; read_host('machine')"],
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 30
        while not (started := children(child.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert started
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=20)
    finally:
        keys.write_text(before)
    assert "KeyboardInterrupt" in errors
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
