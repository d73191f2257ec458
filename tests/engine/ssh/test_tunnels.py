"""Tunnels over a real ssh to a real sshd: what they survive, and that nothing is left of them."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from kit import ports, procs
from kit.errors import NetworkError, PortTakenError
from kit.remote import ssh, tunnels
from kit.remote.tunnels import state
from tests import fake_ssh
from tests.engine.remote.accounts import add_account, remove_account
from tests.engine.remote.network import Link, why_not
from tests.engine.sshd import USER, Server, needs_sshd
from tests.free_ports import free_ports

pytestmark = needs_sshd
PASSWORD = "correct horse"
OPEN = """
import sys
from kit.remote import tunnels
print(tunnels.open_tunnel("machine", container=sys.argv[1], service="jupyter", remote_port=int(sys.argv[2]),
                          first_port=int(sys.argv[3]), life="echo alive", timeout_s=60).local_port)
"""
FETCH = """
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(opener.open(f"http://127.0.0.1:{sys.argv[1]}/x", timeout=3).read().decode())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("sshd"))
    yield running
    running.stop()


@pytest.fixture
def machine(server, monkeypatch, own_machine):
    """The server under its name; no process and no file may be left of a test that has it."""
    if server.process.poll() is not None:
        server.start()
    monkeypatch.setenv("KIT_SSH", server.ssh())
    yield server
    tunnels.close(tunnels.listed())
    fake_ssh.nothing_left(os.environ["HOME"])
    assert state.identities() == []


