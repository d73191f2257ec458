"""`kit verify` calls no broken image whole, whatever the environment and the folder say to Python and pytest."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from kit.engine import Engine
from kit.verify.collector import CANARY, Collector
from kit.verify.suite import canary
from tests.engine.conftest import KIT, engine

__all__ = ["engine"]

ROOT = Path(__file__).parents[2]
REFERENCE = "kit-security-test/broken"
BROKEN = """FROM kit/tf-cpu:latest
USER 0
RUN chmod 777 /etc && chmod 4755 /bin/cat && openssl genrsa -out /root/key 2048 \\
    && rm -r /opt/kit/venv/lib/python3.*/site-packages/tqdm-*.dist-info
ENV AWS_SECRET_ACCESS_KEY=abc
"""
FAILS = {
    "packages.locked",
    "security.user",
    "security.setuid",
    "security.world-writable",
    "security.secrets",
}
PLUGIN = "def pytest_collection_modifyitems(items):\n    items.clear()\n"
# What a folder can hold for Python and pytest to find.
FOUND = {
    "conftest.py": PLUGIN,
    "found.py": PLUGIN,
    "pytest.ini": "[pytest]\naddopts = -k nothing -p found\n",
    "pytest.py": "raise SystemExit(0)\n",
    "click.py": "raise SystemExit(0)\n",
    "pathlib.py": "raise SystemExit(0)\n",
    "typing.py": "raise SystemExit(0)\n",
    "found-1.0.dist-info/METADATA": "Name: found\nVersion: 1.0\n",
    "found-1.0.dist-info/entry_points.txt": "[pytest11]\nfound = found\n",
}
WAYS: dict[str, dict[str, str]] = {
    "plain": {},
    "PYTHONOPTIMIZE": {"PYTHONOPTIMIZE": "1"},
    "PYTHONOPTIMIZE=2": {"PYTHONOPTIMIZE": "2"},
    "PYTHONPATH": {"PYTHONPATH": "{folder}"},
    "PYTHONPATH=.": {"PYTHONPATH": "."},
    "PYTHONSTARTUP": {"PYTHONSTARTUP": "{folder}/click.py"},
    "PYTHONHOME": {"PYTHONHOME": sys.base_prefix, "PYTHONOPTIMIZE": "1"},
    "PYTHONPYCACHEPREFIX": {"PYTHONPYCACHEPREFIX": "{folder}/cache"},
    "PYTEST_ADDOPTS": {"PYTEST_ADDOPTS": "-k nothing"},
    "PYTEST_PLUGINS": {"PYTEST_PLUGINS": "found", "PYTHONPATH": "{folder}"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder with a folder in it; both have what misleads."""
    inner = tmp_path / "inner"
    for place in (tmp_path, inner):
        for name, text in FOUND.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
    return inner


def environment(way: str, folder: Path) -> dict[str, str]:
    return {**os.environ, **{name: value.format(folder=folder) for name, value in WAYS[way].items()}}


@pytest.fixture(scope="module")
def broken(tf_cpu: str, engine: Engine, docker: DockerClient) -> Iterator[str]:
    engine.call(["build", "--quiet", "--tag", REFERENCE, "-"], input=BROKEN, timeout_s=300)
    yield REFERENCE
    docker.images.remove(REFERENCE, force=True)


def failed_checks(command: list[str], folder: Path, variables: dict[str, str]) -> set[str]:
    only = ["--only=packages.locked", "--only=security", f"--image={REFERENCE}"]
    command = [*command, "verify", "tf-cpu", "--json", *only]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    return {check["name"] for check in json.loads(done.stdout)["checks"] if check["outcome"] == "failed"}


@pytest.mark.engine
@pytest.mark.parametrize("way", WAYS)
def test_a_broken_image_fails_whatever_the_environment_says(way: str, broken: str, folder: Path) -> None:
    assert failed_checks([KIT], folder, environment(way, folder)) == FAILS


@pytest.mark.engine
@pytest.mark.parametrize("words", [[sys.executable, "-O", KIT], [sys.executable, "-OO", "-E", KIT]])
def test_a_broken_image_fails_in_a_python_that_leaves_out_asserts(words: list[str], broken: str, folder: Path) -> None:
    assert failed_checks(words, folder, dict(os.environ)) == FAILS


@pytest.mark.parametrize("way", WAYS)
def test_a_project_s_files_are_not_taken_for_kit_s(way: str, folder: Path) -> None:
    command = [KIT, "verify", "--help"]
    done = subprocess.run(
        command, cwd=folder, env=environment(way, folder), capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("Usage: kit verify"), done.stderr


def test_a_kit_that_only_pythonpath_has_is_found(tmp_path: Path) -> None:
    """As the modules of clusters have it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/kit").symlink_to(ROOT / "kit")
    code = "import sys; sys.argv[:] = ['kit', '--version']; from kit.__main__ import start; start()"
    paths = os.pathsep.join([str(ROOT), *(path for path in sys.path if "site-packages" in path)])
    command = [sys._base_executable, "-O", "-c", code]  # type: ignore[attr-defined]  # outside the virtual environment
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": paths, "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("kit, version"), done.stderr


def asserts(folder: Path) -> list[str]:
    """Every `assert` but those that tell mypy a type, which decide nothing."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Assert) and not is_for_types(node.test):
                found.append(f"{file.relative_to(ROOT)}: {ast.unparse(node)}")
    return found


def is_for_types(test: ast.expr) -> bool:
    is_not_none = isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.IsNot)
    is_instance = isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "isinstance"
    return is_not_none or is_instance


def test_no_check_is_an_assert() -> None:
    suite = ROOT / "kit/verify/suite"
    assert not [
        file for file in suite.rglob("*.py") for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Assert)
    ]
    # What kit itself gets wrong, not what it is given.
    ours = {"kit/frozen.py", "kit/image/build/podman.py"}
    assert {line.partition(":")[0] for line in asserts(ROOT / "kit")} <= ours


def outcomes(collector: Collector) -> dict[str, str]:
    return {check.name: check.detail for check in collector.checks if check.outcome == "failed"}


@pytest.fixture
def collector() -> Collector:
    """A run whose checks all fail: there is no container."""
    subject: Any = object()
    return Collector(subject, ("image",))


def test_where_nothing_can_fail_that_is_what_fails(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "require", lambda *_: None)
    collector.run(["image"])
    assert "none can be trusted" in outcomes(collector)[CANARY]


def test_a_check_that_does_not_run_has_failed(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    def drop(collector: Collector, config: object, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if "environment" not in item.name]

    monkeypatch.setattr(Collector, "pytest_collection_modifyitems", pytest.hookimpl(drop))
    collector.run(["image"])
    assert outcomes(collector)["image.environment"] == "it did not run"
    assert CANARY not in outcomes(collector)
