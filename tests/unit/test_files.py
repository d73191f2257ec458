"""Locks between processes, on files that may be removed while somebody waits for them."""

import multiprocessing
import os
import shutil
import threading
import time
from pathlib import Path

import kit
from kit import files


def _count_up(file, lock):
    for _ in range(20):
        with files.locked(lock):
            value = int(file.read_text())
            time.sleep(0.0005)
            file.write_text(str(value + 1))


def test_locked_keeps_processes_apart(tmp_path):
    file, lock = tmp_path / "number", tmp_path / "deep/lock"
    file.write_text("0")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_count_up, args=(file, lock)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert file.read_text() == "80"


def test_a_lock_that_is_held_is_waited_for_as_long_as_one_says(tmp_path):
    handle = files.acquire(tmp_path / "lock", wait_s=0)
    waited = []
    assert files.acquire(tmp_path / "lock", wait_s=0, on_wait=waited.append) is None
    assert waited == []
    assert files.acquire(tmp_path / "lock", wait_s=0.2, on_wait=waited.append) is None
    assert waited == sorted(waited)
    assert 0.1 < waited[-1] < 0.2
    os.close(handle)
    again = files.acquire(tmp_path / "lock", wait_s=0)
    assert again is not None
    os.close(again)


def test_a_lock_that_was_removed_with_its_folder_is_nobodys(tmp_path):
    """Who waited for it gets a new one, that those who come later see."""
    lock, order = tmp_path / "folder/lock", []

    def wait():
        with files.locked(lock):
            order.append(lock.exists())
            assert files.acquire(lock, wait_s=0) is None

    with files.locked(lock):
        assert lock.parent.stat().st_mode & 0o777 == 0o700
        other = threading.Thread(target=wait)
        other.start()
        time.sleep(0.1)
        shutil.rmtree(lock.parent)
        order.append("removed")
    other.join(5)
    assert order == ["removed", True]


def test_no_other_module_locks():
    package = Path(kit.__file__).parent
    users = [file.name for file in package.rglob("*.py") if "flock(" in file.read_text(encoding="utf-8")]
    assert users == ["files.py"]
