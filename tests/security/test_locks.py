"""Locks that others hold: only the owner can hold one, nothing waits for ever, and it is said for whom."""

from __future__ import annotations

import contextlib
import getpass
import multiprocessing
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import files
from kit.errors import GpuUnavailableError, NotReadyError
from kit.private_engine import machine
from kit.run import lease

HOLD = (
    "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); time.sleep(99)"
)


@contextlib.contextmanager
def held(path: Path) -> Iterator[int]:
    """Another process that has the lock on a file; its PID."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield child.pid
        finally:
            child.kill()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_lock_file_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with files.locked(tmp_path / "deep/folder/lock"):
            assert stat.S_IMODE((tmp_path / "deep/folder/lock").stat().st_mode) == 0o600
            assert stat.S_IMODE((tmp_path / "deep/folder").stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_a_lock_file_that_others_may_open_is_closed_to_them(tmp_path: Path) -> None:
    """As earlier versions made them."""
    (tmp_path / "lock").touch(mode=0o644)
    (tmp_path / "lock").chmod(0o666)
    with files.locked(tmp_path / "lock"):
        assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


def test_who_holds_a_lock_for_too_long_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    said: list[str] = []
    with held(lock) as pid:
        begun = time.monotonic()
        with pytest.raises(NotReadyError) as caught, files.locked(lock, wait_s=2.3, say=said.append):
            pass
        assert 2 < time.monotonic() - begun < 10
    who = rf"python\S* \(PID {pid}, user {re.escape(getpass.getuser())}\)"
    assert re.fullmatch(rf"{who} has held {re.escape(str(lock))} for 2\.3 s", caught.value.message)
    assert len(said) == 1
    assert re.fullmatch(rf"waiting for {who}, which holds {re.escape(str(lock))}", said[0])


def test_a_holder_that_the_system_does_not_name_is_another_process(tmp_path: Path) -> None:
    assert files.holder(tmp_path / "not there") == "another process"
    (tmp_path / "lock").touch()
    assert files.holder(tmp_path / "lock") == "another process", "nobody has it any more"


def test_a_link_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"), files.locked(tmp_path / "lock"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


def test_the_lock_of_the_gpus_names_who_holds_it(tmp_path: Path) -> None:
    file = tmp_path / lease.LOCK_NAME
    file.touch()
    with (
        held(file) as pid,
        pytest.raises(GpuUnavailableError, match=rf"\(PID {pid}, user "),
        lease.locked(file, wait_s=0.1),
    ):
        pass


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_another_machines_lock_is_a_file_and_nothing_else(tmp_path: Path, kind: str) -> None:
    """The shell script that holds it behind SSH neither follows a link nor waits at a FIFO."""
    tmp_path.chmod(0o1777)
    file = tmp_path / lease.LOCK_NAME
    if kind == "link":
        (tmp_path / "other").touch()
        file.symlink_to(tmp_path / "other")
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        file.mkdir()
    script = f"set -- 5 {lease.LOCK_NAME} '{tmp_path}'\n{lease._REMOTE_LOCK}test $? = 0 || exit 1\necho held\n"
    done = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, timeout=5, check=False)
    assert done.returncode == 1
    assert "held" not in done.stdout
    assert lease.LOCK_NAME in done.stderr or kind == "folder"


def test_another_machines_lock_is_held(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    script = f"set -- 5 {lease.LOCK_NAME} '{tmp_path}'\n{lease._REMOTE_LOCK}"
    script += f"test $? = 0 && echo held\nflock -n '{tmp_path}/{lease.LOCK_NAME}' true || echo still\nexec 9<&-\n"
    script += f"flock -n '{tmp_path}/{lease.LOCK_NAME}' true && echo free\n"
    done = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, timeout=5, check=False)
    assert (done.returncode, done.stdout) == (0, "held\nstill\nfree\n"), done.stderr


def _enter_and_leave(folder: Path) -> None:
    machine.USERS, machine.LOCK = folder, folder / "lock"
    for _ in range(20):
        with files.locked(machine.LOCK, wait_s=20):
            assert machine.LOCK.exists()
            machine.LOCK.unlink()
            with contextlib.suppress(OSError):  # the next one has made it anew
                folder.rmdir()


def test_the_lock_of_all_engines_goes_with_its_folder_while_others_wait(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_enter_and_leave, args=(tmp_path / "kit-engines",)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0] * 4
