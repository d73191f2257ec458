"""An engine that is there and not for this account: what is said of it, and what to do."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import accounts, paths, private_engine, unix_http
from kit.cli.output import runnable
from kit.decide.rights import way_in
from kit.engine import connect, find, rights
from kit.errors import EngineDeniedError
from kit.facts import sockets
from kit.facts.sockets import Access, Candidate
from kit.host.parse_engine import parse_access
from kit.private_engine import daemon

PATH = "/var/run/docker.sock"


@pytest.mark.parametrize(
    ("access", "is_private", "said"),
    [
        (Access(is_roots=True, group="docker", has_sudo=True), False, "`sudo usermod -aG docker $USER`"),
        (Access(is_roots=True, group="docker", is_member=True), False, "log out and in again: you are in the group"),
        (Access(is_roots=True, has_sudo=True), False, "it is root's alone: `sudo -E kit …`"),
        (Access(is_roots=True), False, "ask an administrator"),
        (Access(is_roots=True, has_sudo=True), True, f"root started it: `sudo chown $USER {PATH}`"),
        (Access(is_roots=False, has_sudo=True), True, "it is alice's alone: ask them, or `sudo -E kit …`"),
        (Access(is_roots=False), True, "it is alice's alone: ask them"),
        (None, False, f"`ls -l {PATH}` shows its owner"),
    ],
)
def test_the_way_in_is_one_that_exists(access: Access | None, is_private: bool, said: str) -> None:
    hint = way_in(access, PATH, is_private=is_private, owner="alice")
    assert said in hint
    assert "engine up" not in hint, "it is up"
    assert ("usermod" in hint) == (access is not None and access.group != "" and not access.is_member)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0 docker srw-rw----\nalice wheel\nsudo\n", Access(is_roots=True, group="docker", has_sudo=True)),
        ("0 docker srw-rw----\nalice docker\n", Access(is_roots=True, group="docker", is_member=True)),
        ("0 root srw-rw----\nalice\nsudo\n", Access(is_roots=True, has_sudo=True)),
        ("1000 docker srw-------\nbob\n", Access(is_roots=False)),
        ("0 UNKNOWN srw-rw----.\nbob\n", Access(is_roots=True)),
        ("sudo\n", None),
        ("", None),
    ],
)
def test_what_the_probe_says_of_a_socket(text: str, found: Access | None) -> None:
    assert parse_access(text) == found


@pytest.fixture
def its_socket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A socket that this account may not use; tests may run as root, whom nothing is refused."""
    # A socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="k") as folder, socket.socket(socket.AF_UNIX) as server:
        path = Path(folder, "run/docker.sock")
        path.parent.mkdir()
        server.bind(str(path))
        path.chmod(0o660)
        monkeypatch.setattr(unix_http, "is_answering", lambda *_, **__: False)
        monkeypatch.setattr(unix_http, "is_denied", lambda asked: asked == path)
        yield path


def refuse(path: Path) -> bool:
    raise PermissionError(13, "Permission denied", str(path))


def test_no_right_to_a_socket_is_an_error_of_its_own(its_socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CANDIDATES", (Candidate(folder=str(its_socket.parent)),))
    monkeypatch.setattr(find, "_answers", refuse)
    monkeypatch.setattr(accounts, "group_name", lambda _: "wheel")
    monkeypatch.setattr(accounts, "groups_at_login", lambda: ())
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    with pytest.raises(EngineDeniedError, match=str(its_socket)) as caught:
        connect()
    assert caught.value.exit_code == 23
    if its_socket.stat().st_gid:
        assert "usermod -aG wheel" in caught.value.hint


def test_an_engine_that_root_started_is_seen_as_that(
    its_socket: Path, monkeypatch: pytest.MonkeyPatch, kit: object
) -> None:
    monkeypatch.setenv("KIT_ENGINE_DIR", str(its_socket.parent.parent))
    monkeypatch.setattr(sockets, "CANDIDATES", (sockets.CANDIDATES[-1],))
    monkeypatch.setattr(rights, "access_to", lambda _: (Access(is_roots=True, has_sudo=True), "root"))
    assert not private_engine.is_denied(), "its process is gone: what is left is a file"
    private_engine.engine_paths().state_file.write_text(f'{{"pid": {os.getpid()}}}')
    assert private_engine.is_denied()
    with pytest.raises(EngineDeniedError, match="kit's private engine is up") as caught:
        connect()
    assert "root started it" in caught.value.hint
    done = kit("engine", "status")  # type: ignore[operator]
    assert done.code == 23
    assert "kit's private engine is up, and you have no right to use it" in done.err


@pytest.mark.parametrize(("owner", "given"), [(0, True), (1234, False)])
def test_by_sudo_an_engine_of_roots_is_given_and_one_of_another_is_not(
    its_socket: Path, monkeypatch: pytest.MonkeyPatch, owner: int, given: bool
) -> None:
    monkeypatch.setenv("KIT_ENGINE_DIR", str(its_socket.parent.parent))
    monkeypatch.setattr(daemon.programs, "check_host", lambda: None)
    monkeypatch.setattr(daemon, "is_up", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("SUDO_UID", "SUDO_GID"):
        monkeypatch.setenv(name, "1000")
    seen = os.stat_result((0o140660, 0, 0, 1, owner, 0, 0, 0, 0, 0))
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **how: seen if path == its_socket else stat(path, **how))
    owners = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: owners.append((path, uid, gid)))
    assert not daemon.up()
    assert owners == ([(its_socket, 1000, -1)] if given else [])


def test_commands_in_hints_are_those_that_work_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "command", lambda *, as_root=False: "/v/kit" if as_root else ".venv/bin/kit")
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/sudo")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for text, typed in {
        "start it with `kit engine up`, or": "start it with `sudo -E /v/kit engine up`, or",
        "`sudo -E kit …` as root": "`sudo -E /v/kit …` as root",
        "`sudo kit base make`": "`sudo -E /v/kit base make`",
        "`kit list` shows all kit has": "`.venv/bin/kit list` shows all kit has",
        "`KIT_ENGINE=podman kit ps && kit url x`": "`KIT_ENGINE=podman .venv/bin/kit ps && .venv/bin/kit url x`",
        "`sudo usermod -aG kit x` and kit list": "`sudo usermod -aG kit x` and kit list",
    }.items():
        assert runnable(text) == typed


def test_the_command_is_the_name_where_path_leads_to_it_and_else_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    program = tmp_path / "a b/bin/kit"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(program)])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert paths.command() == f"'{program}'"
    monkeypatch.chdir(tmp_path)
    assert paths.command() == "'a b/bin/kit'"
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    assert paths.command() == "kit"
    assert paths.command(as_root=True) == "'a b/bin/kit'", "sudo has a PATH of its own"
