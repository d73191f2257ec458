"""The question whether a project's file may say what it says beyond its project."""

from __future__ import annotations

import shlex
import sys

from kit.cli.output import ask, show
from kit.config import trust
from kit.config.settings import Config
from kit.errors import BadInputError


def see_to_trust(config: Config, key: str) -> bool:
    """Ask on the terminal before the value of a key is used, if need be; neither `--yes` nor a variable answers that.

    Returns False when that value needs no trust, and True when it does and all of the file is trusted. Raises
    BadInputError when the user says no, and without a terminal.
    """
    if not trust.is_needed(config, key):
        return False
    asked = trust.asked(config)
    if trust.is_trusted(config, asked):
        return True
    file = config.project_file
    problem = f"{file} reaches out of its project"
    if config.others:
        problem = f"{file} may be somebody else's: {config.others}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        hint = f"if it may: kit config trust {shlex.quote(str(file))}"
        raise BadInputError(problem, details=asked.lines, hint=hint)
    show("\n  ".join([f"{problem}:", *asked.lines]), err=True)
    if not ask("Do you trust it with this? kit asks again when it changes.", abort=False):
        raise BadInputError(f"{file} is not trusted", hint="`kit config show` lists what each file says")
    trust.remember(config, asked)
    if trust.asked(config) != asked:
        raise BadInputError(f"{file} leads elsewhere than when you were asked", hint="something changes its folder")
    return True
