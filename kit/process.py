"""The only place that starts processes: every call is logged, has a timeout, and fails as a KitError."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kit import linux, redact, signals
from kit.errors import CommandError, MissingProgramError
from kit.frozen import dataclass

if TYPE_CHECKING:
    import subprocess

# How long a program may take to end after it was interrupted, before it is killed.
INTERRUPT_PATIENCE_S = 10.0
# The same for one whose answer nobody waits for any more.
END_PATIENCE_S = 1.0

# The most that is read of what a program prints, or says in one line: no answer that kit waits for is that long.
LONGEST_OUTPUT = 64 * 2**20
LONGEST_LINE = 2**20

_running: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What a finished program left: its arguments, exit code and output (text, undecodable bytes replaced)."""

    args: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def _start(action: str, args: Sequence[str], *, env: Mapping[str, str] | None, **how: Any) -> subprocess.Popen[bytes]:
    """Start a program, in a session of its own unless `how` says otherwise, with `env` added to the environment."""
    import subprocess

    # Whoever wants to read it has imported logging; importing it here would cost every command 6 ms.
    if logging := sys.modules.get("logging"):
        logging.getLogger("kit.process").debug("%s: %s", action, redact.text(shlex.join(args)))
    how = {"stdin": subprocess.DEVNULL, "start_new_session": True, **how}
    try:
        child: subprocess.Popen[bytes] = subprocess.Popen(list(args), env={**os.environ, **(env or {})}, **how)
    except FileNotFoundError as e:
        if e.filename is not None and e.filename != args[0]:
            raise  # the folder to start it in
        raise MissingProgramError(f"the program `{args[0]}` is not installed") from None
    return child


def run(
    args: Sequence[str],
    *,
    timeout_s: float = 120,
    env: Mapping[str, str] | None = None,
    input: str | bytes | None = None,
    cwd: Path | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and return what it printed.

    `env` is added to the caller's environment. Raises CommandError when `check` and the exit code is not 0 (or when
    `timeout_s` seconds pass, as exit code 124, or it prints more than LONGEST_OUTPUT bytes), MissingProgramError when
    the program does not exist.
    """
    from subprocess import DEVNULL, PIPE, TimeoutExpired

    how = {"stdin": DEVNULL if input is None else PIPE, "stdout": PIPE, "stderr": PIPE, "start_new_session": False}
    with _start("run", args, env=env, cwd=cwd, **how) as child:
        _running.add(child)
        try:
            stdout, stderr = _communicate(child, input.encode() if isinstance(input, str) else input or b"", timeout_s)
        except TimeoutExpired as e:
            _end(child)
            said = (e.stdout or b"").decode(errors="replace")
            raise CommandError(tuple(args), 124, said, f"no end after {timeout_s:g} s") from None
        except OverflowError:
            _end(child)
            raise CommandError(tuple(args), 1, "", f"it printed more than {LONGEST_OUTPUT >> 20} MB") from None
        except BaseException:
            _end(child)
            raise
        finally:
            _running.discard(child)
    result = Completed(
        args=tuple(args),
        returncode=child.returncode,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
    )
    if check and result.returncode != 0:
        raise CommandError(result.args, result.returncode, result.stdout, result.stderr)
    return result


def _communicate(child: subprocess.Popen[bytes], input: bytes, timeout_s: float) -> tuple[bytes, bytes]:
    """Give a program its input, read all it prints (stdout, stderr) and wait for its end. Raises TimeoutExpired, with
    what it has printed on stdout, and OverflowError when it prints more than LONGEST_OUTPUT.
    """
    import select
    import selectors
    from subprocess import TimeoutExpired

    end, rest, total = time.monotonic() + timeout_s, memoryview(input), 0
    printed: dict[Any, list[bytes]] = {child.stdout: [], child.stderr: []}
    with selectors.DefaultSelector() as open_ones:
        for out in printed:
            open_ones.register(out, selectors.EVENT_READ)
        if child.stdin:
            open_ones.register(child.stdin, selectors.EVENT_WRITE)
        while open_ones.get_map():
            ready = open_ones.select(left := max(0.0, end - time.monotonic()))
            if not ready and not left:
                raise TimeoutExpired(child.args, timeout_s, b"".join(printed[child.stdout]))
            for key, _ in ready:
                file: Any = key.fileobj
                if file is child.stdin:
                    try:
                        rest = rest[os.write(key.fd, rest[: select.PIPE_BUF]) :]
                    except BrokenPipeError:
                        rest = rest[:0]
                    is_over = not rest
                else:
                    printed[file].append(data := os.read(key.fd, 65536))
                    total += len(data)
                    is_over = not data
                if is_over:
                    open_ones.unregister(file)
                    file.close()
            if total > LONGEST_OUTPUT:
                raise OverflowError
    child.wait(timeout=max(0.0, end - time.monotonic()))
    return b"".join(printed[child.stdout]), b"".join(printed[child.stderr])


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a program in the caller's session: a script has a moment to remove its files."""
    from subprocess import TimeoutExpired

    child.terminate()
    try:
        child.wait(timeout=END_PATIENCE_S)
    except TimeoutExpired:
        child.kill()


