"""What is said of a folder before a container starts."""

import os
from dataclasses import dataclass

import pytest

from kit import mounts
from kit.errors import BadInputError
from kit.run import folder
from kit.spec.container import Mount

TABLE = """
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /home/me/far rw,nosuid - fuse.sshfs me@there: rw,user_id=1234,group_id=1234
31 22 0:31 / /home/me/open\\040far rw - fuse.sshfs me@there: rw,user_id=1234,group_id=1234,allow_other
32 22 0:32 / /mnt/later rw shared:7 - xfs /dev/sdb1 rw
33 32 0:33 / /mnt/later/deeper rw - xfs /dev/sdc1 rw
"""
PRIVATE = TABLE.replace(" shared:1 ", " ")


@dataclass
class Fake:
    """An engine of this machine."""

    said: str = ""
    connection: None = None
    is_here: bool = True
    is_rootless: bool = False
    is_private: bool = True

    def arguments(self, spec):
        return [spec.mounts[0].source]

    def call(self, args):
        self.asked = args
        return self.said


@pytest.fixture
def table(monkeypatch):
    """What is mounted, instead of what is."""

    def set_to(text):
        monkeypatch.setattr(folder.mounts, "read_table", lambda: found)
        found = parse(text)
        monkeypatch.setattr(os, "geteuid", lambda: 1234)

    parse = mounts.read_table
    return set_to


def test_the_table_says_what_a_path_is_on():
    found = mounts.read_table(TABLE)
    assert mounts.at(found, "/home/me/open far/x").options[-1] == "allow_other"
    assert mounts.at(found, "/home/me/farther").target == "/"
    assert mounts.at(found, "/mnt/later/deeper").id == 33
    assert [mounts.is_shared(found, m) for m in found] == [True, True, True, True, True]
    assert [mounts.is_shared(mounts.read_table(PRIVATE), m) for m in found] == [True, False, False, False, True]
    assert mounts.at(mounts.read_table(), "/proc/self").kind == "proc"


def test_a_file_system_of_its_user_alone_is_not_for_the_engine(table):
    table(TABLE)
    with pytest.raises(BadInputError, match=r"cannot see /home/me/far/x: it is on fuse\.sshfs") as raised:
        folder.require_visible(Fake(), ["/", "/home/me/far/x"], "i")
    assert "allow_other" in raised.value.hint
    folder.require_visible(Fake(), ["/home/me/open far", "/mnt/later"], "i")
    # A rootless engine is the user, and of another machine's nothing can be seen here.
    folder.require_visible(Fake(is_rootless=True), ["/home/me/far"], "i")
    folder.require_visible(Fake(is_here=False), ["/home/me/far"], "i")


@pytest.mark.parametrize("said", ["", "1 2\n", None])
def test_what_was_mounted_after_the_engine_started_is_told(table, tmp_path, said):
    table(PRIVATE.replace("/mnt/later", str(tmp_path)))
    found = tmp_path.stat()
    engine = Fake(said=f"{found.st_dev} {found.st_ino}\n" if said is None else said)
    if said is None:
        folder.require_visible(engine, [str(tmp_path)], "i")
    else:
        with pytest.raises(BadInputError, match="mounted after the engine had started"):
            folder.require_visible(engine, [str(tmp_path)], "i")
    assert str(tmp_path) in engine.asked
    folder.require_visible(Fake(is_private=False), [str(tmp_path)], "i")


def notes(path, user="", groups=(), others=()):
    return folder.notes(Fake(), path, user or f"{os.geteuid()}:{os.getegid()}", groups, others)


@pytest.mark.parametrize(
    ("mode", "user", "groups", "said"),
    [
        (0o755, "1234567890:5", (), "read-only"),
        (0o777, "1234567890:5", (), ""),
        (0o700, "1234567890:5", (), "may not be read"),
        (0o750, "1234567890:5", ("own",), "read-only"),
        (0o770, "1234567890:5", ("own",), ""),
        (0o750, "1234567890:own", (), "read-only"),
        (0o500, "0:0", (), ""),
    ],
)
def test_whether_a_user_may_read_and_write_is_told(tmp_path, mode, user, groups, said):
    tmp_path.chmod(mode)
    gid = tmp_path.stat().st_gid
    found = notes(tmp_path, user.replace("own", str(gid)), [gid for _ in groups])
    assert [said in line for line in found] == ([True] if said else [])


def test_links_that_lead_nowhere_inside_are_told_with_the_mount(tmp_path):
    data, project = tmp_path / "data", tmp_path / "project"
    data.mkdir()
    (project / "in").mkdir(parents=True)
    (project / "absolute").symlink_to(data)
    (project / "relative").symlink_to("../data")
    (project / "back").symlink_to(project / "in")
    (project / "fine").symlink_to("in")
    (project / "dangling").symlink_to("/nowhere/at/all")
    assert notes(project) == [
        f"warning: the link absolute leads nowhere in the container: `--mount {data}:{data}` brings {data} there",
        "warning: the link back leads nowhere in the container: make it relative (`ln -sr`)",
        f"warning: the link relative leads nowhere in the container: `--mount {data}:/data` brings {data} there",
    ]
    others = [Mount(source=str(data), target=str(data)), Mount(source=str(data), target="/data")]
    assert len(notes(project, others=others)) == 1


def test_of_many_links_a_few_are_named(tmp_path):
    data, project = tmp_path / "data", tmp_path / "project"
    for each in (data, project):
        each.mkdir()
    for number in range(9):
        (project / f"l{number}").symlink_to(data)
    found = notes(project)
    assert len(found) == folder.MAX_LINKS + 1
    assert "6 more links" in found[-1]


@pytest.mark.parametrize("name", ["/a\udcff", "/a\r\nb"])
def test_a_name_that_no_engine_takes_is_said(name):
    with pytest.raises(BadInputError, match="no engine takes the name"):
        folder.require_visible(Fake(), [name], "i")


@pytest.mark.parametrize("name", ["/a\nb", "/a,b", '/a"b', "/家 é", "/a\rb"])
def test_other_names_are_taken(name):
    folder.require_visible(Fake(is_here=False), [name], "i")


def test_a_servers_folder_that_root_may_not_enter_is_told(table, tmp_path):
    (tmp_path / "home/project").mkdir(parents=True)
    tmp_path.chmod(0o711)
    (tmp_path / "home").chmod(0o750)
    table(f"22 1 0:20 / / rw - ext4 /dev/sda1 rw\n30 22 0:30 / {tmp_path} rw shared:2 - nfs4 server:/x rw\n")
    project = str(tmp_path / "home/project")
    with pytest.raises(BadInputError, match=r"its root may not enter .*/home, ") as raised:
        folder.require_visible(Fake(is_private=False), [project], "i")
    assert "chmod o+x" in raised.value.hint
    found = (tmp_path / "home/project").stat()
    folder.require_visible(Fake(is_private=False, said=f"{found.st_dev} {found.st_ino}"), [project], "i")
    (tmp_path / "home").chmod(0o711)
    folder.require_visible(Fake(is_private=False), [project], "i")
