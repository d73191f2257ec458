"""Recognise known errors in a log: which rows of the catalog its lines match, the root cause first. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

from kit import redact
from kit.frozen import dataclass

if TYPE_CHECKING:
    from kit.catalog.rows import Problem

# A line longer than this is looked at piece by piece, so that a file without line ends needs no memory.
PIECE_BYTES = 16 * 1024
BLOCK_LINES = 64
SHOWN = 200  # characters of a line that are shown
SHOWN_BEFORE = 60  # of them, before what was recognised

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
# A progress bar starts its line again and again (\r); JSON holds the line ends of a whole log as two characters.
_ENDS = re.compile(r"\r|\\r|\\n")


@dataclass(frozen=True, kw_only=True)
class Match:
    """A known problem, and where the log has it first."""

    problem: Problem
    line: int
    text: str  # of that line: shortened, without secrets
    count: int  # lines, or parts of one that a progress bar or JSON joined


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was recognised, the root cause first, and how many lines were read."""

    matches: tuple[Match, ...]
    lines: int


def explain_lines(lines: Iterable[tuple[int, str]], problems: Sequence[Problem]) -> Report:
    """The known problems in numbered lines, which are read once, some at a time, and not kept.

    Each line stands for one problem: of those that match it, the one nearest to the root cause.
    """
    candidates = [
        (hint, problem) for problem in sorted(problems, key=lambda problem: problem.priority) for hint in problem.hints
    ]
    matches: dict[str, Match] = {}
    number, lines = 0, iter(lines)
    while block := list(islice(lines, BLOCK_LINES)):
        number = block[-1][0]
        parts = [(at, text, text.lower()) for at, line in block for text in _parts(line)]
        # Most blocks of most logs have no hint at all, which one look at the whole block says.
        together = "\n".join(lower for _, _, lower in parts)
        likely = [candidate for candidate in candidates if candidate[0] in together]
        for at, text, lower in parts if likely else ():
            for hint, problem in likely:
                if hint in lower and (found := _search(problem, text)):
                    if before := matches.get(problem.id):
                        matches[problem.id] = replace(before, count=before.count + 1)
                    else:
                        shown = _shown(text, found.group())
                        matches[problem.id] = Match(problem=problem, line=at, text=shown, count=1)
                    break
    return Report(matches=tuple(sorted(matches.values(), key=lambda m: (m.problem.priority, m.line))), lines=number)


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """The lines of a stream of bytes with their numbers; of a very long line, its pieces.

    Bytes that are no UTF-8 are replaced. Zero bytes are left out, which makes UTF-16 (what PowerShell writes) readable.
    """
    number, is_new = 0, True
    while piece := stream.readline(PIECE_BYTES):
        number += is_new
        is_new = piece.endswith(b"\n")
        yield number, piece.replace(b"\0", b"").decode(errors="replace")


def _parts(line: str) -> list[str]:
    """What a line shows on a terminal, one after the other, without colours."""
    if "\x1b" in line:
        line = _ESCAPE.sub("", line)
    return _ENDS.split(line) if "\r" in line or "\\" in line else [line]


def _search(problem: Problem, text: str) -> re.Match[str] | None:
    return next((m for pattern in problem.patterns if (m := re.search(pattern, text, re.IGNORECASE))), None)


def _shown(text: str, found: str) -> str:
    """The part of a line around what was found, without secrets."""
    text = " ".join(redact.text(text).split())
    start = max(0, text.find(" ".join(found.split())) - SHOWN_BEFORE) if len(text) > SHOWN else 0
    end = start + SHOWN
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
