"""Who may import whom: downwards only, so that a file is read with what is below it in mind alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import kit

PACKAGE = Path(kit.__file__).parent

# The parts of the package, lowest first. A part is a module of kit, or a package with all that is in it.
LAYERS: dict[str, tuple[str, ...]] = {
    "base": (
        *("__init__", "buildlog", "catalog", "config", "errors", "files", "frozen", "labels"),
        *("facts", "layout", "network", "paths", "ports", "process", "procs", "redact", "unix_http"),
    ),
    "adapters": ("apt", "engine", "gpu", "host", "mounts", "private_engine", "ssh", "tunnels"),
    "decisions": ("compat", "compose", "doctor", "editor", "explain", "gpu_check", "gpus", "locks", "matrix", "render"),
    "actions": ("base", "bench", "build", "lease", "run", "sync", "verify"),
    "cli": ("__main__", "cli"),
}
RANK = {part: rank for rank, parts in enumerate(LAYERS.values()) for part in parts}
# Actions leave each other alone, so that each can be changed by itself, but for these.
BETWEEN_ACTIONS = {
    ("build", "base"),  # a build without a registry first makes the base it stands on
    ("bench", "run"),  # what is measured is a container as `kit run` starts it
    ("verify", "run"),  # what is proven is a container as `kit run` starts it
    ("run", "lease"),  # a container that leases GPUs is started under the lock they were chosen under
}
PROCESS_CALLS = ("os.system", "os.popen", "os.exec", "os.spawn", "os.posix_spawn", "os.fork")
# Only here; every other module goes through the one named.
ONLY_IN = {
    "subprocess": ("process",),
    "jinja2": ("templates",),
    "click": ("cli",),
    "rich": ("cli",),
    "uv": ("build", "locks"),
    "docker": (),
}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path) -> Iterator[str]:
    """The modules a file imports, inside functions too; not those for type annotations alone."""
    waiting: list[ast.AST] = [tree_of(file)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            waiting += ast.iter_child_nodes(node)


def kit_parts(file: Path) -> set[str]:
    """The parts of kit a file imports; `from kit import __version__` is `__init__`."""
    found = set()
    for name in imports(file):
        words = name.split(".")
        if words[0] == "kit" and len(words) > 1:
            is_part = (PACKAGE / words[1]).is_dir() or (PACKAGE / f"{words[1]}.py").is_file()
            found.add(words[1] if is_part else "__init__")
    return found - {part_of(file)}


@pytest.mark.parametrize("part", sorted({part_of(file) for file in files()}))
def test_every_part_has_a_layer(part: str) -> None:
    assert part in RANK, f"say in LAYERS where kit/{part} belongs"


def test_every_named_part_exists() -> None:
    assert set(RANK) == {part_of(file) for file in files()}


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_downwards(file: Path) -> None:
    mine = part_of(file)
    upwards = {part for part in kit_parts(file) if RANK[part] > RANK[mine]}
    assert not upwards, f"kit/{mine} is below {', '.join(sorted(upwards))}"
    if mine in LAYERS["actions"]:
        beside = {part for part in kit_parts(file) if part in LAYERS["actions"] and (mine, part) not in BETWEEN_ACTIONS}
        assert not beside, f"kit/{mine} uses another action: {', '.join(sorted(beside))}"


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_some_libraries_have_one_user(file: Path) -> None:
    for library, users in ONLY_IN.items():
        if library in {name.split(".")[0] for name in imports(file)}:
            assert part_of(file) in users, f"{library} is for {', '.join(users) or 'nobody'}"


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_cli_prints_or_exits_and_only_paths_looks_at_its_own_file(file: Path) -> None:
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call):
            called, where = ast.unparse(node.func), f"line {node.lineno}"
            assert part_of(file) == "cli" or called not in ("print", "exit", "sys.exit", "os._exit"), where
            assert not called.startswith(PROCESS_CALLS), where
        if part_of(file) != "paths" and isinstance(node, ast.Name):
            assert node.id != "__file__", f"line {node.lineno}"


def compares_kinds_of_engines(tree: ast.Module) -> Iterator[int]:
    """The lines on which something is compared with the name of an engine."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            # `"podman" in names` is a question to the names.
            operands = [*([] if isinstance(node.ops[0], ast.In | ast.NotIn) else [node.left]), *node.comparators]
        elif isinstance(node, ast.MatchValue):
            operands = [node.value]
        else:
            continue
        inside = [found for operand in operands for found in ast.walk(operand)]
        if any(isinstance(n, ast.Constant) and n.value in ("docker", "podman") for n in inside):
            yield node.lineno


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_the_engine_package_asks_which_kind_of_engine_it_has(file: Path) -> None:
    if part_of(file) != "engine":
        lines = list(compares_kinds_of_engines(tree_of(file)))
        assert not lines, f"lines {lines}: ask for a feature (kit.facts.engine.Features)"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('if engine.kind == "podman":\n    pass', [1]),
        ('x = 1\nif "podman" != facts.program: pass', [2]),
        ('if kind in ("docker", "x"): pass', [1]),
        ('match kind:\n    case "podman":\n        pass', [2]),
        ('if "podman" in names: program = "podman"', []),
    ],
)
def test_the_reader_of_comparisons_sees_them(text: str, lines: list[int]) -> None:
    assert list(compares_kinds_of_engines(ast.parse(text))) == lines


def test_the_reader_of_imports_sees_them(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "import os.path\nif TYPE_CHECKING:\n    from kit.cli import Options\n"
        "def function():\n    from kit import build, run\n",
        encoding="utf-8",
    )
    assert sorted(imports(file)) == ["kit.build", "kit.run", "os.path"]
