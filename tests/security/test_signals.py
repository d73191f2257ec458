"""SIGTERM and SIGHUP are what Ctrl-C is: whatever a command began is undone, and the exit code says which it was."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from kit import labels
from tests.engine.conftest import KIT
from tests.engine.remote.client import eventually
from tests.fake_docker import FakeDocker

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
    """`kit ARGUMENTS…`; a signal that is sent to it reaches nothing that it started."""
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [KIT, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def wait_for(path: Path, text: str) -> None:
    end = time.monotonic() + 20
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < end, f"no {text} in {path}"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1].startswith("Z")


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("ps", "ps"),
        ("ps", "stop --all"),
        ("ps", "rm --all"),
        ("ps", "logs x"),
        ("ps", "exec x true"),
        ("ps", "url x"),
        ("ps", "code x"),
        ("image inspect", "build tf-cpu"),
        ("image inspect", "verify tf-cpu"),
        ("image inspect", "bench tf-cpu --device cpu"),
        ("image inspect", "run tf-cpu true"),
        ("image inspect", "base make bookworm"),
        ("image ls", "list"),
        ("info", "doctor"),
    ],
)
def test_wherever_the_engine_is_waited_for(
    fake_docker: FakeDocker, words: str, arguments: str, number: int, tmp_path: Path
) -> None:
    fake_docker.reply("image inspect", stdout="null")
    fake_docker.reply(*words.split(), sleep=60)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    child = start(*arguments.split(), cwd=tmp_path, env={**os.environ, "TMPDIR": str(temporary)})
    eventually(lambda: bool(fake_docker.called(*words.split())), "the question")
    child.send_signal(number)
    out, err = child.communicate(timeout=15)
    assert (child.returncode, out) == (128 + number, "")
    assert "Traceback" not in err
    assert not list(temporary.iterdir())
    eventually(lambda: all(is_gone(call.pid) for call in fake_docker.calls), "their ends", timeout_s=15)


@pytest.mark.parametrize("number", NUMBERS)
def test_from_the_first_moment_on(number: int, fake_docker: FakeDocker) -> None:
    """While Python starts and modules are imported: no traceback, and never the code of something that went well."""
    fake_docker.reply("ps", sleep=60)
    for delay in range(0, 300, 20):
        child = start("ps")
        time.sleep(delay / 1000)
        child.send_signal(number)
        _, err = child.communicate(timeout=10)
        # Python that is just starting, for Ctrl-C, and any process before that.
        assert child.returncode in (128 + number, -number, 1), f"after {delay} ms: {err}"
        assert child.returncode == 128 + number or "/kit/cli" not in err, f"after {delay} ms: {err}"
        assert child.returncode != 128 + number or "Traceback" not in err, f"after {delay} ms: {err}"


def test_an_interruption_while_an_object_is_tidied_away_is_not_lost() -> None:
    program = """
import os, signal, sys, time
from kit import signals
signals.listen()
class Thing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.1)
try:
    Thing()
    time.sleep(5)
except KeyboardInterrupt:
    sys.exit(signals.exit_code())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (128 + signal.SIGHUP, "")


def test_an_interruption_while_a_class_is_made_is_one() -> None:
    program = """
import os, signal, sys
from kit import cli
from kit.cli import group
from kit import signals
signals.listen()
class Field:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass
def main(**_):
    class Options:
        field = Field()
group.main = main
cli.run()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "interrupted\n")


ATTACH = "import sys; from kit import process, signals; signals.listen(); process.INTERRUPT_PATIENCE_S = 1.0\n"


@pytest.fixture
def attached(tmp_path: Path) -> Iterator[object]:
    """A Python that attaches a shell with this script, without a terminal."""
    begun: list[subprocess.Popen[str]] = []

    def attach(script: str) -> subprocess.Popen[str]:
        program = f"""{ATTACH}
try:
    sys.exit(process.attach(["sh", "-c", {script!r}]))
except KeyboardInterrupt:
    sys.exit(signals.exit_code())
