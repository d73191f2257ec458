# ruff: noqa: F401, F811 (fixtures are imported, and then arguments)
"""What comes from a server, or goes to one, is written into its folder and nowhere else, and gives nobody rights."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kit.errors import BadInputError, KitError
from kit.remote import ssh, sync
from kit.remote.sync import confined
from kit.remote.sync.rsync import PARTIAL
from tests.engine.ssh.test_sync import (
    at_home,
    forced,
    home,
    home_here,
    machine,
    project,
    pytestmark,
    server,
    told,
    write,
)

ADMINISTRATOR = pytest.mark.skipif(os.geteuid() != 0, reason="needs the rights of an administrator")


@pytest.fixture
def keys(tmp_path):
    """A folder beside everything, as ~/.ssh is; no test may change it."""
    folder = tmp_path / "keys"
    write(folder, {"authorized_keys": "mine", "deep/config": "mine"})
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}
    yield folder
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")} == before


@pytest.mark.parametrize("names", [[], ["results/authorized_keys"], ["results"], ["results/deep"]])
def test_a_server_sends_a_link_first_and_a_folder_of_that_name_second(machine, project, keys, told, names):
    lines, progress = told
    there = Path(sync.push(machine, project).remote_folder)
    (there / "results").symlink_to(keys)
    sync.fetch(machine, project, progress=progress)
    assert lines == [f"1 symbolic link from machine leads out of the folder: results -> {keys}"]
    (there / "results").unlink()
    write(there, {"results/authorized_keys": "theirs", "results/deep/config": "theirs", "results/new": "theirs"}, age=5)
    done = sync.fetch(machine, project, names, progress=progress)
    assert not (project / "results").is_symlink()
    assert done.put_aside == ("results",)
    assert (project / f"results{done.aside}").readlink() == keys
    assert lines[1:] == [
        "a link here, which kit does not follow, put aside for what came in its place: results; "
        "what it leads to is as it was"
    ]
    # And again, now that a folder is there.
    write(there, {"results/authorized_keys": "theirs again"}, age=1)
    assert sync.fetch(machine, project, names).put_aside == ()


def test_a_job_puts_a_link_where_a_folder_was(machine, project, keys, told):
    lines, progress = told
    write(project, {"data/authorized_keys": "new", "data/deep/config": "new", "data/deep/more": "new"})
    there = Path(sync.push(machine, project).remote_folder)
    (there / "data").rename(there / "old")
    (there / "data").symlink_to(keys)
    write(project, {"data/authorized_keys": "newer", "data/deep/config": "newer", "data/deep/other": "new"}, age=5)
    done = sync.push(machine, project, progress=progress)
    assert (there / "data/deep/other").read_text() == "new"
    assert done.put_aside == ("data",)
    assert (Path(done.aside) / "data").readlink() == keys
    assert lines == [
        "a link on machine, which kit does not follow, put aside for what came in its place: data; "
        "what it leads to is as it was"
    ]
    assert sync.push(machine, project).put_aside == ()


def test_a_link_that_was_another_one_here_is_no_surprise(machine, project, told):
    lines, progress = told
    (project / "newest").symlink_to("src")
    sync.push(machine, project)
    (project / "newest").unlink()
    (project / "newest").symlink_to("train.py")
    assert sync.push(machine, project, progress=progress).put_aside == ()
    assert lines == []


@pytest.mark.parametrize("direction", ["push", "fetch"])
@pytest.mark.parametrize("deep", ["", "src/"])
def test_a_link_for_half_sent_files(machine, project, keys, direction, deep):
    """rsync deletes a file of the name that it has received from there."""
    there = Path(sync.push(machine, project).remote_folder)
    here_or_there = there if direction == "push" else project
    (here_or_there / deep / PARTIAL).symlink_to(keys)
    write(project if direction == "push" else there, {f"{deep}authorized_keys": "new"}, age=5)
    if direction == "fetch" and not deep:
        with pytest.raises(BadInputError, match=PARTIAL):
            sync.fetch(machine, project)
        return
    getattr(sync, direction)(machine, project)
    assert (here_or_there / deep / "authorized_keys").read_text() == "new"


def test_a_link_for_half_sent_files_comes_with_the_files(machine, project, keys):
    there = Path(sync.push(machine, project).remote_folder)
    (there / PARTIAL).symlink_to(keys)
    write(there, {"authorized_keys": "theirs"}, age=5)
    sync.fetch(machine, project)
    assert not os.path.lexists(project / PARTIAL)
    sync.fetch(machine, project, ["authorized_keys"])


def test_deleting_there_stays_in_the_folder(machine, project, keys):
    write(project, {"data/authorized_keys": "x", "data/deep/config": "x"})
    there = Path(sync.push(machine, project).remote_folder)
    for path in ("data/deep/config", "data/authorized_keys"):
        (project / path).unlink()
    (project / "data/deep").rmdir()
    (there / "data").rename(there / "old")
    (there / "data").symlink_to(keys)
    sync.push(machine, project, delete=True)
    (there / "more").symlink_to(keys)
    assert "more" in sync.push(machine, project, delete=True).deleted


def test_a_link_that_leads_out_by_way_of_another(machine, project, told):
    lines, progress = told
    (project / "a/b").mkdir(parents=True)
    (project / "a/b/up").symlink_to("../..")
    (project / "inside").symlink_to("a/b/up/train.py")
    (project / "out").symlink_to("a/b/up/../x")
    sync.push(machine, project, progress=progress)
    assert lines == ["1 symbolic link to machine leads out of the folder: out -> a/b/up/../x"]


@pytest.mark.parametrize("mode", [0o4777, 0o2775, 0o1777, 0o6755, 0o666, 0o602])
def test_no_rights_for_others(machine, project, mode):
    write(project, {"sent": "x", "tree/x": "x"})
    (project / "sent").chmod(mode)
    (project / "tree").chmod(mode | 0o700)
    there = Path(sync.push(machine, project).remote_folder)
    write(there, {"made": "x", "made there/x": "x"}, age=5)
    (there / "made").chmod(mode)
    (there / "made there").chmod(mode | 0o700)
    (there / "train.py").chmod(mode)
    write(there, {"train.py": "changed"}, age=5)
    sync.fetch(machine, project)
    found = [there / "sent", there / "tree", project / "made", project / "made there", project / "train.py"]
    for path in found:
        assert path.stat().st_mode & 0o7002 == 0, path
    assert (project / "made").stat().st_mode & 0o555 == mode & 0o555


@ADMINISTRATOR
def test_the_owner_does_not_come_along(machine, project):
    there = Path(sync.push(machine, project).remote_folder)
    write(there, {"made": "x"}, age=5)
    os.chown(there / "made", 4246, 4246)
    sync.fetch(machine, project)
    assert ((project / "made").stat().st_uid, (project / "made").stat().st_gid) == (os.geteuid(), os.getegid())


HOSTILE = (
    "@>f+++++++++ 9 2026/11/21-17:33:54 ../keys/authorized_keys//",
    "@<f+++++++++ 4 2026/11/21-17:33:54 ../../keys/authorized_keys//",
    "@>f+++++++++ 4 2026/11/21-17:33:54 /etc/passwd//",
    "@cL+++++++++ 4 2026/11/21-17:33:54 ../l// -> /x",
    "../keys/authorized_keys is newer",
    "-rw------- 4 2026/11/21 17:33:54 ../keys/authorized_keys",
    "@@kit was 1 2 ../keys/authorized_keys",
    "@@kit was x y z",
    f"@@kit was {'9' * 5000} {'9' * 5000} x",
    f"@@kit clock {'9' * 5000}",
    "@@kit is ../../../x",
    "@@kit link ../keys",
    "@@kit",
    "\\033[2J",
    "@>f+++++++++ 4 \\011\\377 \\011x\\377//",
)


@pytest.mark.parametrize("direction", ["push", "fetch"])
def test_lines_that_a_server_makes_up(machine, project, keys, forced, tmp_path, direction, server, monkeypatch):
    write(Path(sync.push(machine, project).remote_folder), {"new": "n"}, age=5)
    write(project, {"train.py": "new here"}, age=5)
    printed = tmp_path / "printed"
    printed.write_bytes(
        b"".join(line.encode().replace(b"\\033", b"\x1b").replace(b"\\377", b"\xff") + b"\n" for line in HOSTILE)
    )
    forced(f"cat '{printed}' >&2; eval \\\"$SSH_ORIGINAL_COMMAND\\\"")
    target = "hostile"
    monkeypatch.setenv("KIT_SSH", server.ssh(hosts="machine hostile"))
    connection = ssh.connect(target)
    try:
        for _ in range(2):
            getattr(sync, direction)(at_home(connection, machine.account.home), project)
    finally:
        ssh.close(target)
    state = Path.home() / ".local/state/kit/sync"
    recorded = "".join(f.read_text() for f in state.iterdir() if f.is_file())
    assert ".." not in recorded
    assert "/etc/passwd" not in recorded


def test_what_is_kept_about_a_folder_is_for_nobody_else(machine, project):
    before = os.umask(0)
    try:
        sync.push(machine, project)
    finally:
        os.umask(before)
    state = Path.home() / ".local/state/kit"
    for path in (state, state / "sync"):
        assert path.stat().st_mode & 0o777 == 0o700, path
    for path in (state / "sync").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path


HOSTILE_SENDER = """
import os, sys
data = b""
while not data.endswith(b"\\0\\0"):
    data += os.read(0, 1)
