"""What `kit sync` and `kit fetch` say; that they do it is tests/engine/ssh/test_sync.py's."""

import dataclasses
import json
import os
from pathlib import Path

import click
import pytest

from kit.cli import sending
from kit.cli.options import Options
from kit.cli.screen import CommandScreen
from kit.engine import Engine
from kit.remote import ssh, sync
from kit.remote.sync import LeftOut, Synced
from kit.run.prepare import folder_on

CONNECTION = ssh.Connection(
    target="lab",
    address="lab",
    folder=Path("/nowhere"),
    account=ssh.Account(user="ada", uid=1000, gid=1000, home="/home/ada", hostname="server"),
)
THERE = "/home/ada/kit-workspaces/project-0123abcd"
DONE = Synced(
    remote_folder=THERE,
    sent_files=2,
    sent_bytes=25_000,
    kept_newer=(),
    put_aside=(),
    aside="",
    deleted=(),
    seconds=0.34,
)


@pytest.fixture
def transfers(monkeypatch):
    """Transfers that end as the test says, and what they were called with."""
    calls = []

    def end_as(**changes):
        def transfer(connection, folder, *names, progress, **options):
            calls.append((folder, *names, options))
            for name in ("train.py", "runs/new"):
                progress.item(name)
            progress.message("a word")
            if progress.status:
                progress.status("41%  2 MB")
            if "may_delete" in options and options["delete"]:
                options["may_delete"]([f"old{n}.py" for n in range(7)])
            return dataclasses.replace(DONE, **changes)

        monkeypatch.setattr(ssh, "connect", lambda target: CONNECTION)
        monkeypatch.setattr(sync, "push", transfer)
        monkeypatch.setattr(sync, "fetch", transfer)
        return calls

    return end_as


@pytest.mark.parametrize("command", ["sync", "fetch"])
def test_a_host_is_needed(kit, command):
    result = kit(command)
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines() == [
        f"error: kit {command} is for a folder on another machine, and none was named",
        f"hint: `kit {command} --host USER@SERVER`, or KIT_HOST",
    ]


def test_what_was_sent(kit, transfers, tmp_path):
    calls = transfers()
    result = kit("sync", "--host", "lab", "-C", str(tmp_path), "--remote-folder", "~/x")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == ["a word", f"sent 2 files (25 KB) to lab:{THERE} in 0.3 s"]
    folder, options = calls[0]
    assert folder == tmp_path
    assert (options["remote_folder"], options["delete"], options["force"]) == ("~/x", False, False)
    assert kit("-q", "--host", "lab", "sync").err == ""


def test_nothing_to_send(kit, transfers):
    transfers(sent_files=0)
    assert kit("--host", "lab", "sync").err.splitlines()[-1] == f"nothing new to send: lab:{THERE} has it all"
    assert kit("--host", "lab", "fetch").err.splitlines()[-1] == f"nothing new in lab:{THERE}"


def test_what_git_ignores_is_never_all(kit, transfers):
    calls = transfers(sent_files=0, is_all=False)
    assert kit("--host", "lab", "sync").err.splitlines()[-1] == (
        f"nothing new to send: lab:{THERE} has all that git does not ignore"
    )
    left = [LeftOut(path="my data/", files=12, size_bytes=20_000_000, is_whole=True)]
    left += [LeftOut(path=f"{n}.log", files=1, size_bytes=1000, is_whole=True) for n in range(5)]
    left[1] = LeftOut(path="runs/", files=1, size_bytes=2_000_000, is_whole=False)
    transfers(sent_files=0, is_all=False, left_out=tuple(left))
    assert kit("--host", "lab", "sync").err.splitlines()[-1] == (
        "left here, as git ignores it: my data/ (20 MB in 12 files), runs/ (2.0 MB and more), 1.log (1.0 KB), 2.log "
        "(1.0 KB), 3.log (1.0 KB), and 1 more (1.0 KB); `--include 'my data/'`, or a line in .kitinclude, sends it"
    )
    data = json.loads(kit("--host", "lab", "--json", "sync").out)
    assert data["left_out"][0] == {"path": "my data/", "files": 12, "size_bytes": 20_000_000, "is_whole": True}
    assert data["is_all"] is False
    assert calls


