"""The global options and the configuration below them, as every command sees them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kit.errors import BadInputError, FilesError

if TYPE_CHECKING:
    from kit.config.settings import Config
    from kit.environment.declared import Declared


class Whole(click.IntRange):
    """Whole numbers as people write them: Python takes digits of other scripts, and `1_000`, too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not set(str(value)) <= set("-0123456789"):
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        return super().convert(value, param, ctx)


class Decimal(click.FloatRange):
    """Numbers as people write them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not set(str(value)) <= set("-.0123456789"):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return super().convert(value, param, ctx)


class Folder(click.Path):
    """A folder that is there; where it cannot be looked at, that is said, and not that it does not exist."""

    def __init__(self) -> None:
        super().__init__(exists=True, file_okay=False, resolve_path=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            try:
                os.stat(value)  # noqa: PTH116
            except PermissionError:
                raise FilesError(
                    f"{value}: you may not enter the folder that it is in", hint="ask its owner, or take another folder"
                ) from None
            except (OSError, ValueError):
                pass
            raise


# What --host is given for this machine, whatever the configuration says.
HERE = ("", "local")
# Where `--host` of a line that is being completed is noted.
COMPLETED_HOST = "kit.host"
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(kw_only=True)
class Options:
    """The global options, as every command sees them (`ctx.obj`), and the configuration below them, which is read when
    something first asks for it. A command's own `--json` and `--host` are noted here: one object, so that what is read
    and said is read and said once.
    """

    json: bool = False
    quiet: bool = False
    verbose: int = 0
    debug: bool = False
    yes: bool = False
    asked_host: str | None = None  # by --host or KIT_HOST; None: what the configuration says
    _is_trusted: bool = False  # the project's file, with what it says beyond the project

    @property
    def host(self) -> str:
        """The machine to work on, as ssh takes it; empty for this one. Raises BadInputError when a file of the
        configuration is wrong.
        """
        named = self.asked_host
        if named is None:
            named = self.setting("host") if self.is_configured else ""
        return "" if named in HERE else named

    @cached_property
    def is_configured(self) -> bool:
        """Whether there is a file of the configuration at all: without one every value is its default."""
        from kit import config

        return config.is_there()

    @cached_property
    def config(self) -> Config:
        """The configuration. Raises BadInputError when a file of it is wrong."""
        from kit import config

        return config.load()

    def setting(self, key: str) -> Any:
        """The value of a key of the configuration, for a use of it.

        The file of a project may be somebody else's: the user is asked before what it says beyond the project is used,
        and refusing is a BadInputError, as is a file that is wrong.
        """
        if self.config.project and not self._is_trusted:
            from kit.cli.trust import see_to_trust

            self._is_trusted = see_to_trust(self.config, key)
        return self.config.value(key)


def configured(key: str) -> Any:
    """The value of a key of the configuration, for the command that runs."""
    return click.get_current_context().obj.setting(key)


def configured_image() -> str:
    """The image of the project, or what its environment stands on; empty where no file names one."""
    return str(configured("environment.image") or configured("image") or "")


def own_environment() -> Callable[[], Declared] | None:
    """What reads the environment of the project in whose folder the command runs, for a use of it; None where there is
    none.

    The user is asked first where the file reaches out of the project with it, as `Options.setting` does.
    """
    options: Options = click.get_current_context().obj
    if not options.is_configured:
        return None
    keys = {setting.key for setting in options.config.project if setting.key.startswith("environment.")}

    def read() -> Declared:
        from kit.environment.declared import declared

        for key in sorted(keys):
            options.setting(key)
        found = declared(options.config)
        assert found is not None
        return found

    return read if keys else None


def no_image_named() -> BadInputError:
    """What a command says that needs an image, or a project's environment, and has neither."""
    return BadInputError("no image named", hint="`kit list` shows them; `image` in kit.toml names the one of a project")


def is_configured(parameter: str) -> bool:
    """Whether a parameter of the command that runs has its value from the configuration, and not from who called it."""
    return click.get_current_context().get_parameter_source(parameter) is click.core.ParameterSource.DEFAULT_MAP


def json_option(command: Command) -> Command:
    """`--json` on a command that reports, as beside the global one: both `kit --json list` and `kit list --json`."""

    def note(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.obj.json = True

    return click.option(
        "--json", is_flag=True, expose_value=False, callback=note, help="Print data as JSON on standard output."
    )(command)


def host_option(command: Command) -> Command:
    """`--host` on a command that works on another machine over SSH, as beside the global one."""

    def note(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if ctx.resilient_parsing:  # a line that is being completed
            ctx.meta[COMPLETED_HOST] = value or ctx.meta.get(COMPLETED_HOST)
        elif value is not None:
            ctx.obj.asked_host = value

    return click.option(
        "--host",
        is_eager=True,  # what other options mean depends on it
        expose_value=False,
        callback=note,
        metavar="[USER@]SERVER",
        help="Work on this machine, over SSH (or the one of a docker context); `local` is this one.",
    )(command)


def without_login(_: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Refuse a registry with a user in its name, which is shown and passed on; the engine has logins of its own."""
    # A digest comes after an @, too.
    names = (value,) if isinstance(value, str) else value or ()
    if any("@" in re.sub("@sha256:[0-9a-f]{64}$", "", name) for name in names):
        raise BadInputError(
            f"{parameter.opts[0]} has a user in it", hint="give the host alone, and log in with `docker login HOST`"
        )
    return value
