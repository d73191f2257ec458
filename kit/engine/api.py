"""One GET to an engine on this machine's socket.

The engine's own command line takes 40 ms to start and `docker info` 90 ms, of the 60 or so that `kit run` may add to
`docker run`; this takes 2. Everything that changes something goes through the command line.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any


def ask(path: Path, url: str, *, timeout_s: float = 20) -> tuple[int, bytes] | None:
    """The status and body that the engine at a unix socket answers to GET `url`; None when it does not answer.

    HTTP/1.0, so the answer comes in one piece and ends with the connection.
    """
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(timeout_s)
            client.connect(str(path))
            client.sendall(f"GET {url} HTTP/1.0\r\nHost: engine\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), body
    except (OSError, IndexError, ValueError):
        return None


def get(path: Path, url: str, *, timeout_s: float = 20) -> tuple[int, dict[str, Any]] | None:
    """The same for an answer that is a JSON object; None when it is anything else."""
    answer = ask(path, url, timeout_s=timeout_s)
    try:
        data = json.loads(answer[1]) if answer else None
    except ValueError:
        return None
    return (answer[0], data) if answer and isinstance(data, dict) else None


def get_list(path: Path, url: str, *, timeout_s: float = 20) -> list[dict[str, Any]] | None:
    """The list of objects that the engine answers to GET `url`; None when it answers anything else, or nothing."""
    answer = ask(path, url, timeout_s=timeout_s)
    try:
        data = json.loads(answer[1]) if answer and answer[0] == 200 else None
    except ValueError:
        return None
    return data if isinstance(data, list) else None


def local_socket(docker_host: str) -> Path | None:
    """The socket that an address of the engine names, when it is one on this machine."""
    return Path(docker_host.removeprefix("unix://")) if docker_host.startswith("unix:///") else None
