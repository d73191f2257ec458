"""What `kit init`, `add`, `remove`, `diff` and `keep` say and write; a solve of this file's own stands for uv's."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kit import config
from kit.environment import format
from kit.environment.declared import Declared, declared
from kit.environment.format import EnvironmentLock
from kit.errors import LockError
from kit.facts.host import Host
from kit.spec.container import project_of
from tests.conftest import Result
from tests.fake_docker import FakeDocker, container
from tests.unit.test_project import EINOPS, answer, solver

Kit = Callable[..., Result]
VERSIONS = {"einops": "0.8.1", "timm": "1.0.20"}
NEW = """\
# What this project runs in: `kit run` here starts it. kit.lock says what exactly that is; commit both files.
[environment]
# The image that it stands on; `kit list` shows them.
image = "tf-cpu"
# From the package index: `kit add einops`.
packages = []
# From the distribution: `kit add --system ffmpeg`.
system = []
"""


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patch_read_gpus: Callable[[Callable[..., Host]], None]
) -> Path:
    """The current folder, a project's root, on a machine without a GPU."""
    made = tmp_path.resolve() / "project"
    (made / ".git").mkdir(parents=True)
    monkeypatch.chdir(made)
    patch_read_gpus(lambda target="", **_: Host(platform="linux/amd64"))
    return made


