"""Free ports on this machine's loopback, kept apart between kit processes that look for one at the same time."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from kit import files, paths
from kit.errors import PortTakenError

SEARCHED = 1000


def is_free(port: int) -> bool:
    """True when nothing listens on 127.0.0.1:port (nor on every address)."""
    with socket.socket() as probe:
        # As the engine's proxy does: a port in TIME_WAIT can be taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def reserve(start: int, *, exact: bool, folder: Path | None = None) -> tuple[int, int]:
    """A free port from `start` upwards, and the descriptor that keeps it from other kit processes while it is open.

    The reservation is a lock on a small file. A program that inherits the descriptor goes on holding it; the kernel
    frees it when nobody has it open any more. Raises PortTakenError when `exact` and `start` is in use, or when no port
    is free.
    """
    folder = folder or paths.usable_folder(paths.state_folder, "ports")
    for port in range(start, start + 1 if exact else min(start + SEARCHED, 65536)):
        if (handle := files.acquire(folder / str(port), wait_s=0)) is not None:
            if is_free(port):
                return port, handle
            os.close(handle)
    if exact:
        raise PortTakenError(f"port {start} on 127.0.0.1 is in use", hint="leave out --port to get the next free one")
    raise PortTakenError(f"no free port from {start} to {min(start + SEARCHED, 65536) - 1} on 127.0.0.1")


@contextlib.contextmanager
def reserved(start: int, *, exact: bool, folder: Path | None = None) -> Iterator[int]:
    """A free port from `start` upwards, nobody else's while the block runs. Raises what `reserve` raises."""
    port, handle = reserve(start, exact=exact, folder=folder)
    try:
        yield port
    finally:
        os.close(handle)


def listening(table: str, address: str) -> frozenset[int]:
    """The ports at which somebody listens at an IPv4 address or at all of a machine's, from /proc/net/tcp or tcp6."""
    packed = socket.inet_aton(address)[::-1].hex().upper()
    found = set()
    for words in map(str.split, table.splitlines()[1:]):
        at, _, port = words[1].partition(":") if len(words) > 3 else ("", "", "")
        if words[3:4] == ["0A"] and (at == packed or set(at) == {"0"}) and re.fullmatch("[0-9A-F]{1,4}", port):
            found.add(int(port, 16))
    return frozenset(found)
