"""What a container prints, as it prints it: read from the engine's own interface.

`docker logs --follow` holds a line back until it is complete, so a progress bar would show nothing until it is over,
and cannot go on where a connection broke. The engine's log has every byte, so a reader that knows how many it has seen
of each stream can.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from urllib.parse import quote

from kit import unix_http
from kit.errors import EngineError, NoEngineError, NoSuchContainerError

STDOUT, STDERR = 1, 2
Frame = tuple[int, bytes]  # the stream, and a piece of what came on it
Frames = Iterator[Frame]


@contextlib.contextmanager
def attached(path: Path, name: str, on_input: Callable[[socket.socket], None] | None = None) -> Iterator[Frames]:
    """The streams of a container from its first byte on; open it before the container starts. `on_input` gets what is
    to be sent on for a container that has an input (`fed`).
    """
    request = f"POST /containers/{quote(name)}/attach?stream=1&stdout=1&stderr=1" + ("&stdin=1" if on_input else "")
    with _answer(path, request, name, version="1.1", on_open=on_input or (lambda _: None)) as frames:
        yield frames


@contextlib.contextmanager
def fed(side: socket.socket, source: int) -> Iterator[None]:
    """While the block runs, what can be read from the descriptor `source` is sent, and that it has ended is told."""
    woken, wake = os.pipe()

    def feed() -> None:
        # Whoever has closed it wants no more.
        with contextlib.suppress(OSError):
            while woken not in select.select([source, woken], [], [])[0]:
                if data := os.read(source, 65536):
                    side.sendall(data)
                else:
                    side.shutdown(socket.SHUT_WR)
                    return

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        yield
    finally:
        os.close(wake)
        feeder.join(0.1)
        # It may be sending to what reads no more.
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
        feeder.join()
        os.close(woken)


@contextlib.contextmanager
def log(path: Path, name: str, *, follow: bool) -> Iterator[Frames]:
    """What a container printed so far; with `follow` also what it prints until it ends or the connection does."""
    request = f"GET /containers/{quote(name)}/logs?stdout=1&stderr=1&follow={int(follow)}"
    with _answer(path, request, name, version="1.0") as frames:
        yield frames


def after(frames: Frames, seen: dict[int, int]) -> Frames:
    """The frames less the first bytes of each stream, which were seen already; `seen` is counted on."""
    skip = dict(seen)
    for kind, data in frames:
        held_back = min(skip.get(kind, 0), len(data))
        skip[kind] = skip.get(kind, 0) - held_back
        if rest := data[held_back:]:
            seen[kind] = seen.get(kind, 0) + len(rest)
            yield kind, rest


@contextlib.contextmanager
def _answer(
    path: Path, request: str, name: str, *, version: str, on_open: Callable[[socket.socket], None] = lambda _: None
) -> Iterator[Frames]:
    with contextlib.ExitStack() as stack:
        try:
            opened = unix_http.answer(path, request, version=version, timeout_s=30, is_endless=True, on_open=on_open)
            status, headers, stream = stack.enter_context(opened)
        except OSError as e:
            raise NoEngineError(f"the container engine does not answer: {e}") from None
        if status == 404:
            raise NoSuchContainerError(f"there is no container {name}", hint="`kit ps --all` lists them")
        if status not in (101, 200):
            raise EngineError(f"the engine does not show what {name} prints (status {status})")
        is_terminal = "raw-stream" in headers and "multiplexed" not in headers and _is_new(headers)
        yield _raw(stream) if is_terminal else _frames(stream)


def _is_new(headers: str) -> bool:
    """True for an engine whose content type tells a terminal's stream from two in one (interface 1.42, Docker 23)."""
    version = next((line for line in headers.splitlines() if line.startswith("api-version:")), "").partition(":")[2]
    numbers = version.strip().split(".")
    return (
        len(numbers) == 2
        and all(n.isdecimal() and len(n) < 5 for n in numbers)
        and [int(n) for n in numbers] >= [1, 42]
    )


def _raw(stream: BufferedReader) -> Frames:
    with contextlib.suppress(OSError):
        while data := stream.read1(65536):
            yield STDOUT, data


def _frames(stream: BufferedReader) -> Frames:
    """Frames of 8 bytes (the stream, three zeros, the length) and their content; ends where the connection does."""
    with contextlib.suppress(OSError):
        while len(head := stream.read(8)) == 8:
            kind, length = struct.unpack(">BxxxL", head)
            while length and (data := stream.read1(min(length, 65536))):
                length -= len(data)
                yield kind, data
            if length:
                return
