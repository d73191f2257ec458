"""A stand-in for ssh that forwards a port to this machine itself, and fails as the files in a folder tell it to.

Run as `python fake_ssh.py FOLDER SSH-OPTIONS… ADDRESS`. `FOLDER/fail` has what it prints before it ends with 255,
`FOLDER/hang` makes it wait instead of logging in, `FOLDER/stubborn` not end by SIGTERM, `FOLDER/child` start a process
that outlives it. It adds a line to `FOLDER/tries` each time. What it is told to run it runs here; `$FAKE` is `FOLDER`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path


def command(folder: Path) -> str:
    """The value of KIT_SSH."""
    return shlex.join([sys.executable, __file__, str(folder)])


def left_over(home: str) -> list[str]:
    """The PIDs and command lines of a tunnel's processes that were started with this home folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (folder / "environ").read_bytes().split(b"\0")
            is_of_a_tunnel = " -m kit.remote.tunnels " in words or any(
                word.startswith(b"KIT_TUNNEL=") for word in environment
            )
            if is_of_a_tunnel and f"HOME={home}".encode() in environment:
                found.append(f"{folder.name} {words}")
    return found


def nothing_left(home: str, timeout_s: float = 10) -> None:
    """Fail when processes of tunnels are left after a while; they are killed then, so that only one test fails."""
    deadline = time.monotonic() + timeout_s
    while (found := left_over(home)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for line in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGKILL)
    assert found == []


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while some := source.recv(65536):
            target.sendall(some)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _main(folder: Path, words: list[str]) -> None:
    with (folder / "tries").open("a") as tries:
        tries.write(f"{time.time()}\n")
    if (folder / "stubborn").exists():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if (folder / "child").exists():
        subprocess.Popen(["sleep", "60"])
    while (folder / "hang").exists():
        time.sleep(0.05)
    if (folder / "fail").exists():
        print((folder / "fail").read_text(), file=sys.stderr)
        sys.exit(255)
    local, _, remote = words[words.index("-L") + 1].split(":")
    with contextlib.suppress(FileNotFoundError):
        Path(local).unlink()
    server = socket.socket(socket.AF_UNIX)
    server.bind(local)
    server.listen()
    threading.Thread(target=_forward, args=(server, int(remote)), daemon=True).start()
    code = subprocess.run(["sh", "-c", words[-1]], env={**os.environ, "FAKE": str(folder)}, check=False).returncode
    while (folder / "stubborn").exists():
        time.sleep(0.05)
    sys.exit(code)


def _forward(server: socket.socket, port: int) -> None:
    while True:
        client, _ = server.accept()
        try:
            service = socket.create_connection(("127.0.0.1", port))
        except OSError:
            print("channel 2: open failed: connect failed: Connection refused", file=sys.stderr, flush=True)
            client.close()
            continue
        for ends in ((client, service), (service, client)):
            threading.Thread(target=_copy, args=ends, daemon=True).start()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