def end_running() -> None:
    """End the programs that other threads wait for in `run`: for the end of this process."""
    for child in tuple(_running):
        _end(child)


def stream(
    args: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float | None = None,
    pass_fds: Sequence[int] = (),
) -> int:
    """Run a program, hand each line it prints (stdout and stderr together) to `on_line`, return its exit code.

    When the caller is interrupted the program is asked to stop (SIGINT, then SIGKILL after 10 s) before the
    interruption goes on, so no half-finished child is left behind. After `timeout_s` seconds it is killed, which the
    exit code says (-9). Both reach what the program itself started (docker runs buildx as a child). On Linux the kernel
    sends it SIGTERM when this process ends, however that happens. It keeps the descriptors `pass_fds`.
    """
    import threading
    from subprocess import PIPE, STDOUT

    how = {"stdout": PIPE, "stderr": STDOUT, "preexec_fn": linux.end_with_parent(), "pass_fds": pass_fds}
    child = _start("stream", args, env=env, cwd=cwd, **how)
    timer = threading.Timer(timeout_s, _signal, (child, signal.SIGKILL)) if timeout_s is not None else None
    if timer:
        timer.start()
    try:
        assert child.stdout is not None
        for raw in _lines(child.stdout):
            on_line(raw.decode(errors="replace").rstrip("\r\n"))
        return child.wait()
    except BaseException:
        _stop(child)
        raise
    finally:
        if timer:
            timer.cancel()


@contextlib.contextmanager
def stream_bytes(args: Sequence[str], *, env: Mapping[str, str] | None = None) -> Iterator[Iterator[tuple[int, bytes]]]:
    """Run a program and read what it prints as it comes: 1 for stdout or 2 for stderr, and the bytes.

    Its input is empty and ends when the block does, or this process. It is then told to end (SIGTERM, then SIGKILL
    after 10 s), if it runs. At the end of what it prints CommandError is raised when its exit code is not 0.
    """
    import selectors
    from subprocess import PIPE

    child = _start("read", args, env=env, stdin=PIPE, stdout=PIPE, stderr=PIPE, bufsize=0)

    def read() -> Iterator[tuple[int, bytes]]:
        with selectors.DefaultSelector() as open_ones:
            for kind, file in ((1, child.stdout), (2, child.stderr)):
                assert file is not None
                open_ones.register(file, selectors.EVENT_READ, kind)
            while open_ones.get_map():
                for key, _ in open_ones.select():
                    if data := os.read(key.fd, 65536):
                        yield key.data, data
                    else:
                        open_ones.unregister(key.fileobj)
        if code := child.wait():
            raise CommandError(tuple(args), code, "", "")

    try:
        yield read()
    finally:
        assert child.stdin is not None
        child.stdin.close()
        if child.poll() is None:
            # A shell that is just starting a program loses SIGINT.
            _stop(child, signal.SIGTERM)
        for file in (child.stdout, child.stderr):
            assert file is not None
            file.close()


