"""Recognise known errors in a log: which rows of the catalog its lines match, the root cause first. Pure."""

from __future__ import annotations

import dataclasses
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate, chain, islice
from typing import TYPE_CHECKING, BinaryIO

from kit import redact
from kit.frozen import dataclass

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.catalog.rows import Action, Problem, Status, Translation
    from kit.decide.doctor import Finding

# A line longer than this is looked at piece by piece, so that a file without line ends needs no memory. What is told of
# an error fits into the overlap, so that none is lost between two pieces.
PIECE_BYTES = 16 * 1024
OVERLAP_BYTES = 512
BLOCK_LINES = 256
REMEMBERED = 10_000  # texts
WINDOW = 12  # lines before and after a line in which stands what a row wants near it, or not near it
SHOWN = 200  # characters of a line that are shown
SHOWN_BEFORE = 60  # of them, before what was recognised

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_WRITTEN_ESCAPE = re.compile(r"\\(?:u001b|x1b|033|e(?=\[))", re.IGNORECASE)  # as notebooks and JSON hold one
# A progress bar starts its line again and again (\r); JSON holds the line ends of a whole log as two characters.
_ENDS = re.compile(r"\r|\\r|\\n")
_WORD = re.compile(r"[a-z0-9]+")
_WORDS_ONLY = bytes(c if chr(c) in "abcdefghijklmnopqrstuvwxyz0123456789" else ord(" ") for c in range(256))
_FAMILY = re.compile(r"\(\?P<(\w+)>")
_CHINESE = re.compile("[\u4e00-\u9fff]")

Candidate = tuple[int, str, "Problem"]  # the place of its row in the table, a hint of it, the row
Hit = tuple["Problem", "Problem", str]  # a row that a text matches, the row or what stands in its place, what matched
Line = tuple[int, str, str, str]  # its number, what it shows, that in English, and in lower case


@dataclass(frozen=True, kw_only=True)
class Match:
    """A known problem, and where the log has it first."""

    problem: Problem
    line: int
    text: str  # of that line: shortened, without secrets
    count: int  # lines, or parts of one that a progress bar or JSON joined
    causes: tuple[str, ...] = ()  # the identifiers of those found that explain it


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was recognised, the root cause first and what is harmless last, and how many lines were read."""

    matches: tuple[Match, ...]
    lines: int

    @property
    def cause(self) -> Match | None:
        """The root cause; None when nothing was recognised, or only what is harmless."""
        return next((match for match in self.matches if not match.problem.harmless), None)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a log is compared with."""

    problems: Sequence[Problem]
    statuses: Mapping[tuple[str, str], Status] = dataclasses.field(default_factory=dict)  # by family and name or number
    actions: Mapping[str, Action] = dataclasses.field(default_factory=dict)
    translations: Sequence[Translation] = ()

    def by_word(self) -> dict[bytes, list[Candidate]]:
        """Each hint under its longest word: most text has none of these words, which is quick to see.

        The names of a list are hints of the row that stands for it.
        """
        index: dict[bytes, list[Candidate]] = {}
        names: dict[str, list[str]] = {}
        for (family, name), status in self.statuses.items():
            if name == status.name.lower() and family != "xid":
                names.setdefault(family, []).append(name)
        for place, problem in enumerate(self.problems):
            families = set(_FAMILY.findall(" ".join(problem.patterns)))
            for hint in chain(problem.hints, *(names.get(family, ()) for family in families)):
                index.setdefault(max(_words(hint), key=len).encode(), []).append((place, hint, problem))
        return index


def _words(hint: str) -> list[str]:
    """The words of a hint: those at its ends, which may be parts of longer ones, only if there are no others."""
    found = list(_WORD.finditer(hint))
    return [m.group() for m in found if m.start() > 0 and m.end() < len(hint)] or [m.group() for m in found]


def known_errors(catalog: Catalog) -> Known:
    """What the catalog knows."""
    statuses: dict[tuple[str, str], Status] = {}
    for status in catalog.statuses:
        for written in (status.name, str(status.code), status.meaning):
            statuses.setdefault((status.family, written.lower()), status)
    return Known(
        problems=catalog.problems,
        statuses=statuses,
        actions={action.name: action for action in catalog.actions},
        translations=catalog.translations,
    )


