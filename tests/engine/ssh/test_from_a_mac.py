"""A folder sent and fetched, and scripts run there, with what only Linux has switched off on this side."""
# ruff: noqa: F401, F811 (fixtures are imported, and then arguments)

import shutil
import sys
from pathlib import Path

import pytest

from kit import linux, procs
from kit.remote import ssh, sync
from tests.engine.ssh.test_sync import home, home_here, machine, project, server, write
from tests.engine.sshd import needs_sshd

pytestmark = [needs_sshd, pytest.mark.skipif(not shutil.which("rsync"), reason="needs rsync: install rsync")]


@pytest.fixture
def mac(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(linux, "PROC", tmp_path / "no-proc")
    procs.boot.cache_clear()
    yield
    procs.boot.cache_clear()


def test_there_and_back(mac, machine, project):
    assert machine.run("uname").stdout == "Linux\n"
    done = sync.push(machine, project)
    assert done.sent_files == 3
    there = Path(done.remote_folder)
    write(there, {"runs/2/new.pt": "weights", "train.py": "changed there"}, age=5)
    back = sync.fetch(machine, project)
    assert (back.sent_files, (project / "runs/2/new.pt").read_text()) == (2, "weights")
    write(project, {"train.py": "changed here"}, age=1)
    assert sync.push(machine, project).sent_files == 1


def test_nothing_of_this_side_leads_out_without_the_kernel_s_help(mac, machine, project, tmp_path):
    there = Path(sync.push(machine, project).remote_folder)
    outside = tmp_path / "outside"
    outside.mkdir()
    (project / "results").symlink_to(outside)
    write(there, {"results/x": "1"})
    assert sync.fetch(machine, project).put_aside == ("results",)
    assert list(outside.iterdir()) == []
    assert (project / "results/x").read_text() == "1"
