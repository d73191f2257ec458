import json
import os
import socket
import time
from types import SimpleNamespace

import pytest

from kit.engine import Engine
from kit.remote import tunnels
from kit.remote.tunnels import state
from tests import fake_ssh
from tests.fake_docker import container

NAMES = ("kit-tf-cpu-jupyter-ab12", "kit-tf-cpu-tensorboard-cd34", "kit-torch-cpu-jupyter-ef56")
KEYS = ["id", "host", "container", "service", "local_port", "remote_port", "status", "problem", "url", "started"]


@pytest.fixture
def ssh(tmp_path, monkeypatch, own_machine):
    """Tunnels go through the stand-in for ssh; none is left of a test."""
    monkeypatch.setenv("KIT_SSH", fake_ssh.command(tmp_path))
    yield tmp_path
    tunnels.close(tunnels.listed())
    fake_ssh.nothing_left(os.environ["HOME"])
    assert state.identities() == []


@pytest.fixture
def three(ssh):
    """Tunnels to two containers of one machine and to one of another."""
    return [
        tunnels.open_tunnel(
            target, container=name, service="jupyter", remote_port=20000 + n, first_port=23000, life="echo x"
        )
        for n, (target, name) in enumerate(zip(("lab", "lab", "other"), NAMES, strict=True))
    ]


@pytest.fixture
def lab(ssh, fake_docker, monkeypatch):
    """The machine `lab`, on which a notebook of the user's runs, one of somebody else, and a command."""
    bound = {"8888/tcp": [{"HostIp": "127.0.0.1", "HostPort": "20001"}]}
    raw = [
        container(NAMES[0], HostConfig={"PortBindings": bound}),
        container(NAMES[2], labels={"kit.owner": "77"}, HostConfig={"PortBindings": bound}),
        container("kit-tf-cpu-run-0001", labels={"kit.service": ""}, HostConfig={}),
    ]
    fake_docker.reply("ps", stdout="a\nb\nc\n")
    fake_docker.reply("container", "inspect", stdout=json.dumps(raw))
    for one in raw:
        fake_docker.reply("container", "inspect", one["Name"][1:], stdout=json.dumps([one]))

    def connect(target=""):
        engine = Engine(program=str(fake_docker.program))
        account = SimpleNamespace(uid=os.getuid(), gid=os.getgid())
        engine.connection = SimpleNamespace(target=target, account=account)
        return engine

    monkeypatch.setattr("kit.cli.tunnel.connect", connect)


def test_there_are_none(kit):
    for words in (["tunnel"], ["tunnel", "ls"]):
        result = kit(*words)
        assert (result.code, result.out, result.err) == (0, "", "no tunnels\n")
    assert json.loads(kit("tunnel", "--json").out) == []


def test_a_list(kit, three):
    ports = [t.local_port for t in three]
    result = kit("tunnel")
    assert [line.split() for line in result.out.splitlines()] == [
        ["HOST", "CONTAINER", "SERVICE", "LOCAL", "STATUS"],
        ["lab", NAMES[0], "jupyter", f"127.0.0.1:{ports[0]}", "up"],
        ["lab", NAMES[1], "jupyter", f"127.0.0.1:{ports[1]}", "up"],
        ["other", NAMES[2], "jupyter", f"127.0.0.1:{ports[2]}", "up"],
    ]
    assert kit("tunnel", "ls").out == result.out
    for words in (
        ["--host", "other", "tunnel"],
        ["tunnel", "--host", "other", "ls"],
        ["tunnel", "ls", "--host", "other"],
    ):
        assert len(kit(*words).out.splitlines()) == 2


def test_a_list_for_programs_keeps_its_keys(kit, three):
    found = json.loads(kit("tunnel", "ls", "--json").out)
    assert [list(tunnel) for tunnel in found] == [KEYS] * 3
    assert found[0]["url"] == f"http://127.0.0.1:{three[0].local_port}/"
    assert (found[0]["host"], found[0]["remote_port"], found[0]["status"]) == ("lab", 20000, "up")
    assert json.loads(kit("--json", "tunnel").out) == found


