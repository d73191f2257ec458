"""JupyterLab: who may in, and what a notebook can do."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request

from kit.spec.request import Started
from kit.verify.report import Subject
from kit.verify.suite.conftest import Answer, require

KERNEL_PATIENCE_S = 60
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
    """matplotlib draws a PNG into the notebook, and into a file."""
    found = cells.value("plot")
    require(found["shown"], "the notebook got no PNG")
    require(found["written"], "the file is no PNG")
