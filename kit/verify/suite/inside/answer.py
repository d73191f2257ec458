"""How a script inside the container answers: one line of JSON with the value, or the error, of each of its parts."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any


class Absent(Exception):
    """The part cannot be asked of this framework or GPU; never raised for what fails."""


def give(parts: dict[str, Callable[[], Any]]) -> None:
    """Run the parts one after the other, whatever happens to those before, and print what came of them."""
    answer = {}
    for name, part in parts.items():
        try:
            answer[name] = {"value": part(), "error": ""}
        except Absent as e:
            answer[name] = {"value": None, "error": "", "absent": str(e)}
        except Exception as e:
            where = traceback.extract_tb(e.__traceback__)[-1]
            error = f"{type(e).__name__}: {e}".strip()[:500]
            answer[name] = {"value": None, "error": error, "where": f"{where.filename}:{where.lineno}"}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
