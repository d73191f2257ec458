"""What ssh is told for a tunnel, what it says, and the port here, which asks whose service it is before it sends one.

When a container ends, its port there is anybody's. So each connection is made first, through ssh, and what is sent on
it waits until the container is known to have run all the while: its port was its own when the connection was made.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import socket
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from kit.remote import ssh

# A dead link is noticed after 3 of these seconds and a few; what ssh asks then is a few bytes.
ALIVE_S = 5
# What the other side prints when it is logged in and forwards, and before it says which life the container is in.
UP_LINE = "kit-tunnel-is-up"
LIFE = "kit-tunnel-life "
# At a time; more wait to be taken.
MOST_CONNECTIONS = 256
PIECE = 65536


def commands(target: str, local: Path, remote_port: int, life: str, *, is_shared: bool) -> tuple[list[str], list[str]]:
    """The ssh command that forwards a socket here to a port of the other machine's loopback, and the one that ends the
    forward where it would outlive the first: in the shared connection (empty where it does not).

    The first runs `life` there for each line it gets. It lasts as long as its input does.
    """
    settings = (
        # No: forwards of the user's own configuration may fail, where another ssh has them already.
        "ExitOnForwardFailure=no",
        f"ServerAliveInterval={ALIVE_S}",
        "ServerAliveCountMax=3",
        "LogLevel=INFO",
        "StreamLocalBindUnlink=yes",
    )
    forward = ("-L", f"{local}:127.0.0.1:{remote_port}")
    options = ["-T", *forward, *(word for setting in settings for word in ("-o", setting))]
    script = f'echo {UP_LINE}; while read -r _; do echo "{LIFE}$( {{ {life}; }} </dev/null 2>/dev/null )"; done'
    make = ssh.shared_command if is_shared else ssh.own_command
    ending = ssh.shared_command(target, "-O", "cancel", *forward) if is_shared else []
    return [*make(target, *options), f"sh -c {shlex.quote(script)}"], ending


class _End:
    """One side of a connection."""

    def __init__(self, side: socket.socket) -> None:
        self.socket = side
        self.pending = b""  # what it said, and the other side has not got yet
        self.is_over = self.is_told = False  # it has said all; and the other side knows


class _Connection:
    """One connection to the port here, and its other half through ssh."""

    def __init__(self, client: socket.socket, service: socket.socket, life: str) -> None:
        self.ends = (_End(client), _End(service))
        self.life = life  # of the container, as it was known when the connection was made

    def move(self) -> bool:
        """Move what can be moved without waiting; False when both sides have said all, or one is gone."""
        try:
            for source, sink in (self.ends, self.ends[::-1]):
                with contextlib.suppress(BlockingIOError):
                    if not source.pending and not source.is_over:
                        source.pending = source.socket.recv(PIECE)
                        source.is_over = not source.pending
                    if source.pending:
                        source.pending = source.pending[sink.socket.send(source.pending) :]
                if source.is_over and not source.is_told:
                    sink.socket.shutdown(socket.SHUT_WR)
                    source.is_told = True
        except OSError:
            return False
        return not all(end.is_told for end in self.ends)

    def wanted(self) -> list[tuple[socket.socket, int]]:
        """What each side is waited for."""
        client, service = self.ends
        return [
            (
                end.socket,
                (0 if end.pending or end.is_over else selectors.EVENT_READ)
                | (selectors.EVENT_WRITE if other.pending else 0),
            )
            for end, other in ((client, service), (service, client))
        ]

    def close(self) -> None:
        for end in self.ends:
            end.socket.close()


class Gate:
    """A port of this machine's loopback that leads to a socket here, while the container behind it runs."""

    def __init__(self, port: int, target: Path, ask: Callable[[], None]) -> None:
        """`ask` asks which life the container is in, for `answered`. Raises OSError when the port is taken."""
        self._target, self._ask = target, ask
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.handle = self._selector.fileno()
        self._life = ""
        self._open: set[_Connection] = set()  # those that are let through
        self._asked: list[_Connection] = []  # made before what is being asked for now
        self._waiting: list[_Connection] = []  # made since
        self.is_asking = False

    def look(self) -> None:
        """Ask, unless an answer is due."""
        if not self.is_asking:
            self.is_asking, self._asked, self._waiting = True, self._waiting, []
            self._ask()

    def serve(self) -> None:
        """Take the connections that wait, and move what came on the others."""
        for key, _ in self._selector.select(0):
            if key.data is None:
                self._take()
            elif key.data in self._open:
                self._moved(key.data)

    def answered(self, life: str) -> None:
        """Let through what was made while the container was in this life; make again what was not."""
        self._life, self.is_asking = life, False
        asked, self._asked = self._asked, []
        for connection in asked:
            client, service = (end.socket for end in connection.ends)
            if life and life == connection.life:
                self._open.add(connection)
                for end in (client, service):
                    self._selector.register(end, selectors.EVENT_READ, connection)
                self._moved(connection)
            else:
                service.close()
                if life:
                    self._connect(client)
                else:
                    client.close()
        if self._waiting:
            self.look()
        self._listen()

    def close(self) -> None:
        """Close the port and all connections."""
        for connection in (*self._open, *self._asked, *self._waiting):
            connection.close()
        self._listener.close()
        self._selector.close()

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while len(self._open) + len(self._asked) + len(self._waiting) < MOST_CONNECTIONS:
                self._connect(self._listener.accept()[0])
        self._listen()
        if self._waiting:
            self.look()

    def _listen(self) -> None:
        is_full = len(self._open) + len(self._asked) + len(self._waiting) >= MOST_CONNECTIONS
        is_listening = self._listener in self._selector.get_map()
        if is_full and is_listening:
            self._selector.unregister(self._listener)
        elif not is_full and not is_listening:
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _connect(self, client: socket.socket) -> None:
        service = socket.socket(socket.AF_UNIX)
        try:
            # ssh sends this on before anything it is asked later.
            service.connect(str(self._target))
        except OSError:
            service.close()
            client.close()
            return
        for end in (client, service):
            end.setblocking(False)
        self._waiting.append(_Connection(client, service, self._life))

    def _moved(self, connection: _Connection) -> None:
        if connection.move():
            for end, events in connection.wanted():
                is_known = end in self._selector.get_map()
                if events and is_known:
                    self._selector.modify(end, events, connection)
                elif events:
                    self._selector.register(end, events, connection)
                elif is_known:
                    self._selector.unregister(end)
            return
        for side in connection.ends:
            if side.socket in self._selector.get_map():
                self._selector.unregister(side.socket)
        connection.close()
        self._open.discard(connection)
        self._listen()


class Output:
    """What ssh prints: the last lines of it."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.is_up = self.is_over = False
        self._rest = b""
        self._lines: deque[str] = deque(maxlen=30)
        self.lives: deque[str] = deque(maxlen=30)  # answers of the other side, to be taken

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
            elif line.startswith(LIFE.strip()):
                self.lives.append(line.removeprefix(LIFE.strip()).strip())
            # Of one of the connections inside, which the service refused, and not of the tunnel.
            elif not line.startswith("channel "):
                self._lines.append(line)

    def forget(self) -> None:
        """What was said until now does not explain what comes later."""
        self._lines.clear()
