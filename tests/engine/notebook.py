"""A client of a Jupyter server, as a browser is one: HTTP with the token, and a kernel over its web socket."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any

import websocket

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(
    url: str, *, token: str = "", method: str = "GET", data: bytes | None = None, timeout_s: float = 20
) -> tuple[int, bytes]:
    """Status and body; an HTTP error is a status, not an exception."""
    request = urllib.request.Request(url, method=method, data=data)
    if token:
        request.add_header("Authorization", f"token {token}")
    try:
        with _DIRECT.open(request, timeout=timeout_s) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


def split(url: str) -> tuple[str, str]:
    """(address without path, token) of the URL that `kit run … jupyter` printed."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", urllib.parse.parse_qs(parts.query)["token"][0]


def execute(url: str, code: str, *, timeout_s: float = 180) -> str:
    """Run one cell in a new kernel of the server and return what it printed; an exception in it fails the test."""
    kernel = start_kernel(url)
    try:
        return run_cell(url, kernel, code, timeout_s=timeout_s)
    finally:
        address, token = split(url)
        get(f"{address}/api/kernels/{kernel}", token=token, method="DELETE")


def start_kernel(url: str) -> str:
    """Start a kernel, which stays; returns its ID."""
    address, token = split(url)
    status, body = get(f"{address}/api/kernels", token=token, method="POST", data=b"{}")
    assert status == 201, body
    kernel: str = json.loads(body)["id"]
    return kernel


def run_cell(url: str, kernel: str, code: str, *, timeout_s: float = 180) -> str:
    """Run one cell in a kernel and return what it printed; an exception in it fails the test."""
    address, token = split(url)
    channel = websocket.create_connection(
        f"{address.replace('http', 'ws')}/api/kernels/{kernel}/channels",
        header=[f"Authorization: token {token}"],
        timeout=timeout_s,
    )
    message = uuid.uuid4().hex
    channel.send(
        json.dumps(
            {
                "header": {
                    "msg_id": message,
                    "username": "test",
                    "session": uuid.uuid4().hex,
                    "msg_type": "execute_request",
                    "version": "5.3",
                },
                "parent_header": {},
                "metadata": {},
                "channel": "shell",
                "buffers": [],
                "content": {
                    "code": code,
                    "silent": False,
                    "store_history": False,
                    "user_expressions": {},
                    "allow_stdin": False,
                    "stop_on_error": True,
                },
            }
        )
    )
    printed: list[str] = []
    try:
        while True:
            reply: dict[str, Any] = json.loads(channel.recv())
            if reply["parent_header"].get("msg_id") != message:
                continue
            content = reply["content"]
            if reply["msg_type"] == "stream" and content["name"] == "stdout":
                printed.append(content["text"])
            elif reply["msg_type"] == "error":
                raise AssertionError("\n".join(content["traceback"]))
            elif reply["msg_type"] == "status" and content["execution_state"] == "idle":
                return "".join(printed)
    finally:
        channel.close()
