"""envd's build.envd: its calls with literal arguments. It is Starlark, read as Python is, and never run."""

from __future__ import annotations

import ast
from typing import Any

from kit.errors import BadInputError
from kit.takeover import conda, dockerfile, literals, requirements, shell
from kit.takeover.found import Found

_LITERALS = "only calls with literal arguments are taken over: kit runs no code of a file"
_OTHERS = {
    "shell": "the shell of an image is bash",
    "git_config": "git's settings are yours, not the image's",
    "include": "a library of envd's, whose code kit does not fetch",
    "io.copy": "the project's folder is mounted, nothing is copied",
    "io.http": "kit fetches no files while it builds",
    "runtime.expose": "`ports` of kit.toml opens a port",
    "runtime.daemon": "kit starts one service at a time: `kit run NAME jupyter`",
    "runtime.command": "`kit run` starts a command",
    "runtime.mount": "`mounts` of kit.toml names folders",
    "config.jupyter": "`kit run jupyter` starts JupyterLab, with a token",
    "config.apt_source": "`apt_mirror` of kit.toml names a mirror",
    "config.gpu": "`gpus` of kit.toml says which",
    "install.vscode_extensions": "`kit code` attaches VS Code, which installs its extensions itself",
    "install.cuda": "",
}


def read(text: str, found: Found) -> None:
    """The calls of a build file."""
    tree = literals.parse(text)
    if tree is None:
        raise BadInputError(f"{found.folder / found.name} is not Starlark that can be read", hint="correct its syntax")
    lines = text.splitlines()
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        statement = waiting.pop(0)
        said = lines[statement.lineno - 1].strip() if statement.lineno <= len(lines) else ""
        if isinstance(statement, ast.FunctionDef):
            waiting = [*statement.body, *waiting]
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            _call(found, statement.lineno, said, statement.value)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        elif not isinstance(statement, ast.Pass):
            name = (
                ast.unparse(statement.value.func)
                if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)
                else ""
            )
            found.left(statement.lineno, said, _OTHERS.get(name, _LITERALS))


def _call(found: Found, line: int, said: str, call: ast.Call) -> None:
    name = ast.unparse(call.func)
    arguments: dict[str, Any] = {}
    for place, value in enumerate(call.args):
        arguments[str(place)] = _literal(value)
    for keyword in call.keywords:
        arguments[keyword.arg or "**"] = _literal(keyword.value)
    if any(value is None for value in arguments.values()):
        return found.left(line, said, _OTHERS.get(name) or _LITERALS)

    def listed(*keys: str) -> list[str]:
        values = [arguments.get(key) for key in keys]
        return [
            str(item) for value in values for item in (value if isinstance(value, list) else [value] if value else [])
        ]

    if name == "base":
        _base(found, line, said, arguments)
    elif name in ("install.python_packages", "install.pypi_packages"):
        for item in listed("0", "name"):
            for _, spec in requirements.lines(item):
                requirements.read_line(found, line, spec)
        for file in listed("requirements", "1"):
            requirements.read_file(found, line, said, file)
        for file in listed("local_wheels"):
            found.left(line, f"{file} ({said})", "a file of one machine: kit.toml takes packages of an index")
    elif name in ("install.apt_packages", "install.system_packages"):
        for item in listed("0", "name"):
            found.system(line, said, item)
    elif name == "install.conda_packages":
        for item in listed("0", "name"):
            conda.read_spec(found, line, said, item)
        for item in listed("channel"):
            found.left(line, f"{item} ({said})", "conda's channels are not asked: packages are PyPI's")
    elif name == "install.cuda":
        found.wish(line, said, "cuda", next(iter(listed("0", "version")), ""))
        if arguments.get("cudnn"):
            found.left(line, f"cudnn ({said})", "cuDNN is the image's")
    elif name in ("install.python", "install.conda"):
        versions = listed("0", "version")
        if name == "install.python" and versions:
            found.wish(line, said, "python", f"=={'.'.join(versions[0].split('.')[:2])}.*")
        else:
            found.left(line, said, "the Python is the image's")
    elif name == "config.pip_index":
        for url in listed("0", "url", "1", "extra_url"):
            found.index(line, said, url)
    elif name == "runtime.environ":
        for value in arguments.values():
            for key, item in value.items() if isinstance(value, dict) else ():
                found.variable(line, said, str(key), str(item))
    elif name == "run":
        for item in listed("0", "commands"):
            shell.read(found, line, item, others="kit builds of packages alone and runs no commands")
    else:
        found.left(line, said, _OTHERS.get(name, "kit.toml has no key for it"))
    return None


def _literal(node: ast.expr) -> Any:
    """A literal's value; None for anything else, and for None itself."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _base(found: Found, line: int, said: str, arguments: dict[str, Any]) -> None:
    for key, value in arguments.items():
        text = str(value)
        if key == "image":
            dockerfile.read_image(found, line, said, text)
        elif key == "language" or (key == "1" and text.startswith("python")):
            version = text.removeprefix("python")
            if version and version[0].isdigit():
                found.wish(line, said, "python", f"=={version}.*")
            elif not text.startswith("python"):
                found.left(line, said, f"`{text}`: images are for Python")
        elif key != "dev":
            found.left(line, f"{key} ({said})", "the distribution is the image's")
