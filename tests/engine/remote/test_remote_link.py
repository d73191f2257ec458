"""What a notebook on a server outlives: a link that is cut, a laptop that sleeps, an sshd that dies, killed helpers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine.notebook import get, run_cell, split, start_kernel
from tests.engine.remote.client import eventually, is_of_a_tunnel
from tests.engine.remote.conftest import Lab

pytestmark = pytest.mark.engine
# How long a tunnel may take to be back: it waits up to 30 s between two tries, and a try itself up to 10 s.
BACK_S = 75


class Notebook:
    """A notebook on the server, with one kernel that counts how often it was asked."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        (lab.alice.home / "notebooks").mkdir()
        os.chown(lab.alice.home / "notebooks", lab.alice.uid, lab.alice.gid)
        # A folder that is there already: nothing is sent.
        arguments = ("run", "--remote-folder", "~/notebooks", "tf-cpu", "jupyter")
        started = lab.client.json("--host", "server", *arguments)
        self.name, self.url = started["name"], started["url"]
        self.kernel = lab.client.link.inside(start_kernel, self.url)
        self.count = 0
        self.cell("x = 0")

    def cell(self, code: str) -> str:
        return self.lab.client.link.inside(run_cell, self.url, self.kernel, code).strip()

    def answers(self) -> bool:
        address, token = split(self.url)
        try:
            return self.lab.client.link.inside(get, f"{address}/api/status", token=token, timeout_s=3)[0] == 200
        except OSError:
            return False

    def assert_the_same(self) -> None:
        """The URL works again without any command, and the kernel has kept what it knew."""
        eventually(self.answers, "the URL works again", timeout_s=BACK_S)
        self.count += 1
        assert self.cell("x += 1; print(x)") == str(self.count)
        assert self.lab.client.kit("--host", "server", "url", self.name).stdout.strip() == self.url
        assert [tunnel["status"] for tunnel in self.tunnels()] == ["up"]

    def tunnels(self) -> list[dict[str, Any]]:
        listing: list[dict[str, Any]] = self.lab.client.json("tunnel", "ls")
        return listing

    def processes(self, *, supervisor: bool) -> list[int]:
        """The tunnel's supervisor, or its ssh."""
        found = self.lab.client.link.processes().items()
        return [
            pid for pid, words in found if is_of_a_tunnel(words) and ("-m kit.remote.tunnels" in words) == supervisor
        ]


@pytest.fixture(scope="module")
def notebook(lab: Lab) -> Iterator[Notebook]:
    made = Notebook(lab)
    yield made
    lab.link.restore()
    lab.link.plug()
    lab.client.kit("--host", "server", "rm", "--force", made.name)
    assert lab.containers(lab.alice) == []
    assert made.tunnels() == []
    lab.client.close()
    eventually(lab.client.is_quiet, "no process of the client's", timeout_s=20)


def test_link_cut_until_it_is_noticed(lab: Lab, notebook: Notebook) -> None:
    lab.link.cut()
    try:
        assert not notebook.answers()
        # A command says so, rather than to wait for ever.
        done = lab.client.kit("--host", "server", "ps", code=19, timeout_s=60)
        assert "server" in done.stderr
        eventually(lambda: notebook.tunnels()[0]["status"] != "up", "the tunnel says that it is not up", timeout_s=30)
    finally:
        lab.link.restore()
    notebook.assert_the_same()


def test_laptop_that_sleeps(lab: Lab, notebook: Notebook) -> None:
    lab.link.unplug()
    try:
        assert not notebook.answers()
        time.sleep(3)
    finally:
        lab.link.plug()
    notebook.assert_the_same()


def test_sshd_killed_and_restarted(lab: Lab, notebook: Notebook) -> None:
    lab.sshd.kill()
    try:
        eventually(lambda: notebook.tunnels()[0]["status"] != "up", "the tunnel says that it is not up", timeout_s=20)
        done = lab.client.kit("--host", "server", "ps", code=19)
        assert "refuses the connection" in done.stderr
    finally:
        lab.sshd.start()
    notebook.assert_the_same()


def test_ssh_of_the_tunnel_killed(notebook: Notebook) -> None:
    (before,) = notebook.processes(supervisor=False)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: notebook.processes(supervisor=False) not in ([], [before]), "another ssh", timeout_s=20)
    notebook.assert_the_same()


def test_supervisor_of_the_tunnel_killed(lab: Lab, notebook: Notebook) -> None:
    (before,) = notebook.processes(supervisor=True)
    os.kill(before, signal.SIGKILL)
    # Nobody would ever end it.
    eventually(lambda: not notebook.processes(supervisor=False), "the ssh of a killed supervisor is gone", timeout_s=20)
    # The next command makes a tunnel again, on the port it had.
    assert lab.client.kit("--host", "server", "url", notebook.name).stdout.strip() == notebook.url
    notebook.assert_the_same()


def test_shared_connection_killed(lab: Lab, notebook: Notebook) -> None:
    lab.client.kit("--host", "server", "ps")
    masters = [pid for pid, words in lab.client.link.processes().items() if "[mux]" in words]
    assert masters
    for pid in masters:
        os.kill(pid, signal.SIGKILL)
    assert [row["name"] for row in lab.listed("server", lab.alice)] == [notebook.name]
    notebook.assert_the_same()


def test_tunnel_closed_and_opened_by_hand(lab: Lab, notebook: Notebook) -> None:
    lab.client.kit("tunnel", "close", notebook.name)
    assert notebook.tunnels() == []
    assert not notebook.answers()
    assert [row["name"] for row in lab.listed("server", lab.alice)] == [notebook.name], "it still runs"
    lab.client.kit("--host", "server", "tunnel", "open", notebook.name)
    notebook.assert_the_same()
