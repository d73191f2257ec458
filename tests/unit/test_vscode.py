import json
from pathlib import Path

import pytest

from kit.engine import Engine
from kit.engine.podman import Podman
from kit.engine.remote import RemotePodman
from kit.errors import CommandError, MissingProgramError, UnsupportedHostError
from kit.remote.ssh import Account, Connection
from kit.run import vscode as editor

NAME = "kit-tf-cpu-jupyter-ab12"


def decoded(uri: str) -> tuple[dict[str, object], str]:
    authority, _, path = uri.removeprefix("vscode-remote://attached-container+").partition("/")
    return json.loads(bytes.fromhex(authority)), f"/{path}"


def test_a_known_address() -> None:
    # The hex of {"containerName":"/box"}, as `printf … | od -A n -t x1` gives it in the issues named in run/vscode.py.
    known = "vscode-remote://attached-container+7b22636f6e7461696e65724e616d65223a222f626f78227d/workspace"
    assert editor.attach_uri("box") == known
    assert editor.attach_uri("/box") == known, "as `docker inspect` writes a name"


def test_an_address_on_another_engine() -> None:
    uri = editor.attach_uri(NAME, folder="/workspace/a b", engine_settings={"host": "ssh://me@server:2222"})
    text = f'{{"containerName":"/{NAME}","settings":{{"host":"ssh://me@server:2222"}}}}'
    assert uri == f"vscode-remote://attached-container+{text.encode().hex()}/workspace/a%20b"


def test_names_that_are_not_ascii_are_utf8() -> None:
    assert decoded(editor.attach_uri("x", engine_settings={"context": "büro"}))[0]["settings"] == {"context": "büro"}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "KIT_SSH", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def test_an_engine_docker_finds_by_itself_needs_no_settings() -> None:
    assert editor.engine_settings(Engine(socket_path=Path("/var/run/docker.sock"))) == {}


def test_an_engine_with_an_address_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    private = Engine(environment={"DOCKER_HOST": "unix:///var/lib/kit/run/docker.sock"}, socket_path=Path("/x"))
    assert editor.engine_settings(private) == {"host": "unix:///var/lib/kit/run/docker.sock"}
    monkeypatch.setenv("DOCKER_HOST", "tcp://server:2375")
    assert editor.engine_settings(Engine()) == {"host": "tcp://server:2375"}


def test_an_engine_of_a_docker_context(fake_docker, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST")
    fake_docker.reply("context", "show", stdout="lab\n")
    assert editor.engine_settings(engine) == {"context": "lab"}
    fake_docker.reply("context", "show", stdout="default\n")
    assert editor.engine_settings(engine) == {}
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    assert editor.engine_settings(engine) == {"context": "other"}


def remote(target: str, *, address: str = "", sockets: tuple[str, ...] = (), has_docker: bool = True) -> Engine:
    account = Account(
        user="me", uid=1, gid=1, home="/home/me", hostname="server", sockets=sockets, has_docker=has_docker
    )
    folder = Path("/run/user/1/kit/abc")
    engine = Engine(environment={"DOCKER_HOST": f"unix://{folder}/engine.sock"}, socket_path=folder / "engine.sock")
    engine.connection = Connection(target=target, address=address or target, folder=folder, account=account)
    return engine


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (remote("me@server", sockets=("/var/run/docker.sock",)), "ssh://me@server"),
        (remote("lab"), "ssh://lab"),
        (remote("ssh://me@server:2222", sockets=("/run/docker.sock",)), "ssh://me@server:2222"),
        (remote("me@server", sockets=("/run/user/1/docker.sock",)), "ssh://me@server/run/user/1/docker.sock"),
        (remote("me@server", has_docker=False), "unix:///run/user/1/kit/abc/engine.sock"),
    ],
)
def test_an_engine_behind_ssh(engine: Engine, expected: str) -> None:
    settings = editor.engine_settings(engine)
    assert settings == {"host": expected}
    assert editor.is_lasting(settings) == expected.startswith("ssh://")


def test_podman_here_is_a_setting_of_vs_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/podman/podman.sock")
    editor.require_attachable(Podman(), NAME)
    assert editor.engine_settings(Podman()) == {}


def test_podman_behind_ssh_is_refused() -> None:
    connection = remote("lab").connection
    assert connection is not None
    with pytest.raises(UnsupportedHostError, match="Podman on another machine") as caught:
        editor.require_attachable(RemotePodman(connection), NAME)
    assert f"kit --host lab exec {NAME} bash" in caught.value.hint
    editor.require_attachable(remote("lab"), NAME)


def test_an_ssh_of_the_users_own_is_unknown_to_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_SSH", "ssh -F other_config")
    assert editor.engine_settings(remote("lab")) == {"host": "unix:///run/user/1/kit/abc/engine.sock"}


def test_a_docker_context_on_ssh_goes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editor, "context_endpoint", lambda name: {"lab": "ssh://me@server"}.get(name, ""))
    assert editor.engine_settings(remote("lab", address="ssh://me@server")) == {"context": "lab"}


def program(folder: Path, script: str) -> str:
    file = folder / "code"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def test_the_program_is_given_the_address(tmp_path: Path) -> None:
    editor.open_uri("vscode-remote://x/y", program=program(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/arguments'))
    assert (tmp_path / "arguments").read_text() == "--folder-uri\nvscode-remote://x/y\n"


def test_a_program_that_is_missing_or_fails(tmp_path: Path) -> None:
    with pytest.raises(MissingProgramError) as caught:
        editor.open_uri("vscode-remote://x/y", program=str(tmp_path / "nothing"))
    assert "--program" in caught.value.hint
    with pytest.raises(CommandError) as failed:
        editor.open_uri("vscode-remote://x/y", program=program(tmp_path, "echo no display >&2; exit 3"))
    assert "no display" in failed.value.details
