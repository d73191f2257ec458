"""Which machine a target means, and why ssh does not get there; over a real sshd: tests/engine/ssh/test_host_ssh.py."""

import hashlib
import json
import shutil

import pytest

from kit import process
from kit.engine import find
from kit.errors import BadInputError, MissingProgramError, NetworkError
from kit.facts import sockets
from kit.host import probe, read_gpus, read_host
from kit.remote import ssh


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


def test_ssh_is_told_to_ask_nothing_and_to_share_its_connection(tmp_path, monkeypatch):
    log = tmp_path / "called"
    (tmp_path / "ssh").write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >>"{log}"\ncase "$*" in *sh\\ -s*) exec sh -s ;; esac\n'
    )
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("KIT_SSH", f"{tmp_path}/ssh -F 'a file'")
    host = read_host("alice@lab1")
    assert (host.target, host.unread) == ("alice@lab1", ())
    opened = next(line for line in log.read_text().splitlines() if "ControlMaster=yes" in line)
    used = log.read_text().splitlines()[-1]
    for line in (opened, used):
        assert line.startswith("-F a file "), "the user's own ssh command"
        assert "BatchMode=yes" in line
        assert "ControlPath=" in line
        assert "StrictHostKeyChecking" not in line, "whose key to trust is for ssh's own configuration to say"
    assert "ConnectTimeout=10" in opened
    assert opened.endswith("alice@lab1 sh -s")


def test_no_ssh(monkeypatch):
    monkeypatch.setenv("KIT_SSH", "no-such-ssh")
    with pytest.raises(MissingProgramError, match="no-such-ssh"):
        read_host("alice@lab1")


@pytest.mark.parametrize("target", ["-oProxyCommand=touch /tmp/x", "-", "a b", "a\nb", " "])
def test_what_is_no_target(target):
    with pytest.raises(BadInputError, match="is no machine"):
        read_host(target)


@pytest.fixture
def context(tmp_path, monkeypatch):
    """Writes what docker has of the context `lab`."""

    def write(text):
        folder = tmp_path / "contexts" / "meta" / hashlib.sha256(b"lab").hexdigest()
        folder.mkdir(parents=True)
        (folder / "meta.json").write_text(text)

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return write


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [
        ("ssh://alice@lab1:2222", "ssh://alice@lab1:2222"),
        ("ssh://alice@lab1/run/user/1000/docker.sock", "ssh://alice@lab1"),
        ("unix:///var/run/docker.sock", "lab"),
        ("tcp://10.0.0.1:2376", "lab"),
    ],
)
def test_a_docker_context_names_a_machine(context, endpoint, target):
    context(json.dumps({"Name": "lab", "Metadata": {}, "Endpoints": {"docker": {"Host": endpoint}}}))
    assert ssh.resolve_target("lab") == target
    assert ssh.resolve_target("alice@lab") == "alice@lab"


@pytest.mark.parametrize(
    "text", ["", "not json", "[]", "{}", '{"Endpoints": null}', '{"Endpoints": {"docker": {"Host": 1}}}']
)
def test_a_name_that_is_no_context_is_sshs(context, text):
    assert ssh.resolve_target("lab") == "lab"
    context(text)
    assert ssh.resolve_target("lab") == "lab"


@pytest.mark.skipif(not shutil.which("docker"), reason="no docker program on PATH")
def test_docker_itself_keeps_contexts_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    process.run(["docker", "context", "create", "lab", "--docker", "host=ssh://alice@lab1"])
    assert ssh.resolve_target("lab") == "ssh://alice@lab1"


SYSTEM = "/var/run/docker.sock"
ACCOUNT = {"user": "me", "uid": 1, "gid": 1, "home": "/home/me", "hostname": "lab"}


@pytest.mark.parametrize(
    ("account", "choice", "is_podman"),
    [
        ({"has_podman": True}, "", True),
        ({"has_podman": True, "has_docker": True, "denied": (SYSTEM,)}, "", True),
        ({"has_podman": True, "sockets": (SYSTEM,)}, "", False),
        ({"has_podman": True, "sockets": (SYSTEM,)}, "podman", True),
        ({"has_podman": True}, "system", False),
        ({"has_docker": True}, "podman", False),
    ],
)
def test_where_podman_is_the_engine_of_another_machine(monkeypatch, account, choice, is_podman):
    monkeypatch.setenv("KIT_ENGINE", choice)
    assert find.takes_podman(ssh.Account(**ACCOUNT, **account)) is is_podman


@pytest.mark.parametrize(
    ("account", "program", "socket"),
    [
        ({"has_podman": True}, "podman", ""),
        ({"has_docker": True, "sockets": ("/a.sock", SYSTEM), "denied": ("/b.sock",)}, "", "/a.sock"),
        ({"has_docker": True, "denied": (SYSTEM,)}, "", SYSTEM),
        ({"has_docker": True}, "", ""),
    ],
)
def test_the_probe_asks_the_engine_that_kit_would_use(monkeypatch, tmp_path, account, program, socket):
    of = ssh.Account(**ACCOUNT, **account)
    given = []
    connection = ssh.Connection(target="lab", address="lab", folder=tmp_path, account=of)
    monkeypatch.setattr(ssh, "connect", lambda _: connection)
    done = process.Completed(args=(), returncode=1, stdout="", stderr="")
    monkeypatch.setattr(ssh.Connection, "run", lambda _, script, **__: given.append(script) or done)
    with pytest.raises(NetworkError):
        probe.run_probe("lab", ["engine"])
    lines = given[0].splitlines()
    assert f"KIT_DOCKER={program or repr('')}" in lines
    assert f"KIT_SOCKET={socket or repr('')}" in lines


def test_a_candidate_is_the_same_place_for_python_and_for_a_shell(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "my home"))
    for runtime in ("", str(tmp_path)):
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        for candidate in sockets.CANDIDATES:
            printed = process.run(["sh", "-c", f"printf %s {candidate.word()}"]).stdout
            assert printed == str(candidate.path())
