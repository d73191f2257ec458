"""Pipes, devices, folders, loops and files of gigabytes where kit reads a file: an error at once, never a wait."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from kit import files


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
