"""Pipes, devices, folders, loops and files of gigabytes where kit reads a file: an error at once, never a wait."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from kit import config, files
from kit.compose.written import write, write_token
from kit.errors import BadInputError


def make_odd(path: Path, kind: str) -> None:
    """Put something at a path that is not a file that anybody would write."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(path.with_name("pipe"))
        path.symlink_to(path.with_name("pipe"))
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(os.path.relpath(path))
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        with path.open("wb") as file:
            file.truncate(4 * 2**30)


ODD = {
    "folder": "Is a directory",
    "pipe": "It is a pipe and not a file",
    "link to a pipe": "It is a pipe and not a file",
    "link to a device": "It is a device and not a file",
    "socket": "It is a socket and not a file",
    "loop": "Too many levels of symbolic links",
    "4 GB": "It has more than 4,194,304 bytes",
}


@pytest.mark.parametrize(("kind", "problem"), ODD.items())
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, kind, problem):
    monkeypatch.chdir(tmp_path)
    make_odd(tmp_path / "odd", kind)
    begun = time.monotonic()
    with pytest.raises(OSError) as raised:  # noqa: PT011 (its text is looked at)
        files.read_bytes(tmp_path / "odd")
    assert raised.value.strerror == problem
    assert time.monotonic() - begun < 1


def test_a_file_is_read_whole_up_to_the_limit(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"gr\xc3\xbc\r\n")
    (tmp_path / "link").symlink_to(file)
    assert files.read_text(tmp_path / "link", limit=6) == "grü\r\n"
    with pytest.raises(OSError, match="more than 5 bytes"):
        files.read_bytes(file, limit=5)


@pytest.mark.parametrize("kind", [*ODD, "nowhere"])
@pytest.mark.parametrize("name", ["kit.toml", "../kit.toml", "config.toml", "KIT_CONFIG", "env_file", "--env-file"])
def test_a_command_that_needs_a_file_is_refused_and_one_that_does_not_goes_on(kit, tmp_path, monkeypatch, name, kind):
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    odd = {"config.toml": Path.home() / ".config/kit/config.toml", "env_file": folder / ".env"}.get(name, folder / name)
    odd.parent.mkdir(parents=True, exist_ok=True)
    if kind == "nowhere":
        odd.symlink_to("not there")
    else:
        make_odd(odd, kind)
    flags = ["--env-file", str(odd)] if name == "--env-file" else []
    if name == "KIT_CONFIG":
        monkeypatch.setenv("KIT_CONFIG", str(odd))
    elif name == "env_file":
        (folder / "kit.toml").write_text('env_file = ".env"\n')
    begun = time.monotonic()
    result = kit("run", *flags, "tf-cpu", "true")
    assert (result.code, result.out) == (2, "")
    what = {"kit.toml": "kit.toml", "../kit.toml": "kit.toml", "config.toml": "config.toml"}.get(name, str(odd))
    assert result.err.startswith("error: ")
    assert what in result.err
    assert kit("list").code == 0
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("name", ["compose.yaml", ".env"])
@pytest.mark.parametrize("kind", ODD)
def test_compose_waits_for_nothing_beside_its_file(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    make_odd(tmp_path / name, kind)
    with pytest.raises(BadInputError, match=rf"{name} cannot be"):
        write(tmp_path / name, "text\n") if name == "compose.yaml" else write_token(tmp_path)


def test_the_users_file_may_be_none_at_all(tmp_path, monkeypatch):
    file = Path.home() / ".config/kit/config.toml"
    file.parent.mkdir(parents=True)
    file.symlink_to(os.devnull)
    assert config.load(tmp_path).problems == ()


def test_a_pipe_that_the_caller_has_opened_is_read(tmp_path):
    reading, writing = os.pipe()
    os.write(writing, b"A=b\n")
    os.close(writing)
    assert config.read_env_file(Path(f"/dev/fd/{reading}")) == (("A", "b"),)
    os.close(reading)