def attach(args: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
    """Run a program on the caller's own terminal and return its exit code, as a shell has it.

    The terminal's Ctrl-C reaches the program, which decides what it means; this process waits for it to end. Any other
    signal that interrupts is passed on, once; if that does not end the program within INTERRUPT_PATIENCE_S seconds, it
    is killed and this process interrupted.
    """
    import threading

    came: list[int] = []
    is_killed = threading.Event()
    child: subprocess.Popen[bytes] | None = None
    has_terminal = _is_in_foreground()

    def kill() -> None:
        is_killed.set()
        if child:
            child.kill()

    timer = threading.Timer(INTERRUPT_PATIENCE_S, kill)
    timer.daemon = True

    # A handler that notes, and not an exception: raised in the middle of a wait, it can lose the exit code.
    def on_signal(number: int, _: Any) -> None:
        if number not in came and not (number == signal.SIGINT and has_terminal):
            came.append(number)
            if child:
                pass_on(child)

    def pass_on(child: subprocess.Popen[bytes]) -> None:
        child.send_signal(came[-1])
        if not timer.is_alive():
            timer.start()

    before = {number: signal.signal(number, on_signal) for number in signals.heard()}
    try:
        # Only who has the terminal needs the program in its group; a signal for the group would reach it twice.
        child = _start("attach", args, env=env, stdin=None, start_new_session=not has_terminal)
        if came:
            pass_on(child)
        code = child.wait()
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
    if is_killed.is_set():
        signals.interrupt(came[0])
    return code if code >= 0 else 128 - code


def _is_in_foreground() -> bool:
    """Whether Ctrl-C on this process's terminal reaches it, and with it what it started in its group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _lines(printed: IO[bytes]) -> Iterator[bytes]:
    """Lines as they come; a carriage return ends one too, as a progress bar does."""
    import re

    rest = b""
    while chunk := printed.read1(65536):  # type: ignore[attr-defined]
        *whole, rest = re.split(rb"\r*\n|\r+(?=[^\r\n])", rest + chunk)
        yield from whole
        if len(rest) > LONGEST_LINE:
            yield rest
            rest = b""
    if rest:
        yield rest


@contextlib.contextmanager
def coprocess(
    args: Sequence[str], *, input: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[Callable[[float], str | None], Callable[[], str]]]:
    """A program that runs beside the block, with its input left open after `input`.

    Yields two functions: the next line it prints within so many seconds (None when there is none), and one that closes
    its input, waits for its end (it is killed after 10 s) and returns what it printed to stderr; the block's end does
    so too.
    """
    import select
    import tempfile
    from subprocess import PIPE

    with tempfile.TemporaryFile() as errors:
        # Without a buffer, so that `select` sees all there is.
        child = _start("coprocess", args, env=env, stdin=PIPE, stdout=PIPE, stderr=errors, bufsize=0)
        assert child.stdin is not None
        assert child.stdout is not None
        printed, lines = child.stdout, child.stdin

        def next_line(timeout_s: float) -> str | None:
            if not select.select([printed], [], [], timeout_s)[0]:
                return None
            return printed.readline(65536).decode(errors="replace").rstrip("\n") or None

        def end() -> str:
            with contextlib.suppress(OSError):
                lines.close()
            _finish(child)
            errors.seek(0)
            return errors.read(LONGEST_LINE).decode(errors="replace")

        try:
            with contextlib.suppress(BrokenPipeError):
                lines.write(input.encode())
                lines.flush()
            yield next_line, end
        finally:
            end()
            printed.close()


def pipe(
    source: Sequence[str],
    sink: Sequence[str],
    *,
    source_env: Mapping[str, str] | None = None,
    sink_env: Mapping[str, str] | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> str:
    """Run one program into another, with how many bytes went over so far told now and then; returns what the second
    printed. Raises CommandError of the one that failed; an interruption ends both.
    """
    import tempfile
    from subprocess import PIPE

    with tempfile.TemporaryFile() as source_errors, tempfile.TemporaryFile() as printed:
        children = [_start("pipe", source, env=source_env, stdout=PIPE, stderr=source_errors)]
        try:
            children.append(_start("pipe into", sink, env=sink_env, stdin=PIPE, stdout=printed, stderr=printed))
            reader, writer = children[0].stdout, children[1].stdin
            assert reader is not None
            assert writer is not None
            total = 0
            # The sink that ends early says why itself.
            with contextlib.suppress(BrokenPipeError), writer:
                while data := reader.read1(1 << 20):  # type: ignore[attr-defined]
                    writer.write(data)
                    total += len(data)
                    on_bytes(total)
            reader.close()
            codes = [child.wait() for child in reversed(children)]
        except BaseException:
            for child in children:
                _stop(child)
            raise
        printed.seek(0)
        source_errors.seek(0)
        said, why = (file.read(LONGEST_LINE).decode(errors="replace") for file in (printed, source_errors))
    if codes[0] != 0:
        raise CommandError(tuple(sink), codes[0], said, said)
    if codes[1] != 0:
        raise CommandError(tuple(source), codes[1], "", why)
    return said


def start_daemon(
    args: Sequence[str],
    *,
    log_file: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> int:
    """Start a program that outlives this one, in its own session, printing to `log_file`; returns its PID.

    It keeps the descriptors `pass_fds`, under the same numbers, and with them the locks that are on their files.
    """
    with os.fdopen(os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as out:
        return _start("start", args, env=env, cwd=cwd, stdout=out, stderr=out, pass_fds=pass_fds).pid


def start_bound(
    args: Sequence[str],
    *,
    output: int,
    input: int | None = None,
    is_quiet: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that must not outlive this one, in its own session, printing to the descriptor `output`.

    It reads from the descriptor `input` (None: there is nothing to read). What it says on stderr goes to `output` too;
    nowhere if it `is_quiet`.
    On Linux the kernel sends it SIGTERM when this process ends, however that happens; elsewhere the caller sees to it.
    To be called from the main thread: the kernel takes the end of the calling thread for the end of the process.
    """
    from subprocess import DEVNULL

    source, errors = DEVNULL if input is None else input, DEVNULL if is_quiet else output
    how = {"stdin": source, "stdout": output, "stderr": errors, "preexec_fn": linux.end_with_parent()}
    return _start("start", args, env=env, cwd=cwd, **how)


def start_piped(
    args: Sequence[str], *, env: Mapping[str, str] | None = None, on_terminal: bool = False
) -> subprocess.Popen[bytes]:
    """Start a program that is talked to: its three streams are pipes without buffers. It must end when its input does,
    which it does at the latest with this process. `on_terminal`: in the caller's session, so that it may ask there.
    """
    from subprocess import PIPE

    how = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE, "bufsize": 0, "start_new_session": not on_terminal}
    return _start("talk to", args, env=env, **how)


