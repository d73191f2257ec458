"""A tunnel leads to the container it was opened for, and to nobody who has taken its port."""
# ruff: noqa: F401, F811 (fixtures are imported, and then arguments)

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from kit.engine import connect
from kit.engine.docker import Engine
from kit.engine.remote import RemoteEngine
from kit.remote import ssh, tunnels
from kit.remote.tunnels import forward, state
from tests.engine.ssh.test_tunnels import PASSWORD, asking, first, machine, opened, server, until, works
from tests.engine.sshd import needs_sshd

pytestmark = needs_sshd
TOKEN = b"secret-token"


class Listener:
    """Whoever has a port there: says what it is called, and keeps what it was sent."""

    def __init__(self, port, name):
        self.heard, self.name, self.taken = b"", name, 0
        self.socket = socket.create_server(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.socket.accept()
                self.taken += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, contextlib.suppress(OSError):
            while some := client.recv(65536):
                self.heard += some
                client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + self.name)

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.fixture
def container(tmp_path):
    """A container that only its file makes alive: what is in it names its life."""
    file = tmp_path / "life"
    file.write_text("first 10:00\n")
    return file


def asked(tunnel, timeout_s=10):
    """What answers on a tunnel's port, with the token sent."""
    with socket.create_connection(("127.0.0.1", tunnel.local_port), timeout=timeout_s) as client:
        client.sendall(b"GET /?token=" + TOKEN + b" HTTP/1.0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            return client.recv(65536).rpartition(b"\n")[2]
    return b""


@pytest.mark.parametrize("is_shared", [False, True])
def test_another_user_takes_the_port_of_a_service_that_ended(request, first, container, is_shared):
    request.getfixturevalue("asking" if is_shared else "machine")
    if is_shared:
        ssh.connect("machine", may_ask=True)
        for folder in container.parents:
            if folder != Path("/tmp"):
                folder.chmod(folder.stat().st_mode | 0o055)
            else:
                break
        container.chmod(0o644)
    own = Listener(0, b"own")
    tunnel = opened(own.port, first, life=f"cat {shlex.quote(str(container))}")
    assert tunnel.is_shared == is_shared
    assert asked(tunnel) == b"own"
    container.write_text("")
    own.close()
    attacker = Listener(own.port, b"attacker")
    for _ in range(5):
        assert asked(tunnel) == b""
    until(lambda: "does not run" in tunnels.listed()[0].problem)
    assert attacker.heard == b""
    attacker.close()
    own = Listener(own.port, b"own again")
    container.write_text("first 11:00\n")
    assert asked(tunnel) == b"own again"
    until(lambda: tunnels.listed()[0].status == "up")
    own.close()
    tunnels.close(tunnels.listed())


def test_the_port_is_taken_between_two_lives(machine, first, container):
    """The container is back when it is asked for, but was not when the connection was made."""
    own = Listener(0, b"own")
    tunnel = opened(own.port, first, life=f"cat {shlex.quote(str(container))}")
    assert asked(tunnel) == b"own"
    heard, answers = [], []
    for number in range(4):
        container.write_text("")
        own.close()
        attacker = Listener(own.port, b"attacker")
        asking_ones = [threading.Thread(target=lambda: answers.append(asked(tunnel))) for _ in range(8)]
        for thread in asking_ones:
            thread.start()
        time.sleep(0.02 * number)
        attacker.close()
        own = Listener(own.port, b"own")
        # Never the time of an earlier life: an engine gives its starts to the nanosecond.
        container.write_text(f"first 11:0{number}\n")
        for thread in asking_ones:
            thread.join()
        heard.append(attacker.heard)
        assert set(answers) <= {b"own", b""}
    assert heard == [b""] * 4
    own.close()


def test_much_goes_both_ways_at_the_speed_of_who_reads(machine, first):
    size = 30_000_000
    received = []

    def serve(listener):
        client, _ = listener.accept()
        with client:
            total = 0
            while total < size and (some := client.recv(1 << 20)):
                total += len(some)
            client.sendall(b"y" * size)
            client.shutdown(socket.SHUT_WR)
            received.append((total, client.recv(10)))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        tunnel = opened(listener.getsockname()[1], first)
        with socket.create_connection(("127.0.0.1", tunnel.local_port)) as client:
            client.sendall(b"x" * size)
            time.sleep(0.5)
            total = 0
            while some := client.recv(1 << 20):
                total += len(some)
            assert total == size
        thread.join(timeout=30)
    assert received == [(size, b"")]


def test_more_at_once_than_are_carried(machine, first, monkeypatch):
    own = Listener(0, b"own")
    tunnel = opened(own.port, first)
    clients = [socket.create_connection(("127.0.0.1", tunnel.local_port)) for _ in range(300)]
    until(lambda: own.taken == forward.MOST_CONNECTIONS)
    for client in clients[:200]:
        client.close()
    until(lambda: own.taken == 300)
    assert asked(tunnel) == b"own"
    for client in clients:
        client.close()
    own.close()


def test_the_forwarded_socket_is_for_nobody_else(machine, first):
    own = Listener(0, b"own")
    tunnel = opened(own.port, first)
    folder = ssh.private_folder(state.sockets(tunnel.id))
    assert folder.stat().st_mode & 0o777 == 0o700
    (found,) = folder.iterdir()
    listening = Path("/proc/net/tcp").read_text()
    assert found.is_socket()
    assert listening.count(f"0100007F:{tunnel.local_port:04X} 00000000:0000 0A") == 1
    tunnels.close([tunnel])
    assert not folder.exists()
    own.close()


@pytest.mark.parametrize("name", ["kit-$(touch ran)", "kit-`touch ran`", "kit-';touch ran;'", "-x", "a b\nc"])
def test_names_are_no_commands(tmp_path, name):
    script = Engine(program="echo").life(name)
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.rstrip("\n").endswith(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.engine
@pytest.mark.parametrize("program", ["docker", "curl"])
def test_a_real_container_has_lives(tmp_path, program):
    """By the docker command line there, and by the engine's interface where there is none."""
    engine = connect()
    account = ssh.Account(user="u", uid=0, gid=0, home="/", hostname="h", sockets=("/none", str(engine.socket_path)))
    there = RemoteEngine(ssh.Connection(target="h", address="h", folder=tmp_path, account=account))
    for name in ("sh", "curl", "tr", "grep", "head"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    path = str(tmp_path)
    if program == "docker":
        (tmp_path / "docker").symlink_to(shutil.which(engine.program) or engine.program)

    def life(name):
        # The folder of the engine's own programs is looked into as well.
        script = there.life(name).replace("/programs/bin", "/none")
        return subprocess.run(
            ["sh", "-c", script], env={"PATH": path}, capture_output=True, text=True, timeout=30
        ).stdout

    name = f"kit-test-{os.urandom(4).hex()}"
    engine.call(["run", "-d", f"--name={name}", "kit/tf-cpu:latest", "sleep", "300"])
    try:
        first_life = life(name)
        assert first_life.strip()
        assert life(name) == first_life
        engine.call(["restart", "--time=0", name])
        second = life(name)
        assert second.strip()
        assert second != first_life
        engine.call(["kill", name])
        assert life(name).strip() == ""
        assert life("kit-none").strip() == ""
    finally:
        engine.call(["rm", "-f", name])
