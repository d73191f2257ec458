"""Files of environment variables, as `docker run --env-file` reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from kit import files
from kit.config.keys import wrong_name, wrong_value
from kit.errors import BadInputError

# A pipe that whoever called this has opened: `--env-file <(…)`.
HANDED_OVER = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")


def read(path: Path, environment: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
    """The variables of a file, each once, the last of a name.

    A line is NAME=VALUE; the value is all that follows, spaces and quotes too. NAME alone takes the value the variable
    has here, and is left out when it has none. Empty lines and those that begin with `#` are nothing. Raises
    BadInputError, with the line and never with what is in it: these files have passwords in them.
    """
    env = os.environ if environment is None else environment
    found: dict[str, str] = {}
    for name, value in _lines(path):
        if value is not None:
            found[name] = value
        elif name in env:
            if problem := wrong_value(env[name]):
                raise BadInputError(f"{path} takes {name} from the environment: {problem}")
            found[name] = env[name]
    return tuple(found.items())


def taken_from_here(path: Path) -> tuple[str, ...]:
    """The names that a file takes their values of from the environment of who runs kit. Raises BadInputError."""
    return tuple(dict.fromkeys(name for name, value in _lines(path) if value is None))


def names(path: Path) -> tuple[str, ...]:
    """The names of all variables in a file. Raises BadInputError."""
    return tuple(dict.fromkeys(name for name, _ in _lines(path)))


def _lines(path: Path) -> Iterator[tuple[str, str | None]]:
    try:
        is_handed_over = str(path).startswith(HANDED_OVER)
        text = (path.read_bytes() if is_handed_over else files.read_bytes(path)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInputError(f"the env file {path} is not UTF-8 text") from None
    except OSError as e:
        raise BadInputError(f"the env file {path} cannot be read: {e.strerror}") from None
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.lstrip(" \t").removesuffix("\r")
        if not line or line.startswith("#"):
            continue
        name, sign, value = line.partition("=")
        problem = wrong_name(name) or wrong_value(value)
        if problem:
            hint = "a line is NAME=VALUE, or NAME alone to take the value it has here"
            if name.startswith("export "):
                hint = f"leave out `export`: {hint}"
            raise BadInputError(f"{path}:{number}: {problem}", hint=hint)
        yield name, value if sign else None
