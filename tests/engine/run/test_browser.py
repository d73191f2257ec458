"""What people look at: JupyterLab's page in a headless browser."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import websocket

from tests.engine.conftest import Kit
from tests.engine.notebook import get, split

pytestmark = pytest.mark.engine
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=30000",
    "--window-size=1400,900",
)
NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "cells": [
        {
            "cell_type": "code",
            "id": "one",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": "from tqdm.notebook import tqdm\ntotal = sum(tqdm(range(10)))\nprint('the sum is', total)",
        }
    ],
}


@pytest.fixture
def chromium() -> str:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on this machine: `apt-get install chromium`")
    return program


def dump_page(chromium: str, url: str, profile: Path) -> str:
    return subprocess.run(
        [chromium, *QUIET, f"--user-data-dir={profile}", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    ).stdout


def test_lab_opens_with_its_launcher(jupyter: dict[str, str], chromium: str, tmp_path: Path) -> None:
    page = dump_page(chromium, jupyter["url"], tmp_path / "profile")
    assert "jp-LauncherCard" in page
    assert "Python 3" in page


def test_page_without_the_token_asks_for_it(jupyter: dict[str, str], chromium: str, tmp_path: Path) -> None:
    page = dump_page(chromium, split(jupyter["url"])[0] + "/lab", tmp_path / "profile")
    assert "jp-LauncherCard" not in page
    assert "Token authentication is enabled" in page


class Browser:
    """A headless Chromium that a test types into, over its debugging protocol."""

    def __init__(self, program: str, profile: Path) -> None:
        arguments = [a for a in QUIET if not a.startswith("--virtual-time")]
        self.process = subprocess.Popen(
            [program, *arguments, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = next(line for line in self.process.stderr if "DevTools listening on" in line)
        port = line.rpartition("ws://127.0.0.1:")[2].partition("/")[0]
        _, tabs = get(f"http://127.0.0.1:{port}/json")
        address = next(tab["webSocketDebuggerUrl"] for tab in json.loads(tabs) if tab["type"] == "page")
        self.socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self.calls = 0

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        self.calls += 1
        self.socket.send(json.dumps({"id": self.calls, "method": method, "params": parameters}))
        while True:
            reply: dict[str, Any] = json.loads(self.socket.recv())
            if reply.get("id") == self.calls:
                return reply["result"]

    def evaluate(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait_for(self, script: str, *, timeout_s: float = 60) -> None:
        end = time.monotonic() + timeout_s
        while not self.evaluate(script):
            assert time.monotonic() < end, f"not within {timeout_s:g} s: {script}"
            time.sleep(0.2)

    def press_shift_enter(self) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            key = {"modifiers": 8, "windowsVirtualKeyCode": 13, "key": "Enter", "code": "Enter"}
            self.call("Input.dispatchKeyEvent", type=kind, **key)

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()


def test_progress_bar_moves_in_a_live_notebook(
    kit: Kit, jupyter: dict[str, str], chromium: str, workspace: Path, tmp_path: Path
) -> None:
    (workspace / "demo.ipynb").write_text(json.dumps(NOTEBOOK))
    # Lab asks for the kernel of a notebook that has never run.
    kit("exec", jupyter["name"], "jupyter", "nbconvert", "--to", "notebook", "--execute", "--inplace", "demo.ipynb")
    address, token = split(jupyter["url"])
    browser = Browser(chromium, tmp_path / "profile")
    try:
        browser.call("Page.navigate", url=f"{address}/lab/tree/demo.ipynb?token={token}")
        browser.wait_for("document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'")
        browser.wait_for("document.body.innerText.includes('the sum is 45')")
        time.sleep(5)  # the kernel is there and its session not yet: nothing on the page tells
        browser.evaluate("document.querySelector('.jp-Cell .cm-content').focus()")
        browser.press_shift_enter()
        browser.wait_for("!!document.querySelector('.widget-hprogress .progress, .jupyter-widgets .progress')")
        browser.wait_for("document.body.innerText.includes('10/10')")
    finally:
        browser.close()
