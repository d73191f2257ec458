import json
import subprocess

import pytest
from click.shell_completion import ShellComplete

from kit.cli import group
from tests.fake_docker import container


def completed(*words, begun=""):
    return [item.value for item in ShellComplete(group, {}, "kit", "_KIT_COMPLETE").get_completions(list(words), begun)]


def test_commands_images_and_what_runs_in_them():
    assert {"start", "stop"} <= set(completed(begun="st"))
    assert {"torch", "torch-cpu", "torch2.7-cu126"} <= set(completed("run", begun="to"))
    assert "torch2.7-cu126-devel" not in completed("run", begun="torch2.7")
    assert completed("run", "tf-cpu", begun="j") == ["jupyter"]
    assert "--base" in completed("build", begun="--b")
    assert {"bash", "fish", "zsh"} == set(completed("completion"))


def test_containers_of_this_machine(fake_docker):
    fake_docker.reply("ps", stdout="a\nb\n")
    names = ("kit-tf-cpu-jupyter-ab12", "kit-torch-cpu-run-cd34")
    fake_docker.reply("container", "inspect", stdout=json.dumps([container(name) for name in names]))
    for command in ("logs", "url", "exec", "stop", "start", "restart", "rm", "code"):
        assert completed(command, begun="t") == ["tf-cpu-jupyter-ab12", "torch-cpu-run-cd34"]
    assert completed("stop", begun="kit-tf") == ["kit-tf-cpu-jupyter-ab12"]


def test_packages_of_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert completed("remove", begun="e") == []
    packages = ["einops>=0.8", "timm", "Lightning[extra]"]
    (tmp_path / "kit.toml").write_text(f"[environment]\nimage = 'tf-cpu'\npackages = {packages}\n")
    assert completed("remove", begun="") == ["Lightning", "einops", "timm"]
    assert completed("remove", "timm", begun="e") == ["einops"]
    assert completed("add", "--system", begun="") == []
    (tmp_path / "kit.toml").write_text("[environment\n")
    assert completed("remove", begun="e") == []


@pytest.mark.parametrize("words", [("--host", "lab1", "stop"), ("stop", "--host", "lab1")])
def test_no_login_for_a_completion(fake_docker, words):
    assert completed(*words, begun="t") == []
    assert fake_docker.calls == []


def test_no_engine_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("KIT_ENGINE", "system")
    assert completed("stop", begun="t") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_the_shells(kit, shell):
    script = kit("completion", shell).out
    assert f"_KIT_COMPLETE={shell}_complete" in script
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert kit("completion", "tcsh").code == 2