options = [word.decode() for word in data.split(b"\\0") if word.startswith(b"--")]
flags = next(word for word in sys.argv[1:] if word[0] == "-" != word[1]).replace("-s", "-", 1)
name = "{folder}/./results/authorized_keys"
command = ["rsync", "--server", "--sender", flags, *options, "-R", "--no-implied-dirs", ".", name]
os.execvp("rsync", command)
"""


@pytest.mark.parametrize("names", [[], ["results/authorized_keys"]])
def test_a_server_sends_a_file_without_its_folder(machine, project, keys, tmp_path, forced, server, monkeypatch, names):
    """rsync would write through the link that came before: it looks at folders that it is sent alone."""
    there = Path(sync.push(machine, project).remote_folder)
    (there / "results").symlink_to(keys)
    sync.fetch(machine, project)
    assert (project / "results").is_symlink()
    write(tmp_path, {"evil/results/authorized_keys": "theirs, and longer"}, age=5)
    (tmp_path / "programs").mkdir()
    program = tmp_path / "programs/rsync"
    text = HOSTILE_SENDER.replace("{folder}", str(tmp_path / "evil")).replace(
        '"rsync", command', f'"{shutil.which("rsync")}", command'
    )
    program.write_text(f"#!{sys.executable}\n{text}")
    program.chmod(0o755)
    forced(f"PATH='{program.parent}':$PATH eval \\\"$SSH_ORIGINAL_COMMAND\\\"")
    monkeypatch.setenv("KIT_SSH", server.ssh(hosts="machine hostile"))
    try:
        with pytest.raises(KitError) as caught:
            sync.fetch(at_home(ssh.connect("hostile"), machine.account.home), project, names)
    finally:
        ssh.close("hostile")
    assert "authorized_keys" in "".join(caught.value.details)


def test_a_job_exchanges_a_folder_for_a_link_while_files_come(machine, project, keys, tmp_path):
    write(project, {f"data/deep/{number}": "x" for number in range(100)} | {"data/authorized_keys": "x"})
    there = Path(sync.push(machine, project).remote_folder)
    is_over = threading.Event()

    def exchange():
        while not is_over.is_set():
            with contextlib.suppress(OSError):
                (there / "data").rename(there / "away")
                (there / "data").symlink_to(keys)
                time.sleep(0.002)
                (there / "data").unlink()
                (there / "away").rename(there / "data")
                time.sleep(0.002)

    job = threading.Thread(target=exchange)
    job.start()
    try:
        for age in range(500, 400, -10):
            write(project, {f"data/deep/{number}": f"x{age}" for number in range(100)}, age=age)
            write(project, {"data/authorized_keys": f"x{age}", "data/deep/config": f"x{age}"}, age=age)
            with contextlib.suppress(KitError):
                sync.push(machine, project)
            with contextlib.suppress(OSError):
                shutil.rmtree(there / "away") if (there / "away").exists() and (there / "data").is_dir() else None
    finally:
        is_over.set()
        job.join()
    assert sorted(path.name for path in keys.rglob("*")) == ["authorized_keys", "config", "deep"]


def test_where_the_kernel_does_not_hold_it(tmp_path):
    """Old kernels and other systems: the program runs as it is."""
    script = "import ctypes\nctypes.CDLL = lambda *_, **__: type('', (), {'syscall': lambda *_: -1})\n"
    text = Path(confined.__file__).read_text()
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            script + text.partition('"""\n\n')[2],
            str(tmp_path),
            "--",
            "touch",
            f"{tmp_path}/../made",
        ],
        check=False,
    )
    assert done.returncode == 0
    (tmp_path / "../made").resolve().unlink()


def test_a_program_that_is_confined(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside").write_text("x")
    script = (
        "echo y > in; mkdir d; mv in d/in; echo > /dev/null; cat ../outside;"
        "for c in 'echo y > ../outside' 'echo y > ../new' 'mkdir ../n' 'ln -s x ../l' 'mv d/in ../' 'rm ../outside' "
        "'true >../outside'; do "
        'eval "$c" 2>/dev/null && echo "did $c"; done; exit 7'
    )
    command = [sys.executable, "-I", confined.__file__, str(inside), "--", "sh", "-c", script]
    done = subprocess.run(command, cwd=inside, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (7, "x", "")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "inside",
        "inside/d",
        "inside/d/in",
        "outside",
    ]
