"""The keys of the configuration: what each takes, and how a value that is written becomes one that is used."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from kit.frozen import dataclass

Kind = Literal[
    "text",
    "texts",
    "host",
    "hosts",
    "url",
    "choice",
    "gpus",
    "port",
    "ports",
    "flag",
    "limit",
    "limits",
    "path",
    "there",
    "mounts",
    "env",
    "names",
]

# What Linux takes of a path, and of a name in it.
PATH_MAX, NAME_MAX = 4095, 255
# The word for this machine, where a file or a variable names another.
LOCAL = "local"


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of the files, and what may be written for it."""

    name: str
    kind: Kind = "text"
    default: Any = None
    choices: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()  # of the environment, that say the same; the first that is set counts
    # A project's file may be somebody else's, fetched with their code: kit asks before it uses such a value of it.
    reaches_out: bool = False
    in_project: bool = False  # means nothing in the user's file, which is for all projects


# The table of a project's file whose keys are `environment.image` and so on.
ENVIRONMENT = "environment"

KEYS: dict[str, Key] = {
    key.name: key
    for key in (
        Key(name="host", kind="host", default=LOCAL, variables=("KIT_HOST",), reaches_out=True),
        Key(name="hosts", kind="hosts", default=(), reaches_out=True),
        Key(name="image"),
        Key(name="folder", kind="path"),
        Key(name="remote_folder", kind="there", reaches_out=True),
        Key(name="include", kind="names", default=()),
        Key(name="gpus", kind="gpus"),
        Key(name="port", kind="port"),
        Key(name="mounts", kind="mounts", default=()),
        Key(name="env", kind="env", default=()),
        Key(name="env_file", kind="path"),
        Key(name="logdir", default="."),
        Key(name="restart", kind="choice", default="no", choices=("no", "on-failure", "unless-stopped", "always")),
        Key(name="transfer", kind="flag", default=False),
        Key(name="memory", kind="limit", reaches_out=True),
        Key(name="pids_limit", kind="limit", reaches_out=True),
        Key(name="cpus", kind="limit", reaches_out=True),
        Key(name="shm_size", kind="limit", reaches_out=True),
        Key(name="ulimits", kind="limits", default=(), reaches_out=True),
        Key(name="publish", kind="ports", default=()),
        Key(name="network", reaches_out=True),
        Key(name="jupyter_options", kind="texts", default=(), reaches_out=True),
        Key(name="pull", default="", reaches_out=True),
        Key(
            name="base",
            kind="choice",
            default="auto",
            choices=("auto", "registry", "archive"),
            variables=("KIT_BASE",),
        ),
        Key(name="registry_mirror", default="", variables=("KIT_REGISTRY_MIRROR",), reaches_out=True),
        # Those that kit/network.py reads too.
        Key(
            name="index_url",
            kind="url",
            default="",
            variables=("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"),
            reaches_out=True,
        ),
        Key(name="apt_mirror", kind="url", default="", reaches_out=True),
        Key(name="ca_cert", kind="path", variables=("KIT_CA_CERT",), reaches_out=True),
        # The project's own environment, a table of its file: kit/environment.
        Key(name="environment.image", in_project=True),
        Key(name="environment.packages", kind="texts", default=(), in_project=True),
        Key(name="environment.system", kind="texts", default=(), in_project=True),
        Key(name="environment.indexes", kind="texts", default=(), in_project=True, reaches_out=True),
        Key(name="environment.project", kind="flag", default=False, in_project=True),
        Key(name="environment.env", kind="env", default=(), in_project=True),
        Key(name="environment.ports", kind="ports", default=(), in_project=True),
        Key(name="environment.check", in_project=True),
    )
}


