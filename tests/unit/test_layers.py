"""Who may import whom: downwards only, so that a file is read with what is below it in mind alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import kit

PACKAGE = Path(kit.__file__).parent

# The rooms of the package, lowest first, floor by floor. A room is a module of kit, or a package with all that is in
# it; it imports only what stands before it here.
FLOORS: dict[str, tuple[str, ...]] = {
    "ground": (
        *(
            "__init__",
            "accounts",
            "errors",
            "frozen",
            "labels",
            "layout",
            "linux",
            "paths",
            "redact",
            "signals",
            "process",
            "procs",
            "files",
        ),
        *("ports", "sizes", "unix_http", "network", "templates", "screen"),
    ),
    "facts": ("facts", "catalog", "config", "spec", "targets"),
    "decisions": ("locks", "render", "decide", "environment", "takeover"),
    "machines": ("remote", "mounts", "apt", "private_engine", "engine", "host"),
    "actions": ("image", "run", "project", "compose", "verify", "bench"),
    "cli": ("cli", "__main__"),
}
ROOMS = tuple(room for rooms in FLOORS.values() for room in rooms)
# These ask no machine, start no program and open no connection: what they say follows from what they are given.
PURE = ("facts", "spec", "targets", "decide", "takeover")
MACHINES = ("process", "procs", "unix_http", *FLOORS["machines"], *FLOORS["actions"])
PROCESS_CALLS = ("os.system", "os.popen", "os.exec", "os.spawn", "os.posix_spawn", "os.fork")
# Only here; every other module goes through the one named.
ONLY_IN = {
    "subprocess": ("process",),
    "jinja2": ("templates",),
    "click": ("cli",),
    "rich": ("cli",),
    "uv": ("locks",),
    "docker": (),
}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(file: Path) -> str:
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


def kit_rooms(file: Path) -> set[str]:
    """The rooms of kit a file imports; `from kit import __version__` is `__init__`."""
    found = set()
    for name in imports(file):
        words = name.split(".")
        if words[0] == "kit" and len(words) > 1:
            is_room = (PACKAGE / words[1]).is_dir() or (PACKAGE / f"{words[1]}.py").is_file()
            found.add(words[1] if is_room else "__init__")
    return found - {room_of(file)}


def test_every_room_has_its_floor() -> None:
    assert set(ROOMS) == {room_of(file) for file in files()}, "say in FLOORS where it belongs"


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_downwards(file: Path) -> None:
    mine = room_of(file)
    upwards = {room for room in kit_rooms(file) if ROOMS.index(room) > ROOMS.index(mine)}
    assert not upwards, f"kit/{mine} is below {', '.join(sorted(upwards))}"
    if mine in PURE:
        assert not kit_rooms(file) & set(MACHINES), f"kit/{mine} asks no machine"


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def modules_imported(file: Path, known: Mapping[str, Path]) -> set[str]:
    """The modules of kit that a file imports: of `from kit.a import b` kit.a.b, or kit.a where b is a name in it."""
    return {name if name in known else name.rpartition(".")[0] for name in imports(file)} & set(known)


def test_no_modules_import_each_other_in_a_circle() -> None:
    files_of = {module_of(file): file for file in files()}
    below = {name: modules_imported(file, files_of) - {name} for name, file in files_of.items()}
    # Whatever imports only what is taken away already is taken away; a circle is what remains.
    while free := [name for name, found in below.items() if not found & set(below)]:
        for name in free:
            del below[name]
    assert not below, f"among these: {', '.join(sorted(below))}"


# What may be imported inside a function, and why there. Everything else stands at the top of its file.
LAZY = {
    "what a short command seldom needs, at some milliseconds each": (
        *(
            "concurrent.futures",
            "configparser",
            "ctypes",
            "datetime",
            "difflib",
            "email.utils",
            "fnmatch",
            "gc",
            "grp",
            "hashlib",
        ),
        *(
            "http.client",
            "importlib",
            "io",
            "logging",
            "netrc",
            "packaging.markers",
            "packaging.requirements",
            "packaging.specifiers",
            "packaging.utils",
            "packaging.version",
            "pwd",
            "re",
            "secrets",
        ),
        *("select", "selectors", "shutil", "socket", "statistics", "subprocess", "tarfile", "tempfile", "textwrap"),
        *("threading", "traceback", "urllib.error", "urllib.parse", "urllib.request"),
    ),
    "large, and for one command or one kind of terminal": ("pynvml", "rich.console", "rich.text", "uv", "yaml"),
    "rooms that a short command may leave dark": (
        *("kit.catalog", "kit.catalog.tables", "kit.cli", "kit.cli.defaults", "kit.cli.faults", "kit.cli.sending"),
        *("kit.catalog.names", "kit.cli.near", "kit.spec.request"),
        *("kit.environment.declared", "kit.environment.editable", "kit.environment.guards", "kit.environment.system"),
        *("kit.image.environment", "kit.project.example"),
        *(
            "kit.config",
            "kit.config.settings",
            "kit.decide.compat",
            "kit.decide.doctor",
            "kit.decide.doctor.report",
            "kit.decide.explain",
            "kit.engine",
            "kit.engine.podman",
            "kit.host",
        ),
        "kit.environment",
        *("kit.facts.host", "kit.host.assemble", "kit.host.nvml", "kit.host.probe", "kit.image.build", "kit.locks"),
        *("kit.locks.format", "kit.locks.solver", "kit.locks.uv", "kit.private_engine", "kit.remote"),
        *("kit.remote.sync", "kit.render", "kit.run", "kit.run.command", "kit.run.containers", "kit.templates"),
        "kit.signals",
        *("kit.cli.trust",),
    ),
    "pytest must not run twice in one process unasked": ("kit.verify.collector",),
}
# Programs that run in containers, where a framework may be missing, and what starts them.
PROGRAMS = ("bench/", "cli/bench.py", "spec/tensorboard.py", "verify/suite/inside/")


def lazy_imports(file: Path) -> Iterator[str]:
    """The modules that a file imports inside functions."""
    for function in ast.walk(tree_of(file)):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom):
                    names = [f"kit.{alias.name}" for alias in node.names]
                    yield from names if node.module == "kit" else [str(node.module)]


def test_imports_stand_at_the_top_but_for_those_that_cost_time() -> None:
    allowed = {name for names in LAZY.values() for name in names}
    found = {
        (file.relative_to(PACKAGE).as_posix(), name)
        for file in files()
        if not file.relative_to(PACKAGE).as_posix().startswith(PROGRAMS)
        for name in lazy_imports(file)
    }
    assert not {(where, name) for where, name in found if name not in allowed}
    assert allowed == {name for _, name in found}, "this list has no more than there is"


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_some_libraries_have_one_user(file: Path) -> None:
    for library, users in ONLY_IN.items():
        if library in {name.split(".")[0] for name in imports(file)}:
            assert room_of(file) in users, f"{library} is for {', '.join(users) or 'nobody'}"


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_cli_prints_or_exits_and_only_paths_looks_at_its_own_file(file: Path) -> None:
    is_start = file == PACKAGE / "__main__.py"  # it starts itself again before it may import anything
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call):
            called, where = ast.unparse(node.func), f"line {node.lineno}"
            # These two are what a process becomes that `process.py` has started.
            is_last = is_start or file in (PACKAGE / "remote/sync/confined.py", PACKAGE / "remote/relay.py")
            ends = called in ("print", "exit", "sys.exit", "os._exit")
            assert room_of(file) in FLOORS["cli"] or is_last or not ends, where
            assert (called in ("os.execv", "os.execvp") and is_last) or not called.startswith(PROCESS_CALLS), where
        if room_of(file) != "paths" and not is_start and isinstance(node, ast.Name):
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
    if room_of(file) != "engine":
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
        "def function():\n    from kit.image import build, base\n",
        encoding="utf-8",
    )
    assert sorted(imports(file)) == ["kit.image.base", "kit.image.build", "os.path"]


# What is in a file's own words of a system, and the files that run on Linux alone.
OF_LINUX = ("/proc", "memfd_create", "prctl", "CLOCK_BOOTTIME", "SC_PHYS_PAGES", "O_PATH", "darwin", "sys.platform")
ON_LINUX = (
    "linux.py",
    "private_engine/",
    "mounts.py",
    "host/",
    "decide/doctor/",
    "run/gpu_check/",
    "verify/",
    "bench/",
)
ON_LINUX += ("image/", "remote/sync/confined.py", "spec/", "config/env_file.py", "catalog/")


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_what_only_linux_has_is_in_one_module(file: Path) -> None:
    if file.relative_to(PACKAGE).as_posix().startswith(ON_LINUX):
        return
    for node in ast.walk(tree_of(file)):
        words = [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
        if isinstance(node, ast.Attribute):
            words = [node.attr, ast.unparse(node)]
        for word in words:
            # What has a space in it is said to people.
            assert " " in word or "\n" in word or not word.startswith(OF_LINUX), f"{word}: see kit/linux.py"
