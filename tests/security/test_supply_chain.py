"""What makes and runs kit is locked: its packages by hash, uv by version; nothing else runs where it publishes."""

from __future__ import annotations

import json
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kit import locks, paths
from kit.catalog import Catalog
from kit.catalog.tables import _parse
from kit.errors import LockError, MissingProgramError
from kit.image.build.inputs import kit_context
from kit.locks.format import parse_requirements
from kit.locks.uv import uv_program
from kit.render import render_dockerfile

ROOT = paths.root_dir()
LOCKED_FILE = ROOT / "requirements-dev.txt"
LOCKED = {canonicalize_name(entry.name): entry for entry in parse_requirements(LOCKED_FILE.read_text())}


def asked_for() -> list[Requirement]:
    document = _parse((ROOT / "pyproject.toml").read_text())
    lines = [*document["project"]["dependencies"], *document["dependency-groups"]["dev"]]
    return [Requirement(line) for line in lines + document["build-system"]["requires"]]


def versions(name: str) -> set[str]:
    """The versions of a package that are locked; one for each Python where they differ."""
    entries = parse_requirements(LOCKED_FILE.read_text())
    return {entry.version for entry in entries if canonicalize_name(entry.name) == canonicalize_name(name)}


@pytest.mark.parametrize("wanted", asked_for(), ids=str)
def test_what_kit_needs_is_locked_at_a_version_that_fits(wanted: Requirement) -> None:
    found = versions(wanted.name)
    assert found, "make requirements"
    assert all(wanted.specifier.contains(version) for version in found), "make requirements"


def test_what_is_locked_is_what_is_needed() -> None:
    """Everything that is asked for, and what that asks for, is locked; and nothing else, on this Python."""
    waiting, needed = asked_for(), set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        extras = wanted.extras or {""}
        if name in needed or (wanted.marker and not any(wanted.marker.evaluate({"extra": e}) for e in extras)):
            continue
        needed.add(name)
        assert metadata.version(name) in versions(name), f"{name}: make requirements, or make setup"
        waiting += [Requirement(line) for line in metadata.requires(name) or ()]
    elsewhere = {name for name, entry in LOCKED.items() if entry.marker}
    assert needed <= set(LOCKED)
    assert set(LOCKED) - elsewhere <= needed, "make requirements"


def test_no_address_is_in_it() -> None:
    """It holds hashes alone: whichever mirror answers, what arrives is the same."""
    assert not re.search(r"https?:|index", LOCKED_FILE.read_text())


def test_setup_installs_nothing_that_has_no_hash() -> None:
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if re.search(r"pip install|\$\{install\[@\]\}", line)]
    assert len(installs) == 4
    definition, editable = "install=(", "--no-build-isolation --editable ."
    assert all("--require-hashes" in line or definition in line or editable in line for line in installs)
    assert all("--no-deps" in line for line in installs if "pip install" in line)


def test_uv_is_of_one_version_everywhere(catalog: Catalog) -> None:
    pinned = next(str(wanted.specifier) for wanted in asked_for() if wanted.name == "uv")
    assert pinned == f"=={catalog.uv_version}"
    assert versions("uv") == {catalog.uv_version}


def test_another_uv_solves_nothing_and_builds_nothing(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    assert uv_program(catalog.uv_version).is_file()
    for use in (uv_program, kit_context):
        with pytest.raises(
            MissingProgramError, match=rf"with uv 0\.0\.1 alone, and {re.escape(catalog.uv_version)} is"
        ):
            use("0.0.1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the committed lock of tf-cpu, of a kit that has moved on to another uv since."""
    shutil.copytree(ROOT / "images/tf-cpu", tmp_path / "tf-cpu")
    monkeypatch.setattr(paths, "images_dir", lambda: tmp_path)
    monkeypatch.setattr(Catalog, "uv_version", "99.0")
    return tmp_path / "tf-cpu"


def test_a_lock_stays_what_it_is_when_kit_has_another_uv(folder: Path, catalog: Catalog) -> None:
    image = catalog.find("tf-cpu")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    locks.check(catalog, image)
    assert locks.solve(catalog, image) is False
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
    with pytest.raises(MissingProgramError):  # what is solved is solved by the other one
        locks.solve(catalog, image, upgrade=True)


def test_the_check_says_that_another_uv_solved_a_lock(folder: Path, kit: Any) -> None:
    solved_by = json.loads((folder / "lock.json").read_text())["uv"]
    assert kit("--json", "lock", "--check", "tf-cpu").out.count(f"up to date, by uv {solved_by}") == 1
    result = kit("lock", "--check", "--solve", "tf-cpu")
    assert result.code == LockError.exit_code
    assert "kit lock --upgrade tf-cpu" in result.err


def test_uv_is_part_of_what_an_image_is(folder: Path, catalog: Catalog) -> None:
    """In a label of its Dockerfile, whose text is part of the fingerprint."""
    image = catalog.find("tf-cpu")
    assert 'LABEL kit.uv="99.0"' in render_dockerfile(catalog, image, locks.read_lock(folder, image))


def workflow(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows" / name).read_text())
    return document


def test_once_logged_in_nothing_runs_but_docker_and_pinned_actions() -> None:
    steps = workflow("image.yml")["jobs"]["image"]["steps"]
    logins = [number for number, step in enumerate(steps) if "docker login" in step.get("run", "")]
    assert len(logins) == 1
    programs = set()
    for step in steps[logins[0] :]:
        lines = [line.strip() for line in step.get("run", "").splitlines()]
        programs |= {re.sub(r'^\w+="(?:\$\()?', "", line).split()[0] for line in lines if line}
        assert "uses" not in step or re.search(r"@[0-9a-f]{40}$", step["uses"])
    assert {program for program in programs if "/" not in program} == {"docker", "grep", "printf"}
    assert steps[-1]["run"] == "docker logout ghcr.io"
    assert steps[-1]["if"] == "always() && inputs.push"


def test_what_is_pushed_is_signed() -> None:
    steps = workflow("image.yml")["jobs"]["image"]["steps"]
    signs = next(step for step in steps if step.get("uses", "").startswith("actions/attest-build-provenance@"))
    assert signs["with"]["push-to-registry"] is True
    assert signs["if"] == "inputs.push"


@pytest.mark.parametrize("file", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda file: file.name)
def test_no_workflow_installs_what_is_not_locked(file: Path) -> None:
    for line in file.read_text().splitlines():
        assert not re.search(r"\b(pip|pipx|uvx|npm|curl|wget)\b", line), line


def test_dependabot_watches_actions_and_packages() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"github-actions", "pip"}
