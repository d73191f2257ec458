"""The configuration: a user's file, a project's file and the environment in one, each value with its origin.

Flags stand above all of it; click sees to that for the options of commands (kit/cli/defaults.py). Every command looks
whether there is a file, and most often there is none: what reads one is imported when there is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kit.config import files
from kit.errors import BadInputError

if TYPE_CHECKING:
    from kit.config.settings import Config, Setting, Source


def is_there() -> bool:
    """Whether there is a file of either kind. Raises BadInputError when KIT_CONFIG names one that is not there."""
    user = files.user_file(os.environ)
    return (user is not None and files.is_there(user)) or _project_file(None, os.environ)[0] is not None


def load(start: Path | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """The configuration for a folder (the current one) and this process's environment.

    Raises BadInputError, with everything that is wrong in the files: TOML that does not parse, an unknown key with the
    nearest that there is, a value of the wrong kind, a file that cannot be read.
    """
    found = read(start, environment)
    if found.problems:
        first, *others = found.problems
        details = [line for other in others for line in (other.message, *other.details)]
        raise BadInputError(first.message, hint=first.hint, details=(*first.details, *details))
    return found


def read(start: Path | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """As `load`, but with what is wrong in `problems` instead of raised; what is in such a file is left out."""
    from kit.config.settings import Config, from_environment, from_file, merged

    env = os.environ if environment is None else environment
    problems: list[BadInputError] = []
    layers: dict[Source, list[Setting]] = {"user": [], "project": []}
    others = ""
    user = None
    try:
        user = files.user_file(env)
    except BadInputError as e:
        problems.append(e)
    project, over = _project_file(start, env)
    files_of: tuple[tuple[Source, Path | None], ...] = (("user", user), ("project", project))
    for source, file in files_of:
        try:
            if file:
                layers[source], others = from_file(file, source, env)
        except BadInputError as e:
            problems.append(e)
    return Config(
        settings=merged([*layers.values(), from_environment(env)]),
        user_file=user,
        project_file=project,
        problems=tuple(problems),
        passed_over=over,
        project=tuple(layers["project"]),
        others=others if project else "",
    )


def read_env_file(path: Path, environment: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
    """The variables of a file as `docker run --env-file` reads it (kit/config/env_file.py). Raises BadInputError."""
    from kit.config import env_file

    return env_file.read(path, environment)


def _project_file(start: Path | None, environment: Mapping[str, str]) -> tuple[Path | None, tuple[str, ...]]:
    with contextlib.suppress(OSError):  # the current folder was deleted: it has no project
        return files.project_file(Path.cwd() if start is None else start.resolve(), environment)
    return None, ()