def test_what_is_asked_for(kit, transfers, tmp_path, monkeypatch):
    calls = transfers()
    (tmp_path / "kit.toml").write_text('include = ["data/", "*.csv"]\n')
    monkeypatch.chdir(tmp_path)
    assert kit("--host", "lab", "sync", "--include", "runs/1", "src", "a b").code == 0
    assert calls[0][1]["names"] == ("src", "a b")
    assert calls[0][1]["include"] == ("data/", "*.csv", "runs/1")
    (tmp_path / "kit.toml").write_text('include = ["../x"]\n')
    refused = kit("--host", "lab", "sync")
    assert refused.code == 2
    assert "must be paths in the folder" in refused.err


def test_what_was_not_sent(kit, transfers):
    odd = os.fsdecode(b"\xff\n")
    transfers(kept_newer=("a", "b", odd, "d", "e", "f"), put_aside=("x",), aside=f"{THERE}.replaced/1", deleted=("y",))
    assert kit("--host", "lab", "sync").err.splitlines()[1:] == [
        "deleted 1 file or folder there: y",
        f"sent 2 files (25 KB) to lab:{THERE} in 0.3 s",
        "kept 6 files that were changed there and newer: a, b, �\\n, d, e, and 1 more; `kit fetch` brings them here",
        f"changed there as well, and older: x; what was there is in lab:{THERE}.replaced/1",
    ]
    data = json.loads(kit("--host", "lab", "--json", "sync").out)
    assert data == {"host": "lab", **dataclasses.asdict(DONE), "left_out": []} | {
        "kept_newer": ["a", "b", "�\\n", "d", "e", "f"],
        "put_aside": ["x"],
        "aside": f"{THERE}.replaced/1",
        "deleted": ["y"],
    }


def test_what_was_fetched(kit, transfers):
    calls = transfers(kept_newer=("a",), put_aside=("x",), aside=".before-fetch-1", sent_files=1)
    assert kit("fetch", "--host", "lab", "runs/1", "notes.txt").err.splitlines()[1:] == [
        f"fetched 1 file (25 KB) from lab:{THERE} in 0.3 s",
        "kept 1 file that is newer here: a; `kit sync` sends them",
        "changed here as well, and older: x; what was here is in files whose names end in `.before-fetch-1`",
    ]
    assert calls[0][1] == ("runs/1", "notes.txt")


@pytest.mark.parametrize(("command", "verb"), [("sync", "would send"), ("fetch", "would fetch")])
def test_a_dry_run_prints_the_names(kit, transfers, command, verb):
    transfers()
    result = kit("--host", "lab", command, "--dry-run")
    assert result.out.splitlines() == ["train.py", "runs/new"]
    assert result.err.splitlines()[-1].startswith(verb)


def test_deleting_asks(kit, transfers, monkeypatch):
    transfers()
    asked = []
    monkeypatch.setattr(click, "confirm", lambda text, **options: asked.append((text, options)) or True)
    shown = kit("--host", "lab", "sync", "--delete").err.splitlines()
    assert shown[1:8] == ["on lab, and not here:", *(f"  old{n}.py" for n in range(5)), "  and 2 more"]
    assert asked == [("Delete 7 files and folders?", {"default": False, "abort": True, "err": True})]
    kit("--host", "lab", "--yes", "sync", "--delete")
    assert len(asked) == 1


def test_a_command_that_sends_first_says_it_in_the_same_words(transfers, capsys):
    transfers()
    engine = Engine()
    engine.connection = CONNECTION
    there = folder_on(engine, Path("/x/project"), "", CommandScreen(Options(asked_host="lab")))
    assert there == Path(THERE)
    assert capsys.readouterr().err.splitlines()[-1] == f"sent 2 files (25 KB) to lab:{THERE} in 0.3 s"


def test_how_far_it_is_where_no_terminal_shows_it(monkeypatch, capsys):
    monkeypatch.setattr(sending, "PLAIN_EVERY_S", 0.0)
    with sending.SyncDisplay(Options(), "sending project") as (progress, _):
        progress.status("41%  2 MB")
    assert capsys.readouterr().err == "sending project  41%  2 MB\n"
    with sending.SyncDisplay(Options(quiet=True), "sending project") as (progress, _):
        progress.message("a word")
        assert progress.status is None
    assert capsys.readouterr().err == ""
