"""What people look at: JupyterLab's page in a headless browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.engine.conftest import Kit
from tests.engine.notebook import split

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


def test_notebook_with_a_progress_bar_opens_with_its_output(
    kit: Kit, jupyter: dict[str, str], chromium: str, workspace: Path, tmp_path: Path
) -> None:
    (workspace / "demo.ipynb").write_text(json.dumps(NOTEBOOK))
    kit("exec", jupyter["name"], "jupyter", "nbconvert", "--to", "notebook", "--execute", "--inplace", "demo.ipynb")
    address, token = split(jupyter["url"])
    page = dump_page(chromium, f"{address}/lab/tree/demo.ipynb?token={token}", tmp_path / "profile")
    assert "the sum is 45" in page
    assert "widget-hprogress" in page or "jupyter-widgets" in page