@dataclasses.dataclass(kw_only=True)
class _Found:
    problem: Problem
    line: int
    last: int  # the line that had it last
    text: str
    count: int = 1


def explain_lines(lines: Iterable[tuple[int, str]], known: Known) -> Report:
    """The known problems in numbered lines, which are read once, some at a time, and not kept.

    Each line stands for one problem: the first row of the table that it matches.
    """
    index = known.by_word()
    cures = {cure for problem in known.problems for cure in problem.cured_by}
    found: dict[str, _Found] = {}
    remembered: dict[str, list[Hit]] = {}  # of a text, which logs repeat, what it matches
    number = 0
    before: list[str] = []
    blocks = _blocks(lines, known.translations)
    block = next(blocks, None)
    while block is not None:
        following = next(blocks, None)
        number = block[-1][0]
        lowers = [lower for _, _, _, lower in block]
        together = "\n".join(lowers)
        words = index.keys() & set(together.encode(errors="replace").translate(_WORDS_ONLY).split())
        likely = sorted((c for word in words for c in index[word] if c[1] in together), key=lambda c: c[0])
        if likely:
            around = _Around(before, lowers, [lower for _, _, _, lower in (following or [])[:WINDOW]])
            for place, (at, shown, text, lower) in enumerate(block):
                if (hits := remembered.get(text)) is None:
                    hits = list(_hits(likely, text, lower, known))
                    if len(remembered) >= REMEMBERED:
                        remembered.clear()
                    if len(text) < SHOWN * 2:
                        remembered[text] = hits
                for problem, named, hit in hits:
                    if around.admits(problem, place):
                        _note(found, named, at, shown, hit)
                        break
        if any(f.problem.cured_by for f in found.values()) and any(cure in together for cure in cures):
            _cure(found, block)
        before = [*before, *lowers][-WINDOW:]
        block = following
    return Report(matches=_in_order(list(found.values())), lines=number)


class _Around:
    """The lines of a block with those before and after it: whether something stands near one of them."""

    def __init__(self, before: list[str], block: list[str], after: list[str]) -> None:
        texts = [*before, *block, *after]
        self.offset = len(before)
        self.text = "\n".join(texts)
        self.starts = list(accumulate((len(text) + 1 for text in texts), initial=0))
        self.lines: dict[str, list[int]] = {}

    def admits(self, problem: Problem, place: int) -> bool:
        """Whether a line of the block has near it what the row wants, and nothing that it excludes."""
        if problem.near and not any(self._has(part, place) for part in problem.near):
            return False
        return not any(self._has(part, place) for part in problem.unless)

    def _has(self, part: str, place: int) -> bool:
        if part not in self.lines:
            self.lines[part] = list(self._lines_with(part))
        lines, at = self.lines[part], place + self.offset
        nearest = bisect_left(lines, at - WINDOW)
        return nearest < len(lines) and lines[nearest] <= at + WINDOW

    def _lines_with(self, part: str) -> Iterator[int]:
        at = self.text.find(part)
        while at >= 0:
            line = bisect_right(self.starts, at) - 1
            yield line
            at = self.text.find(part, self.starts[line + 1])


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.MULTILINE)


def _hits(likely: list[Candidate], text: str, lower: str, known: Known) -> Iterator[Hit]:
    """The rows that a text matches, in the order of the table."""
    tried: set[str] = set()
    for _, hint, problem in likely:
        if hint in lower and problem.id not in tried:
            tried.add(problem.id)
            for pattern in problem.patterns:
                if (hit := _compiled(pattern).search(text)) and (named := _named(problem, hit, known)):
                    yield problem, named, hit.group()
                    break


def _named(problem: Problem, hit: re.Match[str], known: Known) -> Problem | None:
    """The row itself, or, of one that stands for a list of NVIDIA's, what the list says of the number or name in the
    line; None when it says nothing.
    """
    family, written = next(((f, text) for f, text in hit.groupdict().items() if text), ("", ""))
    if not family:
        return problem
    status = known.statuses.get((family, written.lower().rstrip(" .:)")))
    if status is None:
        return None
    action, next_one = known.actions[status.action], known.actions.get(status.next_action)
    return dataclasses.replace(
        problem,
        id=f"{family}-{status.code}",
        cause=f"{status.name}: {status.meaning}. {action.cause or problem.cause}",
        fix=action.fix + (f"; if it comes back: {next_one.fix}" if next_one else ""),
    )


