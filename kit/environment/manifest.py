"""Edits of a project's kit.toml: of what is not added or taken out, comments, order, quotes and line ends stay.

Texts go in and come out; whoever calls this writes the file, once what was asked for has a solution.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomlkit
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tomlkit import TOMLDocument
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Array, Item, String, Table

from kit import files
from kit.config.files import LIMIT_BYTES
from kit.config.keys import ENVIRONMENT
from kit.environment.declared import FILE, wrong_package, wrong_system
from kit.errors import BadInputError
from kit.frozen import dataclass

_BOM = "\ufeff"
_REQUIREMENT = re.compile(r"\s*(?P<name>[A-Za-z0-9._-]+)\s*(?:\[(?P<extras>[^\]]*)\])?\s*(?P<rest>.*)")
_HEADER = """\
# What this project runs in: `kit run` here starts it. kit.lock says what exactly that is; commit both files.
[environment]
"""
_IMAGE = "# The image that it stands on; `kit list` shows them.\n"
_PACKAGES = "# From the package index: `kit add einops`.\n"
_SYSTEM = "# From the distribution: `kit add --system ffmpeg`.\n"
_INDEXES = "# Beside the package index that the machine is set to use.\n"
_PROJECT = "# The project itself, as its pyproject.toml says.\n"


@dataclass(frozen=True, kw_only=True)
class Edited:
    """A kit.toml with a change made in it, and the two lists as they are then."""

    text: str
    packages: tuple[str, ...]
    system: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a new table says."""

    image: str  # empty where the file says it elsewhere
    packages: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    project: bool = False
    env: tuple[tuple[str, str], ...] = ()


def place(folder: Path) -> Path:
    """The kit.toml of a project, which may be a link. Raises BadInputError for one that leads out of the folder: what
    is there is another project's.
    """
    real = (folder / FILE).resolve()
    if not real.is_relative_to(folder.resolve()):
        raise BadInputError(
            f"{folder / FILE} is a link to {real}", hint="change that file in its own folder, or by hand"
        )
    return real


def read(path: Path) -> str:
    """A kit.toml as it is, line ends included. Raises BadInputError when it cannot be read."""
    try:
        return files.read_text(path, limit=LIMIT_BYTES)
    except UnicodeDecodeError:
        raise BadInputError(f"{path} is not UTF-8 text", hint="a TOML file always is") from None
    except OSError as e:
        raise BadInputError(f"{path} cannot be read: {e.strerror or e}", hint="correct its permissions") from None


def add(text: str, packages: Sequence[str] = (), system: Sequence[str] = ()) -> Edited:
    """With packages added. One that is there already is changed in its place: a version takes that of the old one's,
    none leaves it, extras come together.

    Raises BadInputError for what is no package, and for one that is there several times under conditions.
    """
    for given in packages:
        if problem := wrong_package(given):
            raise BadInputError(problem, hint="`kit add --help` shows what it takes")
    for given in system:
        if problem := wrong_system(given):
            raise BadInputError(problem, hint="its name, as `apt-cache search` shows it: `kit add --system ffmpeg`")

    def packages_with(known: list[str]) -> None:
        for given in packages:
            place = _place(known, given)
            if place is None:
                known.append(given.strip())
            else:
                known[place] = _merged(known[place], given)

    def system_with(known: list[str]) -> None:
        for given in system:
            names = [_system_name(entry) for entry in known]
            if _system_name(given) not in names:
                known.append(given)
            elif "=" in given:
                known[names.index(_system_name(given))] = given

    return _edited(text, {"packages": packages_with, "system": system_with})


def remove(text: str, packages: Sequence[str] = (), system: Sequence[str] = ()) -> Edited:
    """Without these, whatever version and condition they stand with. Raises BadInputError for one that is not there."""
    wanted = [canonicalize_name(_name(given)) for given in packages]

    def packages_without(known: list[str]) -> None:
        _must_be_there(packages, wanted, [canonicalize_name(_name(entry)) for entry in known], "packages")
        known[:] = [entry for entry in known if canonicalize_name(_name(entry)) not in wanted]

    def system_without(known: list[str]) -> None:
        names = [_system_name(given) for given in system]
        _must_be_there(system, names, [_system_name(entry) for entry in known], "system")
        known[:] = [entry for entry in known if _system_name(entry) not in names]

    return _edited(text, {"packages": packages_without, "system": system_without})


def create(contents: Contents) -> str:
    """The text of a new kit.toml."""
    lines = [_HEADER]
    if contents.image:
        lines += [_IMAGE, f"image = {_text(contents.image)}\n"]
    lines += [_PACKAGES, f"packages = {_list(contents.packages)}\n", _SYSTEM, f"system = {_list(contents.system)}\n"]
    if contents.indexes:
        lines += [_INDEXES, f"indexes = {_list(contents.indexes)}\n"]
    if contents.project:
        lines += [_PROJECT, "project = true\n"]
    if contents.env:
        lines += ["\n[environment.env]\n", *(f"{_key(name)} = {_text(value)}\n" for name, value in contents.env)]
    return "".join(lines)