@dataclass(frozen=True, kw_only=True)
class FolderMount:
    """A folder or file for containers, as it is written: SOURCE:TARGET[:ro]."""

    source: str
    target: str
    mode: str = ""
    folder: Path  # the one of the file that says so

    @property
    def path(self) -> Path:
        """The source on this machine: relative to the file, `~` is the home."""
        return resolved(self.source, self.folder)

    def on_this_machine(self) -> str:
        """As `--mount` takes it."""
        return ":".join(filter(None, (str(self.path), self.target, self.mode)))

    def __str__(self) -> str:
        """As it is written, which is how a host takes it: a source is a path there."""
        return ":".join(filter(None, (self.source, self.target, self.mode)))


class WrongValueError(ValueError):
    """What a value should be. `part` is the entry of a table or list it stands in."""

    def __init__(self, text: str, part: str = "") -> None:
        super().__init__(text)
        self.part = part


def resolved(text: str, folder: Path) -> Path:
    """A path as it is written in a file of that folder, made absolute; links stay what they are.

    Raises WrongValueError when it has a `~` that stands for no folder, and when no path is that long.
    """
    try:
        path = Path(os.path.abspath(folder / Path(text).expanduser()))  # noqa: PTH100 (keeps links)
    except RuntimeError:
        raise WrongValueError(f"`{text.partition('/')[0]}` stands for no folder here") from None
    if is_too_long(str(path)):
        raise WrongValueError(f"is of more than {PATH_MAX} bytes, or has a name of more than {NAME_MAX} in it")
    return path


def convert(key: Key, raw: Any, folder: Path) -> dict[str, Any]:
    """The value of a key, under the empty name; of `env` and `mounts` each entry under its name or target.

    Raises WrongValueError.
    """
    match key.kind:
        case "env":
            return _variables(raw)
        case "mounts":
            return _mounts(raw, folder)
        case "hosts":
            return {"": tuple(_host(item) for item in _list(raw, "names of machines"))}
        case "names":
            return {"": tuple(_inner(item) for item in _list(raw, "paths in the folder"))}
        case "host":
            return {"": _host(raw)}
        case "path":
            return {"": resolved(_text(raw, "a path"), folder)}
        case "there":
            text = _text(raw, "a path on the host")
            if not text.startswith(("/", "~/")):
                raise WrongValueError("must be a path on the host, from / or ~/ on")
            return {"": text}
        case "url":
            text = _text(raw, "a URL")
            if not re.match(r"(https?|file)://[^/]*/?", text, re.IGNORECASE):
                raise WrongValueError("must be a URL that begins with http:// or https://")
            return {"": text}
        case "gpus":
            is_count = type(raw) is int and raw >= 1
            return {"": str(raw) if is_count else _text(raw, 'a number, or a text such as "free" or "0,3"')}
        case "texts":
            return {"": tuple(_text(item, "a list of texts") for item in _list(raw, "texts"))}
        case "ports":
            return {"": tuple(_ports(item) for item in _list(raw, '7860 or "7860:7860"'))}
        case "limits":
            return {"": _limits(raw)}
        case "limit":
            is_count = type(raw) in (int, float) and raw > 0
            return {"": str(raw) if is_count else _text(raw, 'a number, or a text such as "24g" or "none"')}
        case "port":
            if type(raw) is not int or not 1 <= raw <= 65535:
                raise WrongValueError(f"must be a whole number from 1 to 65535, not {_seen(raw)}")
            return {"": raw}
        case "flag":
            if type(raw) is not bool:
                raise WrongValueError(f"must be true or false, not {_seen(raw)}")
            return {"": raw}
        case "choice":
            if not isinstance(raw, str) or raw not in key.choices:
                choices = ", ".join(f'"{choice}"' for choice in key.choices)
                raise WrongValueError(f"must be one of {choices}, not {_seen(raw)}")
            return {"": raw}
        case "text":
            return {"": _text(raw, "a text")}


def _seen(raw: Any) -> str:
    """A wrong value in an error; only of kinds in which no secret is written."""
    text = repr(raw)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _text(raw: Any, what: str) -> str:
    if not isinstance(raw, str):
        raise WrongValueError(f"must be {what}, in quotes")
    if not raw.strip():
        raise WrongValueError(f"must be {what}; it is empty")
    # What is printed of it must be what there is: no escape sequence, no character that turns the line around.
    if not raw.isprintable():
        raise WrongValueError("has a character in it that cannot be printed")
    return raw


