"""Podman's command line: what is asked of it, what is made of its answers, and when it is the engine."""

import os
import socket

import pytest

from kit import private_engine
from kit.engine import connect, find
from kit.engine.podman import Podman
from kit.engine.remote import RemotePodman
from kit.errors import (
    CommandError,
    DiskFullError,
    EngineError,
    EngineFeatureError,
    GpuUnavailableError,
    NetworkError,
    NoEngineError,
    NoSuchContainerError,
)
from kit.facts.sockets import Candidate
from kit.remote import ssh
from kit.spec.container import ContainerSpec

_has_podman_alone = find._has_podman_alone  # the tests' own machine has none
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("kit/tf-cpu:latest", "docker.io/kit/tf-cpu:latest"),
        ("debian:12", "docker.io/library/debian:12"),
        ("debian", "docker.io/library/debian"),
        ("nvcr.io/nvidia/cuda:12.8.1", "nvcr.io/nvidia/cuda:12.8.1"),
        ("localhost/x", "localhost/x"),
        ("lab1:5000/x:1", "lab1:5000/x:1"),
        (f"debian:12@{DIGEST}", f"docker.io/library/debian@{DIGEST}"),
        (f"lab1:5000/x@{DIGEST}", f"lab1:5000/x@{DIGEST}"),
        (f"nvidia/cuda:12@{DIGEST}", f"docker.io/nvidia/cuda@{DIGEST}"),
    ],
)
def test_a_name_means_what_docker_means_by_it(short, full):
    assert Podman().full_name(short) == full
    assert Podman().full_name(full) == full
    assert Podman().full_name(Podman().short_name(full)) == full


def test_a_container_for_podman():
    made = ContainerSpec(image="kit/x:latest", name="n", restart="unless-stopped", healthcheck=True)
    assert Podman().arguments(made) == [
        "--log-driver=k8s-file",
        "--security-opt=label=disable",
        "--name=n",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--no-healthcheck",
        "--restart=always",
        "docker.io/kit/x:latest",
    ]


def test_who_is_told_of_restarts(monkeypatch):
    stays = ContainerSpec(image="i", name="n", restart="always")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "systemctl --user enable podman-restart" in Podman().cautions(stays)[0]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "systemctl enable podman-restart" in Podman().cautions(stays)[0]
    assert Podman().cautions(ContainerSpec(image="i", name="n")) == ()


@pytest.mark.parametrize(
    ("text", "kind", "hint"),
    [
        ("Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=7", GpuUnavailableError, "/etc/cdi"),
        ("Error: writing blob: no space left on device", DiskFullError, "podman system prune"),
        ('Error: no container with name or ID "x" found: no such container', NoSuchContainerError, "kit ps"),
        ("Error: something else", EngineError, ""),
    ],
)
def test_what_went_wrong_has_a_way_out_that_is_podmans(text, kind, hint):
    found = Podman().failure(CommandError(("podman", "run"), 125, "", text))
    assert type(found) is kind
    assert hint in found.hint
    assert "docker" not in found.hint
    assert text in found.details