def with_table(text: str, contents: Contents) -> str:
    """A kit.toml that has no such table, with one at its end. Raises BadInputError when it has one."""
    if ENVIRONMENT in _parsed(text).unwrap():
        raise BadInputError(
            f"{FILE} has an environment already", hint="`kit add PACKAGE` adds to it; by hand it is changed as well"
        )
    end = _line_end(text)
    before = text if not text.strip(_BOM) or text.endswith("\n") else text + end
    return before + (end if before.strip() else "") + create(contents).replace("\n", end)


def bounded(name: str, version: str) -> str:
    """A package as it is written for whoever named no version: from the minor release on that was found.

    What is exact is in the lock. The bound says what it was tried with: without one, the next solve that meets a
    conflict may go back to a release of many years ago and call that a solution.
    """
    found = Version(version)
    release = [*found.release, 0][:2] if any(found.release[:2]) else found.release
    epoch = f"{found.epoch}!" if found.epoch else ""
    bound = f"{epoch}{'.'.join(map(str, release))}"
    return f"{name}>={found.public if Version(bound) > found else bound}"


def admits(entry: str, version: str) -> bool:
    """Whether an entry of the list takes a version."""
    requirement = Requirement(entry)
    return not requirement.url and requirement.specifier.contains(version, prereleases=True)


def with_bounds(text: str, versions: dict[str, str]) -> Edited:
    """With the bound of a version for each of these packages (by canonical name) that stands there without any."""

    def bound(known: list[str]) -> None:
        for number, entry in enumerate(known):
            requirement = Requirement(entry)
            version = versions.get(canonicalize_name(requirement.name))
            if version and not requirement.specifier and not requirement.url:
                name, extras, rest = _parts(entry)
                known[number] = bounded(name + extras, version) + (f" {rest}" if rest else "")

    return _edited(text, {"packages": bound})


def _place(known: Sequence[str], given: str) -> int | None:
    """Where in the list a package has its entry, which is to be changed; None when it is to have one more."""
    wanted = Requirement(given)
    same = {n: Requirement(entry) for n, entry in enumerate(known) if _is_same(entry, wanted)}
    alike = [n for n, requirement in same.items() if str(requirement.marker or "") == str(wanted.marker or "")]
    if alike or not same or wanted.marker:
        return alike[0] if alike else None
    if len(same) > 1:
        raise BadInputError(
            f"{wanted.name} stands in {FILE} {len(same)} times, each under a condition",
            details=tuple(known[number] for number in same),
            hint=f"name the condition too, or change it in {FILE}",
        )
    return next(iter(same))


def _is_same(entry: str, wanted: Requirement) -> bool:
    return canonicalize_name(_name(entry)) == canonicalize_name(wanted.name)


def _merged(old: str, given: str) -> str:
    """An entry with what was given for its package."""
    known, wanted = Requirement(old), Requirement(given)
    says_more = bool(wanted.specifier or wanted.url)
    extras = sorted(known.extras | wanted.extras)
    if not says_more and extras == sorted(known.extras):
        return old
    name, _, rest = _parts(given if says_more else old)
    together = f"[{','.join(extras)}]" if extras else ""
    condition = ""
    if says_more and known.marker and not wanted.marker:
        condition = f"{' ' if wanted.url else ''}; {known.marker}"
    return f"{name}{together}{' ' if rest.startswith(('@', ';')) else ''}{rest}{condition}"


def _parts(entry: str) -> tuple[str, str, str]:
    """The name, the extras with their brackets, and what comes after, of an entry that is one."""
    found = _REQUIREMENT.fullmatch(entry.strip())
    assert found is not None, entry
    return found["name"], f"[{found['extras']}]" if found["extras"] else "", found["rest"].strip()


def _name(text: str) -> str:
    found = _REQUIREMENT.match(text)
    return found["name"] if found else text


def _system_name(entry: str) -> str:
    return entry.partition("=")[0]


def _must_be_there(given: Iterable[str], wanted: Iterable[str], known: Sequence[str], key: str) -> None:
    missing = [text for text, name in zip(given, wanted, strict=True) if name not in known]
    if not missing:
        return
    near = [match for text in missing for match in difflib.get_close_matches(text.lower(), known, n=2)]
    are = f"there are: {', '.join(known)}" if known else "it is empty"
    hint = f"did you mean {' or '.join(f'`{name}`' for name in dict.fromkeys(near))}?" if near else are
    raise BadInputError(f"`{key}` of {FILE} has no {', '.join(missing)}", hint=hint)


