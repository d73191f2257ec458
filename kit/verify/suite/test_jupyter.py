"""JupyterLab: who may in, and what a notebook can do."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request

from kit import layout
from kit.spec.request import Started
from kit.verify.report import Subject
from kit.verify.suite.conftest import Answer, require

KERNEL_PATIENCE_S = 60
PATIENCE_S = 30
# Something else that listens in the container.
OTHER_PORT, LISTING = 6007, b"Directory listing"
# What the server offers, and JupyterLab's menu does not: FORMAT_EXCLUDE in packages/notebook-extension/src/index.ts.
NOT_IN_MENU = ("custom", "notebook", "python")
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# *A*"},
        {"cell_type": "code", "id": "b", "metadata": {}, "source": "1", "execution_count": None, "outputs": []},
    ],
    "metadata": {"language_info": {"name": "python", "file_extension": ".py"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}
# RFC 6455, section 4.1; the key is any sixteen bytes in base64.
WEB_SOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "a2l0LXZlcmlmeS1rZXJuZQ==",
}
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, *, token: str = "", body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body; an HTTP error is a status."""
    request = urllib.request.Request(url, data=body)
    if token:
        request.add_header("Authorization", f"token {token}")
    try:
        with _DIRECT.open(request, timeout=20) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


def address(started: Started) -> str:
    parts = urllib.parse.urlsplit(started.url)
    return f"{parts.scheme}://{parts.netloc}"


def test_token(jupyter: tuple[Started, str]) -> None:
    """It answers with the token, and refuses without it and with another."""
    token, url = jupyter[1], f"{address(jupyter[0])}/api/status"
    require(get(url, token=token)[0] == 200, "it does not answer with its token")
    require(get(url)[0] == 403, "it answers without a token")
    require(get(url, token="0" * len(token))[0] == 403, "it answers with a wrong token")


def test_published(subject: Subject, jupyter: tuple[Started, str]) -> None:
    """It is reached from this machine only."""
    text = subject.engine.call(["container", "inspect", "--format={{json .NetworkSettings.Ports}}", jupyter[0].name])
    bindings = [binding for found in json.loads(text).values() for binding in found or ()]
    elsewhere = [b["HostIp"] or "0.0.0.0" for b in bindings if b["HostIp"] not in ("127.0.0.1", "::1")]
    require(bindings, "no port is published")
    require(not elsewhere, f"it is published on {', '.join(elsewhere)}")


def test_kernel(jupyter: tuple[Started, str]) -> None:
    """The server starts a kernel, and the kernel answers it."""
    token, url = jupyter[1], f"{address(jupyter[0])}/api/kernels"
    status, body = get(url, token=token, body=b"{}")
    require(status == 201, f"asked for a kernel, the server answers {status}: {body.decode(errors='replace')[:300]}")
    kernel, state, end = json.loads(body)["id"], "", time.monotonic() + KERNEL_PATIENCE_S
    # The server asks a kernel how it is once a client is connected to it, and not before.
    client = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=20)
    try:
        client.request(
            "GET", f"/api/kernels/{kernel}/channels", headers={**WEB_SOCKET, "Authorization": f"token {token}"}
        )
        status = client.getresponse().status
        require(status == 101, f"a client that connects to the kernel is answered {status}")
        while state != "idle" and time.monotonic() < end:
            state = json.loads(get(f"{url}/{kernel}", token=token)[1]).get("execution_state", "gone")
            time.sleep(0.1)
    finally:
        client.close()
    require(state == "idle", f"after {KERNEL_PATIENCE_S} s the kernel is {state}")


