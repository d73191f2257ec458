"""What `kit reset` says and asks the engine; that packages are gone is tests/engine/run/test_run.py's."""

import io
import json
import os
import sys

import pytest

from kit.spec.container import project_of


@pytest.fixture
def volume(fake_docker, tmp_path, monkeypatch):
    """The volume of what was added to tf-cpu in this folder, which the engine has."""
    monkeypatch.chdir(tmp_path)
    name = f"kit-{os.getuid()}-{project_of(tmp_path.resolve())}-tf-cpu-local"
    fake_docker.reply("volume", "ls", stdout=f"{name}\n{name}-other\n")
    return name


def test_it_asks_and_deletes_what_was_added_in_this_folder(kit, fake_docker, volume, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    done = kit("reset", "tf-cpu")
    assert done.code == 0
    assert f"Delete what was installed into tf-cpu for {tmp_path.resolve()}?" in done.err
    assert fake_docker.called("volume", "rm")[0].args == ["volume", "rm", volume]
    assert "as the image is again" in done.err


def test_no_is_no(kit, fake_docker, volume, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert kit("reset", "tf-cpu").code != 0
    assert fake_docker.called("volume", "rm") == []


def test_yes_is_not_asked_and_programs_are_told(kit, fake_docker, volume, tmp_path):
    done = kit("--yes", "--json", "reset", "tf-cpu")
    assert json.loads(done.out) == {"image": "tf-cpu", "folder": str(tmp_path.resolve()), "host": "", "reset": True}
    assert len(fake_docker.called("volume", "rm")) == 1


def test_another_folder_and_another_user(kit, fake_docker, volume, tmp_path):
    (tmp_path / "other").mkdir()
    done = kit("reset", "--user", "4321", "-C", "other", "tf-cpu")
    assert (done.code, fake_docker.called("volume", "rm")) == (0, [])
    assert "nothing was added" in done.err
    asked = fake_docker.called("volume", "ls")[0].args[-1]
    assert asked == f"--filter=name=kit-4321-{project_of((tmp_path / 'other').resolve())}-tf-cpu-local"


def test_not_while_a_container_has_it(kit, fake_docker, volume):
    fake_docker.reply("ps", "--all", f"--filter=volume={volume}", stdout="kit-tf-cpu-jupyter-ab12\n")
    done = kit("--yes", "reset", "tf-cpu")
    assert done.code == 2
    assert "in use by kit-tf-cpu-jupyter-ab12" in done.err
    assert "kit stop kit-tf-cpu-jupyter-ab12" in done.err
    assert fake_docker.called("volume", "rm") == []


def test_what_is_no_image(kit, fake_docker, volume):
    assert kit("reset", "nosuch").code == 4
    assert kit("reset").code == 2, "none is named, and none is configured"