def _host(raw: Any) -> str:
    text = _text(raw, "the name of a machine")
    if text.startswith("-") or " " in text:
        raise WrongValueError("must be the name of a machine, as `ssh` takes it")
    return text


def _inner(raw: Any) -> str:
    text = _text(raw, "a path in the folder")
    if text.startswith(("/", "~")) or ".." in text.split("/"):
        raise WrongValueError("must be paths in the folder, as `data/` or `*.csv`")
    return text


def _list(raw: Any, what: str) -> list[Any]:
    if not isinstance(raw, list):
        raise WrongValueError(f'must be a list of {what}: ["…"]')
    return raw


def _ports(raw: Any) -> str:
    return str(raw) if type(raw) is int else _text(raw, 'a list of ports: 7860 or "7860:7860"')


def _limits(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, Mapping):
        raise WrongValueError('must be a table: { memlock = "unlimited", stack = 67108864 }')
    said = 'a number, or a text such as "unlimited" or "65536:524288"'
    found = {name: str(value) if type(value) is int else _text(value, said) for name, value in raw.items()}
    return tuple(f"{name}={value}" for name, value in found.items())


def _mounts(raw: Any, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in _list(raw, "SOURCE:TARGET[:ro]"):
        text = _text(item, "a list of SOURCE:TARGET[:ro]")
        source, *rest = text.split(":")
        if not source or len(rest) not in (1, 2) or rest[1:] not in ([], ["ro"], ["rw"]) or not rest[0].startswith("/"):
            raise WrongValueError(f"`{text}` is not SOURCE:TARGET[:ro] with a TARGET from / on", text)
        if problem := wrong_target(rest[0]):
            raise WrongValueError(problem, text)
        target = posixpath.normpath(rest[0])
        if target in found:
            raise WrongValueError(f"two mounts at {target}", text)
        found[target] = FolderMount(source=source, target=rest[0], mode="".join(rest[1:]), folder=folder)
        resolved(source, folder)
    return found


def wrong_target(path: str) -> str:
    """What is wrong with a place in a container for a mount; empty when nothing is."""
    if not path.isprintable() or set(path) & set(',"'):
        return "a TARGET with a comma, a quote or a character that cannot be printed in it"
    if is_too_long(path):
        return f"a TARGET of more than {PATH_MAX} bytes, or with a name of more than {NAME_MAX} in it"
    first = posixpath.normpath(path).lstrip("/").partition("/")[0]
    return f"nothing can be mounted in /{first}" if first in ("proc", "sys") else ""


def is_too_long(path: str) -> bool:
    """Whether no file can have that path."""
    return len(os.fsencode(path)) > PATH_MAX or any(len(os.fsencode(name)) > NAME_MAX for name in path.split("/"))


def _variables(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise WrongValueError('must be a table: { NAME = "value" }')
    found: dict[str, Any] = {}
    for name, value in raw.items():
        if problem := wrong_name(name):
            raise WrongValueError(problem, name)
        if type(value) not in (str, int):
            raise WrongValueError("must be a text in quotes, or a whole number", name)
        if problem := wrong_value(str(value)):
            raise WrongValueError(problem, name)
        found[name] = str(value)
    return found


def wrong_value(value: str) -> str:
    """What is wrong with the value of an environment variable, without the value; empty when nothing is."""
    if "\0" in value:
        return "a NUL character in the value"
    return "" if value.isascii() or not re.search("[\ud800-\udfff]", value) else "a value that is not UTF-8"


def wrong_name(name: str) -> str:
    """What is wrong with the name of an environment variable, without the name itself; empty when nothing is."""
    if not name:
        return "a variable without a name"
    if "=" in name or not name.isprintable() or any(character.isspace() for character in name):
        return "a variable's name has a space, a `=` or a character that cannot be printed in it"
    return ""
