"""Requests to an engine on this machine's socket.

The engine's own command line takes 40 ms to start and `docker info` 90 ms, of the 60 or so that `kit run` may add to
`docker run`; this takes 2. Everything that changes something goes through the command line. Not by `http.client`: its
import alone takes longer than all of kit.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

# Of what an engine has thousands of it says megabytes.
LONGEST_HEAD, LONGEST_ANSWER = 64 * 1024, 64 * 1024 * 1024


@contextlib.contextmanager
def answer(
    path: Path,
    request: str,
    *,
    version: str = "1.0",
    timeout_s: float = 20,
    is_endless: bool = False,
    on_open: Callable[[socket.socket], None] = lambda _: None,
) -> Iterator[tuple[int, str, BufferedReader]]:
    """The status, the headers in lower case, and the rest of what the engine at a unix socket answers, unread.

    `version`: of HTTP; with 1.0 the answer comes in one piece and ends with the connection. `is_endless`: what follows
    the headers may take any time. `on_open` gets the connection then, to send more on it. Raises OSError.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout_s)
        client.connect(str(path))
        client.sendall(f"{request} HTTP/{version}\r\nHost: engine\r\nContent-Length: 0\r\n\r\n".encode())
        with client.makefile("rb") as stream:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = stream.readline(LONGEST_HEAD - len(head))
                if not line:
                    raise OSError("it closed the connection, or is none that speaks HTTP")
                head += line
            words = head.split(b" ", 2)
            status = int(words[1]) if len(words) > 1 and re.fullmatch(rb"[0-9]{3}", words[1]) else 0
            if is_endless:
                client.settimeout(None)
                on_open(client)
            yield status, head.decode(errors="replace").lower(), stream


def ask(path: Path | None, url: str, *, timeout_s: float = 20) -> tuple[int, bytes] | None:
    """The status and body of the answer to GET `url`; None when there is none, no socket to ask, or no end of it within
    `timeout_s` seconds and LONGEST_ANSWER bytes.
    """
    if path is None:
        return None
    try:
        with answer(path, f"GET {url}", timeout_s=timeout_s) as (status, _, stream):
            end, body = time.monotonic() + timeout_s, bytearray()
            while some := stream.read1(1 << 20):
                body += some
                if len(body) > LONGEST_ANSWER or time.monotonic() > end:
                    return None
            return status, bytes(body)
    except OSError:
        return None


def is_answering(path: Path, *, timeout_s: float = 5) -> bool:
    """True when the engine behind a socket answers; takes milliseconds."""
    answer = ask(path, "/_ping", timeout_s=timeout_s)
    return answer is not None and answer[0] == 200


def is_denied(path: Path) -> bool:
    """True when there is a socket that this account may not use."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        try:
            client.connect(str(path))
        except PermissionError:
            return True
        except OSError:
            pass
        return False


def get(path: Path | None, url: str, *, timeout_s: float = 20) -> tuple[int, dict[str, Any]] | None:
    """The same for an answer that is a JSON object; None when it is anything else."""
    found = ask(path, url, timeout_s=timeout_s)
    data = _json(found[1]) if found else None
    return (found[0], data) if found and isinstance(data, dict) else None


def get_list(path: Path | None, url: str) -> list[dict[str, Any]] | None:
    """The list of objects that the engine answers to GET `url`; None when it answers anything else, or nothing."""
    found = ask(path, url)
    data = _json(found[1]) if found and found[0] == 200 else None
    return data if isinstance(data, list) and all(isinstance(item, dict) for item in data) else None


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
