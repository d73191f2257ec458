"""What runs a container's command: it is as if the command were alone, but for signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit import paths

# Saves what a shell that it is started by would not wait for.
SAVES = """
import pathlib, signal, sys, time
def save(number, _):
    time.sleep(0.5)
    pathlib.Path("saved").write_text(str(number))
    sys.exit(3)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, save)
pathlib.Path("up").touch()
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path):
    """Starts the command as tini does, in a process group of its own."""
    begun = []

    def call(*command, **options):
        words = [sys.executable, "-IS", str(paths.templates_dir() / "run.py"), *command]
        how = {"cwd": tmp_path, "start_new_session": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        begun.append(subprocess.Popen(words, **{"text": True, **how, **options}))
        return begun[-1]

    yield call
    for process in begun:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            process.wait()


def wait_for(file: Path) -> None:
    end = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < end, file
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "shell", [(), ("sh", "-c", '"$@"; true', "sh"), ("bash", "-c", 'bash -c "\\"\\$@\\"; true" sh "$@"; true', "sh")]
)
def test_what_saves_its_work_when_it_is_told_to_end_can_do_so_behind_shells_too(start, tmp_path, shell, number):
    process = start(*shell, sys.executable, "-c", SAVES)
    wait_for(tmp_path / "up")
    os.killpg(process.pid, number)
    assert process.wait(timeout=20) == (128 + number if shell else 3)
    assert (tmp_path / "saved").read_text() == str(int(number))


def test_nothing_is_waited_for_where_nobody_said_to_end(start, tmp_path):
    process = start("sh", "-c", "sleep 60 & exit 7", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.wait(timeout=20) == 7


def test_ctrl_c_ends_it_though_something_in_the_background_does_not_heed_that(start, tmp_path):
    # A shell that is no terminal's has what it starts with `&` ignore SIGINT.
    # dash loses what comes while it starts a program: it is the program itself that says it is up.
    program = "import pathlib, time; pathlib.Path('up').touch(); time.sleep(60)"
    words = ("sh", "-c", 'sleep 60 & "$@"; true', "sh", sys.executable, "-c", program)
    process = start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "up")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=20) == 128 + signal.SIGINT


def test_a_signal_that_is_for_the_command_alone_ends_nothing_else(start, tmp_path):
    process = start("bash", "-c", "trap 'touch told' USR1; touch up; until [ -e told ]; do sleep 0.1; done; exit 5")
    wait_for(tmp_path / "up")
    os.killpg(process.pid, signal.SIGUSR1)
    assert process.wait(timeout=20) == 5


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 42"), 42),
        (("sh", "-c", "kill -9 $$"), 137),
        (("sh", "-c", "kill -15 $$"), 143),
    ],
)
def test_the_exit_code_is_the_command_s(start, command, code):
    assert start(*command).wait(timeout=20) == code


def test_what_cannot_be_started_is_named(start, tmp_path):
    for name, code, why in (("no-such-program", 127, "No such file"), ("./file", 126, "Permission denied")):
        (tmp_path / "file").touch(mode=0o644)
        process = start(name)
        assert process.communicate(timeout=20)[1].startswith(f"{name}: {why}")
        assert process.returncode == code


def test_input_environment_and_the_kernel_s_defaults_reach_the_command(start):
    odd = {**os.environ, "ODD.NAME": "x\udcff", "PYTHONIOENCODING": "utf-8:surrogateescape"}
    program = "import os, sys; sys.stdout.write(sys.stdin.read() + os.environ['ODD.NAME'])"
    process = start(sys.executable, "-c", program, stdin=subprocess.PIPE, env=odd, text=False)
    assert process.communicate(b"words ", timeout=20)[0] == b"words x\xff"
    # Python ignores some signals as it starts, and what it starts ignored them too. Those from 32 on are glibc's own.
    process = start("sh", "-c", "trap '' USR2; grep SigIgn /proc/$$/status")
    ignored = int(process.communicate(timeout=20)[0].split()[1], 16)
    assert ignored & 0x7FFFFFFF == 1 << (signal.SIGUSR2 - 1)
