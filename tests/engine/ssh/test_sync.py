"""A folder sent to a host and results brought home: over a real sshd, with the real rsync and git."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kit.errors import BadInputError, DiskFullError, KitError, MissingProgramError, NetworkError
from kit.remote import ssh, sync
from tests.engine.sshd import USER, Server, needs_sshd

pytestmark = [needs_sshd, pytest.mark.skipif(not shutil.which("rsync"), reason="needs rsync: install rsync")]
ODD_NAMES = (
    " spaces  inside ",
    "new\nline",
    "tab\t",
    "quote's",
    'double"quote',
    "ünïcödé-项目",
    "-dash",
    "--delete",
    "star*",
    "question?",
    "[brackets]",
    "back\\slash",
    "\\#012",
    "$HOME `id`",
    "colon:name",
    "#hash",
    "!bang",
    "~tilde",
    "a -> b",
    "x is newer",
    os.fsdecode(b"latin-\xe9"),
)


# A program that sends its first argument, with its second as the home directory there.
PUSH = """
import dataclasses, sys
from pathlib import Path
from kit.remote import ssh
from kit.remote import sync
from kit.errors import KitError
found = ssh.connect("machine")
found = dataclasses.replace(found, account=dataclasses.replace(found.account, home=sys.argv[2]))
sync.push(found, Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("sshd"))
    yield running
    running.stop()


@pytest.fixture
def home(tmp_path):
    """The home directory over there."""
    folder = tmp_path / "home there"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def home_here(tmp_path_factory):
    """The same for all tests, so that they share a connection as commands do."""
    return tmp_path_factory.mktemp("me")


@pytest.fixture
def machine(server, home, home_here, monkeypatch):
    monkeypatch.setenv("KIT_SSH", server.ssh())
    monkeypatch.setenv("HOME", str(home_here))
    return at_home(ssh.connect("machine"), home)


def at_home(connection, home):
    return dataclasses.replace(connection, account=dataclasses.replace(connection.account, home=str(home)))


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    write(folder, {".gitignore": "runs/\n*.log\n", "train.py": "train", "src/model.py": "model", "a.log": "noise"})
    write(folder, {"runs/1/old.pt": "weights"})
    git(folder, "init", "-q")
    return folder


@pytest.fixture
def told():
    """Lines that a sync said, and the reporter that collects them."""
    lines = []
    return lines, sync.Progress(message=lines.append)


