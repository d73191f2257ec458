"""What ssh is told for a tunnel, and what it says."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable

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
