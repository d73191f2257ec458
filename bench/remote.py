"""How much kit adds to a server's work over SSH, beside ssh and rsync alone: `make bench-remote`.

An sshd of the benchmark's own on loopback, with the real engine behind it; `far` adds the time an answer takes on a
link. Each pair is run alternately, over one warm connection each, so that whatever else the machine does falls on both;
the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import itertools
import json
import os
import queue
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kit.engine import connect
from tests.engine.sshd import Server

KIT = str(Path(sys.executable).with_name("kit"))
HOST = "machine"  # what the server's ssh configuration calls it
MEGABYTE = 2**20

# (what is compared, unit, what issue 5 allows); of a throughput more is better.
PARTS: dict[str, tuple[str, str, float]] = {
    "ps": ("kit --host H ps / ssh H docker ps", "s", 1.5),
    "tunnel": ("a file through kit's tunnel / ssh -L", "MB/s", 0.9),
    "sync": ("kit --host H sync, one file changed / rsync", "s", 1.2),
    "far": ("the same, with the host {away} ms away", "s", 1.2),
}


def judged(part: str, ours: float, rival: float) -> dict[str, Any]:
    what, unit, limit = PARTS[part]
    ratio = round(ours / rival, 2)
    is_met = ratio >= limit if part == "tunnel" else ratio <= limit
    return {
        **{"what": what, "unit": unit, "kit": round(ours, 3), "rival": round(rival, 3)},
        **{"ratio": ratio, "limit": limit, "met": is_met},
    }


def seconds(command: list[str], *, cwd: Path | None = None) -> float:
    """Wall-clock seconds of one run; the benchmark ends if the command fails."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=cwd, check=False)
    took = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return took


def medians(ours: Callable[[], float], rival: Callable[[], float], rounds: int) -> tuple[float, float]:
    """Medians of both, run alternately after one warm-up each."""
    ours(), rival()
    pairs = [(ours(), rival()) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


@contextlib.contextmanager
def host(folder: Path) -> Iterator[tuple[list[str], int]]:
    """A server that kit and ssh know as HOST; yields the ssh command with a warm connection of the rival's own, and the
    server's port.
    """
    engine = connect()
    program = shutil.which(engine.program, path=engine.environment.get("PATH") or os.environ["PATH"])
    if engine.socket_path is None or program is None:
        sys.exit("the benchmark needs an engine with a socket on this machine, and its docker program")
    for name in ("home", "run", "sshd"):
        (folder / name).mkdir(mode=0o700)
    there = {"HOME": str(folder / "home"), "DOCKER_HOST": f"unix://{engine.socket_path.absolute()}"}
    server = Server(
        folder / "sshd", environment={**there, "PATH": f"{Path(program).parent}:/usr/local/bin:/usr/bin:/bin"}
    )
    for name in list(os.environ):
        if name.startswith(("DOCKER_", "KIT_", "XDG_")):
            del os.environ[name]
    os.environ |= {
        "PATH": f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}",
        "KIT_SSH": server.ssh(),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_RUNTIME_DIR": str(folder / "run"),
    }
    try:
        yield warm(folder / "rival"), server.port
    finally:
        server.stop()  # and with it every connection, kit's and the rival's


def warm(socket: Path) -> list[str]:
    """The ssh command with a warm connection of the rival's own, as KIT_SSH makes it."""
    ssh = [*shlex.split(os.environ["KIT_SSH"]), "-o", f"ControlPath={socket}"]
    seconds([*ssh, "-o", "ControlMaster=yes", "-o", "ControlPersist=yes", HOST, "true"])
    return ssh


@contextlib.contextmanager
def far_away(folder: Path, port: int, away_ms: float) -> Iterator[list[str]]:
    """The same server behind a link on which an answer takes so many milliseconds, for kit and for the ssh it yields.

    Each piece of data is held back for half of that; the kernel's own way to do so (netem) is not on every machine.
    """
    before = os.environ["KIT_SSH"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=relay, args=(listener, port, away_ms / 2000), daemon=True).start()
        os.environ["KIT_SSH"] = f"{before} -p {listener.getsockname()[1]}"
        try:
            yield warm(folder / "far")
        finally:
            os.environ["KIT_SSH"] = before


def relay(listener: socket.socket, port: int, delay_s: float) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        server = socket.create_connection(("127.0.0.1", port))
        for source, sink in ((client, server), (server, client)):
            sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            held: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            threading.Thread(target=hold, args=(source, held, delay_s), daemon=True).start()
            threading.Thread(target=let_go, args=(held, sink), daemon=True).start()


def hold(source: socket.socket, held: queue.SimpleQueue[tuple[float, bytes]], delay_s: float) -> None:
    data = b"more"
    while data:
        data = b""
        with contextlib.suppress(OSError):
            data = source.recv(MEGABYTE)
        held.put((time.monotonic() + delay_s, data))


def let_go(held: queue.SimpleQueue[tuple[float, bytes]], sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            due, data = held.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)


