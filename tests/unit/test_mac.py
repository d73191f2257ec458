"""kit as on a Mac, with what only Linux has switched off: it is a client of engines and of other machines."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit import files, linux, process, procs
from kit.engine.docker import Engine
from kit.errors import MissingProgramError
from kit.facts import sockets
from kit.remote import ssh
from kit.remote.sync import rsync
from tests.fake_docker import info


@pytest.fixture
def mac(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(linux, "PROC", tmp_path / "no-proc")
    procs.boot.cache_clear()
    yield
    procs.boot.cache_clear()


def program(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return folder / name


def test_processes_are_known_by_ps(mac):
    child = subprocess.Popen(["sleep", "60"])
    start = procs.start_time(child.pid)
    assert start
    assert procs.is_running(child.pid, start)
    child.kill()
    child.wait()
    assert procs.start_time(child.pid) == ""
    assert not procs.is_running(child.pid, start)
    assert list(procs.numbers()) == []
    assert procs.describe(os.getpid()) == ""
    assert not procs.has_mark(os.getpid(), "KIT_TEST=none")


def test_the_start_of_the_machine_is_asked_of_sysctl(mac, monkeypatch, tmp_path):
    program(tmp_path / "bin", "sysctl", 'test "$*" = "-n kern.bootsessionuuid" && echo 6F2A-77')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert procs.boot() == "6F2A-77"
    assert procs.identity().startswith("6F2A-77 ")
    assert not procs.is_over(procs.identity())
    procs.boot.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert procs.boot() == ""


def test_programs_start_and_end_without_the_kernel_s_help(mac):
    assert linux.end_with_parent() is None
    lines = []
    assert process.stream(["sh", "-c", "echo a; echo b; exit 3"], lines.append) == 3
    assert lines == ["a", "b"]
    child = process.start_bound(["sleep", "60"], output=2)
    process.end_bound(child, patience_s=2)
    assert child.returncode == -signal.SIGTERM


def test_a_file_of_variables_is_for_this_user_alone_and_goes(mac):
    with linux.unlisted("TOKEN=x\n") as path:
        assert Path(path).read_text() == "TOKEN=x\n"
        assert Path(path).stat().st_mode & 0o777 == 0o600
    assert not Path(path).exists()


def test_who_holds_a_lock_is_not_said(mac, tmp_path):
    with files.locked(tmp_path / "lock"):
        assert files.holder(tmp_path / "lock") == "another process"


def test_a_wait_needs_neither_clock_nor_routes(mac):
    before = linux.sleep_clock()
    time.sleep(0.05)
    assert abs(linux.sleep_clock() - before) < 0.1
    assert linux.network() == ()


def test_the_memory_is_that_of_the_virtual_machine(mac, fake_docker, tmp_path):
    fake_docker.reply("info", stdout=info(MemTotal=8_000_000_000))
    engine = Engine(socket_path=tmp_path / "docker.sock")
    assert engine.is_here
    assert engine.memory_bytes == 8_000_000_000


def test_the_socket_of_docker_desktop_is_a_candidate(mac, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path / ".docker/run/docker.sock" in [candidate.path() for candidate in sockets.CANDIDATES]


@pytest.mark.parametrize("length", range(20, 110, 3))
def test_a_socket_s_path_fits(mac, monkeypatch, tmp_path, length):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    # As long as those of macOS: /var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T
    long = tmp_path / ("x" * max(length - len(str(tmp_path)) - 1, 1))
    long.mkdir(exist_ok=True)
    monkeypatch.setenv("TMPDIR", str(long))
    folder = ssh.private_folder("alice-lab1-0123abcd")
    try:
        assert len(f"{folder}/control.0123456789abcdef") <= 103
    finally:
        folder.rmdir()


APPLE = "openrsync: protocol version 29, rsync version 2.6.9 compatible"
OLD = "rsync  version 2.6.9  protocol version 29"
NEW = "rsync  version 3.4.1  protocol version 32"


def test_the_rsync_of_macos_is_none_and_homebrew_s_is_found(mac, monkeypatch, tmp_path):
    brew = tmp_path / "brew"
    monkeypatch.setattr(rsync, "ELSEWHERE", (brew / "rsync",))
    for text in (APPLE, OLD):
        program(tmp_path / "bin", "rsync", f"echo '{text}'")
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
        with pytest.raises(MissingProgramError, match=r"3\.1 or newer") as caught:
            rsync._program()
        assert "brew install rsync" in caught.value.hint
    found = program(brew, "rsync", f"echo '{NEW}'")
    assert rsync._program() == str(found)
    newer = program(tmp_path / "bin", "rsync", f"echo '{NEW}'")
    assert rsync._program() == str(newer)
