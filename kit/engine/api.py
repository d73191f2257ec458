"""One GET to an engine on this machine's socket.

The engine's own command line takes 40 ms to start and `docker info` 90 ms, of the 60 or so that `kit run` may add to
`docker run`; this takes 2. Everything that changes something goes through the command line.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any


def get(path: Path, url: str, *, timeout_s: float = 20) -> tuple[int, Any] | None:
    """The status and the JSON that the engine at a unix socket answers to GET `url`; None when it does not answer.

    HTTP/1.0, so the answer comes in one piece and ends with the connection.
    """
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(timeout_s)
            client.connect(str(path))
            client.sendall(f"GET {url} HTTP/1.0\r\nHost: engine\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(65536), b""))
    except OSError:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        return int(head.split(b" ", 2)[1]), json.loads(body)
    except (IndexError, ValueError):
        return None


def local_socket(docker_host: str) -> Path | None:
    """The socket that an address of the engine names, when it is one on this machine."""
    return Path(docker_host.removeprefix("unix://")) if docker_host.startswith("unix:///") else None
