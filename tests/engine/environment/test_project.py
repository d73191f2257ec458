"""The commands in a project's folder on a real engine: what is declared is there, and what was tried can be kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from kit.spec.container import project_of
from tests.engine.conftest import Kit
from tests.engine.environment.test_environment import tags

pytestmark = pytest.mark.engine
# Pure Python, of a few kilobytes, and in no image of kit's; the second needs the first.
ADDED, TRIED = "einops", "cowsay"
PYPROJECT = '[project]\nname = "mine"\nversion = "0.1"\n[build-system]\nrequires = []\nbackend-path = ["."]\n'
PYPROJECT += 'build-backend = "backend"\n'
# A build that needs no package: pip in the container builds a wheel with it.
BACKEND = """
import zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "mine-0.1-py3-none-any.whl"
    files = {
        "mine.py": "",
        "mine-0.1.dist-info/METADATA": "Metadata-Version: 2.1\\nName: mine\\nVersion: 0.1\\n",
        "mine-0.1.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    files["mine-0.1.dist-info/RECORD"] = "".join(f"{name},,\\n" for name in [*files, "mine-0.1.dist-info/RECORD"])
    with zipfile.ZipFile(f"{wheel_directory}/{name}", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return name
"""


@pytest.fixture(scope="module", autouse=True)
def tidy(docker: DockerClient) -> Iterator[None]:
    """What is there afterwards was there before."""
    before = tags(docker)
    yield
    for tag in tags(docker) - before:
        docker.images.remove(tag, force=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tf_cpu: str, docker: DockerClient) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("project").resolve()
    folder.chmod(0o755)
    yield folder
    for volume in docker.volumes.list():
        if project_of(folder) in volume.name:
            volume.remove(force=True)


def test_from_nothing_to_a_command_with_what_was_added(kit: Kit, project: Path, tf_cpu: str) -> None:
    kit("init", tf_cpu, cwd=project)
    kit("add", ADDED, cwd=project)
    assert f'"{ADDED}>=' in (project / "kit.toml").read_text()
    (package,) = json.loads((project / "kit.lock").read_text())["packages"]
    said = kit("--yes", "-q", "run", "python", "-c", f"import {ADDED}; print({ADDED}.__version__)", cwd=project)
    assert said.stdout.strip() == package["version"]
    assert json.loads(kit("--json", "diff", cwd=project).stdout)["packages"] == []


def test_what_was_tried_is_seen_where_it_runs_and_kept(kit: Kit, project: Path) -> None:
    mine = project / "mine"
    mine.mkdir()
    (mine / "pyproject.toml").write_text(PYPROJECT)
    (mine / "backend.py").write_text(BACKEND)
    kit("--yes", "-q", "run", "-d", "--name", "kit-test-project", "sleep", "600", cwd=project)
    try:
        kit("exec", "kit-test-project", "pip", "install", "--quiet", f"{TRIED}<6.1", cwd=project)
        kit("exec", "kit-test-project", "pip", "install", "--quiet", "--no-build-isolation", "./mine", cwd=project)
        found = json.loads(kit("--json", "diff", cwd=project).stdout)
        assert found["container"] == "kit-test-project"
        seen = {package["name"]: package for package in found["packages"]}
        assert set(seen) == {TRIED, "mine"}
        assert (seen[TRIED]["requested"], seen[TRIED]["locked"], seen[TRIED]["origin"]) == (True, [], "")
        assert seen["mine"]["origin"] == "/workspace/mine"
    finally:
        kit("rm", "--force", "kit-test-project")
    # And what it left behind, when it is gone.
    left = json.loads(kit("--json", "diff", cwd=project).stdout)
    assert left["container"] == ""
    assert project_of(project) in left["volume"]
    assert left["packages"] == found["packages"]
    kept = json.loads(kit("--yes", "--json", "keep", cwd=project).stdout)
    assert [entry["name"] for entry in kept["added"]] == [TRIED]
    assert [entry["name"] for entry in kept["left"]] == ["mine"]
    locked = {p["name"]: p["version"] for p in json.loads((project / "kit.lock").read_text())["packages"]}
    assert locked[TRIED] == seen[TRIED]["version"], "as it was tried, though newer ones are there"
    kit("lock", "--check", cwd=project)


def test_what_was_kept_is_in_the_environment_itself(kit: Kit, project: Path) -> None:
    kit("--yes", "reset", cwd=project)
    kit("--yes", "-q", "run", "python", "-c", f"import {TRIED}, {ADDED}", cwd=project)
    kit("remove", TRIED, cwd=project)
    refused = kit("--yes", "-q", "run", "python", "-c", f"import {TRIED}", cwd=project, code=1)
    assert f"No module named '{TRIED}'" in refused.stderr


def test_packages_of_the_distribution(kit: Kit, project: Path) -> None:
    kit("--yes", "add", "--system", "tree", cwd=project)
    assert '"tree"' in (project / "kit.toml").read_text()
    assert "kit.lock" in kit("--yes", "-q", "run", "tree", "/workspace", cwd=project).stdout
