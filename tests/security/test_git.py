"""git is asked what it ignores, in a repository whose configuration a stranger or a job in a container wrote."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from kit.errors import BadInputError
from kit.remote.sync import ignored

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")
# Each of these makes some git command or other run a program.
RUNS = (
    *("core.fsmonitor", "core.sshCommand", "core.gitProxy", "core.askPass", "core.editor", "core.pager"),
    *("core.alternateRefsCommand", "alias.ls-files", "alias.check-ignore", "pager.ls-files", "pager.check-ignore"),
    *("credential.helper", "diff.external", "diff.x.command", "diff.x.textconv", "filter.x.clean", "filter.x.smudge"),
    *("filter.x.process", "merge.x.driver", "gpg.program", "interactive.diffFilter", "sequence.editor"),
    *("remote.origin.uploadpack", "remote.origin.vcs", "submodule.x.update", "trailer.x.cmd"),
    "uploadpack.packObjectsHook",
)


def git(folder, *args, **how):
    done = subprocess.run(["git", *args], cwd=folder, check=True, timeout=60, capture_output=True, text=True, **how)
    return done.stdout


@pytest.fixture
def hostile(tmp_path):
    """A repository with a rule file that git would fetch before it reads it, and a function that gives it settings."""
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    for name in ("train.py", "sub/a.pt", "b.pt"):
        (folder / name).write_text("x")
    (folder / ".gitignore").write_text("*.pt\n")
    (folder / ".gitattributes").write_text("* filter=x diff=x merge=x\n")
    git(folder, "init", "-q")
    git(folder, "add", "train.py")
    blob = "0123456789012345678901234567890123456789"
    git(folder, "update-index", "--add", "--index-info", input=f"100644 {blob}\tsub/.gitignore\n")
    git(folder, "update-index", "--skip-worktree", "sub/.gitignore")
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nid > {tmp_path}/ran\nexit 1\n")
    program.chmod(0o755)
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        shutil.copy(program, folder / ".git/hooks" / hook)
    config = folder / ".git/config"
    plain = config.read_text()

    def with_settings(*names, value=str(program), url="ssh://x.invalid/y"):
        sections = ""
        for name in names:
            first, *middle, last = name.split(".")
            sections += f'[{first} "{".".join(middle)}"]\n' if middle else f"[{first}]\n"
            sections += f"  {last} = {value}\n"
        config.write_text(
            f"{plain.replace('version = 0', 'version = 1')}[extensions]\n  partialClone = origin\n"
            f'[remote "origin"]\n  promisor = true\n  url = {url}\n[protocol]\n  allow = always\n{sections}'
        )
        return folder

    yield with_settings
    assert not (tmp_path / "ran").exists()


def rules_of(folder):
    with ignored.read(folder) as tree:
        assert tree.problem == ""
        assert tree.among(["c.pt", "sub/d.pt", "sub/x.py"]) == {"c.pt", "sub/d.pt"}
        return set(tree.ignored)


@pytest.mark.parametrize("name", RUNS)
def test_a_setting_that_runs_a_program(hostile, name):
    assert rules_of(hostile(name)) == {"b.pt", "sub/a.pt"}


def test_every_setting_of_git_at_once(hostile):
    names = set(re.sub(r"<[^>]*>|\*", "x", name) for name in git(".", "help", "--config").split() if "." in name)
    assert len(names) > 300
    assert rules_of(hostile(*sorted(names))) == {"b.pt", "sub/a.pt"}


@pytest.mark.parametrize("url", ["ext::sh -c {program}", "{program}", "file:///{program}", "https://x.invalid"])
def test_nothing_is_fetched(hostile, tmp_path, url):
    assert rules_of(hostile(url=url.format(program=tmp_path / "program"))) == {"b.pt", "sub/a.pt"}


def test_a_repository_in_the_folder_and_one_around_it(hostile):
    folder = hostile(*RUNS)
    assert rules_of(folder / "sub") == {"a.pt"}
    inner = folder / "inner"
    shutil.copytree(folder / ".git", inner / ".git")
    (inner / ".gitignore").write_text("*.pt\n")
    (inner / "c.pt").write_text("x")
    with ignored.read(folder) as tree:
        assert set(tree.ignored) == {"b.pt", "sub/a.pt", "inner/c.pt"}


def test_what_the_configuration_includes_is_not_read(hostile, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    names = ("include.path", "includeIf.gitdir:**.path", "core.excludesFile", "core.attributesFile")
    began = time.monotonic()
    assert rules_of(hostile(*names, value=str(tmp_path / "pipe"))) == {"b.pt", "sub/a.pt"}
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("is_missing", [False, True])
@pytest.mark.parametrize("name", [".gitignore", "sub/.gitignore", "inner/.git/HEAD"])
def test_a_pipe_where_git_reads(hostile, monkeypatch, tmp_path, name, is_missing):
    monkeypatch.setattr(ignored, "PATIENCE_S", 0.5)
    folder = hostile()
    (folder / name).unlink(missing_ok=True)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "inner/.git/objects").mkdir(parents=True, exist_ok=True)
    (folder / "inner/.git/refs").mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / name)
    if is_missing:
        monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInputError, match=f"{re.escape(name)} is a pipe"), ignored.read(folder):
        pass


@pytest.mark.parametrize("name", ["index", "info/exclude", "config", "commondir", ""])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()])
def test_a_pipe_or_a_device_in_the_repository(hostile, name, make):
    folder = hostile()
    path = folder / ".git" / name
    if name:
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)
    make(path)
    began = time.monotonic()
    with ignored.read(folder) as tree:
        assert {"b.pt", "sub/a.pt"} <= set(tree.ignored)
    assert time.monotonic() - began < 5


def test_one_that_another_user_put_around_the_folder(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs the rights of an administrator")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / ".env").write_text("x")
    (Path.home() / ".config/git").mkdir(parents=True)
    (Path.home() / ".config/git/ignore").write_text(".env\n")
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("!.env\n")
    os.chown(tmp_path / ".git", 4246, 4246)
    with ignored.read(folder) as tree:
        assert tree.ignored == [".env"]


@pytest.mark.parametrize("options", [["--object-format=sha256"], ["--separate-git-dir=../elsewhere"]])
def test_repositories_of_other_forms(tmp_path, options):
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q", *options)
    (folder / "x.pt").write_text("")
    (folder / "y.pt").write_text("")
    git(folder, "add", "x.pt")
    git(folder, "update-index", "--split-index")
    (Path(git(folder, "rev-parse", "--absolute-git-dir").strip()) / "info/exclude").write_text("*.pt\n")
    with ignored.read(folder) as tree:
        assert (tree.problem, tree.ignored) == ("", ["y.pt"])
    git(folder, "-c", "user.email=a@b", "-c", "user.name=a", "commit", "-qm", "one")
    git(folder, "worktree", "add", "-q", "../second")
    (tmp_path / "second/z.pt").write_text("")
    with ignored.read(tmp_path / "second") as tree:
        assert (tree.problem, tree.ignored) == ("", ["z.pt"])


def test_an_index_that_is_none(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("*.pt\n")
    (tmp_path / "x.pt").write_text("")
    (tmp_path / ".git/index").write_bytes(b"\x1b[2J" * 20)
    with ignored.read(tmp_path) as tree:
        assert tree.ignored == ["x.pt"]
        assert "index" in tree.problem or "signature" in tree.problem
