"""Tunnels over a stand-in for ssh: their files, their supervisor, and what comes in between."""

import http.server
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from kit import ports, procs
from kit.errors import BadInputError, MissingProgramError, NetworkError, PortTakenError
from kit.remote import tunnels
from kit.remote.tunnels import state
from tests import fake_ssh
from tests.free_ports import free_ports

OPEN = """
import sys
from kit.remote import tunnels
tunnel = tunnels.open_tunnel("machine", container=sys.argv[1], service="jupyter", remote_port=int(sys.argv[2]),
                             first_port=int(sys.argv[3]), life="echo alive")
print(tunnel.local_port)
"""


@pytest.fixture
def faults(tmp_path, monkeypatch, own_machine):
    """The folder that tells the stand-in for ssh what to do; no process may be left of a test that has it."""
    monkeypatch.setenv("KIT_SSH", fake_ssh.command(tmp_path))
    yield tmp_path
    for name in ("hang", "fail"):
        (tmp_path / name).unlink(missing_ok=True)
    tunnels.close(tunnels.listed())
    fake_ssh.nothing_left(os.environ["HOME"])
    assert state.identities() == []


@pytest.fixture(scope="module")
def service():
    """The port of a web server that says its own path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


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


def until(is_so, timeout_s=40):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def status():
    return [(t.status, t.problem) for t in tunnels.listed()]


def ssh_of(tunnel):
    record = state.read(tunnel.id)
    assert record is not None
    return record.ssh_pid


def is_gone(pid):
    return procs.start_time(pid) == ""


# --- opening and closing


def test_an_open_tunnel_works_and_is_listed_until_it_is_closed(faults, service, first):
    tunnel = opened(service, first)
    assert works(tunnel), "it is up when open_tunnel returns"
    assert (tunnel.local_port, tunnel.remote_port, tunnel.status) == (first, service, "up")
    assert tunnels.listed() == [tunnel]
    ssh = ssh_of(tunnel)
    tunnels.close([tunnel])
    assert tunnels.listed() == []
    assert list(state.folder().iterdir()) == []
    assert is_gone(ssh)
    assert is_gone(tunnel.pid)
    with ports.reserved(first, exact=True):
        pass
    tunnels.close([tunnel])  # there is none, which is as it should be


def test_the_files_are_the_users_alone(faults, service, first):
    opened(service, first)
    assert stat.S_IMODE(state.folder().stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in state.folder().glob("*.json")} == {0}


def test_opening_it_again_gives_the_same(faults, service, first):
    tunnel = opened(service, first)
    assert opened(service, first + 5) == tunnel
    assert opened(service, first, exact=True) == tunnel
    with pytest.raises(BadInputError, match=f"on port {first}") as caught:
        opened(service, first + 5, exact=True)
    assert f"kit tunnel close {tunnel.id}" in caught.value.hint


def test_a_port_in_use_is_passed_over_unless_it_was_asked_for(faults, service, first):
    with socket.create_server(("127.0.0.1", first)):
        with pytest.raises(PortTakenError, match=f"port {first} on 127.0.0.1 is in use"):
            opened(service, first, exact=True)
        assert opened(service, first).local_port == first + 1


def test_tunnels_of_a_container_are_closed_together(faults, service, first):
    kept = opened(service, first, container="kit-b")
    for port in (service, 9):
        opened(port, first)
    assert {t.remote_port for t in tunnels.close_for("kit-a")} == {service, 9}
    assert tunnels.close_for("kit-a") == []
    assert tunnels.listed() == [kept]


def test_eight_at_once_get_eight_ports_and_the_same_one_gets_one(faults, service, first):
    def start(name):
        return subprocess.Popen(
            [sys.executable, "-c", OPEN, name, str(service), str(first)], stdout=subprocess.PIPE, text=True
        )

    children = [start(name) for name in ("kit-1", "kit-2", "kit-3", "kit-4", "kit-same", "kit-same", "kit-same")]
    printed = [int(child.communicate(timeout=60)[0]) for child in children]
    assert len(set(printed[:4])) == 4
    assert len(set(printed[4:])) == 1
    found = tunnels.listed()
    assert {t.local_port for t in found} == set(printed)
    assert all(works(t) for t in found)
    with ThreadPoolExecutor(4) as pool:  # concurrent closes, of the same ones too
        list(pool.map(lambda tunnel: tunnels.close([tunnel]), [*found, *found]))
    assert tunnels.listed() == []


# --- what goes wrong with the first connection


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("root@machine: Permission denied (publickey).", "does not let you in"),
        ("Host key verification failed.", "host key is not known"),
        ("ssh: connect to host machine port 22: Connection refused", "refuses the connection"),
    ],
)
def test_a_first_connection_that_fails_leaves_nothing(faults, service, first, text, what):
    (faults / "fail").write_text(text)
    with pytest.raises(NetworkError, match=what) as caught:
        opened(service, first)
    assert caught.value.details == (text,)
    assert list(state.folder().iterdir()) == []
    assert fake_ssh.left_over(os.environ["HOME"]) == []


def test_a_login_that_takes_too_long(faults, service, first):
    (faults / "hang").touch()
    with pytest.raises(NetworkError, match="does not answer"):
        opened(service, first, timeout_s=1)
    assert fake_ssh.left_over(os.environ["HOME"]) == []


def test_no_ssh_at_all(faults, service, first, monkeypatch):
    monkeypatch.setenv("KIT_SSH", "no-such-ssh")
    with pytest.raises(MissingProgramError, match="no-such-ssh"):
        opened(service, first)
    with pytest.raises(BadInputError):
        tunnels.open_tunnel("-oProxyCommand=x", container="a", service="", remote_port=1, first_port=first, life="")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_opener_that_is_killed_leaves_nothing(faults, service, first, number):
    (faults / "hang").touch()
    child = subprocess.Popen([sys.executable, "-c", OPEN, "kit-a", str(service), str(first)], stderr=subprocess.DEVNULL)
    until(lambda: state.identities() and state.read(state.identities()[0]))
    child.send_signal(number)
    child.wait(timeout=20)
    until(lambda: fake_ssh.left_over(os.environ["HOME"]) == [], 10)
    assert tunnels.listed() == []
    assert list(state.folder().iterdir()) == []


def test_one_that_is_closed_while_it_is_opened(faults, service, first):
    (faults / "hang").touch()
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(opened, service, first)
        until(lambda: tunnels.listed())
        assert [t.status for t in tunnels.listed()] == ["connecting"]
        tunnels.close(tunnels.listed())
        with pytest.raises(NetworkError, match="was closed while"):
            opening.result(timeout=20)


def test_a_port_that_is_taken_between_the_look_and_ssh(faults, service, first):
    (faults / "hang").touch()
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(opened, service, first)
        until(lambda: tunnels.listed())
        with socket.create_server(("127.0.0.1", first)):
            (faults / "hang").unlink()
            assert opening.result(timeout=20).local_port == first + 1


def test_a_supervisor_that_cannot_start_says_why(faults, service, first, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(faults / "python"))
    (faults / "python").write_text("#!/bin/sh\necho no module named kit >&2\nexit 1\n")
    (faults / "python").chmod(0o755)
    with pytest.raises(NetworkError) as caught:
        opened(service, first)
    assert caught.value.details == ("no module named kit",)


# --- what goes wrong later


def test_a_killed_ssh_is_replaced_on_the_same_port(faults, service, first):
    tunnel = opened(service, first)
    os.kill(ssh_of(tunnel), signal.SIGKILL)
    until(lambda: not works(tunnel))
    with ports.reserved(first, exact=False) as port:
        assert port == first + 1, "the port is the tunnel's while nothing listens there"
    until(lambda: works(tunnel))
    until(lambda: status() == [("up", "")])


def test_a_killed_supervisor_takes_its_ssh_along(faults, service, first):
    (faults / "child").touch()
    tunnel = opened(service, first)
    ssh = ssh_of(tunnel)
    os.kill(tunnel.pid, signal.SIGKILL)
    until(lambda: is_gone(ssh), 5)
    # What ssh had started lives on, until the next command.
    assert tunnels.listed() == []
    fake_ssh.nothing_left(os.environ["HOME"], timeout_s=0)
    assert opened(service, first).local_port == first


def test_an_ssh_that_survives_its_supervisor_is_swept(faults, service, first):
    (faults / "stubborn").touch()  # as if the kernel sent no signal, which is so on macOS
    tunnel = opened(service, first)
    ssh = ssh_of(tunnel)
    os.kill(tunnel.pid, signal.SIGKILL)
    until(lambda: is_gone(tunnel.pid))
    assert not is_gone(ssh)
    assert tunnels.listed() == []
    assert is_gone(ssh)


def test_a_port_that_another_program_took_is_said_and_waited_for(faults, service, first):
    tunnel = opened(service, first)
    (faults / "fail").write_text("ssh: connect to host machine port 22: Connection refused")
    os.kill(ssh_of(tunnel), signal.SIGKILL)
    until(lambda: "refuses the connection" in status()[0][1])
    with socket.create_server(("127.0.0.1", first)):
        until(lambda: status() == [("down", f"port {first} on 127.0.0.1 was taken by another program")])
        (faults / "fail").unlink()
    until(lambda: works(tunnel))


def test_it_tries_less_and_less_often_and_at_once_when_it_is_asked_for(faults, service, first):
    tunnel = opened(service, first)
    (faults / "fail").write_text("ssh: connect to host machine port 22: No route to host")
    os.kill(ssh_of(tunnel), signal.SIGKILL)
    until(lambda: tunnels.listed()[0].tries >= 4)
    assert tunnels.listed()[0].local_port == first
    times = [float(line) for line in (faults / "tries").read_text().split()][1:]
    # After about 2 and 4 s; 1 s at least, should the network of the machine that runs the tests change meanwhile.
    assert times[2] - times[0] > 1.9
    with pytest.raises(NetworkError, match="there is no way to it") as caught:
        opened(service, first, timeout_s=0.5)
    assert "goes on trying" in caught.value.hint
    assert [t.id for t in tunnels.listed()] == [tunnel.id]
    (faults / "fail").unlink()
    began = time.monotonic()
    assert opened(service, first).pid == tunnel.pid
    assert time.monotonic() - began < 2.5, "the next try is not due for 3 s or more"


def test_a_refusal_is_tried_seldom_and_opened_anew_by_who_may_have_another_key(faults, service, first):
    tunnel = opened(service, first + 2)
    (faults / "fail").write_text("root@machine: Permission denied (publickey).")
    os.kill(ssh_of(tunnel), signal.SIGKILL)
    until(lambda: "does not let you in" in status()[0][1])
    time.sleep(2.5)
    assert len((faults / "tries").read_text().split()) == 2
    (faults / "fail").unlink()
    again = opened(service, first)
    assert (again.id, again.local_port) == (tunnel.id, tunnel.local_port), "its URL stays what it was"
    assert again.pid != tunnel.pid
    assert works(again)


def test_an_ssh_that_does_not_end_is_killed(faults, service, first):
    (faults / "stubborn").touch()
    tunnel = opened(service, first)
    ssh = ssh_of(tunnel)
    tunnels.close([tunnel])
    assert is_gone(ssh)


def test_a_supervisor_that_does_not_end_is_killed(faults, service, first, monkeypatch):
    monkeypatch.setattr(tunnels, "CLOSE_PATIENCE_S", 0.3)
    tunnel = opened(service, first)
    ssh = ssh_of(tunnel)
    os.kill(tunnel.pid, signal.SIGSTOP)
    tunnels.close([tunnel])
    assert is_gone(tunnel.pid)
    assert is_gone(ssh)
    assert list(state.folder().iterdir()) == []


def test_connections_that_the_service_refuses_are_no_problem_of_the_tunnel(faults, first):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = nobody.getsockname()[1]
    tunnel = opened(closed, first)
    assert not works(tunnel)
    assert status() == [("up", "")]


# --- the files


def test_a_record_that_was_removed_or_spoilt_is_written_again(faults, service, first, monkeypatch):
    tunnel = opened(service, first)
    file = state.file(tunnel.id, "json")
    for spoil in (file.unlink, lambda: file.write_text('{"tunnel": ')):
        spoil()
        assert tunnels.listed() == []
        os.kill(tunnel.pid, signal.SIGCHLD)  # any reason to wake up; else it looks every 5 s
        until(lambda: tunnels.listed() == [tunnel])


def test_a_tunnel_that_nobody_can_find_any_more_ends(faults, service, first):
    tunnel = opened(service, first)
    for file in state.folder().iterdir():
        file.unlink()
    os.kill(tunnel.pid, signal.SIGCHLD)
    until(lambda: is_gone(tunnel.pid))
    fake_ssh.nothing_left(os.environ["HOME"])