def _parsed(text: str) -> TOMLDocument:
    try:
        return tomlkit.parse(text.removeprefix(_BOM))
    except (TOMLKitError, ValueError, RecursionError) as e:
        raise BadInputError(f"{FILE} cannot be edited: {e}", hint="correct it, or change it by hand") from None


def _edited(text: str, changes: dict[str, Callable[[list[str]], None]]) -> Edited:
    """The text with lists of the table changed, and nothing else."""
    document = _parsed(text)
    table: Any = document.get(ENVIRONMENT)
    if not isinstance(table, dict):
        raise BadInputError(f"{FILE} has no table `[{ENVIRONMENT}]`", hint="`kit init` writes one")
    before: dict[str, Any] = document.unwrap()
    for key, change in changes.items():
        old = [str(entry) for entry in table.get(key, [])]
        new = list(old)
        change(new)
        if new != old:
            before[ENVIRONMENT][key] = new
            if key in table:
                table[key] = tomlkit.array(_with_last_comma(table[key].as_string()))
                _set(table[key], new)
            else:
                document = _with_key(document, key, new, before)
                table = document[ENVIRONMENT]
    end = _line_end(text)
    after = document.as_string()
    if end == "\r\n":
        after = re.sub(r"(?<!\r)\n", end, after)
    if _parsed(after).unwrap() != before:
        lists = (f"{key} = {_list(before[ENVIRONMENT].get(key, []))}" for key in changes)
        raise BadInputError(
            f"`[{ENVIRONMENT}]` is written in {FILE} in a way that kit cannot edit",
            details=tuple(lists),
            hint="change it by hand to this, then `kit lock`",
        )
    found = before[ENVIRONMENT]
    return Edited(
        text=(_BOM if text.startswith(_BOM) else "") + after,
        packages=tuple(found.get("packages", ())),
        system=tuple(found.get("system", ())),
    )


def _set(array: Array, new: list[str]) -> None:
    """Make a list of another: what stays keeps its line, with its quotes and comments."""
    old = [str(entry) for entry in array]
    spread = not old and "\n" not in array.as_string()
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    for tag, first, last, new_first, new_last in reversed(matcher.get_opcodes()):
        if tag == "equal":
            continue
        both = min(last - first, new_last - new_first)
        for offset in range(both):
            array[first + offset] = _like(array[first + offset], new[new_first + offset])
        for _ in range(last - first - both):
            del array[first + both]
        for offset in range(both, new_last - new_first):
            array.insert(first + offset, _string(new[new_first + offset]))
    if spread:  # one package a line: so are the differences of its history
        array.multiline(True)


def _with_last_comma(array: str) -> str:
    """A list, in its text, that may get one more entry: a comment may stand between the last one and the bracket."""
    words = list(re.finditer(r""""(?:[^"\\\n]|\\.)*"|'[^'\n]*'|#[^\n]*|,""", array))
    entries = [word for word in words if not word[0].startswith("#")]
    if not entries or entries[-1] is words[-1] or entries[-1][0] == ",":
        return array
    end = entries[-1].end()
    return f"{array[:end]},{array[end:]}"


def _with_key(document: TOMLDocument, key: str, new: list[str], wanted: dict[str, Any]) -> TOMLDocument:
    """With one more key in the table, behind its last one: a comment that comes after may be about the next table."""
    text = document.as_string()
    value = tomlkit.array()
    for entry in new:
        value.append(_string(entry))
    table: Any = document[ENVIRONMENT]
    if isinstance(table, Table):
        last = next((item for name, item in reversed(table.value.body) if name and not isinstance(item, dict)), None)
        if last is not None and last.trivia.trail.endswith("\n"):
            value.multiline(True)
            last.trivia.trail += f"{key} = {value.as_string()}\n"
            with suppress(TOMLKitError):
                if (found := tomlkit.parse(document.as_string())).unwrap() == wanted:
                    return found
            value.multiline(False)
    document = tomlkit.parse(text)  # `environment.image = "torch"`, `environment = { … }`
    document[ENVIRONMENT][key] = value
    return document


def _like(old: Item, text: str) -> String:
    is_literal = isinstance(old, String) and old.as_string().startswith("'")
    return _string(text, literal=is_literal)


def _string(text: str, *, literal: bool = False) -> String:
    """A text in the quotes that need no escapes in it."""
    can_be_literal = "'" not in text
    return tomlkit.string(text, literal=can_be_literal and (literal or '"' in text or "\\" in text))


def _text(text: str) -> str:
    return _string(text).as_string()


def _key(name: str) -> str:
    return tomlkit.key(name).as_string()


def _list(entries: Sequence[str]) -> str:
    return "[\n" + "".join(f"    {_text(entry)},\n" for entry in entries) + "]" if entries else "[]"


def _line_end(text: str) -> str:
    """What all lines of a text end with."""
    return "\r\n" if "\r\n" in text and not re.search(r"(?<!\r)\n", text) else "\n"
