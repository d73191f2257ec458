"""Python that is read and never run: the lines of a notebook's cells, and build.envd, which is Starlark."""

from __future__ import annotations

import ast
import re
import warnings

LIMIT = 200_000
_MAX_DEPTH = 80


def parse(text: str) -> ast.Module | None:
    """The syntax tree of a text; None for what is no Python, or more deeply nested than people write."""
    depth = most = 0
    for sign in text[: LIMIT + 1]:
        depth += (sign in "([{") - (sign in ")]}")
        most = max(most, depth)
    # The parser of Python itself ends with the process for expressions nested without end.
    longest = max((len(line) - len(line.lstrip()) for line in text.splitlines()), default=0)
    # And takes time with the square of a name's length.
    if len(text) > LIMIT or max(most, longest // 10) > _MAX_DEPTH or re.search(r"(\.[^\W\d]\w*){200}", text):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that will be errors one day
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
