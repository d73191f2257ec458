"""The fuzzer itself finds what it is there to find."""

from __future__ import annotations

import json

import pytest
from hypothesis import strategies as st

from kit.errors import BadInputError
from tests.security.fuzzing import Hang, damaged, fuzz, replaced


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.security.fuzzing.SECONDS", 0.5)


def test_an_exception_of_another_kind_is_found() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (json's own and Unicode's)
        fuzz(damaged([b'{"a": 1}']), json.loads)


def test_kits_own_errors_pass() -> None:
    def refuse(value: int) -> None:
        raise BadInputError(f"{value} is no good")

    fuzz(st.integers(), refuse)


def test_a_hang_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.security.fuzzing.LIMIT_S", 0.02)

    def hang(value: int) -> None:
        while value > 100:
            pass

    with pytest.raises(Hang):
        fuzz(st.integers(0, 1000), hang)


def test_parts_of_a_value_are_exchanged() -> None:
    seen: list[object] = []
    fuzz(replaced([{"a": [1, {"b": 2}]}]), seen.append)
    assert {"a": [1, {}]} in seen
    assert any(isinstance(value, dict) and value.get("a") != [1, {"b": 2}] for value in seen)
