"""The parts of tunnels: their files, whatever is in them, what a dead supervisor left, waits, and what ssh says."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit import linux, paths, ports, process, procs
from kit.errors import PortTakenError
from kit.remote import tunnels
from kit.remote.tunnels import forward, state, supervisor


def record(**changes):
    tunnel = {"id": "0123456789", "target": "machine", "container": "kit-a", "service": "jupyter", "local_port": 8888}
    tunnel |= {"remote_port": 20000, "status": "up", "problem": "", "started": "", "tries": 0, "pid": os.getpid()}
    made = {"machine": state.machine(), "boot": procs.boot(), "start": procs.start_time(os.getpid())}
    return state.Record(tunnel=state.Tunnel(**tunnel), **{**made, **changes})


GOOD = json.dumps({**vars(record()), "tunnel": vars(record().tunnel)})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"tunnel": {}}',
        "[" * 100_000,
        GOOD[: len(GOOD) // 2],
        GOOD.replace("8888", '"8888"'),
        GOOD.replace("8888", "0"),
        GOOD.replace("8888", "true"),
        GOOD.replace('"up"', '"open"'),
        GOOD.replace("0123456789", "9876543210"),
        GOOD + " " * state.LONGEST_STATE + "x",
    ],
)
def test_a_broken_file_is_no_tunnel_and_is_cleared_away(text):
    paths.state_folder("tunnels")
    state.file("0123456789", "json").write_text(text)
    if not text.startswith(GOOD):
        assert state.read("0123456789") is None
    assert tunnels.listed() == []
    assert list(state.folder().iterdir()) == []


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), at=st.integers(0, len(GOOD)))
def test_no_bytes_crash_a_reader(data, at):
    paths.state_folder("tunnels")
    state.file("0123456789", "json").write_bytes(GOOD.encode()[:at] + data)
    state.read("0123456789")


def test_what_is_read_is_what_was_written():
    paths.state_folder("tunnels")
    state.write(record(ssh_pid=7, ssh_start="x", is_lasting=True))
    assert state.read("0123456789") == record(ssh_pid=7, ssh_start="x", is_lasting=True)


def test_what_is_not_ours_is_let_be():
    paths.state_folder("tunnels")
    names = ["README", "0123456789.txt", "0123.json"]
    for name in names:
        (state.folder() / name).write_text("x")
    (state.folder() / "aaaaaaaaaa.lock").mkdir()
    assert tunnels.listed() == []
    assert sorted(file.name for file in state.folder().iterdir()) == sorted([*names, "aaaaaaaaaa.lock"])


def test_left_overs_of_a_killed_writer_and_opener_are_cleared_away():
    paths.state_folder("tunnels")
    for name in ("0123456789.log", "0123456789.lock", ".0123456789.json.abc"):
        (state.folder() / name).touch()
    assert tunnels.listed() == []
    assert list(state.folder().iterdir()) == []


def test_files_of_another_machine_with_the_same_home_are_let_be():
    paths.state_folder("tunnels")
    state.write(record(machine="another", boot="another"))
    assert tunnels.listed() == []
    assert state.file("0123456789", "json").exists()
    state.write(record(boot="earlier"))  # this machine, before it was started anew
    assert tunnels.listed() == []
    assert list(state.folder().iterdir()) == []


def test_the_lock_has_one_owner_and_a_removed_one_none():
    paths.state_folder("tunnels")
    handle = state.acquire("0123456789")
    assert handle is not None
    assert state.acquire("0123456789") is None
    state.give_up("0123456789", handle)
    other = state.acquire("0123456789")
    assert other is not None, "what was removed is nobody's"
    state.write(record())
    state.clear("0123456789", handle)
    state.give_up("0123456789", handle)
    assert state.read("0123456789") == record(), "the files are the new owner's"
    for open_one in (handle, other):
        os.close(open_one)


def test_there_is_no_folder():
    assert tunnels.listed() == []
    assert not state.folder().exists(), "a look makes nothing"


@pytest.fixture
def sleeper():
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield child
    child.kill()
    child.wait()


def test_without_proc_the_ssh_is_found_by_its_number_and_start(sleeper, monkeypatch, tmp_path):
    monkeypatch.setattr(linux, "PROC", tmp_path)
    of = record(ssh_pid=sleeper.pid, ssh_start=procs.start_time(sleeper.pid))
    assert of.ssh_start
    assert state.orphans(replace(of, ssh_start="Thu Jan  1 00:00:00 1970")) == []
    assert state.orphans(of) == [sleeper.pid]
    state.end_orphans(of)
    assert sleeper.wait(timeout=5) == -signal.SIGKILL
    assert state.orphans(of) == []


def test_a_process_that_only_has_the_number_of_a_dead_ssh_is_let_be(sleeper):
    assert state.orphans(record(ssh_pid=sleeper.pid, ssh_start=procs.start_time(sleeper.pid))) == []


def test_waits_between_two_tries():
    for failures, longest in ((1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (10_000, 30)):
        waits = {supervisor.delay_s(failures, is_lasting=False) for _ in range(50)}
        assert longest * 0.75 <= min(waits) <= max(waits) <= longest
        assert len(waits) > 10, "several tunnels do not all try at the same moment"
    assert supervisor.delay_s(1, is_lasting=True) == 30


@pytest.fixture
def waiting():
    """A supervisor without an ssh, in this process."""
    paths.state_folder("tunnels")
    handle = state.acquire("0123456789")
    assert handle is not None
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    yield supervisor.Supervisor(
        record=record(),
        command=[],
        ending=[],
        socket_path=Path("/none"),
        folder=Path("/"),
        lock=handle,
        reservation=-1,
        opener=None,
    )
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)
    os.close(handle)


@pytest.mark.parametrize("what", ["sleep_clock", "network"])
def test_a_wait_ends_when_the_machine_wakes_up_or_its_network_changes(waiting, monkeypatch, what):
    before = getattr(linux, what)()
    answers = iter([before, before])
    after = before + 3600 if what == "sleep_clock" else (*before, "eth0 00000000 0100000A 00000000")
    monkeypatch.setattr(linux, what, lambda: next(answers, after))
    monkeypatch.setattr(supervisor, "WAIT_LOOK_S", 0.05)
    began = time.monotonic()
    waiting._pause(30, is_lasting=False)
    assert time.monotonic() - began < 5


def test_a_wait_ends_by_a_signal(waiting):
    for number in (signal.SIGUSR1, signal.SIGTERM):
        timer = threading.Timer(0.2, os.kill, (os.getpid(), number))
        timer.start()
        began = time.monotonic()
        waiting._pause(30, is_lasting=True)
        assert time.monotonic() - began < 5
        timer.join()
    assert waiting.is_ending


def test_the_clock_and_the_network_stand_still():
    before = linux.sleep_clock(), linux.network()
    time.sleep(0.2)
    assert abs(linux.sleep_clock() - before[0]) < 0.1
    assert linux.network() == before[1]


def test_what_ssh_prints():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    output = forward.Output(reader)
    os.write(writer, b"Welcome\r\nchannel 2: open failed: connect failed: Connection refused\n")
    output.read()
    assert output.text == "Welcome"
    assert not output.is_up
    os.write(
        writer, f"\xff{forward.UP_LINE}\n{forward.UP_LINE}\n{forward.LIFE}abc  2026\n{forward.LIFE}\nhalf a l".encode()
    )
    output.read()
    assert output.is_up
    assert list(output.lives) == ["abc  2026", ""]
    assert output.text.endswith("half a l")
    output.forget()
    os.write(writer, b"line\n" * 10_000 + forward.LIFE.encode() + b"x" * 10_000 + b"\n")
    output.read()
    assert output.text.count("line") <= 30
    os.close(writer)
    output.read()
    assert output.is_over
    os.close(reader)


def is_gone(pid):
    return procs.start_time(pid) == ""


def test_a_bound_program_ends_with_the_one_that_started_it():
    code = (
        "import os, sys; from kit import process\n"
        "print(process.start_bound(['sleep', '60'], output=2).pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not is_gone(pid)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while not is_gone(pid) and sys.platform == "linux" and time.monotonic() < deadline:
        time.sleep(0.02)
    is_left = not is_gone(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    assert not is_left or sys.platform != "linux"


def test_a_daemon_keeps_the_locks_it_is_handed(tmp_path):
    port, handle = ports.reserve(20000, exact=False, folder=tmp_path)
    pid = process.start_daemon(["sleep", "60"], log_file=tmp_path / "log", pass_fds=[handle], cwd=tmp_path)
    os.close(handle)
    with pytest.raises(PortTakenError):
        ports.reserve(port, exact=True, folder=tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(ports.reserve(port, exact=True, folder=tmp_path)[1])