def ps(ssh: list[str], rounds: int) -> tuple[float, float]:
    """Seconds of listing what runs there: two containers."""
    kit = [KIT, "--host", HOST]
    names = [
        json.loads(
            subprocess.run(
                [*kit, "--quiet", "--json", "run", "--detach", "--remote-folder", "~", "tf-cpu", "--", "sleep", "900"],
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
        )["name"]
        for _ in range(2)
    ]
    try:
        return medians(lambda: seconds([*kit, "ps"]), lambda: seconds([*ssh, HOST, "docker ps"]), rounds)
    finally:
        subprocess.run([*kit, "rm", "--force", *names], capture_output=True, check=False)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def copyfile(self, source: object, outputfile: object) -> None:
        # As fast as it goes: the tunnels are to be what limits.
        self.wfile.flush()
        with Path(self.translate_path(self.path)).open("rb") as file:
            self.connection.sendfile(file)


def download(port: int) -> float:
    """Seconds to get the whole file from a port of this machine's."""
    buffer = bytearray(MEGABYTE)
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"GET /file HTTP/1.0\r\n\r\n")
        while client.recv_into(buffer):
            pass
    return time.perf_counter() - began


def tunnel(folder: Path, megabytes: int, rounds: int) -> tuple[float, float]:
    """Throughput of a file through kit's tunnel and through `ssh -L`, in MB/s."""
    from kit.remote import tunnels

    (folder / "served").mkdir()
    with (folder / "served/file").open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(MEGABYTE))
    handler = functools.partial(Quiet, directory=str(folder / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port: int = server.server_address[1]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            other = probe.getsockname()[1]
        opened = tunnels.open_tunnel(HOST, container="bench", service="file", remote_port=port, first_port=18000)
        # A connection of its own, as kit's tunnel has.
        plain = [*shlex.split(os.environ["KIT_SSH"]), "-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes"]
        bare = subprocess.Popen(
            [*plain, "-N", "-L", f"127.0.0.1:{other}:127.0.0.1:{port}", HOST],
            # The kernel shares processors out among sessions, and kit's tunnel has one of its own.
            start_new_session=True,
        )
        try:
            wait_for(other)
            a, b = medians(lambda: download(opened.local_port), lambda: download(other), rounds)
        finally:
            bare.terminate()
            bare.wait()
            tunnels.close([opened])
            server.shutdown()
    return megabytes * MEGABYTE / a / 1e6, megabytes * MEGABYTE / b / 1e6


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    sys.exit("ssh -L did not start to listen")


def make_project(project: Path, files: int, megabytes: int) -> None:
    """A repository of so many files."""
    size = megabytes * MEGABYTE // files
    for number in range(files):
        file = project / f"part-{number % 100:02}" / f"{number:05}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(size))
    (project / ".gitignore").write_text("runs/\n*.pyc\n")
    subprocess.run(["git", "init", "--quiet", str(project)], check=True)


def sync(ssh: list[str], folder: Path, files: int, rounds: int) -> tuple[float, float]:
    """Seconds to send a folder again in which one file has changed."""
    project, changed = folder / "project", itertools.count()

    def change() -> None:
        number = next(changed) % files
        with (project / f"part-{number % 100:02}" / f"{number:05}.bin").open("ab") as file:
            file.write(b"more")

    def ours() -> float:
        change()
        return seconds([KIT, "--host", HOST, "sync"], cwd=project)

    def rival() -> float:
        change()
        return seconds(["rsync", "-a", "-e", shlex.join(ssh), f"{project}/", f"{HOST}:{folder}/home/rival/"])

    return medians(ours, rival, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--megabytes", type=int, default=500, help="in these files")
    parser.add_argument("--download", type=int, default=300, metavar="MB", help="of the file sent through the tunnels")
    parser.add_argument("--away", type=float, default=20, metavar="MS", help="until an answer comes, for `far`")
    parser.add_argument("--only", choices=list(PARTS), action="append")
    arguments = parser.parse_args()
    rounds, rows = arguments.rounds, []
    with tempfile.TemporaryDirectory(prefix="kit-bench-") as name, host(folder := Path(name)) as (ssh, port):
        parts = arguments.only or list(PARTS)
        if {"sync", "far"} & set(parts):
            make_project(folder / "project", arguments.files, arguments.megabytes)
        for part in parts:
            if part == "ps":
                figures = ps(ssh, rounds)
            elif part == "tunnel":
                figures = tunnel(folder, arguments.download, rounds)
            elif part == "sync":
                figures = sync(ssh, folder, arguments.files, rounds)
            else:
                with far_away(folder, port, arguments.away) as slow:
                    figures = sync(slow, folder, arguments.files, rounds)
            rows.append(row := judged(part, *figures))
            row["what"] = row["what"].format(away=f"{arguments.away:g}")
            goal = f"at {'least' if part == 'tunnel' else 'most'} {row['limit']}x"
            print(
                "{what:45} {kit:8.3f} {rival:8.3f} {unit:4} {ratio:5.2f}x".format(**row), f"({goal})", file=sys.stderr
            )
    print(json.dumps(rows, indent=2))
    sys.exit(not all(row["met"] for row in rows))


if __name__ == "__main__":
    main()
