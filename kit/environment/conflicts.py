"""What uv's words for a failed solve come down to. Pure: texts in, facts and sentences out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import VERSION_PATTERN, Version

from kit.frozen import dataclass

# Why a package cannot be taken.
ON_NO_INDEX, NO_RELEASE, NO_WHEEL, WITHDRAWN = "is on no index", "is no release", "has no wheel", "was withdrawn"
# The project that the solver is told of; what it asks for is what kit asks for.
_ASKER = "kit-lock"
# Of what uv says, in characters: the first sentences name what is in the way.
_LIMIT = 20_000
# All of it bounded, as names and versions are: what is in the text is other people's.
_NAME = r"(?<![A-Za-z0-9._-])[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?(?:\[[^\[\]]{0,200}\])?"
_CLAUSE = r"(?:===?|~=|!=|[<>]=?)[A-Za-z0-9.+!*_-]{0,98}[A-Za-z0-9*]"
_SPEC = rf"(?:{_CLAUSE}(?:,\s?{_CLAUSE}){{0,20}})?"
# Whole: no part of a name or version is taken for one.
_ITEM = rf"{_NAME}{_SPEC}(?![A-Za-z0-9_<>=!~-]|\.[A-Za-z0-9]|,\s*[<>=!~])"
# Not the subject of what follows: `… depends on a<1 and b depends on c`.
_MORE = rf"(?: and {_ITEM}(?! (?:versions|depends?|was|were|has|have|cannot|can|is|are)\b)){{0,50}}"
_DEPENDS = re.compile(rf"({_ITEM}) depends? on ((?:one of|any of):? )?({_ITEM}{_MORE})")


@dataclass(frozen=True, kw_only=True)
class Want:
    """That a package needs another, as uv says it."""

    who: str
    what: str
    specifier: str = ""  # empty: any version, or several ranges, of which uv writes one a line
    releases: str = ""  # of `who`, as `>=1.0`; empty: all

    @property
    def text(self) -> str:
        return f"{self.what}{self.specifier}" if self.specifier else f"another {self.what}"


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """That a package, or a version of it, cannot be taken whatever else is asked for, and why."""

    name: str
    specifier: str = ""
    why: str  # one of the four above


def in_one_line(stderr: str) -> str:
    """What uv says, without the markers that kit itself has asked for and the lines that it breaks it into."""
    return re.sub(r"\s+", " ", re.sub(r"\{[^{}]*\}", "", stderr))[:_LIMIT]


def wants(stderr: str) -> list[Want]:
    """Everything that uv says a package needs, in its order, without what kit asks for itself."""
    found = []
    for match in _DEPENDS.finditer(in_one_line(stderr)):
        who, releases = _split(match[1])
        if who == _ASKER:
            continue
        for item in match[3].split(" and "):
            what, specifier = _split(item)
            found.append(Want(who=who, what=what, specifier="" if match[2] else specifier, releases=releases))
    return list(dict.fromkeys(found))


def unusable(stderr: str) -> list[Unusable]:
    """The packages that uv says cannot be taken whatever else is asked for, in its order."""
    text = in_one_line(stderr)
    patterns = (
        (rf"({_NAME})() was not found in the (?:package registry|provided package locations)", ON_NO_INDEX),
        (rf"(?:there are )?no versions of ({_NAME})()", ON_NO_INDEX),
        (rf"there is no version of ({_NAME})({_SPEC})", NO_RELEASE),
        (rf"only ({_ITEM}) is available and {_ASKER} depends on \1", NO_RELEASE),
        (rf"({_NAME})({_SPEC}) (?:has|have) no (?:usable )?(?:wheels|source distribution)", NO_WHEEL),
        (rf"({_NAME})({_SPEC}) (?:was|were) yanked", WITHDRAWN),
    )
    found: list[tuple[int, Unusable]] = []
    for pattern, why in patterns:
        for match in re.finditer(pattern, text):
            name, specifier = _split("".join(match.groups("")))
            found.append((match.start(), Unusable(name=name, specifier=specifier, why=why)))
    # `only foo>=3 is available and kit-lock depends on foo<1`
    for match in re.finditer(rf"only ({_NAME}){_SPEC} is available and {_ASKER} depends on ({_NAME})({_SPEC})", text):
        name, specifier = _split(match[2] + match[3])
        if specifier and name == _split(match[1])[0]:
            found.append((match.start(), Unusable(name=name, specifier=specifier, why=NO_RELEASE)))
    return list(dict.fromkeys(one for _, one in sorted(found, key=lambda pair: pair[0])))


def python_wanted(stderr: str) -> tuple[str, str] | None:
    """(a package, the Python it wants) when the Python of an image is what is in the way."""
    match = re.search(
        rf"requested Python version \([^)]*\) does not satisfy Python({_SPEC}) and ({_ITEM})(?: depends on ({_ITEM}))?",
        in_one_line(stderr),
    )
    if match is None:
        return None
    who = _split(match[2])[0]
    return (_split(match[3])[0] if match[3] and who == _ASKER else who), match[1]


def withdrawn_because(stderr: str, name: str) -> str:
    """The reason that a package's author gave for withdrawing a release; empty where uv has none."""
    match = re.search(rf"{re.escape(name)}{_SPEC} was yanked \(reason: (.*?)\)", in_one_line(stderr))
    return match[1][:200] if match else ""


def asker(found: Sequence[Want], asked: Iterable[str], who: str) -> str:
    """Which of the packages that were asked for brings another along, as far as uv says it; else the empty text."""
    names = set(asked)
    seen: set[str] = set()
    waiting = [who]
    while waiting:
        one = waiting.pop(0)
        if one in names:
            return one
        seen.add(one)
        waiting += [want.who for want in found if want.what == one and want.who not in seen]
    return ""


def against(found: Sequence[Want], versions: Mapping[str, Sequence[str]]) -> Want | None:
    """What of the image a package does not go with; of several releases the newest. `versions` are the image's."""
    theirs = [want for want in found if want.what in versions and want.who not in versions]
    unmet = [w for w in theirs if not all(contains(w.specifier, version) for version in versions[w.what])]
    return max(unmet, key=_newest, default=None) or next((want for want in theirs if not want.specifier), None)


def _newest(want: Want) -> Version:
    """The newest release that a need is of, as far as uv names it."""
    matches = re.finditer(VERSION_PATTERN, want.releases, re.VERBOSE | re.IGNORECASE)
    named = [Version(match[0]) for match in matches if match[0]]
    return max(named, default=Version("99999"))


def contains(specifier: str, version: str) -> bool:
    """Whether a version meets what somebody else wrote; what cannot be read is met."""
    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidSpecifier:  # as `<2.*`, which old packages have in their metadata
        return True


def pair(found: Sequence[Want]) -> tuple[Want, Want] | None:
    """Two packages that need different versions of a third."""
    for number, one in enumerate(found):
        for other in found[number + 1 :]:
            if one.what == other.what and one.who != other.who and one.specifier != other.specifier:
                return one, other
    return None


def _split(item: str) -> tuple[str, str]:
    """The name of `name[extra]>=1`, as an index has it, and what follows."""
    match = re.match(_NAME, item)
    assert match is not None, item
    return canonicalize_name(match[0].partition("[")[0]), re.sub(r"\s", "", item[match.end() :])