@pytest.fixture
def project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project on tf-cpu, and a solve that knows two packages."""
    (folder / "kit.toml").write_text(NEW)

    def lock(wanted: Declared, *_: object) -> EnvironmentLock:
        if any(text.startswith("nosuch") for text in wanted.packages):
            raise LockError("there is no nosuch")
        found = solver(**VERSIONS)(wanted)
        format.write(wanted.folder, found)
        return found

    monkeypatch.setattr("kit.cli.environment.lock_project", lock)
    return folder


def test_init_writes_a_file_that_says_what_it_is(kit: Kit, folder: Path) -> None:
    done = kit("init", "tf-cpu")
    assert (done.code, done.out) == (0, "")
    assert (folder / "kit.toml").read_text() == NEW
    assert done.err == (
        f"{folder}/kit.toml: written, on tf-cpu\n"
        "`kit add PACKAGE` adds to it; commit kit.toml and kit.lock, and `kit run` starts it anywhere\n"
    )


def test_init_without_a_wish_is_what_resolve_says(kit: Kit, folder: Path) -> None:
    assert json.loads(kit("init", "--json").out) == {
        "image": "torch-cpu",
        "chosen": "torch-cpu",
        "file": str(folder / "kit.toml"),
        "new": True,
        "left": [],
    }
    assert 'image = "torch-cpu"' in (folder / "kit.toml").read_text()


def test_init_keeps_a_wish_and_says_what_it_is_here(kit: Kit, folder: Path) -> None:
    assert "written, on tf, which is tf-cpu" in kit("init", "tf").err
    assert 'image = "tf"' in (folder / "kit.toml").read_text()


def test_init_adds_to_a_file_that_is_there_and_takes_its_image(kit: Kit, folder: Path) -> None:
    written = '# mine\nimage = "tf-cpu"\nport = 9000  # mine too'
    (folder / "kit.toml").write_text(written)
    assert "the environment added, on tf-cpu" in kit("init").err
    text = (folder / "kit.toml").read_text()
    assert text.startswith(f"{written}\n\n# What this project runs in")
    assert text.count("image =") == 1


@pytest.mark.parametrize("written", [NEW, "environment.image = 'tf-cpu'\n"])
def test_init_leaves_an_environment_alone(kit: Kit, folder: Path, written: str) -> None:
    (folder / "kit.toml").write_text(written)
    done = kit("init", "torch-cpu")
    assert done.code == 2
    assert "error: kit.toml has an environment already\n" in done.err
    assert (folder / "kit.toml").read_text() == written


@pytest.mark.parametrize(("wish", "code"), [("nosuch", 4), ("torch9.9", 4), ("torch-cu999", 4)])
def test_init_refuses_what_is_no_image(kit: Kit, folder: Path, wish: str, code: int) -> None:
    assert kit("init", wish).code == code
    assert not (folder / "kit.toml").exists()


def test_init_in_the_home_folder(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    Path.home().mkdir(exist_ok=True)
    monkeypatch.chdir(Path.home())
    done = kit("init", "tf-cpu")
    assert done.code == 2
    assert "is the home folder, which is no project" in done.err


def test_init_below_another_project_says_so(kit: Kit, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "kit.toml").write_text("port = 9000\n")
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    assert f"note: {folder}/kit.toml is no longer this folder's" in kit("init", "tf-cpu").err
    assert (folder / "kit.toml").read_text() == "port = 9000\n"


REQUIREMENTS = """\
--extra-index-url https://index.example/simple
tensorflow-cpu
einops>=0.7  # for the patches
./vendored
"""


def test_init_takes_over_what_there_is(kit: Kit, project: Path) -> None:
    (project / "kit.toml").write_text("port = 9000\n")
    (project / "requirements.txt").write_text(REQUIREMENTS.partition("\n")[2])
    done = kit("init", "--from", "requirements.txt")
    assert done.code == 0, done.err
    assert "requirements.txt:3: not taken over: ./vendored: " in done.err
    assert "kit.lock: 1 package beside what tf-cpu has" in done.err
    text = (project / "kit.toml").read_text()
    assert text.startswith("port = 9000\n\n# What this project runs in")
    assert 'packages = [\n    "einops>=0.7",\n]' in text
    assert (project / "kit.lock").exists()


def test_what_was_taken_over_and_has_no_solution_stays_to_be_changed(kit: Kit, project: Path) -> None:
    (project / "kit.toml").unlink()
    (project / "requirements.txt").write_text("nosuch==1.0\n")
    done = kit("init", "tf-cpu", "--from", "requirements.txt")
    assert done.code == 6
    assert "kit.toml is written and not locked" in done.err
    assert '"nosuch==1.0"' in (project / "kit.toml").read_text()
    assert not (project / "kit.lock").exists()


def test_an_index_that_was_taken_over_is_asked_about(kit: Kit, project: Path) -> None:
    (project / "kit.toml").unlink()
    (project / "requirements.txt").write_text(REQUIREMENTS)
    done = kit("init", "--from", "requirements.txt")
    assert done.code == 2
    assert "environment.indexes = https://index.example/simple" in done.err
    assert not (project / "kit.lock").exists()


def test_a_project_in_another_folder_is_not_this_one(kit: Kit, project: Path) -> None:
    (project / "kit.toml").unlink()
    (project / "other").mkdir()
    (project / "other/pyproject.toml").write_text(
        '[project]\nname = "other"\nversion = "1"\ndependencies = ["einops"]\n'
    )
    done = kit("init", "tf-cpu", "--from", "other/pyproject.toml")
    assert done.code == 0, done.err
    assert "it lies in another folder than kit.toml" in done.err
    assert "project = true" not in (project / "kit.toml").read_text()


@pytest.mark.parametrize(("file", "code"), [("nosuch.txt", 2), ("what.xyz", 2), (".", 2)])
def test_a_file_that_is_none_is_said(kit: Kit, folder: Path, file: str, code: int) -> None:
    (folder / "what.xyz").write_text("x")
    assert kit("init", "--from", file).code == code
    assert not (folder / "kit.toml").exists()


def test_an_example_is_copied(kit: Kit, folder: Path) -> None:
    done = kit("init", "--example", "lenet-torch")
    assert done.code == 0, done.err
    assert done.err.startswith("copied: kit.toml, ")
    assert (folder / "lenet.py").exists()
    assert "has kit.toml, " in kit("init", "--example", "lenet-torch").err
    assert kit("init", "--example", "nosuch").code == 2
    assert kit("init", "torch", "--example", "lenet-torch").code == 2


def test_add_and_remove(kit: Kit, project: Path) -> None:
    done = kit("add", "einops", "pandas", "--system", "ffmpeg", "graphviz")
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    assert lines[0] == "added einops>=0.8 (0.8.1)"
    assert lines[1].startswith("added pandas (tf-cpu has ")
    assert lines[2:] == [
        "added ffmpeg, of the distribution",
        "added graphviz, of the distribution",
        "kit.lock: 1 package beside what tf-cpu has; `kit run` starts it",
    ]
    assert (project / "kit.toml").read_text() == NEW.replace(
        "packages = []", 'packages = [\n    "einops>=0.8",\n    "pandas",\n]'
    ).replace("system = []", 'system = [\n    "ffmpeg",\n    "graphviz",\n]')
    assert "has that already" in kit("add", "einops").err
    gone = json.loads(kit("--json", "remove", "--system", "ffmpeg", "--json").out)
    assert gone == {
        "file": str(project / "kit.toml"),
        "image": "tf-cpu",
        "packages": 1,
        "added": [],
        "removed": [],
        "system_added": [],
        "system_removed": ["ffmpeg"],
    }
    assert "removed einops>=0.8" in kit("remove", "einops", "--system", "graphviz").err
    left = (project / "kit.toml").read_text()
    assert "graphviz" not in left
    assert '"pandas",' in left


def test_what_has_no_solution_is_in_no_file(kit: Kit, project: Path) -> None:
    done = kit("add", "nosuch")
    assert (done.code, done.err) == (6, "error: there is no nosuch\n")
    assert (project / "kit.toml").read_text() == NEW
    assert not (project / "kit.lock").exists()


def test_a_folder_below_is_the_project_too(kit: Kit, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "src").mkdir()
    monkeypatch.chdir(project / "src")
    assert kit("add", "timm").code == 0
    assert "timm>=1.0" in (project / "kit.toml").read_text()
    assert (project / "kit.lock").exists()
    assert list((project / "src").iterdir()) == []


@pytest.mark.parametrize("words", [["add", "einops"], ["remove", "einops"], ["diff"], ["keep"]])
def test_without_a_project(kit: Kit, folder: Path, words: list[str]) -> None:
    done = kit(*words)
    assert done.code == 2
    assert "error: there is no kit.toml for this folder\nhint: `kit init` writes one\n" in done.err
    (folder / "kit.toml").write_text("port = 9000\n")
    assert f"error: {folder}/kit.toml has no environment\nhint: `kit init` in {folder} adds it\n" in kit(*words).err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add"], "no package named"),
        (["remove"], "no package named"),
        (["add", "--system"], "--system names no package"),
        (["add", "einops", "--system", "--json"], "--system names no package"),
        (["add", "-r", "requirements.txt"], "No such option"),
        (["add", "einops", "--", "-x"], "option of pip's"),
        (["remove", "einop"], "`packages` of kit.toml has no einop"),
    ],
)
def test_wrong_words(kit: Kit, project: Path, words: list[str], said: str) -> None:
    done = kit(*words)
    assert done.code == 2
    assert said in done.err
    assert (project / "kit.toml").read_text() == NEW


def test_a_strangers_file_is_asked_about(kit: Kit, project: Path) -> None:
    written = NEW + 'indexes = ["https://index.example/simple"]\n'
    (project / "kit.toml").write_text(written)
    done = kit("--yes", "add", "einops")
    assert done.code == 2
    assert "reaches out of its project\n  environment.indexes = https://index.example/simple\n" in done.err
    assert (project / "kit.toml").read_text() == written
    assert kit("config", "trust").code == 0
    assert kit("add", "einops").code == 0
    assert kit("remove", "einops").code == 0, "what is trusted is what reaches out, and that is the same"


def test_all_of_a_file_that_others_may_write_is_asked_about(kit: Kit, project: Path) -> None:
    (project / "kit.toml").chmod(0o666)
    done = kit("add", "einops")
    assert done.code == 2
    assert "may be somebody else's: everybody may write to it" in done.err
    assert "environment.image = tf-cpu" in done.err


@pytest.fixture
def running(fake_docker: FakeDocker, project: Path) -> FakeDocker:
    """A container of the project that runs, in which einops and what it needs were installed."""
    assert_locked(project)
    raw = container(Mounts=[{"Type": "bind", "Source": str(project), "Destination": "/workspace"}])
    fake_docker.reply("ps", stdout="a\n")
    fake_docker.reply("container", "inspect", stdout=json.dumps([raw]))
    said = answer(
        {**EINOPS, "name": "timm", "version": "1.0.20"},
        {**EINOPS, "name": "hub", "version": "0.30", "requested": False},
        {**EINOPS, "name": "mine", "version": "0.1", "origin": {"url": "file:///tmp/mine", "dir_info": {}}},
    )
    fake_docker.reply("exec", stdout=said)
    return fake_docker


def assert_locked(project: Path) -> None:
    found = declared(config.load(project))
    assert found
    format.write(project, solver()(found))


def test_diff_says_what_the_lock_has_not(kit: Kit, running: FakeDocker) -> None:
    done = kit("diff")
    assert (done.code, done.out) == (
        0,
        "PACKAGE  HERE    LOCKED  WHY\n"
        "hub      0.30    -       came along\n"
        "mine     0.1     -       from /tmp/mine\n"
        "timm     1.0.20  -       asked for\n",
    )
    assert "`kit keep` makes it part of the project; `kit reset tf-cpu` takes it out" in done.err
    asked = running.called("exec")[0]
    assert asked.args == ["exec", "--interactive", "kit-tf-cpu-jupyter-ab12", "python", "-", "/home/kit/.local/venv"]


def test_keep_asks_and_keeps_what_was_asked_for(
    kit: Kit, running: FakeDocker, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    done = kit("keep")
    assert done.code == 130
    assert (project / "kit.toml").read_text() == NEW
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    done = kit("keep")
    assert done.code == 0, done.err
    assert "to keep: timm 1.0.20\nwhat they need: hub 0.30\n" in done.err
    assert "not kept: mine 0.1: from /tmp/mine, which is no package index: nobody else has it\n" in done.err
    assert "Write 1 package into kit.toml and kit.lock?" in done.err
    assert "added timm>=1.0 (1.0.20)" in done.err
    assert '    "timm>=1.0",\n' in (project / "kit.toml").read_text()
    again = json.loads(kit("--yes", "--json", "keep").out)
    assert [entry["name"] for entry in again["left"]] == ["mine"]
    assert again["added"] == []


def test_a_container_that_is_named(kit: Kit, running: FakeDocker) -> None:
    found = json.loads(kit("--json", "diff", "tf-cpu-jupyter").out)
    assert (found["container"], found["image"], found["volume"]) == ("kit-tf-cpu-jupyter-ab12", "tf-cpu", "")
    assert found["packages"][0] == {
        "name": "hub",
        "version": "0.30",
        "locked": [],
        "origin": "",
        "requested": False,
    }
    assert kit("diff", "nosuch").code == 13


def test_without_a_container_the_volume_is_looked_at(kit: Kit, fake_docker: FakeDocker, project: Path) -> None:
    assert_locked(project)
    volume = f"kit-{os.getuid()}-{project_of(project)}-tf-cpu-local"
    fake_docker.reply("ps", stdout="")
    assert "nothing beyond kit.lock" in kit("diff").err, "nothing was ever installed"
    fake_docker.reply("volume", "ls", stdout=f"{volume}\n")
    done = kit("diff")
    assert done.code == 2
    assert "hint: `kit build tf-cpu` makes it" in done.err
    fake_docker.reply("image", "ls", stdout="kit/env-tf-cpu:0123456789ab\n")
    fake_docker.reply("run", stdout=answer(EINOPS))
    found = json.loads(kit("--json", "diff").out)
    assert (found["container"], found["volume"]) == ("", volume)
    assert [package["name"] for package in found["packages"]] == ["einops"]
    words = fake_docker.called("run")[0].args
    assert f"--mount=type=volume,source={volume},target=/home/kit/.local,readonly" in words
    assert {"--network=none", "--rm", "--pull=never", "kit/env-tf-cpu:0123456789ab"} <= set(words)


def test_without_a_lock_and_a_container(kit: Kit, fake_docker: FakeDocker, project: Path) -> None:
    fake_docker.reply("ps", stdout="")
    done = kit("diff")
    assert done.code == 6
    assert "has no kit.lock, and no container of it runs" in done.err