@pytest.fixture(scope="module")
def service():
    """The port of a web server that says its own path."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address[1]
        running.shutdown()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def first():
    return free_ports(30)


def opened(service, first, **options):
    wanted = {
        "container": "kit-a",
        "service": "jupyter",
        "remote_port": service,
        "first_port": first,
        "life": "echo alive",
        **options,
    }
    return tunnels.open_tunnel("machine", **wanted)


def works(tunnel):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{tunnel.url}x", timeout=3) as answer:
            return answer.read() == b"/x"
    except OSError:
        return False


def until(is_so, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def ssh_of(tunnel):
    record = state.read(tunnel.id)
    assert record is not None
    return record.ssh_pid


def is_gone(pid):
    return procs.start_time(pid) == ""


def test_through_ssh_and_closed_again(machine, service, first, monkeypatch):
    monkeypatch.setenv("SHELL", "/usr/sbin/nologin")  # as accounts of services have
    tunnel = opened(service, first)
    assert works(tunnel)
    ssh = ssh_of(tunnel)
    assert not is_gone(ssh)
    began = time.monotonic()
    tunnels.close([tunnel])
    assert time.monotonic() - began < 5
    assert is_gone(ssh)
    assert is_gone(tunnel.pid)
    assert list(state.folder().iterdir()) == []
    with ports.reserved(first, exact=True):
        pass


def test_a_killed_ssh_and_a_killed_sshd(machine, service, first):
    tunnel = opened(service, first)
    os.kill(ssh_of(tunnel), signal.SIGKILL)
    until(lambda: not works(tunnel))
    until(lambda: works(tunnel))
    machine.kill()
    until(lambda: tunnels.listed()[0].problem)
    assert not works(tunnel)
    until(lambda: "refuses the connection" in tunnels.listed()[0].problem)
    assert tunnels.listed()[0].status in ("down", "connecting")
    machine.start()
    until(lambda: works(tunnel))
    until(lambda: tunnels.listed()[0].status == "up")
    assert tunnels.listed() == [tunnel]


def test_a_killed_supervisor_leaves_no_ssh(machine, service, first):
    tunnel = opened(service, first)
    ssh = ssh_of(tunnel)
    os.kill(tunnel.pid, signal.SIGKILL)
    if sys.platform == "linux":
        until(lambda: is_gone(ssh), 5)
    assert state.identities() == [tunnel.id]
    assert tunnels.listed() == []
    assert is_gone(ssh)
    assert state.identities() == []
    assert works(opened(service, first, exact=True))


def test_through_a_jump_host(machine, service, first):
    config = machine.folder / "ssh_config"
    config.write_text(
        f"Host inner\n  HostName 127.0.0.1\n  Port {machine.port}\n  HostKeyAlias kit-test\n  User {USER}\n"
        f"  ProxyJump machine\n{config.read_text()}"
    )
    tunnel = tunnels.open_tunnel(
        "inner", container="a", service="", remote_port=service, first_port=first, life="echo alive"
    )
    assert works(tunnel)
    assert len(fake_ssh.left_over(os.environ["HOME"])) == 3, "the supervisor, its ssh, and the one to the jump host"
    os.kill(tunnel.pid, signal.SIGKILL)
    fake_ssh.nothing_left(os.environ["HOME"], timeout_s=5)
    assert tunnels.listed() == []


@pytest.fixture
def asking(tmp_path_factory, monkeypatch, own_machine):
    """A server that lets in who knows a password, as `machine`; nothing may be left of a test that has it."""
    if os.geteuid() != 0:
        pytest.skip("only root can make an account with a password")
    folder = tmp_path_factory.mktemp("asking")
    account = add_account(f"kit-pw-{os.urandom(3).hex()}", folder / "home")
    running = Server(folder, wants_password=True)
    try:
        subprocess.run(["chpasswd"], input=f"{account.name}:{PASSWORD}\n", text=True, check=True)
        ask = folder / "askpass"
        ask.write_text(f"#!/bin/sh\necho '{PASSWORD}'\n")
        ask.chmod(0o755)
        monkeypatch.setenv("SSH_ASKPASS", str(ask))
        monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
        monkeypatch.setenv("KIT_SSH", f"{running.ssh()} -l {account.name}")
        yield running
        tunnels.close(tunnels.listed())
        ssh.close_all()
        fake_ssh.nothing_left(os.environ["HOME"])
        assert state.identities() == []
    finally:
        running.stop()
        remove_account(account)


def test_a_machine_that_asks_for_a_password(asking, service, first):
    with pytest.raises(NetworkError, match="does not let you in"):
        opened(service, first)
    ssh.connect("machine", may_ask=True)
    tunnel = opened(service, first)
    assert (tunnel.local_port, tunnel.is_shared) == (first, True)
    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(lambda _: works(tunnel), range(40)))
    assert opened(service, first) == tunnel, "the one that is up"
    # The connection is lost: nobody is asked, and nobody logs in, until somebody does by himself.
    ssh.close("machine")
    until(lambda: tunnels.listed()[0].status == "down")
    assert "asks for the login" in tunnels.listed()[0].problem
    ssh.connect("machine", may_ask=True)
    until(lambda: works(tunnel))
    assert tunnels.listed()[0].local_port == first
    # A killed supervisor takes along what carries its connections.
    with socket.create_connection(("127.0.0.1", first)) as client:
        client.sendall(b"GET /x HTTP/1.0\r\n")
        time.sleep(0.5)
        os.kill(tunnels.listed()[0].pid, signal.SIGKILL)
        client.settimeout(10)
        assert client.recv(100) == b""
    assert tunnels.listed() == []


def test_eight_at_once(machine, service, first):
    names = [*(f"kit-{n}" for n in range(6)), "kit-same", "kit-same"]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, name, str(service), str(first)], stdout=subprocess.PIPE, text=True
        )
        for name in names
    ]
    printed = [int(child.communicate(timeout=90)[0]) for child in children]
    assert len(set(printed)) == 7
    assert printed[-1] == printed[-2]
    assert {t.local_port for t in tunnels.listed()} == set(printed)
    assert all(works(t) for t in tunnels.listed())


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"key": "other_key"}, "does not let you in"),
        ({"known": False}, "host key is not known"),
        ({"port": 9}, "refuses the connection"),
    ],
)
def test_why_it_cannot_be_opened(machine, service, first, monkeypatch, changes, what):
    monkeypatch.setenv("KIT_SSH", machine.ssh(**changes))
    with pytest.raises(NetworkError, match=what) as caught:
        opened(service, first)
    assert caught.value.details
    assert fake_ssh.left_over(os.environ["HOME"]) == []
    assert list(state.folder().iterdir()) == []


def test_a_port_in_use(machine, service, first):
    with socket.create_server(("127.0.0.1", first)):
        with pytest.raises(PortTakenError):
            opened(service, first, exact=True)
        tunnel = opened(service, first)
        assert tunnel.local_port == first + 1
        assert works(tunnel)
    # Another program takes the port while ssh is away.
    machine.kill()
    until(lambda: ports.is_free(first + 1))
    with socket.create_server(("127.0.0.1", first + 1)):
        machine.start()
        until(lambda: "was taken by another program" in tunnels.listed()[0].problem)
    until(lambda: works(tunnel))


def test_forwards_of_the_users_own_configuration_may_fail(machine, service, first):
    config = machine.folder / "ssh_config"
    text = config.read_text()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config.write_text(f"Host machine\n  LocalForward {taken.getsockname()[1]} 127.0.0.1:9\n{text}")
        assert works(opened(service, first))


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
def test_a_link_that_is_cut_for_longer_than_ssh_waits(tmp_path, service, monkeypatch, own_machine):
    link = Link(os.urandom(2).hex())
    server = None
    try:
        server = Server(tmp_path, address=link.server)
        monkeypatch.setenv("KIT_SSH", server.ssh())

        def inside(code, *arguments):
            command = link.command(sys.executable, "-c", code, *map(str, arguments))
            done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
            return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()

        port = inside(OPEN, "kit-a", service, 24900)
        assert port == "24900", port
        assert inside(FETCH, port) == "/x"
        link.cut()
        until(lambda: tunnels.listed()[0].status != "up", 60)
        # Then it is told that there is no way, until the interface comes back: which is noticed, and not waited for.
        link.unplug()
        link.restore()
        until(lambda: tunnels.listed()[0].tries >= 3, 75)
        link.plug()
        began = time.monotonic()
        until(lambda: inside(FETCH, port) == "/x", 75)
        print(f"back after {time.monotonic() - began:.1f} s")
        until(lambda: tunnels.listed()[0].status == "up")
    finally:
        tunnels.close(tunnels.listed())
        link.remove()
        if server:
            server.stop()
    fake_ssh.nothing_left(os.environ["HOME"])
