"""What kit keeps for itself is its user's alone, whatever the umask is and whatever it was when it was made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kit import paths, ports
from tests.cli.test_run import docker as built
from tests.conftest import Result
from tests.fake_docker import FakeDocker

__all__ = ["built"]


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> object:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mode & 0o777 for p in [folder, *folder.rglob("*")]}


def test_state_of_a_run(kit: Callable[..., Result], built: FakeDocker, umask: int, tmp_path: Path) -> None:
    built.reply("run", serve=200)
    if umask == 0o777:
        pytest.skip("the fake docker writes files of its own")
    assert kit("run", "tf-cpu", "jupyter").code == 0
    state = modes(paths.state_dir())
    assert {"ports", "passwd"} <= set(state)
    assert not {name: oct(mode) for name, mode in state.items() if mode & 0o077}
    for folder in (paths.state_dir().parent, paths.state_dir().parent.parent):
        assert not folder.stat().st_mode & 0o022, f"{folder} is on the way"
    written = {name for name, mode in modes(paths.cache_dir()).items() if mode & 0o022}
    assert not written, "nobody else may change what is in the cache"


def test_folders_of_before_are_tightened(kit: Callable[..., Result], built: FakeDocker) -> None:
    for name in ("", "passwd", "ports"):
        (paths.state_dir() / name).mkdir(parents=True, exist_ok=True)
        (paths.state_dir() / name).chmod(0o777)
    built.reply("run", serve=200)
    assert kit("run", "tf-cpu", "jupyter").code == 0
    assert not {name: oct(mode) for name, mode in modes(paths.state_dir()).items() if mode & 0o077}


def test_a_lock_and_a_folder(umask: int) -> None:
    _, handle = ports.reserve(23000, exact=False)
    os.close(handle)
    assert {mode & 0o077 for mode in modes(paths.state_dir()).values()} == {0}


def test_where_the_state_cannot_be_kept_another_users_folder_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a home to write to, state is beside the temporary files: in a folder that nobody else can have made."""

    def fail(name: str) -> Path:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    own = tmp_path / f"kit-{os.geteuid()}"
    assert paths.usable_folder(fail, "x") == own / "x"
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)
    with pytest.raises(PermissionError):
        paths.usable_folder(fail, "x")
    (own / "x").rmdir()
    own.rmdir()
    own.symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        paths.usable_folder(fail, "x")