def test_it_has_no_buildx():
    with pytest.raises(EngineFeatureError, match="no buildx"):
        Podman().require_buildx()


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes a `podman` first on PATH: a shell script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(script, name="podman"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return write


INSPECTED = """echo '[{"Name": "x", "Id": "1", "State": {"Status": "exited", "ExitCode": 0},
"Config": {"Image": "docker.io/kit/tf-cpu:latest"}}]'"""


def test_a_log_that_ends_too_early_is_read_to_its_end(program):
    program(
        f"""case "$*" in
        "logs --follow x") printf 'one\\ntw'; printf err >&2 ;;
        "logs x") printf 'one\\ntwo\\nthree'; printf 'error' >&2 ;;
        *) {INSPECTED} ;;
        esac"""
    )
    with Podman().log("x", follow=True) as frames:
        kinds = {1: b"", 2: b""}
        for kind, data in frames:
            kinds[kind] += data
    assert kinds == {1: b"one\ntwo\nthree", 2: b"error"}


def test_a_log_that_cannot_be_read_is_an_error(program):
    program("echo 'Error: broken' >&2; exit 125")
    with Podman().log("x", follow=False) as frames, pytest.raises(EngineError):
        list(frames)


# -- behind SSH


@pytest.fixture
def there(tmp_path):
    account = ssh.Account(user="u", uid=1000, gid=1000, home="/home/u", hostname="h", has_podman=True)
    return RemotePodman(ssh.Connection(target="lab1", address="lab1", folder=tmp_path, account=account))


@pytest.mark.parametrize(
    ("command", "code", "text", "kind"),
    [
        ("ps", 255, "", NetworkError),
        ("logs", 255, "", NetworkError),
        ("run", 255, "ssh: connect to host lab1 port 22: Connection refused", NetworkError),
        ("exec", 255, "mux_client_request_session: read from master failed: Broken pipe", NetworkError),
        ("exec", 255, "train.py: all is lost", EngineError),
        ("ps", 127, "sh: 3: exec: podman: not found", NoEngineError),
        ("ps", 127, "bash: line 1: podman: command not found", NoEngineError),
        ("exec", 127, "Error: executable file `x` not found in $PATH", EngineError),
        ("ps", 125, "Error: broken", EngineError),
    ],
)
def test_whose_failure_it_is(there, command, code, text, kind):
    found = there.failure(CommandError(("podman", command), code, "", text))
    assert type(found) is kind
    assert kind is EngineError or "lab1" in found.message


def test_what_runs_there_is_quoted_for_any_shell_and_has_no_secret(there):
    with there.prepared(["run", "it's", "a b", ""]) as (command, _):
        assert command[-1].startswith("sh -c 'exec podman \"$@\"' sh run ")
        assert command[-1].endswith(" 'a b' ''")
        assert "-T" in command
    with there.prepared(["exec"], on_terminal=True) as (command, _):
        assert "-tt" in command


# -- when it is the engine


@pytest.fixture
def nothing_else(monkeypatch):
    monkeypatch.setattr(private_engine, "is_up", lambda: False)
    monkeypatch.setattr(find, "_has_podman_alone", _has_podman_alone)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


@pytest.fixture
def programs(program, tmp_path, monkeypatch):
    """The only programs on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return program


def test_podman_alone_is_taken(programs, nothing_else):
    with pytest.raises(NoEngineError):
        connect()
    programs("")
    assert connect().kind == "podman"


def test_a_docker_that_is_down_is_not_replaced(programs, nothing_else):
    programs("")
    programs("", "docker")
    with pytest.raises(NoEngineError, match="no container engine answers"):
        connect()


def test_podman_under_the_name_of_docker(programs, nothing_else):
    programs("")
    programs('[ -e /etc/containers/nodocker ] || echo emulating\nexec /usr/bin/podman "$@"', "docker")
    assert connect().kind == "podman"


@pytest.mark.parametrize("choice", ["system", "private"])
def test_another_choice_is_kept(programs, nothing_else, monkeypatch, choice):
    programs("")
    monkeypatch.setenv("KIT_ENGINE", choice)
    with pytest.raises(NoEngineError):
        connect()


def test_podman_may_be_chosen(monkeypatch):
    monkeypatch.setenv("KIT_ENGINE", "podman")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert connect().kind == "podman"


@pytest.fixture
def sockets(tmp_path):
    """Podman's socket, and one of Docker's in a folder of that name."""
    for name in ("podman/podman.sock", "podman/of-docker/docker.sock"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(file))
    return tmp_path / "podman"


def test_podmans_socket_is_known_under_any_name(sockets, tmp_path, monkeypatch):
    link = tmp_path / "docker.sock"
    link.symlink_to(sockets / "podman.sock")
    monkeypatch.setattr("kit.facts.sockets.CANDIDATES", (Candidate(folder=str(tmp_path)),))
    assert connect().kind == "podman"
    monkeypatch.setattr("kit.facts.sockets.CANDIDATES", ())
    monkeypatch.setenv("DOCKER_HOST", f"unix://{link}")
    assert connect().kind == "podman"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{sockets}/of-docker/docker.sock")
    assert connect().kind == "docker"
