"""Which engine of a machine behind SSH is used; the ssh program here runs everything on this machine."""

import shlex
import socket
import threading

import pytest

from kit.engine import connect
from kit.engine.remote import RemoteEngine, RemotePodman
from kit.errors import NoEngineError
from kit.remote import ssh

SSH = """#!/bin/sh
for word; do
    case $word in *:*engine.sock*|*engine.sock:*) ln -s "${word#*:}" "${word%%:*}" ;; esac
    last=$word
done
case " $* " in *" -O "*) exit 0 ;; esac
exec sh -c "$last"
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Programs there are, beside those of every system; no engine but what a test sets up."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "ssh"
    script.write_text(SSH)
    script.chmod(0o755)
    monkeypatch.setenv("KIT_SSH", shlex.quote(str(script)))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    hidden = "command() { case $2 in docker|podman) [ -e $bin/$2 ] ;; *) false ;; esac; }\n"
    own = ssh._ACCOUNT_SCRIPT.rpartition("done\n")[0] + "done\n"
    monkeypatch.setattr(ssh, "_ACCOUNT_SCRIPT", f"bin={shlex.quote(str(folder))}\n{hidden}{own}")
    return folder


@pytest.fixture
def docker_socket(tmp_path, monkeypatch):
    path = tmp_path / "d.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        yield server


def answer(server):
    server.listen()

    def serve():
        client, _ = server.accept()
        with client:
            client.recv(1000)
            client.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")

    threading.Thread(target=serve, daemon=True).start()


def test_dockers_socket_is_brought_here(machine, docker_socket):
    (machine / "podman").touch()
    answer(docker_socket)
    engine = connect("lab")
    assert type(engine) is RemoteEngine
    assert engine.target == "lab"
    assert engine.environment["DOCKER_HOST"] == f"unix://{engine.socket_path}"
    assert not engine.is_local


def test_a_docker_that_is_down_is_not_replaced_by_podman(machine, docker_socket):
    (machine / "podman").touch()
    with pytest.raises(NoEngineError, match="no container engine answers on lab") as caught:
        connect("lab")
    assert caught.value.details == (f"{docker_socket.getsockname()}: no answer",)


def test_podman_is_taken_where_there_is_no_socket_or_where_it_was_chosen(machine, docker_socket, monkeypatch):
    (machine / "podman").touch()
    monkeypatch.setenv("KIT_ENGINE", "podman")
    assert type(connect("lab")) is RemotePodman
    monkeypatch.delenv("KIT_ENGINE")
    monkeypatch.delenv("DOCKER_HOST")
    assert type(connect("lab")) is RemotePodman
    monkeypatch.setenv("KIT_ENGINE", "system")
    with pytest.raises(NoEngineError, match="no container engine answers on lab"):
        connect("lab")


def test_podman_cannot_be_chosen_where_it_is_not(machine, docker_socket, monkeypatch):
    monkeypatch.setenv("KIT_ENGINE", "podman")
    with pytest.raises(NoEngineError, match="lab has no Podman") as caught:
        connect("lab")
    assert "unset KIT_ENGINE" in caught.value.hint