def write(folder, files, *, age=1000):
    """Write files that were last changed so many seconds ago."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (time.time() - age, time.time() - age))


def git(folder, *args):
    subprocess.run(["git", *args], cwd=folder, check=True, timeout=60, capture_output=True)


def files(folder):
    return {
        os.fsdecode(os.path.relpath(p, folder)) for p in Path(folder).rglob("*") if not p.is_dir() or p.is_symlink()
    }


def test_first_everything_then_what_changed(machine, project, home):
    (project / "train.py").chmod(0o755)
    (project / "empty" / "inside").mkdir(parents=True)
    first = sync.push(machine, project)
    there = Path(first.remote_folder)
    assert there.is_relative_to(home)
    assert files(there) == {".gitignore", "train.py", "src/model.py"}
    assert (there / "empty" / "inside").is_dir()
    assert (there / "train.py").stat().st_mode & 0o777 == 0o755
    assert (there / "train.py").stat().st_mtime == (project / "train.py").stat().st_mtime
    assert (first.sent_files, first.sent_bytes) == (3, len("runs/\n*.log\n" + "train" + "model"))
    again = sync.push(machine, project)
    assert (again.remote_folder, again.sent_files, again.sent_bytes) == (first.remote_folder, 0, 0)
    write(project, {"src/model.py": "better"}, age=10)
    third = sync.push(machine, project)
    assert (third.sent_files, third.sent_bytes) == (1, 6)
    assert (there / "src/model.py").read_text() == "better"
    assert (third.kept_newer, third.put_aside, third.aside, third.deleted) == ((), (), "", ())


def test_the_place_there_is_private_and_says_where_it_came_from(machine, project, home, tmp_path):
    done = sync.push(machine, project)
    there = Path(done.remote_folder)
    assert there.parent == home / "kit-workspaces"
    assert there.parent.stat().st_mode & 0o777 == 0o700
    assert there.name.startswith("project-")
    assert sync.remote_folder(machine, project) == done.remote_folder
    assert there.with_name(f"{there.name}.from").read_text().splitlines()[0].endswith(f":{project}")
    write(tmp_path, {"other/project/x": ""})
    assert sync.remote_folder(machine, tmp_path / "other" / "project") != done.remote_folder


@pytest.mark.parametrize("given", ["~/mine", "{home}/deep/er [x] * 'q'"])
def test_another_place_there(machine, project, home, given):
    done = sync.push(machine, project, remote_folder=given.format(home=home))
    assert done.remote_folder == given.format(home=home).replace("~", str(home))
    assert (Path(done.remote_folder) / "train.py").read_text() == "train"
    write(Path(done.remote_folder), {"runs/new.pt": "new"}, age=5)
    assert sync.fetch(machine, project, remote_folder=given.format(home=home)).sent_files == 1


@pytest.mark.parametrize("given", ["~", "~/", "/", "{home}/..", "{home}/x/..", "relative", "~other/x", "/new\nline"])
def test_a_place_there_that_cannot_be_meant(machine, project, home, given):
    with pytest.raises(BadInputError):
        sync.push(machine, project, remote_folder=given.format(home=home))


def test_odd_names_go_there_and_come_back(machine, tmp_path):
    folder = tmp_path / "odd [name] 项目 'x'"
    for name in ODD_NAMES:
        write(folder, {name: "x", f"in {name}/{name}": "y"})
    write(folder, {".gitignore": "ignored*\n"} | {f"ignored {name}": "z" for name in ODD_NAMES})
    done = sync.push(machine, folder)
    expected = {".gitignore", *ODD_NAMES, *(f"in {name}/{name}" for name in ODD_NAMES)}
    assert files(done.remote_folder) == expected
    there = Path(done.remote_folder)
    for name in ODD_NAMES:
        write(there, {f"in {name}/{name}": "changed there"}, age=5)
    kept = sync.push(machine, folder)
    assert set(kept.kept_newer) == {f"in {name}/{name}" for name in ODD_NAMES}
    named = [f"in {name}/{name}" for name in ODD_NAMES[:5]]
    assert sync.fetch(machine, folder, named).sent_files == 5
    assert sync.fetch(machine, folder).sent_files == len(ODD_NAMES) - 5
    assert {(folder / f"in {name}" / name).read_text() for name in ODD_NAMES} == {"changed there"}
    shutil.rmtree(folder)
    write(folder, {".gitignore": "ignored*\n"})
    gone = sync.push(machine, folder, delete=True)
    assert len(gone.deleted) == 3 * len(ODD_NAMES)
    assert files(there) == {".gitignore"}


@pytest.fixture
def data(project):
    """A project with data that git ignores."""
    write(project, {".gitignore": "data/\n*.log\n.venv/\n__pycache__/\nout/x\n"})
    write(project, {"data/a.csv": "a" * 1000, "data/big/b.bin": "b" * 5000, "data/s[m]all/c.csv": "c"})
    write(project, {".venv/lib/x.py": "x", "__pycache__/y.pyc": "y", "src/__pycache__/z.pyc": "z", "out/x": "1"})
    return project


def left(done):
    return [(one.path, one.files, one.size_bytes) for one in done.left_out]


def test_what_git_ignores_is_told_with_its_size(machine, data):
    first = sync.push(machine, data)
    assert left(first) == [("data/", 3, 6001), ("a.log", 1, 5), ("out/", 1, 1)]
    assert not first.is_all
    assert files(first.remote_folder) >= {"train.py", "runs/1/old.pt"}
    assert not {name for name in files(first.remote_folder) if name.startswith(("data", ".venv", "out"))}
    (data / ".gitignore").write_text(".venv/\n")
    second = sync.push(machine, data)
    assert (left(second), second.is_all) == ([], False), "nobody would send an environment of packages"
    shutil.rmtree(data / ".venv")
    assert sync.push(machine, data).is_all


@pytest.mark.parametrize("where", ["option", "file"])
@pytest.mark.parametrize(
    ("entries", "sent"),
    [
        (["data/"], {"data/a.csv", "data/big/b.bin", "data/s[m]all/c.csv"}),
        (["data"], {"data/a.csv", "data/big/b.bin", "data/s[m]all/c.csv"}),
        (["data/big"], {"data/big/b.bin"}),
        (["data/s[m]all/"], {"data/s[m]all/c.csv"}),
        (["data/*.csv", "*.log"], {"data/a.csv", "a.log"}),
        (["*.csv", "./out/x"], {"data/a.csv", "data/s[m]all/c.csv", "out/x"}),
    ],
)
def test_what_git_ignores_goes_when_it_is_named(machine, data, entries, sent, where):
    if where == "file":
        (data / ".kitinclude").write_text("# what the cluster needs\n\n" + "".join(f"{line}\n" for line in entries))
    done = sync.push(machine, data, include=entries if where == "option" else ())
    there = files(done.remote_folder)
    assert there - {".kitinclude"} == {".gitignore", "train.py", "src/model.py", "runs/1/old.pt"} | sent
    assert sync.push(machine, data, include=entries if where == "option" else ()).sent_files == 0
    assert not {path for path, _, _ in left(done)} & sent
    if "data/big" in entries:
        assert left(done)[0] == ("data/", 2, 1001), "the rest of it stays"


def test_many_ignored_files_and_one_that_goes(machine, data):
    write(data, {f"d{n}/{name}.log": "x" for n in range(40) for name in "ab"})
    done = sync.push(machine, data, include=["d7/"])
    assert {name for name in files(done.remote_folder) if name.endswith(".log")} == {"d7/a.log", "d7/b.log"}


def test_a_part_of_the_folder(machine, data):
    done = sync.push(machine, data, names=["data/a.csv", "src/"])
    assert files(done.remote_folder) == {"data/a.csv", "src/model.py"}
    assert (done.left_out, done.is_all) == ((), True)
    (data / ".kitinclude").write_text("data/\n")
    write(data, {"src/new.py": "new"})
    assert files(sync.push(machine, data, names=["src"]).remote_folder) == {"data/a.csv", "src/model.py", "src/new.py"}
    assert sync.push(machine, data, names=["."], dry_run=True).sent_files == 6
    assert files(sync.push(machine, data, names=["*.log"]).remote_folder) >= {"a.log"}
    with pytest.raises(BadInputError, match="whole folder"):
        sync.push(machine, data, names=["src"], delete=True)
    for wrong in ("none", "../x", "/etc/passwd", ".git/config", ""):
        with pytest.raises(BadInputError):
            sync.push(machine, data, names=[wrong])
    for wrong in ("../x", "/etc", ".git"):
        with pytest.raises(BadInputError):
            sync.push(machine, data, include=[wrong])


def test_what_is_to_go_and_is_not_here_is_told(machine, data, told):
    lines, progress = told
    sync.push(machine, data, include=["dta/"], progress=progress)
    assert [line for line in lines if "dta/" in line] == ["to be sent although git ignores it, and not here: dta/"]
    (data / ".kitinclude").unlink(missing_ok=True)
    os.mkfifo(data / ".kitinclude")
    with pytest.raises(BadInputError, match="It is a pipe"):
        sync.push(machine, data)


def test_outputs_over_there_are_left_alone(machine, project):
    there = Path(sync.push(machine, project).remote_folder)
    write(there, {"runs/1/old.pt": "newer", "b.log": "there", "made/there.txt": "x"}, age=2000)
    write(project, {"train.py": "changed"}, age=10)
    sync.push(machine, project)
    assert (there / "runs/1/old.pt").read_text() == "newer"
    assert {"b.log", "made/there.txt"} < files(there)
    assert not (there / "a.log").exists()


def test_what_was_changed_there_stays_and_comes_home(machine, project):
    there = Path(sync.push(machine, project).remote_folder)
    write(there, {"train.py": "edited there"}, age=5)
    done = sync.push(machine, project)
    assert (done.sent_files, done.kept_newer) == (0, ("train.py",))
    # Still after a later sync, which must not take the edit for its own.
    write(project, {"src/model.py": "more"}, age=3)
    done = sync.push(machine, project)
    assert (done.sent_files, done.kept_newer, done.put_aside) == (1, ("train.py",), ())
    assert (there / "train.py").read_text() == "edited there"
    back = sync.fetch(machine, project)
    assert (back.sent_files, back.put_aside) == (1, ())
    assert (project / "train.py").read_text() == "edited there"
    assert files(project) & {name for name in files(project) if "before-fetch" in name} == set()
    assert sync.push(machine, project).kept_newer == ()


def test_an_older_file_that_took_the_place_of_what_was_sent_is_sent(machine, project):
    write(project, {"other.py": "older, and now the one to train"}, age=5000)
    there = Path(sync.push(machine, project).remote_folder)
    (project / "other.py").rename(project / "train.py")
    done = sync.push(machine, project)
    assert (done.sent_files, done.kept_newer) == (1, ())
    assert (there / "train.py").read_text() == "older, and now the one to train"
    assert sync.push(machine, project).sent_files == 0


def test_changed_on_both_sides(machine, project):
    there = Path(sync.push(machine, project).remote_folder)
    write(there, {"train.py": "theirs", "src/model.py": "theirs"}, age=20)
    write(project, {"train.py": "mine"}, age=10)
    done = sync.push(machine, project)
    assert (done.sent_files, done.kept_newer, done.put_aside) == (1, ("src/model.py",), ("train.py",))
    assert (there / "train.py").read_text() == "mine"
    assert (Path(done.aside) / "train.py").read_text() == "theirs"
    # An edit that follows is one of this side alone.
    write(project, {"train.py": "mine again"}, age=5)
    assert sync.push(machine, project).put_aside == ()
    assert (Path(done.aside) / "train.py").read_text() == "theirs"
    # The other direction.
    write(project, {"src/model.py": "mine"}, age=30)
    back = sync.fetch(machine, project)
    assert (back.sent_files, back.kept_newer, back.put_aside) == (1, (), ("src/model.py",))
    assert (project / "src/model.py").read_text() == "theirs"
    assert (project / f"src/model.py{back.aside}").read_text() == "mine"


def test_results_come_home(machine, project):
    there = Path(sync.push(machine, project).remote_folder)
    made = {"runs/2/new.pt": "w", "c.log": "l", "notes.txt": "n", "__pycache__/x.pyc": "", ".git/config": "bad"}
    write(there, made | {"nb/.ipynb_checkpoints/a": "", ".venv/bin/python": ""}, age=5)
    write(project, {"train.py": "edited here"}, age=4)
    preview = sync.fetch(machine, project, dry_run=True)
    assert (preview.sent_files, preview.sent_bytes) == (3, 3)
    assert not (project / "c.log").exists()
    done = sync.fetch(machine, project)
    assert (done.sent_files, done.sent_bytes, done.kept_newer) == (3, 3, ("train.py",))
    assert (project / "runs/2/new.pt").read_text() == "w"
    assert (project / "runs/1/old.pt").read_text() == "weights"
    assert (project / "train.py").read_text() == "edited here"
    assert "bad" not in (project / ".git/config").read_text()
    assert not {".venv", "__pycache__"} & {path.name for path in project.iterdir()}
    assert sync.fetch(machine, project).sent_files == 0


def test_only_the_results_that_were_named(machine, project):
    there = Path(sync.push(machine, project).remote_folder)
    write(there, {"runs/2/new.pt": "w", "runs/3/x": "x", "c.log": "l", ".venv/x": "v"}, age=5)
    assert sync.fetch(machine, project, ["runs/2", "./c.log"]).sent_files == 2
    assert not (project / "runs/3").exists()
    assert sync.fetch(machine, project, [".venv"]).sent_files == 1
    with pytest.raises(BadInputError, match=r"nope/x: not on machine"):
        sync.fetch(machine, project, ["runs/3", "nope/x"])
    assert (project / "runs/3/x").exists()
    for name in ("/etc/passwd", "../x", "runs/../../x", "", ".git/config"):
        with pytest.raises(BadInputError, match=r"no path in the folder|git's own"):
            sync.fetch(machine, project, [name])


def test_what_was_deleted_here_does_not_come_back(machine, project, told):
    lines, progress = told
    there = Path(sync.push(machine, project).remote_folder)
    (project / "train.py").unlink()
    shutil.rmtree(project / "src")
    write(there, {"src/model.py": "changed there since"}, age=5)
    done = sync.fetch(machine, project, progress=progress)
    assert (done.sent_files, files(project / "src")) == (1, {"model.py"})
    assert not (project / "train.py").exists()
    assert lines == ["deleted here, so not brought back: train.py; name them to have them again"]
    assert sync.fetch(machine, project, ["train.py"]).sent_files == 1


def test_nothing_to_fetch_from(machine, project):
    with pytest.raises(BadInputError, match="has nothing of") as caught:
        sync.fetch(machine, project)
    assert "kit sync" in caught.value.hint


def test_delete_takes_only_what_was_asked_and_nothing_git_ignores(machine, project):
    write(project, {"gone.py": "g", "dir/gone.py": "g", "dir2/sub/gone.py": "g"})
    there = Path(sync.push(machine, project).remote_folder)
    for name in ("gone.py", "dir/gone.py", "dir2/sub/gone.py"):
        (project / name).unlink()
    shutil.rmtree(project / "dir")
    shutil.rmtree(project / "dir2")
    write(there, {"runs/9/out.pt": "o", "dir/x.log": "l", ".git/config": "c"}, age=5)
    expected = {"gone.py", "dir/", "dir/gone.py", "dir2/", "dir2/sub/", "dir2/sub/gone.py"}
    asked = []

    def refuse(names):
        asked.append(set(names))
        return False

    assert set(sync.push(machine, project, delete=True, dry_run=True).deleted) == expected
    assert sync.push(machine, project, delete=True, may_delete=refuse).deleted == ()
    assert asked == [expected]
    assert {"gone.py", "dir/gone.py"} < files(there)
    done = sync.push(machine, project, delete=True)
    assert set(done.deleted) == expected - {"dir/"}  # something in it stays
    assert files(there) == {".gitignore", "train.py", "src/model.py", "runs/9/out.pt", "dir/x.log", ".git/config"}
    assert sync.push(machine, project, delete=True, may_delete=refuse).deleted == ()
    assert len(asked) == 2
    assert asked[1] == {"dir/"}


def test_a_dry_run_leaves_no_trace(machine, project, home):
    named = []
    done = sync.push(machine, project, dry_run=True, progress=sync.Progress(item=named.append))
    assert (done.sent_files, done.sent_bytes, set(named)) == (3, 22, {".gitignore", "train.py", "src/model.py"})
    assert list(home.iterdir()) == []
    assert sync.push(machine, project).sent_files == 3
    assert sync.push(machine, project, dry_run=True).sent_files == 0


def test_symbolic_links_stay_links(machine, project, tmp_path, told):
    lines, progress = told
    write(tmp_path, {"outside/data": "d"})
    (project / "inner").symlink_to("src/model.py")
    (project / "src" / "up").symlink_to("../train.py")
    (project / "data -> x").symlink_to(tmp_path / "outside")
    (project / "src" / "out").symlink_to("../../outside/data")
    there = Path(sync.push(machine, project, progress=progress).remote_folder)
    assert (there / "inner").readlink() == Path("src/model.py")
    assert (there / "data -> x").readlink() == tmp_path / "outside"
    assert lines == [
        f"2 symbolic links to machine lead out of the folder: data -> x -> {tmp_path}/outside, "
        "src/out -> ../../outside/data"
    ]
    sync.push(machine, project, progress=progress)
    assert len(lines) == 1


def test_a_folder_there_where_a_file_is_here(machine, project):
    there = Path(sync.push(machine, project).remote_folder)
    write(there, {"thing/inside": "kept"}, age=5)
    write(project, {"thing": "file", "z.py": "z"}, age=4)
    os.utime(there / "thing", (1, 1))
    with pytest.raises(KitError, match="could not be sent") as caught:
        sync.push(machine, project)
    assert "thing" in "".join(caught.value.details)
    assert (there / "thing/inside").read_text() == "kept"
    assert (there / "z.py").exists()
    back = sync.fetch(machine, project)
    assert (project / "thing/inside").read_text() == "kept"
    assert back.put_aside == ("thing",)
    assert (project / f"thing{back.aside}").read_text() == "file"


def test_an_address_with_user_and_port(server, project, home, monkeypatch):
    monkeypatch.setenv("KIT_SSH", server.ssh())
    target = f"ssh://{USER}@machine:{server.port}"
    try:
        assert sync.push(at_home(ssh.connect(target), home), project).sent_files == 3
    finally:
        ssh.close(target)


@pytest.mark.parametrize("where", ["here", "above"])
def test_the_home_directory_is_not_sent_by_accident(machine, monkeypatch, tmp_path, where):
    (tmp_path / "me" / "deep").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "me" / "deep"))
    folder = tmp_path / "me" / ("deep" if where == "here" else "")
    with pytest.raises(BadInputError, match="home directory") as caught:
        sync.push(machine, folder)
    assert "-C FOLDER" in caught.value.hint
    assert sync.push(machine, folder, force=True).remote_folder


def test_an_unreadable_file_is_named_and_the_rest_is_sent(machine, project, tmp_path, home):
    write(project, {"secret": "s", "dir/secret": "s"})
    (project / "secret").chmod(0)
    (project / "dir").chmod(0)
    # The administrator may read everything, unless that right is given up.
    allowed = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
    if allowed and not shutil.which("setpriv"):
        pytest.skip("needs setpriv: install util-linux")
    script = (
        PUSH.replace("sync.push", "try: sync.push") + "\n"
        "except KitError as e: print(e.message, *sorted(e.details), e.hint, sep='\\n')\n"
    )
    done = subprocess.run(
        [*allowed, sys.executable, "-c", script, project, home], capture_output=True, text=True, timeout=60, check=True
    )
    (project / "dir").chmod(0o755)
    assert done.stdout.splitlines() == [
        "2 files could not be sent to machine; the rest was",
        "dir: Permission denied",
        "secret: Permission denied",
        "make them readable (`chmod u+r`), or list them in .gitignore",
    ]
    assert (Path(sync.remote_folder(machine, project)) / "train.py").exists()


def test_a_full_disk_there(machine, project, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    try:
        (project / "big").write_bytes(os.urandom(3_000_000))
        with pytest.raises(DiskFullError, match="on machine"):
            sync.push(machine, project, remote_folder=str(small / "x"))
        assert not (small / "x" / "big").exists()
    finally:
        subprocess.run(["umount", small], check=True, timeout=60)


def without(tmp_path, *programs):
    """A PATH with every program but these."""
    folder = tmp_path / "some programs"
    folder.mkdir()
    for found in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(found).glob("*"):
            if program.name not in programs:
                (folder / program.name).unlink(missing_ok=True)
                (folder / program.name).symlink_to(program)
    return str(folder)


def test_no_rsync_here(machine, project, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", without(tmp_path, "rsync"))
    with pytest.raises(MissingProgramError, match="rsync"):
        sync.push(machine, project)


def test_no_git_here(machine, project, tmp_path, monkeypatch, told):
    lines, progress = told
    write(project, {"src/.gitignore": "secret\n", "src/secret": "s"})
    monkeypatch.setenv("PATH", without(tmp_path, "git"))
    done = sync.push(machine, project, progress=progress)
    assert files(done.remote_folder) == {".gitignore", "src/.gitignore", "train.py", "src/model.py"}
    assert len(lines) == 1
    assert "git is not installed" in lines[0]
    with pytest.raises(MissingProgramError, match="git"):
        sync.push(machine, project, delete=True)


@pytest.fixture
def forced(server):
    """Makes every command over there go through another first."""
    keys = server.folder / "authorized_keys"
    before = keys.read_text()
    yield lambda command: keys.write_text(f'command="{command}" {before}')
    keys.write_text(before)


def test_no_rsync_there(server, forced, project, home, tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_SSH", server.ssh())
    forced(f"PATH='{without(tmp_path, 'rsync')}' eval \\\"$SSH_ORIGINAL_COMMAND\\\"")
    try:
        with pytest.raises(MissingProgramError, match="on machine"):
            sync.push(at_home(ssh.connect("machine"), home), project)
    finally:
        ssh.close("machine")


def test_a_login_that_greets(server, forced, project, home, monkeypatch):
    monkeypatch.setenv("KIT_SSH", server.ssh())
    forced('echo Welcome to the machine; eval \\"$SSH_ORIGINAL_COMMAND\\"')
    try:
        assert sync.push(at_home(ssh.connect("machine"), home), project).sent_files == 3
    finally:
        ssh.close("machine")


def large(project):
    """A file that takes a while to send."""
    with (project / "large").open("wb") as file:
        file.truncate(8_000_000_000)
    return "large"


def wait_for(condition, what):
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)
    return found


def test_a_connection_lost_on_the_way(server, machine, project, home):
    there = Path(sync.remote_folder(machine, project))
    name = large(project)
    caught = []

    def push():
        try:
            sync.push(machine, project)
        except KitError as e:
            caught.append(e)

    pushing = threading.Thread(target=push)
    pushing.start()
    wait_for(lambda: list(there.glob(f".{name}.*")), "the file on its way")
    server.kill_sessions()
    pushing.join(timeout=60)
    assert [type(e) for e in caught] == [NetworkError]
    assert "was lost" in caught[0].message
    assert not (there / name).exists()
    (project / name).unlink()
    assert sync.push(at_home(ssh.connect("machine"), home), project).kept_newer == ()
    assert (there / "train.py").exists()


def test_what_an_interrupted_sync_replaced_is_kept(server, machine, project, home):
    there = Path(sync.push(machine, project).remote_folder)
    write(there, {".gitignore": "theirs"}, age=20)
    write(project, {".gitignore": "mine"}, age=10)
    name = large(project)
    child = subprocess.Popen([sys.executable, "-c", PUSH, project, home], stderr=subprocess.DEVNULL)
    wait_for(lambda: list(there.glob(f".{name}.*")), "the file on its way")
    child.send_signal(signal.SIGINT)
    child.wait(timeout=30)
    found = wait_for(lambda: list(there.parent.glob("*.replaced/unfinished-*/.gitignore")), "what was replaced")
    assert found[0].read_text() == "theirs"
    (project / name).unlink()
    assert sync.push(machine, project).put_aside == ()
    assert found[0].exists()


def test_ctrl_c_leaves_nothing_running(machine, project, home):
    from tests.engine.ssh.test_host_ssh import children

    there = Path(sync.remote_folder(machine, project))
    name = large(project)
    child = subprocess.Popen([sys.executable, "-c", PUSH, project, home], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(there.glob(f".{name}.*")), "the file on its way")
    started = children(child.pid)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert started
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
    wait_for(lambda: not list(there.glob(f".{name}.*")), "the rsync there has ended")
    assert not (there / name).exists()


def test_twenty_thousand_files(machine, tmp_path):
    folder = tmp_path / "big"
    block = os.urandom(25_000)
    for number in range(200):
        (folder / f"d{number}").mkdir(parents=True)
        for name in range(100):
            (folder / f"d{number}" / f"{name}.bin").write_bytes(block)
    try:
        first = sync.push(machine, folder)
        assert (first.sent_files, first.sent_bytes) == (20_000, 500_000_000)
        with (folder / "d7" / "7.bin").open("ab") as file:
            file.write(b"one more")
        second = sync.push(machine, folder)
        assert (second.sent_files, second.put_aside) == (1, ())
        assert second.sent_bytes < 5_000
        assert (Path(second.remote_folder) / "d7" / "7.bin").read_bytes() == block + b"one more"
        assert sync.push(machine, folder).sent_files == 0
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(sync.remote_folder(machine, folder), ignore_errors=True)


def test_the_commands(server, forced, project, home, monkeypatch):
    """As a user runs them, with the home directory of the account there."""
    ssh_command = server.ssh()
    forced(f"HOME='{home}'; export HOME; cd; eval \\\"$SSH_ORIGINAL_COMMAND\\\"")
    kit = [str(Path(sys.executable).with_name("kit")), "--host", "machine"]
    environment = {**os.environ, "KIT_SSH": ssh_command}

    def call(*args, code=0):
        done = subprocess.run(
            [*kit, *args], cwd=project, env=environment, capture_output=True, text=True, timeout=120, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done

    try:
        assert sorted(call("sync", "--dry-run").stdout.split()) == [".gitignore", "src/model.py", "train.py"]
        done = call("sync")
        there = next((home / "kit-workspaces").glob("project-????????"))
        assert done.stdout == ""
        assert done.stderr.startswith(f"sent 3 files (22 bytes) to machine:{there} in ")
        assert call("sync").stderr.startswith("nothing new to send")
        write(there, {"runs/2/model.pt": "weights"}, age=5)
        found = json.loads(call("--json", "fetch", "runs").stdout)
        assert found["host"] == "machine"
        assert (found["sent_files"], found["remote_folder"], found["kept_newer"]) == (1, str(there), [])
        assert (project / "runs/2/model.pt").read_text() == "weights"
        (project / "train.py").unlink()
        refused = call("sync", "--delete", code=130)
        assert "train.py" in refused.stderr
        assert (there / "train.py").exists()
        assert "deleted 1 file or folder there: train.py" in call("--yes", "sync", "--delete").stderr
        assert not (there / "train.py").exists()
    finally:
        monkeypatch.setenv("KIT_SSH", ssh_command)
        ssh.close("machine")
