"""The shell that stays on another machine, here one of this machine; and what stands between it and rsync."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kit.errors import CommandError
from kit.remote import relay
from kit.remote.shell import TIMED_OUT, Shell


@pytest.fixture
def shell():
    running = Shell(["sh", "-s"], patience=lambda: 10.0)
    yield running
    running.end()


def run(shell, script, *arguments, input=None, timeout_s=10, stays=False):
    done = shell.run(script, arguments, input, timeout_s, stays=stays)
    return done.returncode, done.stdout, done.stderr


def test_one_script_after_the_other_in_one_process(shell):
    first = run(shell, "echo $PPID")
    assert first == run(shell, "echo $PPID") == (0, f"{shell.child.pid}\n", "")
    assert run(shell, "printf out; printf err >&2; exit 7") == (7, "out", "err")
    assert run(shell, "exit 255") == (255, "", "")
    assert run(shell, "kill -9 $$")[:2] == (137, "")


def test_words_and_input_arrive_as_they_are(shell):
    odd = ["a b", "it's", '"$HOME"', "*", "", "-n", "a\nb", "back\\slash"]
    script = 'for word; do printf "<%s>" "$word"; done'
    expected = "".join(f"<{word}>" for word in odd)
    assert run(shell, script, *odd) == (0, expected, "")
    assert run(shell, f"cat; {script}", *odd, input=b"\xff!") == (0, f"\ufffd!{expected}", "")
    assert run(shell, "cat") == (0, "", ""), "there is no input"
    text = "".join(f"line {n}\n" for n in range(50_000))
    assert run(shell, "cat", input=text) == (0, text, "")
    assert run(shell, "true", input=text)[0] == 0, "nobody need read it"


def test_nothing_of_a_script_stays_unless_it_is_to(shell, tmp_path):
    assert run(shell, "cd /; umask 077; x=1")[0] == 0
    assert run(shell, 'echo "$PWD${x:-}"') == (0, f"{Path.cwd()}\n", "")
    (tmp_path / "file").write_text("line\n")
    assert run(shell, 'exec 9<"$1"', str(tmp_path / "file"), stays=True)[0] == 0
    assert run(shell, "cat <&9 2>/dev/null")[0] != 0, "not for what a script may leave running"
    assert run(shell, "cat <&9", stays=True) == (0, "line\n", "")


def test_a_greeting_is_no_answer():
    greeted = Shell(["sh", "-c", "echo Welcome; echo Hello >&2; exec sh -s"], patience=lambda: 10.0)
    try:
        assert greeted.greeting == "Welcome\n"
        assert run(greeted, "echo x") == (0, "x\n", "")
    finally:
        greeted.end()


def test_no_shell_says_why():
    with pytest.raises(CommandError) as caught:
        Shell(["sh", "-c", "echo This account is not available; exit 1"], patience=lambda: 10.0)
    assert (caught.value.returncode, caught.value.stdout) == (1, "This account is not available\n")


def test_time_is_up_and_nothing_is_left(shell):
    begun = time.monotonic()
    with pytest.raises(CommandError) as caught:
        run(shell, "echo begun; exec sleep 60", timeout_s=0.3)
    assert caught.value.returncode == TIMED_OUT
    assert time.monotonic() - begun < 5
    assert not shell.is_running


def test_one_that_was_killed_is_an_error_at_once(shell):
    threading.Timer(0.3, shell.child.kill).start()
    with pytest.raises(CommandError):
        run(shell, "sleep 60", timeout_s=30)


def test_threads_take_turns(shell):
    found = []
    threads = [
        threading.Thread(target=lambda n=n: found.append((n, run(shell, f"sleep 0.0{n}; echo {n}")))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(found) == [(n, (0, f"{n}\n", "")) for n in range(8)]


def relayed(shell, command, input=b""):
    """What a program gets that speaks with a command in the shell."""
    with shell.lent() as (streams, mark):
        done = subprocess.run(
            [sys.executable, "-I", "-S", relay.__file__, *map(str, streams), mark, "host", command],
            input=input,
            capture_output=True,
            pass_fds=streams,
            timeout=30,
            check=False,
        )
    return done.returncode, done.stdout, done.stderr


def test_bytes_go_both_ways(shell):
    data = os.urandom(3_000_000) + b"\n@@\n" + shell.mark[:9].encode() + b"\n\n"
    code, out, err = relayed(shell, f"sh -c 'echo told >&2; head -c {len(data)}; exit 3'", data)
    assert (code, out) == (3, data)
    assert err.split() == [b"told"]
    assert run(shell, "echo still here") == (0, "still here\n", "")


@pytest.mark.parametrize("piece", [1, 2, 7, 1 << 16])
def test_the_mark_is_found_wherever_it_is_cut(piece):
    mark = b"@@0123"
    content = b"\n@@01\n\n@@0123\n@@0123x\n" + b"\n@@0124 7\n"
    theirs, ours = os.pipe()
    source, sink = os.pipe()
    whole = content + b"\n" + mark + b" 42\n"

    def write():
        for start in range(0, len(whole), piece):
            os.write(sink, whole[start : start + piece])

    writer = threading.Thread(target=write)
    writer.start()
    assert relay._copy(source, ours, mark, b"") == 42
    writer.join()
    os.close(ours)
    with os.fdopen(theirs, "rb") as found:
        assert found.read() == content
    for handle in (source, sink):
        os.close(handle)