def end_piped(child: subprocess.Popen[bytes], *, is_busy: bool) -> None:
    """End what `start_piped` started: by the end of its input unless it `is_busy`, then by SIGTERM, then by SIGKILL."""
    from subprocess import TimeoutExpired

    assert child.stdin is not None
    child.stdin.close()
    for end in (*([] if is_busy else [lambda: None]), child.terminate, child.kill):
        end()
        with contextlib.suppress(TimeoutExpired):
            child.wait(timeout=END_PATIENCE_S)
            break
    for file in (child.stdout, child.stderr):
        assert file is not None
        file.close()


def end_bound(child: subprocess.Popen[bytes], *, patience_s: float) -> None:
    """End what `start_bound` started, and what that started in its session: SIGKILL for what does not go in time."""
    if child.poll() is None:
        _signal(child, signal.SIGTERM)
        _finish(child, patience_s)
    _signal(child, signal.SIGKILL)


def _stop(child: subprocess.Popen[bytes], number: signal.Signals = signal.SIGINT) -> None:
    _signal(child, number)
    _finish(child)


def _finish(child: subprocess.Popen[bytes], patience_s: float | None = None) -> None:
    """Wait for a child's end, which it finds by SIGKILL after `patience_s` (None: INTERRUPT_PATIENCE_S) seconds."""
    from subprocess import TimeoutExpired

    try:
        child.wait(timeout=INTERRUPT_PATIENCE_S if patience_s is None else patience_s)
    except TimeoutExpired:
        _signal(child, signal.SIGKILL)
        child.wait()


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a child that leads its own session, and all that it started there."""
    # Of a group in which all have ended macOS says that it is not permitted.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
