"""Root on behalf of somebody: sudo's variables, the home of another, and a umask that hides or opens what is made."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import accounts, paths, private_engine
from kit.config.files import is_there
from kit.private_engine import daemon
from kit.run.containers import caller

KIT = str(Path(sys.executable).with_name("kit"))
NUMBERS = ("abc", "-1", "", " 7", "7 ", "1e3", "٣", "4294967295", "9" * 400, "0x10", "7\n")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="what root does needs root")


@pytest.fixture
def home_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that is not root's, under `sudo -E`; root's own is elsewhere."""
    theirs, roots = tmp_path / "theirs", tmp_path / "root"
    for folder in (theirs, theirs / "project", roots):
        folder.mkdir()
    for folder in (theirs, theirs / "project"):
        os.chown(folder, 4246, 4247)
    monkeypatch.setenv("HOME", str(theirs))
    monkeypatch.setenv("SUDO_UID", "4246")
    monkeypatch.setenv("SUDO_GID", "4247")
    monkeypatch.setattr(accounts, "home_of_root", lambda: str(roots))
    return theirs


@pytest.mark.parametrize("number", NUMBERS)
def test_variables_of_sudo_that_are_no_number_mean_nothing(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for environment in ({"SUDO_UID": number, "SUDO_GID": "6"}, {"SUDO_UID": "5", "SUDO_GID": number}):
        assert accounts.sudo_user(environment) is None
        assert caller(environment) == f"{os.getuid()}:{os.getgid()}"


def test_a_user_without_a_name_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert accounts.sudo_user({"SUDO_UID": "4294967294", "SUDO_GID": "65534"}) == (4294967294, 65534)
    assert accounts.user_name(4294967294) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert accounts.sudo_user({"SUDO_UID": "5", "SUDO_GID": "6"}) is None


@as_root
@pytest.mark.parametrize("number", [*NUMBERS[:5], "4294967294"])
def test_no_command_fails_over_the_variables_of_sudo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.setenv("SUDO_UID", number)
    monkeypatch.setenv("SUDO_GID", number)
    for words in (("config", "show"), ("compose", "tf-cpu", "--print"), ("doctor",), ("ps",)):
        done = subprocess.run([KIT, *words], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode != 70, done.stderr


@as_root
def test_nothing_of_roots_is_made_in_the_home_of_who_called_sudo(home_of_another: Path) -> None:
    assert paths.cache_dir() == home_of_another.with_name("root") / ".cache/kit"
    assert paths.state_dir() == home_of_another.with_name("root") / ".local/state/kit"
    paths.state_folder("ports")
    assert sorted(file.name for file in home_of_another.iterdir()) == ["project"]


@as_root
@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "XDG_STATE_HOME"])
def test_nor_where_their_variables_lead(home_of_another: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, str(home_of_another / "own/place"))
    found = {"XDG_CACHE_HOME": paths.cache_dir, "XDG_STATE_HOME": paths.state_dir}[variable]()
    assert found.is_relative_to(home_of_another.with_name("root"))
    monkeypatch.setenv(variable, str(home_of_another.parent / "of/root"))
    assert {"XDG_CACHE_HOME": paths.cache_dir, "XDG_STATE_HOME": paths.state_dir}[variable]() == (
        home_of_another.parent / "of/root/kit"
    )


@as_root
def test_a_file_in_the_folder_of_who_called_sudo_is_theirs(home_of_another: Path) -> None:
    paths.write_text(home_of_another / "project/compose.yaml", "text")
    found = (home_of_another / "project/compose.yaml").stat()
    assert (found.st_uid, found.st_gid) == (4246, 4247)
    paths.write_text(home_of_another.parent / "file", "text")
    assert (home_of_another.parent / "file").stat().st_uid == 0


@as_root
def test_a_home_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    monkeypatch.setattr(accounts, "home_of_root", lambda: str(tmp_path / "root"))
    paths.state_folder("ports")
    paths.cache_folder("base")
    assert not is_there(tmp_path / "nonexistent")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_kits_own_folders_have_their_modes_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        (tmp_path / variable / "kit").mkdir(parents=True)
        (tmp_path / variable / "kit").chmod(0o777)  # as an earlier kit may have made it
    before = os.umask(umask)
    try:
        folders = (paths.cache_folder("build-context"), paths.state_folder("ports"))
    finally:
        os.umask(before)
    assert [stat.S_IMODE(each.stat().st_mode) for folder in folders for each in (folder.parent, folder)] == [
        *(0o755, 0o755),
        *(0o700, 0o700),
    ]


@pytest.fixture
def engine_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user can get to."""
    with tempfile.TemporaryDirectory(prefix="kit-engine-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("KIT_ENGINE_DIR", f"{folder}/e")
        monkeypatch.delenv("KIT_ENGINE_PROGRAMS", raising=False)
        yield Path(folder) / "e"
        daemon.down(purge=True)


@as_root
@pytest.mark.engine
@pytest.mark.alone
@pytest.mark.parametrize("umask", ["000", "077"])
def test_the_engine_is_usable_and_closed_whatever_the_umask(
    engine_folder: Path, monkeypatch: pytest.MonkeyPatch, umask: str
) -> None:
    """Its programs are downloaded anew: an account that has no name here calls `sudo kit engine up`, and uses it."""
    monkeypatch.setenv("SUDO_UID", "4246")
    monkeypatch.setenv("SUDO_GID", "4246")
    subprocess.run(["sh", "-c", f"umask {umask}; exec {KIT} engine up"], check=True)
    docker = [str(private_engine.docker_program()), "--host", f"unix://{private_engine.socket_path()}", "version"]
    as_them = ["setpriv", "--reuid=4246", "--regid=4246", "--clear-groups", *docker, "--format={{.Server.Version}}"]
    done = subprocess.run(as_them, capture_output=True, text=True, check=False, env={"HOME": "/", "PATH": "/usr/bin"})
    assert done.stdout.strip(), done.stderr
    here = private_engine.engine_paths()
    found = [engine_folder, *engine_folder.rglob("*"), here.run, *here.run.rglob("*")]
    open_ones = [file for file in found if not file.is_symlink() and file.stat().st_mode & 0o022]
    assert all(file.is_socket() for file in open_ones), open_ones
    assert stat.S_IMODE(here.lock_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(here.daemon_file.stat().st_mode) == 0o600, "a mirror's password may be in it"


@pytest.mark.parametrize("words", [["--mount", "{}:/data"], ["-C", "{}"]])
def test_what_one_may_not_enter_is_said_and_not_mounted(words, tmp_path, kit, fake_docker, monkeypatch):
    def stat(path, *_, **__):
        if str(path).endswith("inner"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *_, **__)

    real = os.stat
    monkeypatch.setattr("os.stat", stat)
    given = [word.format(tmp_path / "secret/inner") for word in words]
    result = kit("run", *given, "tf-cpu", "true")
    assert result.code == 22
    assert "you may not enter the folder that it is in" in result.err
    assert fake_docker.called("run") == []
