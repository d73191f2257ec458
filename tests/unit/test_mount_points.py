"""The places of mounts in folders; those in volumes are for a real engine to show."""

import contextlib
import os
import subprocess

import pytest

from kit import layout
from kit.engine import Engine
from kit.errors import BadInputError
from kit.run import mount_points
from kit.spec.container import ContainerSpec, Mount, volume_mounts


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / 'my, "folder"\n\'x'
    made.mkdir()
    return made


@pytest.fixture
def data(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    (made / "file").write_text("mine")
    return made


def make(folder, *mounts, user="1000:1000", engine=None):
    around = Mount(source=str(folder), target=layout.WORKSPACE)
    volumes = volume_mounts("tf-cpu", "1000", "p")
    spec = ContainerSpec(image="i", name="n", user=user, mounts=(around, *volumes, *mounts))
    mount_points.make(engine or Engine(), spec)


def test_folders_and_files_are_made_of_the_kind_of_what_is_mounted(folder, data):
    make(
        folder,
        Mount(source=str(data), target="/workspace/a/b c"),
        Mount(source=str(data / "file"), target="/workspace/etc/file"),
    )
    assert (folder / "a/b c").is_dir()
    assert (folder / "etc/file").read_text() == ""


def test_what_is_there_stays_as_it_is(folder, data):
    (folder / "file").write_text("theirs")
    make(folder, Mount(source=str(data / "file"), target="/workspace/file"))
    assert (folder / "file").read_text() == "theirs"


@pytest.mark.parametrize("link", ["data", "sub/data"])
def test_no_link_is_followed_out_of_the_folder(folder, data, tmp_path, link):
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "sub").mkdir()
    (folder / link).symlink_to(outside)
    make(folder, Mount(source=str(data), target=f"/workspace/{link}/new"))
    assert list(outside.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_what_root_makes_for_another_user_is_theirs(folder, data):
    make(folder, Mount(source=str(data), target="/workspace/a/b"), user="1234:4321")
    assert [(p.stat().st_uid, p.stat().st_gid) for p in (folder / "a", folder / "a/b")] == [(1234, 4321)] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
@pytest.mark.parametrize(("target", "mounted"), [("new/x", ""), ("new", ""), ("new", "file")])
def test_a_job_that_puts_a_link_there_meanwhile_leads_root_nowhere(
    folder, data, tmp_path, monkeypatch, target, mounted
):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("root's")
    make_folder, open_it = os.mkdir, os.open

    def exchange():
        (folder / "new").rmdir() if (folder / "new").is_dir() else (folder / "new").unlink(missing_ok=True)
        (folder / "new").symlink_to(outside / "kept" if mounted else outside)

    def mkdir(name, *words, **options):
        make_folder(name, *words, **options)
        exchange()

    def open_(name, flags, *words, **options):
        if name == "new" and flags & os.O_CREAT:
            exchange()
        return open_it(name, flags, *words, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "open", open_)
    with contextlib.suppress(BadInputError):
        make(folder, Mount(source=str(data / mounted), target=f"/workspace/{target}"), user="1234:4321")
    assert (folder / "new").is_symlink(), "the exchange was made"
    assert [(p.name, p.stat().st_uid) for p in outside.iterdir()] == [("kept", 0)]
    assert outside.stat().st_uid == 0
    assert (outside / "kept").read_text() == "root's"


def test_where_none_can_be_made_is_said(folder, data):
    (folder / "file").write_text("")
    with pytest.raises(BadInputError, match="no place at /workspace/file/x") as raised:
        make(folder, Mount(source=str(data), target="/workspace/file/x"))
    assert raised.value.details


def test_what_is_inside_nothing_else_needs_no_place(fake_docker, folder, data):
    make(
        folder,
        Mount(source=str(data), target="/data"),
        Mount(source=str(data), target="/workspaces"),
        # Every image has these.
        Mount(source=str(data), target="/home/kit/.cache/huggingface"),
    )
    assert list(folder.iterdir()) == []
    assert fake_docker.calls == []


def test_places_in_a_volume_are_made_by_a_container_with_the_volumes_alone(fake_docker, folder, data):
    make(
        folder,
        Mount(source=str(data / "file"), target="/home/kit/.gitconfig", read_only=True),
        Mount(source=str(data), target="/home/kit/.local/share/x"),
    )
    (call,) = fake_docker.called("run")
    assert {"--rm", "--network=none", "--user=1000:1000", "--cap-drop=ALL"} <= {*call.args}
    assert not [word for word in call.args if "type=bind" in word]
    words = call.args[call.args.index("i") + 1 :]
    assert words[:2] == ["sh", "-c"]
    assert words[4:] == ["/home/kit", ".gitconfig", "file", "/home/kit/.local", "share/x", "folder"]


def test_the_script_of_that_container_makes_them(tmp_path):
    words = [str(tmp_path), ".gitconfig", "file", str(tmp_path), "a/b", "folder"]
    subprocess.run(["sh", "-c", mount_points.SCRIPT, "sh", *words], check=True)
    assert (tmp_path / ".gitconfig").is_file()
    assert (tmp_path / "a/b").is_dir()


def test_a_volume_inside_a_folder_of_the_users_has_its_place_there(folder, data):
    home = Mount(source=str(data), target=layout.HOME)
    around = Mount(source=str(folder), target=layout.WORKSPACE)
    local = volume_mounts("tf-cpu", "1000", "p")[1]
    mount_points.make(Engine(), ContainerSpec(image="i", name="n", user="1:1", mounts=(around, local, home)))
    assert (data / ".local").is_dir()
