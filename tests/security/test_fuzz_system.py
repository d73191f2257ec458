"""Damaged answers of apt in an image, which may be somebody else's: what becomes of them in kit.lock."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import strategies as st

from kit.environment import system
from kit.project import system as action
from tests.security.fuzzing import damaged, fuzz

DATA = Path(__file__).parents[1] / "unit/data/apt"
RESOLVED = (DATA / "resolved.txt").read_bytes()
CONFLICT = (DATA / "conflict.txt").read_bytes()


def test_what_apt_would_install() -> None:
    def read(data: bytes) -> None:
        lines = data.decode(errors="replace").splitlines()
        found = system.layer_of("bookworm", "amd64", ("sox",), lines)
        system.replaced(found, lines)
        for package in found.packages:
            assert re.fullmatch("[0-9a-f]{64}", package.sha256)
            assert re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", package.name)

    fuzz(damaged([RESOLVED]), read)


def test_why_it_would_not() -> None:
    def read(data: bytes) -> None:
        assert len(action._why(data.decode(errors="replace"))) <= 8

    fuzz(damaged([CONFLICT, RESOLVED]), read)


def test_a_time_of_a_list() -> None:
    fuzz(st.text(max_size=60).map(lambda text: [f"date {text}"]), lambda lines: system.layer_of("b", "a", (), lines))
