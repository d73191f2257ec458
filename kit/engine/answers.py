"""What an engine answers, taken as what it should be: one behind SSH may say anything. Pure, never raises."""

from __future__ import annotations

import json
from typing import Any


def parsed(text: str) -> Any:
    """The value of a JSON text; None when it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def mapping(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def items(data: Any) -> list[Any]:
    return data if isinstance(data, list) else []


def text(data: Any) -> str:
    return data if isinstance(data, str) else ""


def texts(data: Any) -> dict[str, str]:
    """Those of a mapping's values that are text, as labels are."""
    return {key: value for key, value in mapping(data).items() if isinstance(value, str)}


def number(data: Any) -> int:
    """A whole number of any size that counts something; 0 for anything else."""
    return data if type(data) is int and abs(data) < 1 << 63 else 0
