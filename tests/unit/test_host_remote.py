"""Which machine a target means, and why ssh does not get there; over a real sshd: tests/engine/test_host_ssh.py."""

import json

import pytest

from kit.errors import BadInputError, MissingProgramError, NetworkError
from kit.host import probe, read_gpus, read_host


# ssh's own words, as OpenSSH 9 prints them.
@pytest.mark.parametrize(
    ("said", "what", "hint"),
    [
        ("alice@lab1: Permission denied (publickey,password).", "does not let you in", "ssh-copy-id alice@lab1"),
        (
            "No ED25519 host key is known for lab1 and you have requested strict checking.\n"
            "Host key verification failed.",
            "host key is not known",
            "`ssh alice@lab1`",
        ),
        (
            "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.",
            "not the one known here",
            "ssh-keygen -R lab1",
        ),
        ("ssh: Could not resolve hostname lab1: Name or service not known", "no machine of that name", "~/.ssh/config"),
        ("ssh: connect to host lab1 port 22: Connection refused", "refuses the connection", "sshd"),
        ("ssh: connect to host lab1 port 22: Connection timed out", "does not answer", "VPN"),
        ("ssh: connect to host lab1 port 22: No route to host", "no way to it", "VPN"),
        ("/home/alice/.ssh/config: line 3: Bad configuration option: foo", "its configuration", "config"),
        ("kex_exchange_identification: Connection closed by remote host", "closed the connection", "ssh -v"),
        ("something new", "ssh failed", "ssh -v alice@lab1"),
    ],
)
def test_why_ssh_failed(tmp_path, monkeypatch, said, what, hint):
    (tmp_path / "said").write_text(said + "\n")
    (tmp_path / "ssh").write_text(f'#!/bin/sh\ncat "{tmp_path}/said" >&2\nexit 255\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("KIT_SSH", str(tmp_path / "ssh"))
    with pytest.raises(NetworkError, match=what) as caught:
        read_host("alice@lab1")
    assert hint in caught.value.hint
    assert said.splitlines()[-1] in caught.value.details


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (127, "bash: line 1: sh: command not found"),
        (1, "'sh' is not recognized as an internal or external command"),
        (0, ""),
    ],
)
def test_a_machine_that_gives_no_shell(tmp_path, monkeypatch, code, said):
    (tmp_path / "ssh").write_text(f'#!/bin/sh\necho "{said}" >&2\nexit {code}\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("KIT_SSH", str(tmp_path / "ssh"))
    with pytest.raises(NetworkError, match="ran no shell") as caught:
        read_gpus("lab1")
    assert "ssh lab1 sh -c true" in caught.value.hint


def test_ssh_is_told_to_ask_nothing_and_check_host_keys(tmp_path, monkeypatch):
    log = tmp_path / "called"
    (tmp_path / "ssh").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >"{log}"\nexec sh -s\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("KIT_SSH", f"{tmp_path}/ssh -F 'a file'")
    host = read_host("alice@lab1")
    assert (host.target, host.unread) == ("alice@lab1", ())
    called = log.read_text().splitlines()
    assert called == ["-F", "a file", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-T", "alice@lab1", "sh -s"]


def test_no_ssh(monkeypatch):
    monkeypatch.setenv("KIT_SSH", "no-such-ssh")
    with pytest.raises(MissingProgramError, match="no-such-ssh"):
        read_host("alice@lab1")


@pytest.mark.parametrize("target", ["-oProxyCommand=touch /tmp/x", "-", "a b", "a\nb", " "])
def test_what_is_no_target(target):
    with pytest.raises(BadInputError, match="is no machine"):
        read_host(target)


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [
        ("ssh://alice@lab1:2222", "ssh://alice@lab1:2222"),
        ("ssh://alice@lab1/run/user/1000/docker.sock", "ssh://alice@lab1"),
        ("unix:///var/run/docker.sock", "lab"),
        ("tcp://10.0.0.1:2376", "lab"),
    ],
)
def test_a_docker_context_names_a_machine(fake_docker, endpoint, target):
    answer = [{"Name": "lab", "Endpoints": {"docker": {"Host": endpoint}}}]
    fake_docker.reply("context", "inspect", "lab", stdout=json.dumps(answer))
    assert probe.resolve_target("lab") == target
    assert probe.resolve_target("alice@lab") == "alice@lab"


@pytest.mark.parametrize(
    "answer", ["", "not json", "[]", "[{}]", '[{"Endpoints": null}]', '[{"Endpoints": {"docker": {"Host": 1}}}]']
)
def test_a_name_that_is_no_context_is_sshs(fake_docker, monkeypatch, answer):
    fake_docker.reply("context", "inspect", "lab", stdout=answer)
    assert probe.resolve_target("lab") == "lab"
    monkeypatch.setenv("PATH", "/nowhere")
    assert probe.resolve_target("lab") == "lab"
