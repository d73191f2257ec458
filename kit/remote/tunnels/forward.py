"""What ssh is told for a tunnel, and what it says."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from kit.remote import ssh

if TYPE_CHECKING:
    import subprocess

# A dead link is noticed after 3 of these seconds and a few; what ssh asks then is a few bytes.
ALIVE_S = 5
# What ssh prints here when it is logged in and listens: its LocalCommand comes after both.
UP_LINE = "kit-tunnel-is-up"


def options(local_port: int, remote_port: int) -> list[str]:
    """The options of an ssh that forwards a port of this machine's loopback to one of the other's, and says so."""
    settings = (
        # No: forwards of the user's own configuration may fail, where another ssh has them already. Whether this one
        # did is read from what ssh prints.
        "ExitOnForwardFailure=no",
        f"ServerAliveInterval={ALIVE_S}",
        "ServerAliveCountMax=3",
        "LogLevel=INFO",
        "PermitLocalCommand=yes",
        f"LocalCommand=echo {UP_LINE}",
    )
    forward = f"127.0.0.1:{local_port}:127.0.0.1:{remote_port}"
    return ["-N", "-T", "-L", forward, *(word for setting in settings for word in ("-o", setting))]


def shared_commands(target: str, remote_port: int) -> tuple[list[str], list[str]]:
    """Two ssh commands that go through the shared connection: one that says when it is up and lasts as long as it and
    its own input do, and one that carries a single connection to the port.
    """
    # A forward that ssh is asked for through the shared connection would stay when whoever asked for it is gone.
    quiet = ("-T", "-o", "LogLevel=ERROR", "-o", "RemoteCommand=none")
    lasting = [*ssh.shared_command(target, *quiet), f"sh -c 'echo {UP_LINE}; exec cat >/dev/null'"]
    return lasting, ssh.shared_command(target, *quiet, "-W", f"127.0.0.1:{remote_port}")


class Gate:
    """A port of this machine's loopback, of which each connection is carried by an ssh of its own."""

    def __init__(self, port: int, carry: Callable[[int], subprocess.Popen[bytes]]) -> None:
        """`carry` starts an ssh for the descriptor of a connection. Raises OSError when the port is taken."""
        self._carry = carry
        self._carriers: list[subprocess.Popen[bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._listener.setblocking(False)
        self.handle = self._listener.fileno()

    def open(self) -> None:
        """Take the connections that wait, and forget those that ended."""
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.setblocking(True)
                    self._carriers.append(self._carry(connection.fileno()))
        self._carriers = [carrier for carrier in self._carriers if carrier.poll() is None]

    def close(self, end: Callable[[subprocess.Popen[bytes]], None]) -> None:
        """Close the port, and end what is still carried."""
        self._listener.close()
        for carrier in self._carriers:
            end(carrier)


class Output:
    """What ssh prints: the last lines of it."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.is_up = self.is_over = False
        self._rest = b""
        self._lines: deque[str] = deque(maxlen=30)

    @property
    def text(self) -> str:
        return "\n".join((*self._lines, self._rest.decode(errors="replace"))).strip()

    def read(self) -> None:
        """Take what is there."""
        with contextlib.suppress(BlockingIOError):
            while some := os.read(self.handle, 65536):
                *lines, self._rest = (self._rest + some).split(b"\n")
                self._rest = self._rest[-4096:]
                self._take(line.decode(errors="replace").strip() for line in lines)
            self.is_over = True

    def _take(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line == UP_LINE:
                self.is_up = True
            # Of one of the connections inside, which the service refused, and not of the tunnel.
            elif not line.startswith("channel "):
                self._lines.append(line)

    def forget(self) -> None:
        """What was said until now does not explain what comes later."""
        self._lines.clear()

    def cannot_listen(self, port: int) -> bool:
        """True when ssh could not listen on the port; other forwards, of the user's configuration, do not matter."""
        return any(line.endswith(f"cannot listen to port: {port}") for line in self._lines)
