"""`make` takes what it is given as words: neither make nor the shell runs anything of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kit import paths

ROOT = paths.root_dir()
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
GIVEN = re.findall(r"^(\w+) \?=", MAKEFILE, re.MULTILINE)
# A program that writes down the words it is called with.
RECORDER = '#!/bin/sh\nprintf "%s\\n" "${0##*/}" "$@" >> "$(dirname "$0")/../../called"\n'
# Where make itself would install something on a machine that lacks it.
ELSEWHERE = [f"--old-file={name}" for name in ("browser", "sshd", "rsync", "iproute", "podman", "sudo")]
TARGETS = [
    *(
        "help",
        "run",
        "run/tf-cpu",
        "build/tf-cpu",
        "setup",
        "test",
        "test-unit",
        "test-engine",
        "fuzz",
        "lint-generated",
    ),
    *("lock", "render", "update", "readme", "golden", "ci-jobs", "ci-matrix", "ci-image", "bench-cli"),
]
USED_BY = {
    "IMAGE": ["run", "ci-image"],
    "SERVICE": ["run"],
    "PYTHON": ["setup"],
    "ONLY": ["ci-jobs", "ci-matrix"],
    "GROUP": ["test-engine"],
    "PYTEST_ARGS": ["test", "test-unit", "test-engine", "fuzz"],
    "KIT_FUZZ_SECONDS": ["fuzz"],
    "UPGRADE": ["requirements"],
    "IMAGES": ["check-packages"],
    "BINDIR": ["install"],
    "FORCE": ["clean"],
}
ATTACKS = {
    "make": "$(shell touch {mark})",
    "make-eval": "$(eval $(shell touch {mark}))",
    "shell": "$(touch {mark})",
    "doubled": "$$(touch {mark})",
    "backticks": "`touch {mark}`",
    "semicolon": "x; touch {mark}; x",
    "quote": 'x"; touch {mark}; "',
    "single quote": "x'; touch {mark}; '",
    "line": "x\ntouch {mark}\n",
    "and": "x && touch {mark}",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout whose programs only write down what they are called with."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("kit", "python", "uv"):
        program = tmp_path / ".venv/bin" / name
        program.write_text(RECORDER)
        program.chmod(0o755)
    for name in ("pyproject.toml", "requirements-dev.txt", ".venv/ready"):
        (tmp_path / name).touch()
    return tmp_path


def make(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make with words on its command line and variables in its environment; what came of it does not matter."""
    clean = {name: value for name, value in os.environ.items() if name not in (*GIVEN, "MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", *ELSEWHERE, *words],
        cwd=folder,
        env=clean | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def called(folder: Path) -> list[str]:
    file = folder / "called"
    return file.read_text().splitlines() if file.exists() else []


def test_the_variables_are_all_there() -> None:
    listed = re.search(r"^GIVEN := (.*)$", MAKEFILE, re.MULTILINE)
    assert listed
    assert {*GIVEN, "UPGRADE", "FORCE"} == set(listed[1].split()) == set(USED_BY)


def attacked(folder: Path, attack: str, names: list[str], targets: list[str]) -> None:
    value = ATTACKS[attack].format(mark=folder / "mark")
    for target in targets:
        if target == "setup":
            (folder / ".venv/ready").unlink()
        shutil.copytree(folder / ".venv", folder / "kept", dirs_exist_ok=True)
        make(folder, target, *(f"{name}={value}" for name in names))
        shutil.copytree(folder / "kept", folder / ".venv", dirs_exist_ok=True)
        assert not (folder / "mark").exists(), f"make {target} {names}=…"
        make(folder, target, **dict.fromkeys(names, value))
        assert not (folder / "mark").exists(), f"{names}=… make {target}"
        shutil.copytree(folder / "kept", folder / ".venv", dirs_exist_ok=True)
        (folder / ".venv/ready").touch()


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_is_given_is_run(attack: str, folder: Path) -> None:
    attacked(folder, attack, GIVEN, TARGETS)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_run_where_only_one_is_odd(attack: str, folder: Path) -> None:
    for name, targets in USED_BY.items():
        attacked(folder, attack, [name], targets)


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name != "line"])
@pytest.mark.parametrize("target", ["run", "build"])
def test_an_image_s_name_in_the_target_is_not_run(target: str, attack: str, folder: Path) -> None:
    make(folder, f"{target}/{ATTACKS[attack].format(mark=folder.name)}")
    assert not list(folder.rglob(folder.name))
    assert not (Path.cwd() / folder.name).exists()


def test_words_arrive_as_they_were_given(folder: Path) -> None:
    shutil.copytree(folder / ".venv", folder / "kept")
    make(folder, "test-unit", "PYTEST_ARGS=-k 'a or b' \"c d\" $HOME")
    assert called(folder)[-4:] == ["-k", "a or b", "c d", "$HOME"]
    make(folder, "ci-jobs", ONLY="tf-cpu torch-cu126")
    assert called(folder)[-4:] == ["--format", "github", "--only=tf-cpu", "--only=torch-cu126"]
    make(folder, "build/$(shell id)")
    assert called(folder)[-2:] == ["build", "$(shell id)"]
    make(folder, "run/tf-cpu", "SERVICE=tensorboard")
    assert called(folder)[-3:] == ["run", "tf-cpu", "tensorboard"]
    make(folder, "clean", "FORCE=1")
    assert called(folder)[-5:] == ["--yes", "engine", "down", "--purge", "--force"]
    shutil.copytree(folder / "kept", folder / ".venv")
    make(folder, "test-engine", "GROUP=security")
    assert called(folder)[-2:] == ["engine or gpu", "tests/security"]


def test_a_quote_without_its_end_is_an_error(folder: Path) -> None:
    assert make(folder, "test-unit", "PYTEST_ARGS=-k 'a").returncode != 0
    assert "pytest" not in called(folder)


def test_kit_is_put_onto_the_path_and_nothing_else_is_replaced(tmp_path: Path) -> None:
    def install(folder: Path) -> subprocess.CompletedProcess[str]:
        command = ["make", "--old-file=.venv/ready", "install", f"BINDIR={folder}"]
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    for _ in range(2):
        done = install(tmp_path / "a b")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/a b/kit\n", "")
    assert (tmp_path / "a b/kit").resolve() == (ROOT / ".venv/bin/kit").resolve()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/kit").write_text("somebody's")
    done = install(tmp_path / "other")
    assert done.returncode != 0
    assert "is another program" in done.stderr
    assert (tmp_path / "other/kit").read_text() == "somebody's"
