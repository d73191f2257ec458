"""What a container prints, as it prints it: read from the engine's own interface.

`docker logs --follow` holds a line back until it is complete, so a progress bar would show nothing until it is over,
and cannot go on where a connection broke. The engine's log has every byte, so a reader that knows how many it has seen
of each stream can.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from kit.errors import EngineError, NoEngineError, NoSuchContainerError

STDOUT, STDERR = 1, 2
Frame = tuple[int, bytes]  # the stream, and a piece of what came on it
Frames = Iterator[Frame]


@contextlib.contextmanager
def attached(path: Path, name: str) -> Iterator[Iterator[Frame]]:
    """The streams of a container from its first byte on; open it before the container starts."""
    query = f"/containers/{quote(name)}/attach?stream=1&stdout=1&stderr=1"
    with _answer(path, f"POST {query} HTTP/1.1\r\nHost: engine\r\nContent-Length: 0\r\n\r\n", name) as frames:
        yield frames


@contextlib.contextmanager
def log(path: Path, name: str, *, follow: bool, tail: int | None = None) -> Iterator[Iterator[Frame]]:
    """What a container printed so far; with `follow` also what it prints until it ends or the connection does."""
    query = f"/containers/{quote(name)}/logs?stdout=1&stderr=1&follow={int(follow)}"
    query += f"&tail={tail}" if tail is not None else ""
    with _answer(path, f"GET {query} HTTP/1.0\r\nHost: engine\r\n\r\n", name) as frames:
        yield frames


def after(frames: Iterator[Frame], seen: dict[int, int]) -> Iterator[Frame]:
    """The frames less the first bytes of each stream, which were seen already; `seen` is counted on."""
    skip = dict(seen)
    for kind, data in frames:
        held_back = min(skip.get(kind, 0), len(data))
        skip[kind] = skip.get(kind, 0) - held_back
        if rest := data[held_back:]:
            seen[kind] = seen.get(kind, 0) + len(rest)
            yield kind, rest


@contextlib.contextmanager
def _answer(path: Path, request: str, name: str) -> Iterator[Iterator[Frame]]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        try:
            client.connect(str(path))
            client.sendall(request.encode())
            stream = client.makefile("rb", buffering=0)
            status, headers = _head(stream)
        except OSError as e:
            raise NoEngineError(f"the container engine does not answer: {e}") from None
        if status == 404:
            raise NoSuchContainerError(f"there is no container {name}", hint="`kit ps --all` lists them")
        if status not in (101, 200):
            raise EngineError(f"the engine does not show what {name} prints (status {status})")
        # A program may print nothing for hours.
        client.settimeout(None)
        is_terminal = "raw-stream" in headers and "multiplexed" not in headers and _is_new(headers)
        yield _raw(stream) if is_terminal else _frames(stream)


def _is_new(headers: str) -> bool:
    """True for an engine whose content type tells a terminal's stream from two in one (interface 1.42, Docker 23)."""
    version = next((line for line in headers.splitlines() if line.startswith("api-version:")), "").partition(":")[2]
    numbers = version.strip().split(".")
    return len(numbers) == 2 and all(n.isdecimal() for n in numbers) and [int(n) for n in numbers] >= [1, 42]


def _head(stream: BinaryIO | socket.SocketIO) -> tuple[int, str]:
    """The status and the headers, byte by byte: what follows them is not to be read here."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.read(1)
        if not byte:
            raise OSError("it closed the connection")
        head += byte
    words = head.split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0, head.decode(errors="replace").lower()


def _raw(stream: socket.SocketIO) -> Iterator[Frame]:
    with contextlib.suppress(OSError):
        while data := stream.read(65536):
            yield STDOUT, data


def _frames(stream: socket.SocketIO) -> Iterator[Frame]:
    """Frames of 8 bytes (the stream, three zeros, the length) and their content; ends where the connection does."""
    with contextlib.suppress(OSError):
        while len(head := _exactly(stream, 8)) == 8:
            kind, length = struct.unpack(">BxxxL", head)
            while length and (data := stream.read(min(length, 65536))):
                length -= len(data)
                yield kind, data
            if length:
                return


def _exactly(stream: socket.SocketIO, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := stream.read(count - len(data))):
        data += more
    return data