def test_terminal(jupyter: tuple[Started, str]) -> None:
    """A terminal is a bash that has the image's programs."""
    token, url = jupyter[1], address(jupyter[0])
    status, body = get(f"{url}/api/terminals", token=token, body=b"{}")
    require(status == 200, f"asked for a terminal, the server answers {status}: {body.decode(errors='replace')[:300]}")
    name, found, end = json.loads(body)["name"], b"", time.monotonic() + PATIENCE_S
    client = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=20)
    try:
        headers = {**WEB_SOCKET, "Authorization": f"token {token}"}
        client.request("GET", f"/terminals/websocket/{name}", headers=headers)
        status = client.getresponse().status
        require(status == 101 and client.sock, f"a client that connects to the terminal is answered {status}")
        typed = "(echo $0; command -v python pip) >t; mv t verify-terminal\r"
        client.sock.sendall(frame(json.dumps(["stdin", typed])))
        while not found and time.monotonic() < end:
            status, body = get(f"{url}/files/verify-terminal", token=token)
            found = body if status == 200 else b""
            time.sleep(0.1)
    finally:
        client.close()
    require(found, f"after {PATIENCE_S} s the terminal has not done what was typed")
    shell, *programs = found.decode(errors="replace").split()
    require(shell.rpartition("/")[2].strip("-") == "bash", f"the shell is {shell}")
    there = [f"{layout.VENV}/bin/{program}" for program in ("python", "pip")]
    require(programs == there, f"python and pip are {' and '.join(programs) or 'not found'}")


def frame(text: str) -> bytes:
    """A short text as a client sends it (RFC 6455, section 5.2), behind a mask of zeros, which changes nothing."""
    data = text.encode()
    return bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data


def test_ports(subject: Subject, jupyter: tuple[Started, str]) -> None:
    """What listens on another port is reached at the server's address, with the token and not without."""
    token, url = jupyter[1], f"{address(jupyter[0])}/proxy/{OTHER_PORT}/"
    serve = ["python", "-m", "http.server", "--bind=127.0.0.1", "--directory=/usr/share", str(OTHER_PORT)]
    subject.engine.call(["exec", "--detach", jupyter[0].name, *serve])
    status, body, end = 0, b"", time.monotonic() + PATIENCE_S
    while status != 200 and time.monotonic() < end:
        status, body = get(url, token=token)
        time.sleep(0.1)
    require(
        status == 200 and b"Directory listing" in body, f"it answers {status}: {body.decode(errors='replace')[:300]}"
    )
    require(b"Directory listing" not in get(url)[1], "it is there without the token")
    require(b"Directory listing" not in get(url, token="0" * len(token))[1], "it is there with a wrong token")


def test_exports(jupyter: tuple[Started, str]) -> None:
    """Every format of "Save and Export Notebook As" can be written."""
    token, url = jupyter[1], address(jupyter[0])
    formats = [name for name in json.loads(get(f"{url}/api/nbconvert", token=token)[1]) if name not in NOT_IN_MENU]
    require("html" in formats, f"the formats are {', '.join(formats)}")
    body = json.dumps({"type": "notebook", "name": "verify.ipynb", "content": NOTEBOOK}).encode()
    failed = [name for name in formats if get(f"{url}/nbconvert/{name}", token=token, body=body)[0] != 200]
    require(not failed, f"cannot be written: {', '.join(failed)}")


def test_cell(cells: Answer) -> None:
    """A cell runs."""
    printed = cells.value("runs")
    require(printed == "42\n", f"it printed {printed!r}")


def test_progress(cells: Answer) -> None:
    """A progress bar of ipywidgets is shown, moves, and JupyterLab has what draws it."""
    found = cells.value("progress")
    require("IntProgressModel" in found["models"], f"no bar was opened: {found['models']}")
    require(found["shown"], "the notebook was given no view of it")
    require(found["value"] == 3, f"it stands at {found['value']}, not at 3")
    require(found["extension"], "JupyterLab lacks the extension that draws widgets")


def test_plot(cells: Answer) -> None:
    """matplotlib draws a PNG into the notebook, and into a file, with Chinese in it."""
    found = cells.value("plot")
    require(found["shown"], "the notebook got no PNG")
    require(found["written"], "the file is no PNG")
    require(not found["missing"], f"Chinese in a title is not drawn: {found['missing']}")
