import os
import signal
import subprocess
import sys
import time

import pytest

from kit import process
from kit.errors import CommandError, MissingProgramError

# A shell and a child of its own, which prints the shell's PID (also the group's) once both are there.
FAMILY = "sh -c 'echo $PPID; exec sleep 60'; true"


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(group: int) -> bool:
    end = time.monotonic() + 5
    while is_alive(group) and time.monotonic() < end:
        time.sleep(0.01)
    return not is_alive(group)


def test_run_returns_output_and_exit_code():
    done = process.run(["sh", "-c", "echo out; echo err >&2"])
    assert (done.stdout, done.stderr, done.returncode, done.args[0]) == ("out\n", "err\n", 0, "sh")


def test_run_hands_on_input_and_gives_none_otherwise():
    assert process.run(["cat"], input="grüße").stdout == "grüße"
    assert process.run(["cat"]).stdout == "", "a program must not read the terminal of whoever called kit"


def test_run_adds_to_the_environment_and_keeps_the_rest(monkeypatch):
    monkeypatch.setenv("INHERITED", "1")
    assert process.run(["sh", "-c", "echo $INHERITED $ADDED"], env={"ADDED": "2"}).stdout == "1 2\n"


def test_run_replaces_bytes_that_are_no_text():
    assert process.run(["printf", r"\377x"]).stdout == "\ufffdx"


def test_a_failed_command_is_an_error_with_its_last_lines():
    with pytest.raises(CommandError, match="failed with exit code 7") as caught:
        process.run(["sh", "-c", "echo why >&2; exit 7"])
    assert caught.value.returncode == 7
    assert caught.value.details == ("why",)


def test_a_failed_command_is_a_result_when_not_checked():
    assert process.run(["false"], check=False).returncode == 1


def test_a_command_that_takes_too_long_is_ended_and_says_so():
    started = time.monotonic()
    with pytest.raises(CommandError, match="exit code 124") as caught:
        process.run(["sh", "-c", "echo begun; exec sleep 60"], timeout_s=0.3)
    assert time.monotonic() - started < 5
    assert caught.value.details == ("no end after 0.3 s",)
    assert caught.value.stdout == "begun\n"


@pytest.mark.parametrize(
    "call",
    [
        lambda: process.run(["no-such-program-of-kit"]),
        lambda: process.stream(["no-such-program-of-kit"], print),
        lambda: process.attach(["no-such-program-of-kit"]),
        lambda: process.pipe(["no-such-program-of-kit"], ["cat"]),
        lambda: process.pipe(["yes"], ["no-such-program-of-kit"]),
    ],
    ids=["run", "stream", "attach", "pipe from", "pipe into"],
)
def test_a_program_that_is_not_there_is_named(call):
    with pytest.raises(MissingProgramError, match="`no-such-program-of-kit` is not installed"):
        call()


def test_a_missing_working_folder_is_not_mistaken_for_a_missing_program(tmp_path):
    with pytest.raises(FileNotFoundError):
        process.run(["true"], cwd=tmp_path / "nowhere")


def test_stream_hands_on_lines_of_both_outputs_as_they_come():
    seen = []
    code = process.stream(["sh", "-c", "echo a; echo b >&2; printf 'c\\r\\n'; printf d; exit 5"], seen.append)
    assert (code, seen) == (5, ["a", "b", "c", "d"])


def test_stream_does_not_wait_for_the_end_to_hand_on_a_line():
    times = []
    process.stream(["sh", "-c", "echo a; sleep 0.5; echo b"], lambda _: times.append(time.monotonic()))
    assert times[1] - times[0] > 0.3


def test_pieces_are_what_was_printed_and_where():
    with process.stream_bytes(["sh", "-c", "printf 'a\\rb\\377'; echo err >&2; cat; printf end"]) as frames:
        kinds = {1: b"", 2: b""}
        for kind, data in frames:
            kinds[kind] += data
            if kinds[1].endswith(b"\377") and kinds[2]:
                break
    assert kinds == {1: b"a\rb\377", 2: b"err\n"}


def test_pieces_come_before_the_line_and_the_program_end():
    with process.stream_bytes(["sh", "-c", "printf begun; sleep 60"]) as frames:
        began = time.monotonic()
        assert next(frames) == (1, b"begun")
        assert time.monotonic() - began < 5