def test_close_by_container_port_and_id(kit, three):
    result = kit("tunnel", "close", "tf-cpu-jupyter", str(three[1].local_port), three[2].id, three[2].id)
    assert (result.code, result.out) == (0, "")
    assert sorted(line.split()[1] for line in result.err.splitlines()) == sorted(NAMES)
    assert tunnels.listed() == []


@pytest.mark.parametrize(("words", "left"), [(["--all"], 0), (["--all", "--host", "lab"], 1)])
def test_close_all(kit, three, words, left):
    result = kit("tunnel", "close", *words)
    assert result.code == 0
    assert len(tunnels.listed()) == left
    assert len(result.err.splitlines()) == 3 - left


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "no tunnel named"),
        (["x", "--all"], 2, "either tunnels or --all"),
        (["x"], 13, "there is no tunnel 'x'"),
        ([""], 13, "a tunnel's name is empty"),
        (["tf-cpu"], 13, "'tf-cpu' stands for 2 containers"),
        ([NAMES[0], "--host", "other"], 13, "there is no tunnel"),
    ],
)
def test_close_what_is_not_there_closes_nothing(kit, three, words, code, said):
    result = kit("tunnel", "close", *words)
    assert (result.code, result.out) == (code, "")
    assert said in result.err.splitlines()[0]
    assert len(tunnels.listed()) == 3


def test_open_prints_the_url_with_its_token(kit, lab):
    result = kit("--host", "lab", "tunnel", "open", "tf-cpu-jupyter")
    tunnel = tunnels.listed()[0]
    assert (tunnel.target, tunnel.container, tunnel.remote_port) == ("lab", NAMES[0], 20001)
    assert (result.code, result.err) == (0, "")
    assert result.out == f"http://127.0.0.1:{tunnel.local_port}/lab?token=se=cret\n"
    again = json.loads(kit("tunnel", "open", "--json", "--host", "lab", NAMES[0]).out)
    assert [list(found) for found in again] == [KEYS]
    assert again[0]["url"] == result.out.strip()
    assert again[0]["id"] == tunnel.id


def test_open_without_a_name_is_for_ones_own_services(kit, lab):
    assert kit("--host", "lab", "tunnel", "open").code == 0
    assert [t.container for t in tunnels.listed()] == [NAMES[0]]


def test_open_one_of_somebody_else_without_the_token(kit, lab):
    result = kit("--host", "lab", "tunnel", "open", "torch")
    assert result.out == tunnels.listed()[0].url + "\n"


def test_open_on_a_port(kit, lab):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = kit("--host", "lab", "tunnel", "open", "tf-cpu-jupyter", "--port", port)
        assert result.code == 16
    result = kit("--host", "lab", "tunnel", "open", "tf-cpu-jupyter", "--port", port)
    assert f":{port}/" in result.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["tunnel", "open"], 2, "a tunnel leads to another machine"),
        (["--host", "lab", "tunnel", "open", "x"], 13, "no container of kit's is named 'x'"),
        (["--host", "lab", "tunnel", "open", "tf-cpu-run"], 2, "is no running service"),
        (
            ["--host", "lab", "tunnel", "open", "tf-cpu-j", "torch", "--port", "5000"],
            2,
            "--port 5000 is for one tunnel",
        ),
    ],
)
def test_open_what_cannot_be(kit, lab, words, code, said):
    result = kit(*words)
    assert (result.code, result.out) == (code, "")
    assert said in result.err.splitlines()[0]
    assert tunnels.listed() == []


def test_a_machine_that_refuses(kit, lab, ssh):
    (ssh / "fail").write_text("Host key verification failed.")
    result = kit("--host", "lab", "tunnel", "open", "tf-cpu-jupyter")
    assert result.code == 19
    assert "its host key is not known here" in result.err


def test_a_tunnel_that_is_down_says_why(kit, three, ssh):
    (ssh / "fail").write_text("Permission denied (publickey).")
    record = state.read(three[2].id)
    os.kill(record.ssh_pid, 9)
    deadline = time.monotonic() + 20
    while "let you in" not in tunnels.listed()[2].problem and time.monotonic() < deadline:
        time.sleep(0.05)
    shown = kit("tunnel", "--host", "other").out.splitlines()[1]
    assert shown.endswith("down: other cannot be reached over SSH: it does not let you in")
