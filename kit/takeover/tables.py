"""TOML and JSON with the lines of what is in them, as far as that is to be seen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from kit.config.files import Lines, parse
from kit.errors import BadInputError


class Toml:
    """A document of TOML. Raises BadInputError, with the line, for a text that is none."""

    def __init__(self, text: str, path: Path) -> None:
        self.document = parse(text, path)
        self._lines = text.splitlines()
        self._places = Lines(text)

    def table(self, *keys: str) -> dict[str, Any]:
        """A table below others; empty where there is none."""
        found: Any = self.document
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def rows(self, *keys: str) -> list[dict[str, Any]]:
        """The tables of a list, as `[[package]]`."""
        found = self.table(*keys[:-1]).get(keys[-1])
        return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []

    def line(self, key: str, part: str = "") -> int:
        """The line of a key, or of an entry in its list or table; 0 when it is not to be seen."""
        return self._places.of(key, part)

    def line_of_rows(self, header: str) -> list[int]:
        """The lines of the headers `[[header]]`, in order."""
        return [n for n, line in enumerate(self._lines, 1) if line.strip().startswith(f"[[{header}]]")]


class Json:
    """A document of JSON, a mapping at its top. Raises BadInputError for a text that is none."""

    def __init__(self, text: str, name: str) -> None:
        try:
            document = json.loads(text)
        except json.JSONDecodeError as e:
            raise BadInputError(
                f"{name}:{e.lineno}: not valid JSON: {e.msg}", hint="is it the file you mean?"
            ) from None
        except (ValueError, RecursionError):
            raise BadInputError(f"{name}: not valid JSON: nested too deeply", hint="is it the file you mean?") from None
        if not isinstance(document, dict):
            raise BadInputError(f"{name}: no keys at its top", hint="is it the file you mean?")
        self.document: dict[str, Any] = document
        self._keys: dict[str, int] = {}
        for number, line in enumerate(text.splitlines(), 1):
            for key in re.findall(r'"([^"\\]{1,200})"\s{0,20}:', line):
                self._keys.setdefault(key, number)

    def table(self, key: str) -> dict[str, Any]:
        """A mapping below a key; empty where there is none."""
        found = self.document.get(key)
        return found if isinstance(found, dict) else {}

    def line(self, key: str) -> int:
        """The first line a key stands in; 0 when it is not to be seen."""
        return self._keys.get(key, 0)


def texts(value: Any) -> list[str]:
    """The texts of a list; of anything else none."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """A text, a number as one; empty for anything else."""
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
