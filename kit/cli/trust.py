"""The question whether a project's file may say what it says beyond its project."""

from __future__ import annotations

import shlex
import sys

import click

from kit.config import trust
from kit.config.settings import Config
from kit.errors import BadInputError


def see_to_trust(config: Config, key: str) -> None:
    """Ask on the terminal before the value of a key is used; neither `--yes` nor a variable answers that.

    Raises BadInputError when the user says no, and without a terminal.
    """
    if not trust.is_needed(config, key):
        return
    file = config.project_file
    problem = f"{file} reaches out of its project"
    if config.others:
        problem = f"{file} may be somebody else's: {config.others}"
    lines = trust.lines(config)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        hint = f"if it may: kit config trust {shlex.quote(str(file))}"
        raise BadInputError(problem, details=lines, hint=hint)
    click.echo("\n  ".join([f"{problem}:", *lines]), err=True)
    if not click.confirm("Do you trust it with this? kit asks again when it changes.", err=True):
        raise BadInputError(f"{file} is not trusted", hint="`kit config show` lists what each file says")
    trust.remember(config)
