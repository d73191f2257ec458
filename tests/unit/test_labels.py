"""A label's name is written down once, in kit/labels.py."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import kit
from kit import labels
from kit.host.parse_engine import CONTAINER_LABELS

PACKAGE = Path(kit.__file__).parent
NAMES = [
    value
    for name, values in vars(labels).items()
    if name.isupper()
    for value in ([values] if isinstance(values, str) else values)
]


def is_label(text: str) -> bool:
    """Whether a text is a label's name, or looks like one and is not a module of kit."""
    if text in NAMES:
        return True
    path = PACKAGE.parent.joinpath(*text.split("."))
    return bool(re.fullmatch(r"kit(\.[a-z-]+)+", text)) and not (path.is_dir() or path.with_suffix(".py").is_file())


def test_names_are_labels_and_differ() -> None:
    own = [name for name in NAMES if name != labels.DEVCONTAINER]
    assert all(re.fullmatch(r"kit(\.[a-z-]+)+", name) for name in own)
    assert len(set(NAMES)) == len(NAMES) > 20


def test_no_other_file_spells_a_label() -> None:
    spelled = [
        f"{file.relative_to(PACKAGE)}:{node.lineno} {node.value}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if file != PACKAGE / "labels.py"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value not in ("kit.toml", "kit.lock") and is_label(node.value)
    ]
    assert not spelled, "use the name in kit/labels.py"


def test_the_probe_asks_for_the_labels_that_are_parsed() -> None:
    script = (PACKAGE / "host/probe.sh").read_text(encoding="utf-8")
    assert tuple(re.findall(r'\.Label "(kit\.[a-z.-]+)"', script)) == CONTAINER_LABELS