def test_what_is_read_in_pieces_ends_with_the_block_and_all_that_it_started():
    with process.stream_bytes(["sh", "-c", FAMILY]) as frames:
        group = int(next(frames)[1])
        assert is_alive(group)
    assert wait_until_gone(group)


def test_a_program_read_in_pieces_has_an_input_until_the_block_ends(tmp_path):
    ended = tmp_path / "ended"
    script = f"trap '' TERM; echo begun; cat; touch {ended}"
    with process.stream_bytes(["sh", "-c", script]) as frames:
        assert next(frames) == (1, b"begun\n")
        assert not ended.exists()
    assert ended.exists()


def test_a_program_that_fails_is_told_after_its_last_piece():
    with process.stream_bytes(["sh", "-c", "printf out; exit 7"]) as frames:
        assert next(frames) == (1, b"out")
        with pytest.raises(CommandError) as caught:
            next(frames)
    assert caught.value.returncode == 7


def test_stream_is_ended_after_its_time_with_all_that_it_started():
    started = time.monotonic()
    seen = []
    # The shell's own child holds the pipe: killing the shell alone would leave `stream` reading for a minute.
    code = process.stream(["sh", "-c", FAMILY], seen.append, timeout_s=0.3)
    assert code == -signal.SIGKILL
    assert time.monotonic() - started < 5
    assert wait_until_gone(int(seen[0]))


def test_an_interrupted_stream_leaves_no_process_behind():
    group = []

    def interrupt(line):
        group.append(int(line))
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        process.stream(["sh", "-c", FAMILY], interrupt)
    assert time.monotonic() - started < 5, "SIGINT is enough for a program that heeds it"
    assert wait_until_gone(group[0])


def test_a_program_that_ignores_the_interruption_is_killed(monkeypatch):
    monkeypatch.setattr(process, "INTERRUPT_PATIENCE_S", 0.3)
    group = []

    def interrupt(line):
        group.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.stream(["sh", "-c", "trap '' INT; echo $$; while :; do sleep 0.2; done"], interrupt)
    assert wait_until_gone(group[0])


def test_ctrl_c_on_a_terminal_reaches_a_streamed_program_through_kit(tmp_path):
    """A streamed program has a session of its own, where Ctrl-C does not reach it: kit passes it on."""
    mark = tmp_path / "child"
    caller = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"""
from kit import process
process.stream(["sh", "-c", {FAMILY!r}], lambda line: open({str(mark)!r}, "w").write(line + "\\n"))
""",
        ],
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 10
    while not (mark.exists() and mark.read_text().endswith("\n")) and time.monotonic() < end:
        time.sleep(0.01)
    caller.send_signal(signal.SIGINT)
    _, err = caller.communicate(timeout=10)
    assert b"KeyboardInterrupt" in err
    assert wait_until_gone(int(mark.read_text()))


def test_attach_waits_for_the_program_through_an_interruption(tmp_path):
    """Ctrl-C goes to the program on the terminal, to which it may mean "stop this cell"; kit lives on."""
    mark = tmp_path / "ready"
    caller = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"""
import sys
from kit import process
sys.exit(process.attach(["sh", "-c", "trap 'exit 42' INT; touch {mark}; while :; do sleep 0.05; done"]))
""",
        ],
        start_new_session=True,
    )
    end = time.monotonic() + 10
    while not mark.exists() and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(caller.pid, signal.SIGINT)
    assert caller.wait(timeout=10) == 42


def test_start_daemon_appends_to_its_log_and_outlives_the_call(tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    pid = process.start_daemon(["sh", "-c", "echo out; echo err >&2; exec sleep 60"], log_file=log)
    try:
        assert os.getsid(pid) == pid, "its own session: it does not die with the terminal"
        end = time.monotonic() + 5
        while "err" not in log.read_text() and time.monotonic() < end:
            time.sleep(0.01)
        assert log.read_text() == "before\nout\nerr\n"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_commands_are_logged_as_they_could_be_typed(caplog):
    with caplog.at_level("DEBUG", logger="kit.process"):
        process.run(["echo", "two words"])
    assert caplog.messages == ["run: echo 'two words'"]
