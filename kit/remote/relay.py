"""Stands where rsync wants an ssh: speaks with what it starts in the shell that kit keeps on the host.

Run by its path, with the shell's three descriptors (input, output, errors), the mark that ends what comes from it, a
name for the host, and the words of the command, as rsync gives them. Its exit code is that of the command; 255 when
the connection was lost. It needs nothing of kit's.
"""

# Each import costs every sync: `threading` alone takes as long as all of this.
import _thread
import os
import signal
import sys
import time

LOST = 255
# How long the other side may take to end when nothing more comes from this one.
PATIENCE_S = 10.0
PIECE = 1 << 16


def main(arguments: "list[str]") -> int:
    to_shell, from_shell, errors = map(int, arguments[:3])
    mark, words = arguments[3].encode(), arguments[5:]
    for handle in (0, 1, 2):
        os.set_blocking(handle, True)  # rsync's own wait by other means
    line = (
        f"printf '%s ready\\n' {arguments[3]}; {' '.join(words)}; kit_code=$?; "
        f"printf '\\n%s %d\\n' {arguments[3]} $kit_code; printf '\\n%s %d\\n' {arguments[3]} $kit_code >&2\n"
    )
    # The shell has read all of it, and not what comes after it, when it says that it is ready.
    _write(to_shell, os.fsencode(line))
    ready, begun = mark + b" ready\n", b""
    while ready not in begun:
        if not (data := os.read(from_shell, PIECE)):
            return LOST
        begun += data
    said = _thread.allocate_lock()
    said.acquire()
    _thread.start_new_thread(_input, (to_shell,))
    _thread.start_new_thread(_errors, (errors, mark, said))
    try:
        code = _copy(from_shell, 1, mark, begun.partition(ready)[2])
    except OSError:  # who asked has ended, and what the other side says of it may be on its way
        code = LOST
    said.acquire(timeout=PATIENCE_S)
    return code


def _input(to_shell: int) -> None:
    try:
        while data := os.read(0, PIECE):
            _write(to_shell, data)
    except OSError:
        pass  # then the other side is over, which the output tells
    # Who asked has ended, and should have been told before that the other side did.
    time.sleep(PATIENCE_S)
    os._exit(LOST)


def _copy(source: int, target: int, mark: bytes, held: bytes) -> int:
    """Hand on what comes until the mark does; the exit code that is behind it."""
    ending = b"\n" + mark + b" "
    while True:
        place = held.find(ending)
        if place >= 0 and (end := held.find(b"\n", place + len(ending))) >= 0:
            _write(target, held[:place])
            return int(held[place + len(ending) : end])
        # What may be the beginning of it waits for the rest.
        keep = len(held) - place if place >= 0 else _beginning(held, ending)
        _write(target, held[: len(held) - keep])
        held = held[len(held) - keep :]
        if not (data := os.read(source, PIECE)):
            _write(target, held)
            return LOST
        held += data


def _errors(source: int, mark: bytes, over: "_thread.LockType") -> None:
    """Hand on whole lines until the mark comes, as others print beside them; `over` is let go then."""
    held, is_over = b"", False
    while not is_over and (data := os.read(source, PIECE)):
        *lines, held = (held + data).split(b"\n")
        for line in lines:
            if is_over := line.startswith(mark):
                break
            _write(2, line + b"\n")
    if not is_over:
        _write(2, held)
    over.release()


def _beginning(data: bytes, ending: bytes) -> int:
    """How many bytes at the end of `data` are the beginning of `ending`."""
    start = data.rfind(b"\n", -len(ending))
    return len(data) - start if start >= 0 and ending.startswith(data[start:]) else 0


def _write(target: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]


if __name__ == "__main__":
    # Ctrl-C ends it without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # An rsync that ends sends this to what it started, before the other side has said why it had to.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        found = main(sys.argv[1:])
    except OSError:
        found = LOST
    # A thread may be waiting for what nobody will send.
    os._exit(found)
