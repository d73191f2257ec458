"""One login for a whole command: a shell on another machine that stays, and runs one script after the other.

Each session of ssh's starts a login shell, and what that reads first (a `.bashrc` that activates conda and loads
modules) may take many seconds. So everything short goes through one session, and so does rsync.
"""

from __future__ import annotations

import binascii
import contextlib
import os
import re
import select
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from kit import process
from kit.errors import CommandError

# Longer input has a session of its own: a shell keeps all of it in memory.
LONGEST_INPUT = 1 << 20
TIMED_OUT = 124
# How many seconds are left to wait.
Patience = Callable[[], float]


class Shell:
    """A POSIX shell at the other end of an ssh command, that answers from its start to its end.

    What it printed before its first answer, as a greeting, is in `greeting`.
    """

    def __init__(self, command: Sequence[str], *, on_terminal: bool = False, patience: Patience) -> None:
        """Start it, and wait until it answers. Raises CommandError: 255 or another exit code when it ended, TIMED_OUT
        when `patience` did. `on_terminal`: ssh may ask there.
        """
        self.command = tuple(command)
        self.lock = threading.Lock()
        self.count = 0
        self.mark = f"@@{os.urandom(8).hex()}"
        self.child = process.start_piped(command, env={"LC_ALL": "C"}, on_terminal=on_terminal)
        self.greeting = self._answer(":", patience).stdout

    @property
    def is_running(self) -> bool:
        return self.child.poll() is None

    def run(
        self, script: str, arguments: Sequence[str], input: str | bytes | None, timeout_s: float, *, stays: bool = False
    ) -> process.Completed:
        """Run a script there to its end. `stays`: in the shell itself, so that what it opens as 9 stays open. Raises
        CommandError as the start does; the shell is over then.
        """
        words = " ".join(shlex.quote(word) for word in arguments)
        # A lock that the shell holds is not for what a script may leave running.
        text = f"sh -c {shlex.quote(script)} sh {words} 9<&-"
        if stays:
            text = f"set -- {words}\n{script}"
        elif input is None:
            text += " </dev/null"
        else:
            data = input.encode() if isinstance(input, str) else input
            end = f"end-of-{self.mark[2:]}"
            text = f"base64 -d <<'{end}' | {text}\n{binascii.b2a_base64(data).decode()}{end}"
        end_at = time.monotonic() + timeout_s
        with self.lock:
            return self._answer(text, lambda: end_at - time.monotonic(), timeout_s)

    @contextlib.contextmanager
    def lent(self) -> Iterator[tuple[tuple[int, int, int], str]]:
        """The shell's own three descriptors, for a program that speaks with one it starts there (`relay.py`), and the
        mark that ends what that prints. Whoever borrows it and fails ends it.
        """
        with self.lock:
            self.count += 1
            child = self.child
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stderr is not None
            yield (child.stdin.fileno(), child.stdout.fileno(), child.stderr.fileno()), f"{self.mark}-{self.count}"

    def end(self, *, is_busy: bool = False) -> None:
        """End it, also while it runs something (`is_busy`)."""
        process.end_piped(self.child, is_busy=is_busy)

    def _answer(self, text: str, patience: Patience, timeout_s: float = 0) -> process.Completed:
        self.count += 1
        mark = f"{self.mark}-{self.count}"
        said = f"{text}\n{ending(mark)}\n".encode()
        try:
            return self._read(said, mark.encode(), patience)
        except TimeoutError:
            self.end(is_busy=True)
            raise CommandError(self.command, TIMED_OUT, "", f"no end after {timeout_s:g} s") from None
        except BaseException:
            self.end(is_busy=True)
            raise

    def _read(self, said: bytes, mark: bytes, patience: Patience) -> process.Completed:
        child = self.child
        assert child.stdin is not None
        printed: dict[int, bytearray] = {file.fileno(): bytearray() for file in (child.stdout, child.stderr) if file}
        out, err = printed
        source, rest = child.stdin.fileno(), memoryview(said)
        open_ones, is_over = {out, err}, False
        ends = re.compile(rb"\n" + re.escape(mark) + rb" (\d+)\n\Z")
        while True:
            code = ends.search(printed[out], max(0, len(printed[out]) - len(mark) - 16))
            error_end = ends.search(printed[err], max(0, len(printed[err]) - len(mark) - 16))
            if code and error_end:
                return process.Completed(
                    args=self.command,
                    returncode=int(code[1]),
                    stdout=bytes(printed[out][: code.start()]).decode(errors="replace"),
                    stderr=bytes(printed[err][: error_end.start()]).decode(errors="replace"),
                )
            if not open_ones or is_over:
                self._ended(bytes(printed[out]), bytes(printed[err]))
            left = patience()
            if left <= 0:
                raise TimeoutError
            ready, writable, _ = select.select(open_ones, [source] if rest else [], [], min(left, 1.0))
            if writable:
                try:
                    rest = rest[os.write(source, rest[: select.PIPE_BUF]) :]
                except BrokenPipeError:
                    rest = rest[:0]
            # What it started may go on, and keep these open.
            is_over = not ready and not self.is_running
            for handle in ready:
                if data := os.read(handle, 65536):
                    printed[handle] += data
                else:
                    open_ones.discard(handle)
            if sum(map(len, printed.values())) > process.LONGEST_OUTPUT:
                raise CommandError(self.command, 1, "", f"it printed more than {process.LONGEST_OUTPUT >> 20} MB")

    def _ended(self, out: bytes, err: bytes) -> None:
        code = self.child.wait()
        texts = (text.decode(errors="replace") for text in (out, err))
        # That it ended by itself is what went wrong, whatever it says.
        raise CommandError(self.command, code or 1, *texts)


def ending(mark: str) -> str:
    """What is run after a script, to tell its exit code and where its output ends."""
    return f"kit_code=$?; printf '\\n%s %d\\n' {mark} $kit_code; printf '\\n%s %d\\n' {mark} $kit_code >&2"
