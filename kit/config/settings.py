"""Settings with their origin, and how those of several files become one configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from kit import redact
from kit.config import files
from kit.config.keys import ENVIRONMENT, KEYS, FolderMount, WrongValueError, convert
from kit.errors import BadInputError
from kit.frozen import dataclass

# Of one file: more are not read.
MAX_PROBLEMS = 20
Source = Literal["default", "user", "project", "environment"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value, and where it comes from. Of `env` and `mounts` there is one for each entry."""

    key: str
    part: str = ""  # the name of a variable, or the target of a mount
    value: Any
    source: Source = "default"
    where: str = ""  # the path of a file, or the name of an environment variable
    line: int = 0

    @property
    def name(self) -> str:
        """The key as it is shown."""
        return f"{self.key}.{self.part}" if KEYS[self.key].kind == "env" and self.part else self.key

    @property
    def place(self) -> str:
        """The file and line, or the variable."""
        return f"{self.where}:{self.line}" if self.line else self.where

    @property
    def shown(self) -> str:
        """The value for people's eyes: no passwords, nothing that is not printable; empty when there is none."""
        if KEYS[self.key].kind == "env" and redact.is_secret_name(self.part):
            return redact.HIDDEN
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        if isinstance(self.value, tuple):
            return redact.text(", ".join(str(item) for item in self.value))
        return escaped("" if self.value is None else redact.text(str(self.value)))


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every key's value: the highest of environment, project's file, user's file and default."""

    settings: tuple[Setting, ...]
    user_file: Path | None = None  # where it is or would be
    project_file: Path | None = None
    problems: tuple[BadInputError, ...] = ()  # of files and variables; what is in such a file is not in the settings
    passed_over: tuple[str, ...] = ()  # project files that were not taken, with the reason
    project: tuple[Setting, ...] = ()  # what the project's file says, whether it counts or not
    others: str = ""  # why somebody else has written the project's file, or may

    def of(self, key: str) -> tuple[Setting, ...]:
        """The settings of a key: one, or of `env` and `mounts` as many as there are entries."""
        return tuple(setting for setting in self.settings if setting.key == key)

    def value(self, key: str) -> Any:
        """The value of a key; of `env` a dict, of `mounts` a tuple of FolderMount. KeyError for one there is not."""
        found, kind = self.of(key), KEYS[key].kind
        if kind == "env":
            return {setting.part: setting.value for setting in found if setting.part}
        if kind == "mounts":
            return tuple(setting.value for setting in found if setting.part)
        return found[0].value


def merged(layers: Sequence[Sequence[Setting]]) -> tuple[Setting, ...]:
    """The settings of all layers, the lowest first: a later one replaces the same key, and of `env` and `mounts` the
    same entry. Keys that no layer has get their default.
    """
    top: dict[str, dict[str, Setting]] = {name: {} for name in KEYS}
    for layer in layers:
        for setting in layer:
            top[setting.key][setting.part] = setting
    defaults = {name: Setting(key=name, value=key.default) for name, key in KEYS.items()}
    return tuple(setting for name in KEYS for setting in (top[name] or {"": defaults[name]}).values())


def from_file(path: Path, source: Source, environment: Mapping[str, str]) -> tuple[list[Setting], str]:
    """The settings in a file, and why it may be somebody else's; none when there is no file.

    Raises BadInputError with everything that is wrong in it.
    """
    text, document, others = files.read(path, environment)
    lines = files.Lines(text)
    folder = Path(os.path.abspath(path.parent))  # noqa: PTH100 (keeps links)
    found: list[Setting] = []
    problems: list[tuple[str, str]] = []

    def place(key: str, part: str = "") -> tuple[str, int]:
        line = lines.of(key, part)
        return (f"{path}:{line}" if line else str(path)), line

    for name, raw in _flat(document):
        if len(problems) > MAX_PROBLEMS:
            problems.append(("there is more", ""))
            break
        if name not in KEYS:
            problems.append((f"{place(name)[0]}: unknown key `{_printable(name)}`", _nearest(name)))
            continue
        if KEYS[name].in_project and source != "project":
            where = f"{place(name)[0]}: `{name}` is of a project"
            problems.append((where, f"write it into {files.PROJECT_FILE} in the project's folder"))
            continue
        try:
            values = convert(KEYS[name], raw, folder)
        except WrongValueError as e:
            shown = f"{name}.{_printable(e.part)}" if KEYS[name].kind == "env" and e.part else name
            problems.append((f"{place(name, e.part)[0]}: `{shown}`: {e}", ""))
            continue
        except ValueError:  # Python writes no number of thousands of digits, which hexadecimal ones may have
            problems.append((f"{place(name)[0]}: `{name}`: a number that is too large", ""))
            continue
        for part, value in values.items():
            written = str(value) if isinstance(value, FolderMount) else part
            line = place(name, written)[1]
            found.append(Setting(key=name, part=part, value=value, source=source, where=str(path), line=line))
    if problems:
        (message, hint), *further = problems
        hint = hint or "`kit config show` lists every key"
        raise BadInputError(message, hint=hint, details=tuple(" ".join(filter(None, other)) for other in further))
    return found, others


def _flat(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys of a file and their values, those of the table of the environment with its name before them."""
    for name, raw in document.items():
        if name == ENVIRONMENT and isinstance(raw, Mapping):
            yield from ((f"{ENVIRONMENT}.{inner}", value) for inner, value in raw.items())
        else:
            yield name, raw


def from_environment(environment: Mapping[str, str]) -> list[Setting]:
    """What is set in the environment, as it is: whoever uses it checks it, and others are not disturbed by it."""
    found = []
    for key in KEYS.values():
        # A variable that is set and empty is like one that is not set, as everywhere in kit.
        variable = next((name for name in key.variables if environment.get(name)), "")
        if variable:
            text = environment[variable]
            value = Path(text) if key.kind == "path" else text
            found.append(Setting(key=key.name, value=value, source="environment", where=variable))
    return found


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name.replace("-", "_").lower(), KEYS, n=1)
    return f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(KEYS)}"


def escaped(text: str) -> str:
    """A text on one line, with what cannot be printed as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
