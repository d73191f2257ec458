"""The shared connection, as far as it needs no sshd; over a real one: tests/engine/ssh/test_host_ssh.py."""

import grp
import json
import os
import tempfile
from pathlib import Path

import pytest

from kit.errors import NetworkError, UnsupportedHostError
from kit.remote import ssh
from kit.remote.ssh import parse_account

MARK = "@@0123"
LINES = ("user\talice", "uid\t1000", "gid\t1001", "home\t/home/alice", "hostname\tlab1")


def printed(*lines, before=""):
    return before + "".join(f"{MARK}{line}\n" for line in (*LINES, *lines))


def test_an_account_is_read_between_what_a_login_prints():
    text = printed(
        "socket\t/var/run/docker.sock", "docker\tyes", "proxy-http_proxy\thttp://a:b@proxy:1", before="Hi\n@@\n"
    )
    account = parse_account(text, MARK)
    assert account == ssh.Account(
        user="alice",
        uid=1000,
        gid=1001,
        home="/home/alice",
        hostname="lab1",
        sockets=("/var/run/docker.sock",),
        has_docker=True,
        proxies={"http_proxy": "http://a:b@proxy:1"},
    )


def test_groups_are_read_with_their_names_where_they_have_some():
    lines = ("group\t1001", "group\t50", "group\tx", "group\t51", "group-name\t50:domain users", "group-name\t7:other")
    account = parse_account(printed(*lines), MARK)
    assert account is not None
    assert account.groups == ("1001:", "50:domain users", "51:")


def test_each_socket_once_in_their_order():
    account = parse_account(printed("socket\t/b", "socket\t/a", "denied\t/c", "socket\t/b", "podman\tyes"), MARK)
    assert account is not None
    assert (account.sockets, account.denied) == (("/b", "/a"), ("/c",))
    assert (account.has_docker, account.has_podman) == (False, True)


@pytest.mark.parametrize("missing", ["uid", "gid", "home"])
def test_half_an_account_is_none(missing):
    text = "".join(f"{MARK}{line}\n" for line in LINES if not line.startswith(missing))
    assert parse_account(text, MARK) is None
    assert parse_account(text + f"{MARK}{missing}\tx\n", MARK) is None
    assert parse_account("", MARK) is None


@pytest.fixture
def tmp_path():
    """A short one: the path of a socket has 107 characters at most, and pytest-xdist's are long."""
    with tempfile.TemporaryDirectory(prefix="kit-") as folder:
        yield Path(folder)


@pytest.fixture
def fake_ssh(tmp_path, monkeypatch):
    """An ssh that runs what it is given in a shell of this machine, and keeps no connection."""
    program = tmp_path / "ssh"
    program.write_text('#!/bin/sh\nfor word; do :; done\ncase "$word" in "sh "*) exec sh -c "$word" ;; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("KIT_SSH", str(program))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_a_connection_knows_who_we_are_there(fake_ssh):
    connection = ssh.connect("lab1")
    account = connection.account
    assert (account.uid, account.gid, account.home) == (os.getuid(), os.getgid(), os.environ["HOME"])
    assert {int(group.partition(":")[0]) for group in account.groups} == {os.getegid(), *os.getgroups()}
    assert account.groups[0].partition(":")[2] == grp.getgrgid(os.getegid()).gr_name
    assert ssh.connect("lab1").account == account
    assert connection.folder.stat().st_mode & 0o777 == 0o700
    kept = connection.folder / "account.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(kept.read_text())["uid"] == os.getuid()


def test_scripts_and_their_arguments_arrive_as_they_are(fake_ssh):
    connection = ssh.connect("lab1")
    odd = ["a b", "it's", '"$HOME"', "*", "", "-n", "a\nb"]
    script = 'for word; do printf "<%s>" "$word"; done'
    expected = "".join(f"<{word}>" for word in odd)
    assert connection.run(script, arguments=odd).stdout == expected
    assert connection.run(f"cat; {script}", arguments=odd, input=b"\xff!").stdout == f"\ufffd!{expected}"


def test_each_target_and_configuration_has_a_folder_of_its_own(fake_ssh, monkeypatch):
    one = ssh.connect("lab1").folder
    assert ssh.connect("lab1").folder == one
    assert ssh.connect("lab2").folder != one
    monkeypatch.setenv("KIT_SSH", os.environ["KIT_SSH"] + " -F other")
    assert ssh.connect("lab1").folder != one


def test_nothing_is_left_of_one_that_could_not_be_made(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_SSH", "false")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(NetworkError):
        ssh.connect("lab1")
    assert list((tmp_path / "kit").iterdir()) == []


def test_a_folder_that_others_may_look_into_is_not_used(fake_ssh, tmp_path):
    ssh.connect("lab1")
    (tmp_path / "kit").chmod(0o755)
    with pytest.raises(UnsupportedHostError, match="not a folder of yours alone"):
        ssh.connect("lab1")


def test_a_link_in_its_place_is_not_followed(fake_ssh, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "kit").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsupportedHostError):
        ssh.connect("lab1")


def test_the_socket_of_a_connection_has_a_short_enough_name(fake_ssh, tmp_path, monkeypatch):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setenv("TMPDIR", str(long))
    folder = ssh.connect("lab1").folder
    # ssh makes it as control.XXXXXXXXXXXXXXXX first.
    assert len(f"{folder}/control") + 17 <= 107


def test_what_lives_by_itself_asks_nothing_and_shares_nothing(monkeypatch):
    monkeypatch.delenv("KIT_SSH", raising=False)
    command = ssh.own_command("alice@lab1", "-N")
    assert command[0] == "ssh"
    assert command[-2:] == ["-N", "alice@lab1"]
    assert {"BatchMode=yes", "ControlMaster=no", "ControlPath=none"} <= set(command)


def test_every_connection_of_this_configuration_is_ended(fake_ssh, monkeypatch, tmp_path):
    one, two = ssh.connect("lab1").folder, ssh.connect("alice@lab2").folder
    before = os.environ["KIT_SSH"]
    monkeypatch.setenv("KIT_SSH", before + " -F other")
    other = ssh.connect("lab1").folder
    (tmp_path / "kit/foreign").mkdir()
    ssh.close_all()
    assert (one.is_dir(), two.is_dir(), other.is_dir()) == (True, True, False)
    monkeypatch.setenv("KIT_SSH", before)
    ssh.close_all()
    assert (one.is_dir(), two.is_dir()) == (False, False)