def _note(found: dict[str, _Found], problem: Problem, line: int, shown: str, hit: str) -> None:
    if before := found.get(problem.id):
        before.count += 1
        before.last = line
    else:
        found[problem.id] = _Found(problem=problem, line=line, last=line, text=_shown(shown, hit))


def _cure(found: dict[str, _Found], block: list[Line]) -> None:
    """Take out what a later line of the block shows to be over."""
    for one in [f for f in found.values() if f.problem.cured_by]:
        if any(at > one.last and any(cure in lower for cure in one.problem.cured_by) for at, _, _, lower in block):
            del found[one.problem.id]


def _in_order(found: list[_Found]) -> tuple[Match, ...]:
    """A cause before what it explains; symptoms, which anything else explains, behind; else as the log has them."""
    own = {f.problem.id: f for f in found}
    causes = {
        name: tuple(o.problem.id for o in found if name in o.problem.explains or _explains_as_cause(o, f))
        for name, f in own.items()
    }

    def depth(name: str) -> int:
        return 1 + max(map(depth, causes[name])) if causes[name] else 0

    ordered = sorted(found, key=lambda f: (f.problem.harmless, depth(f.problem.id), f.line))
    return tuple(
        Match(problem=f.problem, line=f.line, text=f.text, count=f.count, causes=causes[f.problem.id]) for f in ordered
    )


def _explains_as_cause(one: _Found, other: _Found) -> bool:
    """Whether `other` is a symptom, and `one` no symptom: of those that do not say why, anything else is the reason."""
    return other.problem.symptom and not (one.problem.symptom or one.problem.harmless or other.problem.harmless)


def proof_of(cause: Match, findings: Iterable[Finding]) -> Finding | None:
    """What was found wrong with a machine that proves the cause of an error there; None when nothing does."""
    problem = cause.problem
    return next((f for f in findings if f.check == problem.check and re.search(problem.proof, f.message)), None)


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """The lines of a stream of bytes with their numbers; of a very long line, its pieces, which overlap.

    What is no UTF-8 is read as GB18030, as old Chinese systems write, if it is that. Zero bytes are left out, which
    makes UTF-16 (what PowerShell writes) readable.
    """
    number, rest = 0, b""
    while piece := stream.readline(PIECE_BYTES):
        number += not rest
        line = (rest + piece).replace(b"\0", b"")
        rest = b"" if piece.endswith(b"\n") else piece[-OVERLAP_BYTES:]
        try:
            yield number, line.decode()
        except UnicodeDecodeError:
            is_whole = not rest and len(line) == len(piece)
            yield number, line.decode("gb18030" if is_whole else "utf-8", errors="replace")


def _blocks(lines: Iterable[tuple[int, str]], translations: Sequence[Translation]) -> Iterator[list[Line]]:
    """Some lines at a time, as a terminal shows them."""
    lines = iter(lines)
    while block := list(islice(lines, BLOCK_LINES)):
        parts = [(at, part) for at, line in block for part in _parts(line)]
        together = "\n".join(part for _, part in parts)
        spoken = [row for row in translations if row.text in together] if _CHINESE.search(together) else []
        english = [(at, part, _in_english(part, spoken)) for at, part in parts]
        yield [(at, part, text, text.lower()) for at, part, text in english]


def _parts(line: str) -> list[str]:
    """What a line shows on a terminal, one after the other, without colours."""
    if "\\" in line:
        line = _WRITTEN_ESCAPE.sub("\x1b", line).replace('\\"', '"')
    if "\x1b" in line:
        line = _ESCAPE.sub("", line)
    return _ENDS.split(line) if "\r" in line or "\\" in line else [line]


def _in_english(text: str, translations: list[Translation]) -> str:
    """What the C library, shells and apt print in another language in the words that the rows know."""
    for row in translations:
        text = text.replace(row.text, row.english)
    return text


def _shown(text: str, found: str) -> str:
    """The part of a line around what was found, without secrets."""
    text = " ".join(redact.text(text).split())
    start = max(0, text.find(" ".join(found.split())) - SHOWN_BEFORE) if len(text) > SHOWN else 0
    end = start + SHOWN
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