"""
        begun.append(subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, start_new_session=True, text=True))
        return begun[-1]

    yield attach
    for child in begun:
        child.kill()


@pytest.mark.parametrize("number", NUMBERS)
def test_an_attached_program_is_told_once_and_its_exit_code_passed_on(attached, tmp_path: Path, number: int) -> None:  # type: ignore[no-untyped-def]
    name = signal.Signals(number).name.removeprefix("SIG")
    script = f"trap 'echo told >> told; exit 42' {name}; echo up > up; while :; do sleep 0.05; done"
    child = attached(script)
    wait_for(tmp_path / "up", "up")
    os.killpg(child.pid, number)  # as `timeout` and a scheduler do
    child.send_signal(number)
    assert child.wait(timeout=10) == 42
    assert (tmp_path / "told").read_text() == "told\n"


@pytest.mark.parametrize("number", NUMBERS)
def test_an_attached_program_that_does_not_heed_is_killed(attached, tmp_path: Path, number: int) -> None:  # type: ignore[no-untyped-def]
    child = attached("trap '' INT TERM HUP; echo $$ > up; while :; do sleep 0.05; done")
    wait_for(tmp_path / "up", "\n")
    child.send_signal(number)
    assert child.wait(timeout=10) == 128 + number
    assert is_gone(int((tmp_path / "up").read_text()))


def test_what_the_caller_has_it_ignore_stays_ignored(attached, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        child = attached("echo up > up; sleep 1; exit 7")
        wait_for(tmp_path / "up", "up")
        child.send_signal(signal.SIGHUP)
        assert child.wait(timeout=10) == 7
    finally:
        signal.signal(signal.SIGHUP, before)


def of(child: subprocess.Popen[str], docker: DockerClient) -> set[str]:
    """The containers that a `kit` of a test made."""
    label = f"{labels.CLIENT}={socket.gethostname()}:{child.pid}"
    return {container.name for container in docker.containers.list(all=True, filters={"label": label})}


def ran(child: subprocess.Popen[str], docker: DockerClient) -> set[str]:
    """Those of them that run, or did."""
    return {name for name in of(child, docker) if docker.containers.get(name).status != "created"}


@pytest.mark.engine
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("words", [("sleep", "600"), ("jupyter",)], ids=lambda words: words[0])
def test_a_run_at_fifteen_points(
    tf_cpu: str, docker: DockerClient, workspace: Path, words: tuple[str, ...], number: int
) -> None:
    """Before the container is made, after it, while it is waited for, and in its command: nothing is left that ran.

    A busy engine may make one for a client that has gone meanwhile: it never starts, and the next start sweeps it.
    """
    begun = []
    for point in range(15 if number == signal.SIGTERM else 5):
        child = start("run", "-C", str(workspace), tf_cpu, *words)
        begun.append(child)
        time.sleep(0.1 + point * (0.1 if number == signal.SIGTERM else 0.3))
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
        assert "Traceback" not in err or "kit/cli" not in err  # Python's own, before it is up
        if out:  # its URL was printed: it stays, as it was to
            subprocess.run([KIT, "rm", "--force", *of(child, docker)], check=True)
        else:
            assert child.returncode in (128 + number, -number), (point, err)  # the latter before Python is up
        # The engine removes it, which may be a moment later.
        eventually(lambda started=child: not ran(started, docker), f"its end, at point {point}", timeout_s=20)
    subprocess.run([KIT, "-q", "run", "-C", str(workspace), tf_cpu, "true"], check=True, timeout=60)
    assert not [name for child in begun for name in of(child, docker)]


@pytest.mark.engine
@pytest.mark.parametrize("words", [("sleep", "600"), ("jupyter",)], ids=lambda words: words[0])
def test_what_a_killed_run_leaves_is_listed_or_swept(
    tf_cpu: str, docker: DockerClient, workspace: Path, words: tuple[str, ...]
) -> None:
    """Nobody can tidy up after SIGKILL. A container that runs is in `kit ps`; any other the next start sweeps."""
    begun = []
    for point in range(15):
        begun.append(start("run", "-C", str(workspace), tf_cpu, *words))
        time.sleep(0.1 + point * 0.1)
        os.killpg(begun[-1].pid, signal.SIGKILL)
        begun[-1].wait(timeout=30)
    time.sleep(2)
    listed = subprocess.run([KIT, "--json", "ps"], capture_output=True, text=True, check=True).stdout
    subprocess.run([KIT, "-q", "run", "-C", str(workspace), tf_cpu, "true"], check=True, timeout=60)
    left = [name for child in begun for name in of(child, docker)]
    try:
        assert all(f'"{name}"' in listed for name in left)
    finally:
        if left:
            subprocess.run([KIT, "rm", "--force", *left], check=True)
