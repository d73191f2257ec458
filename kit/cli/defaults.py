"""How the configuration reaches the options of commands: as click's default map, below flags and their variables."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kit.cli.options import Options
from kit.errors import BadInputError

if TYPE_CHECKING:
    from kit.config.settings import Setting

# The parameter of a command that has its default in the configuration, and the key it has it in. The commands are
# those in kit.cli.CONFIGURED; in all of them these names mean the same.
PARAMETERS: dict[str, str] = {
    **{name: name for name in ("folder", "remote_folder", "gpus", "port", "mounts", "env_file", "logdir", "restart")},
    **{name: name for name in ("memory", "pids_limit", "transfer", "pull", "base", "registry_mirror", "ca_cert")},
    **{name: name for name in ("cpus", "shm_size", "ulimits", "publish", "network", "jupyter_options")},
    **{"include": "include", "variables": "env", "mirror": "apt_mirror"},
}
# Not every command with such an option is meant: a compose file leases no GPUs, an image that is measured needs one.
ONLY_IN = {"gpus": ("run",)}
# These say something of another machine, and are wrong without one.
ONLY_WITH_HOST = ("include", "remote_folder", "transfer")


class Defaults(dict[str, Any]):
    """A default map that reads the configuration when the first parameter asks for it, and not for a help page.

    For a group of commands it is the default map of each of them too.
    """

    def __contains__(self, name: object) -> bool:
        context = click.get_current_context()
        if isinstance(context.command, click.Group) and name in context.command.commands:
            return True
        # Help pages say the same everywhere; click sets this while it writes one.
        return isinstance(name, str) and not context.resilient_parsing and _is_configured(context, name)

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        return _as_given(click.get_current_context(), PARAMETERS[name]) if name in PARAMETERS else self

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default


def _is_configured(context: click.Context, name: str) -> bool:
    """Whether a file has a value for the parameter of that name, and the command is one it is for."""
    options: Options = context.obj
    if name not in PARAMETERS or context.info_name not in ONLY_IN.get(name, (context.info_name,)):
        return False
    if not options.is_configured or (name in ONLY_WITH_HOST and not options.host):
        return False
    return any(setting.source in ("user", "project") for setting in options.config.of(PARAMETERS[name]))


def _as_given(context: click.Context, key: str, replaced: Container[str] = ()) -> Any:
    """A value as the option takes it, without the entries that are replaced.

    Raises BadInputError for a path of this machine that is not there.
    """
    value = context.obj.setting(key)
    settings = context.obj.config.of(key)
    entries = [setting for setting in settings if setting.part and setting.part not in replaced]
    if key == "env":
        return [f"{entry.part}={entry.value}" for entry in entries]
    if key == "mounts":
        return [_mount(entry, context.obj.host) for entry in entries]
    if isinstance(value, Path):
        _must_exist(value, settings[0])
    return value


def _mount(setting: Setting, host: str) -> str:
    if not host:
        _must_exist(setting.value.path, setting)
        return str(setting.value.on_this_machine())
    # The source is a path over there.
    if not setting.value.source.startswith(("/", "~")):
        raise BadInputError(
            f"{setting.place}: `mounts`: `{setting.value.source}` is beside the file, which is not on {host}",
            hint="give the whole path it has there, or work on this machine with `--host local`",
        )
    return str(setting.value)


def _must_exist(path: Path, setting: Setting) -> None:
    if not os.path.exists(path):  # noqa: PTH110 (raises nothing for a path that is too long)
        raise BadInputError(
            f"{setting.place}: `{setting.key}`: there is no {path}", hint="correct the file, or make what it names"
        )


class AddingOption(click.Option):
    """A repeatable option that adds to what the configuration says; of the same name or target the given one counts."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        given: Sequence[str] = super().type_cast_value(ctx, value)
        if self.name == "mounts" and len({_target(text) for text in given}) < len(given):
            raise BadInputError("--mount: two at the same place in the container", hint="give each a TARGET of its own")
        if not isinstance(ctx.default_map, Defaults) or self.name not in ctx.default_map:
            return given
        if self.name == "include":
            return tuple(dict.fromkeys((*_as_given(ctx, PARAMETERS[self.name]), *given)))
        part = _target if self.name == "mounts" else _variable
        return (*_as_given(ctx, PARAMETERS[self.name], {part(text) for text in given}), *given)


def _variable(text: str) -> str:
    return text.partition("=")[0]


def _target(text: str) -> str:
    return posixpath.normpath([*text.split(":"), ""][1])


def include_option(command: Any) -> Any:
    """`--include`, of what sends a folder to a host."""
    return click.option(
        "--include",
        multiple=True,
        cls=AddingOption,
        metavar="PATH",
        help="Send this too, though git ignores it: a path in the folder, or a pattern. May be repeated.",
    )(command)
