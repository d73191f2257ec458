"""The measuring code as it runs in a container: old Pythons, nothing but the standard library and the framework."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kit.bench
from tests.unit.test_layers import imports

FOLDER = Path(kit.bench.__path__[0])
INSIDE = sorted(file for file in FOLDER.glob("*.py") if file.stem not in kit.bench.HOST_MODULES)
OLDEST = (3, 8)
FRAMEWORKS = {"torch", "tensorflow"}


def test_host_modules_are_named_right() -> None:
    assert {f"{name}.py" for name in kit.bench.HOST_MODULES} <= {file.name for file in FOLDER.iterdir()}
    assert len(INSIDE) > 10


@pytest.mark.parametrize("file", INSIDE, ids=lambda file: file.stem)
def test_parses_as_the_oldest_python_and_imports_only_itself_and_the_standard_library(file: Path) -> None:
    ast.parse(file.read_text(encoding="utf-8"), feature_version=OLDEST)
    for name in imports(file):
        top = name.split(".")[0]
        if top == "kit":
            words = name.split(".")
            assert words[:2] == ["kit", "bench"], name
            assert len(words) == 2 or words[2] not in kit.bench.HOST_MODULES, name
        else:
            assert top in sys.stdlib_module_names, name


@pytest.mark.parametrize("file", INSIDE, ids=lambda file: file.stem)
def test_nothing_newer_than_the_oldest_python_is_called(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {keyword.arg for keyword in node.keywords}
            called = ast.unparse(node.func)
            assert "kw_only" not in keywords, f"line {node.lineno}: Python 3.10"
            assert not (called == "zip" and "strict" in keywords), f"line {node.lineno}: Python 3.10"
            # 3.9: str.removeprefix, functools.cache; 3.10: itertools.pairwise, contextlib.nullcontext as async
            assert called.split(".")[-1] not in ("removeprefix", "removesuffix", "pairwise"), f"line {node.lineno}"


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kit.bench", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent.parent), **(environment or {})},
        check=False,
    )


def test_without_a_gpu_the_exit_code_is_3_and_stdout_is_empty(tmp_path: Path) -> None:
    # A driver may be here: this one is none.
    (tmp_path / "libcuda.so.1").write_text("")
    done = run("--framework", "torch", environment={"LD_LIBRARY_PATH": str(tmp_path)})
    assert done.returncode == 3
    assert done.stdout == ""
    assert "no GPU" in done.stderr
    assert "--device cpu" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--framework", "jax"), "invalid choice"),
        (("--framework", "torch", "--device", "cpu", "--only", "matmul"), "there is no test matmul"),
        (("--framework", "torch", "--device", "cpu", "--shapes", "1x2"), "is not MxNxK"),
        (("--framework", "torch", "--device", "cpu", "--soak", "-1"), "a number of minutes"),
    ],
)
def test_wrong_use_is_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr


def test_a_python_without_the_framework_says_so() -> None:
    done = run("--framework", "torch", "--device", "cpu", environment={"PYTHONNOUSERSITE": "1"})
    if done.returncode == 0:
        pytest.skip("this Python has torch")
    assert done.returncode == 2
    assert "No module named 'torch'" in done.stderr


@pytest.mark.parametrize("program", ["python3.8", "python3.9", "python3.10", "python3.12"])
def test_every_module_imports_on_older_pythons(program: str) -> None:
    found = shutil.which(program)
    # pyenv's stand-ins are there for versions that are not.
    if found is None or subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"no {program} on this machine")
    modules = [f"kit.bench.{file.stem}" for file in INSIDE if file.stem not in ("__init__", "__main__")]
    done = subprocess.run(
        [found, "-B", "-c", f"import {', '.join(modules)}"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent.parent)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
