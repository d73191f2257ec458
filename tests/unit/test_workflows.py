"""The workflows under .github: valid, pinned, with no more rights than they need, and calling what exists."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit import paths
from kit.decide.matrix import Job

ROOT = paths.root_dir()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PINNED = re.compile(r"\./\.github/workflows/[\w.-]+|[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
CHECK = Path(sys.executable).with_name("check-jsonschema")

each_workflow = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)


def load(file: Path) -> dict[Any, Any]:
    document: dict[Any, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    document["on"] = document.pop(True)  # YAML 1.1 reads the key `on` as a truth value
    return document


def is_called(document: dict[Any, Any]) -> bool:
    return "workflow_call" in document["on"]


def steps(document: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    for job in document["jobs"].values():
        yield from job.get("steps", [])


def conforms(schema: str, *files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHECK, "--builtin-schema", schema, *files], capture_output=True, text=True, check=False, timeout=60
    )


def test_there_are_workflows() -> None:
    assert {file.name for file in WORKFLOWS} >= {"lint.yml", "test.yml", "images.yml", "image.yml"}


@pytest.mark.parametrize("schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"])
def test_workflows_conform_to_the_published_schema(schema: str) -> None:
    done = conforms(schema, *WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dependabot_configuration_conforms_to_the_published_schema() -> None:
    done = conforms("vendor.dependabot", ROOT / ".github/dependabot.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_would_refuse_a_wrong_workflow(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yml"
    file.write_text("on: push\njobs:\n  one:\n    runs-on: ubuntu-24.04\n    stepps: []\n", encoding="utf-8")
    assert conforms("vendor.github-workflows", file).returncode == 1


@each_workflow
def test_actions_are_pinned_by_commit_with_their_version_beside(file: Path) -> None:
    for line in file.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\s*(?:- )?uses: (.*)", line):
            assert PINNED.fullmatch(match[1]), line


@each_workflow
def test_rights_are_read_only_but_for_publishing(file: Path) -> None:
    document = load(file)
    if is_called(document):  # it has the rights of its caller
        assert "permissions" not in document
        return
    assert document["permissions"] == {"contents": "read"}
    more = {name: job["permissions"] for name, job in document["jobs"].items() if "permissions" in job}
    signs = {"id-token": "write", "attestations": "write"}
    publishes = {"publish": {"contents": "read", "packages": "write", **signs}}
    assert more == (publishes if file.name == "images.yml" else {})


@each_workflow
def test_a_newer_commit_ends_the_run_of_an_older_one(file: Path) -> None:
    document = load(file)
    assert is_called(document) or set(document["concurrency"]) == {"group", "cancel-in-progress"}


def test_publishing_happens_on_tags_alone() -> None:
    jobs = load(ROOT / ".github/workflows/images.yml")["jobs"]
    assert jobs["publish"]["if"] == "github.ref_type == 'tag'"
    assert [name for name, job in jobs.items() if job.get("with", {}).get("push")] == ["publish"]


@each_workflow
def test_make_targets_and_called_workflows_exist(file: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    document = load(file)
    for step in steps(document):
        for called in re.findall(r"\bmake (?:--silent )?([a-z-]+)", step.get("run", "")):
            assert called in targets
        for script in re.findall(r"^(\.ci/\S+)", step.get("run", ""), re.MULTILINE):
            assert (ROOT / script).stat().st_mode & 0o111
    for job in document["jobs"].values():
        if job.get("uses", "").startswith("./"):
            assert (ROOT / job["uses"]).is_file()


def test_every_group_of_tests_has_a_job(request: pytest.FixtureRequest) -> None:
    job = load(ROOT / ".github/workflows/test.yml")["jobs"]["group"]
    folders = {folder.parent.name for folder in (ROOT / "tests/engine").glob("*/test_*.py")}
    folders = {"unit", "fuzz", "security", *folders - {"ssh"}}  # ssh is a part of unit
    assert set(job["strategy"]["matrix"]["group"]) == folders
    assert [file.name for file in (ROOT / "tests/engine").glob("test_*.py")] == [], "a test of no group"
    passed_over = [name for name in folders for p in request.config.getini("norecursedirs") if fnmatch(name, p)]
    assert passed_over == [], "pytest does not look into folders of these names"


def test_a_group_that_is_not_there_is_refused() -> None:
    done = subprocess.run([ROOT / ".ci/run", "nonesuch"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no group 'nonesuch'" in done.stderr


def test_what_the_jobs_take_from_the_matrix_is_in_it() -> None:
    text = (ROOT / ".github/workflows/images.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{\{ matrix\.(\w+) \}\}", text))
    assert used
    assert used <= {field.name for field in fields(Job)}


def test_paths_that_start_a_run_exist() -> None:
    events = load(ROOT / ".github/workflows/images.yml")["on"]
    assert events["push"]["paths"] == events["pull_request"]["paths"]
    for pattern in events["push"]["paths"]:
        assert list(ROOT.glob(pattern.replace("/**", "/*"))), pattern


@each_workflow
def test_no_script_takes_text_from_an_event(file: Path) -> None:
    """`${{ … }}` in a script is pasted in before the shell reads it; values go through `env` instead."""
    for step in steps(load(file)):
        assert "${{" not in step.get("run", "")
