"""`kit config`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kit import config
from kit.cli.options import Options, json_option
from kit.cli.output import print_error, print_json, print_table, say, show
from kit.config import trust
from kit.config.files import home
from kit.errors import BadInputError

if TYPE_CHECKING:
    from kit.config.settings import Config, Setting


@click.group()
def config_command() -> None:
    """Show the configuration, and where each value came from.

    Settings are in the user's ~/.config/kit/config.toml and in kit.toml of a project: the current folder or the nearest
    above it. An option of a command stands above its environment variable, that above the project, that above the user.
    """


@config_command.command("show")
@json_option
@click.pass_obj
def show_command(options: Options) -> None:
    """Print every key with its value and where it came from.

    Passwords are not shown. A file that is wrong is left out; the reason is printed, and the exit code is 2.
    """
    found = config.read()
    if options.json:
        print_json(
            {
                **_files(found),
                "settings": [_as_json(setting) for setting in found.settings],
                "problems": [line for e in found.problems for line in (e.message, *e.details)],
            }
        )
    else:
        rows = [(s.name, _shown(s), _origin(s)) for s in found.settings]
        print_table(["KEY", "VALUE", "FROM"], rows)
        for line in found.passed_over:
            say(options, f"not read: {line}")
    for problem in found.problems:
        print_error(problem)
    if found.problems:
        click.get_current_context().exit(found.problems[0].exit_code)


@config_command.command("path")
@json_option
@click.pass_obj
def path_command(options: Options) -> None:
    """Print where the user's file and the project's file are, and whether they are there."""
    found = config.read()
    if options.json:
        print_json(_files(found))
        return
    user = f"{found.user_file}{'' if _exists(found) else '  (not there)'}" if found.user_file else "none: no home"
    show(f"user     {user}")
    show(f"project  {found.project_file or 'none'}")
    for line in found.passed_over:
        say(options, f"not read: {line}")


@config_command.command("trust")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--list", "listing", is_flag=True, help="Print the files that are trusted.")
@click.option("--revoke", is_flag=True, help="Trust the file no more.")
@click.pass_obj
def trust_command(options: Options, *, file: Path | None, listing: bool, revoke: bool) -> None:
    """Trust a project's file with what it says beyond it.

    That is a host, other folders, mounts, certificates, mirrors. FILE is a kit.toml; without one it is the project's.
    It is trusted until it says anything else of that kind: then kit asks on a terminal, and stops without one.
    """
    if listing:
        for name in trust.trusted():
            show(name)
        return
    found = config.read(Path(os.path.abspath(file)).parent if file else None)  # noqa: PTH100 (keeps links)
    named = Path(os.path.abspath(file)) if file else found.project_file  # noqa: PTH100
    if named is None:
        raise BadInputError("there is no kit.toml for this folder", hint="name the file: kit config trust FILE")
    if revoke:
        say(options, f"{named} is trusted no more" if trust.revoke(named) else f"{named} was not trusted")
        return
    if found.problems:
        raise found.problems[0]
    if found.project_file != named:
        reasons = "; ".join(found.passed_over) or "there is no such file"
        raise BadInputError(f"{named} is not the file of a project", hint=reasons)
    asked = trust.asked(found)
    if not asked.lines:
        say(options, f"{named} says nothing beyond its project: it needs no trust")
        return
    trust.remember(found, asked)
    say(options, f"{named} is trusted with:")
    for line in asked.lines:
        say(options, f"  {line}")


def _exists(found: Config) -> bool:
    return found.user_file is not None and os.path.lexists(found.user_file)


def _files(found: Config) -> dict[str, Any]:
    return {
        "user_file": str(found.user_file) if found.user_file else None,
        "user_file_exists": _exists(found),
        "project_file": str(found.project_file) if found.project_file else None,
        "not_read": list(found.passed_over),
    }


def _as_json(setting: Setting) -> dict[str, Any]:
    """A setting with its value as the files have it, but for passwords."""
    value: Any = setting.shown
    if setting.value is None or isinstance(setting.value, int):  # true and false too
        value = setting.value
    elif isinstance(setting.value, tuple):
        value = [str(item) for item in setting.value]
    return {
        "key": setting.name,
        "value": value,
        "source": setting.source,
        "where": setting.where,
        "line": setting.line or None,
    }


def _shown(setting: Setting) -> str:
    return _short(setting.shown) if isinstance(setting.value, Path) else setting.shown or "-"


def _origin(setting: Setting) -> str:
    if setting.source == "default":
        return "default"
    return setting.where if setting.source == "environment" else _short(setting.place)


def _short(path: str) -> str:
    """A path with the home as `~`."""
    own = str(home() or "")
    return f"~{path[len(own) :]}" if len(own) > 1 and path.startswith(f"{own}/") else path
