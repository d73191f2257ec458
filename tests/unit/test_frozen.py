"""kit.frozen: its classes behave as those of `dataclasses` do."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, asdict, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import pytest

from kit import frozen


@frozen.dataclass(frozen=True, kw_only=True)
class Ours:
    """A class of ours."""

    name: str
    size: int | None = None
    parts: list[str] = field(default_factory=list)
    secret: str = field(default="", repr=False, compare=False)

    @cached_property
    def length(self) -> int:
        return len(self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theirs:
    """The same as the standard library makes it."""

    name: str
    size: int | None = None
    parts: list[str] = field(default_factory=list)
    secret: str = field(default="", repr=False, compare=False)

    @cached_property
    def length(self) -> int:
        return len(self.name)


@frozen.dataclass(frozen=True, kw_only=True)
class Child(Ours):
    more: tuple[str, ...] = ()


@pytest.mark.parametrize("values", [{"name": "a"}, {"name": "a", "size": 1, "parts": ["b"], "secret": "c"}])
def test_objects_are_alike(values: dict[str, Any]) -> None:
    ours, theirs = Ours(**values), Theirs(**values)
    assert asdict(ours) == asdict(theirs)
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert ours == Ours(**values) == copy.deepcopy(ours) == pickle.loads(pickle.dumps(ours))
    assert ours == replace(ours, secret="another")
    assert ours != replace(ours, name="another")
    assert ours.__eq__(theirs) is NotImplemented
    assert replace(ours, size=2).size == 2
    assert ours.length == 1
    assert ours == Ours(**values), "what is kept of it makes it no other"


def test_classes_are_alike() -> None:
    assert is_dataclass(Ours)
    assert [(f.name, f.type, f.default, f.repr, f.compare) for f in fields(Ours)] == [
        (f.name, f.type, f.default, f.repr, f.compare) for f in fields(Theirs)
    ]
    assert Ours.__doc__ == "A class of ours."
    assert Ours(name="a").parts is not Ours(name="a").parts
    child = Child(name="a", more=("b",))
    assert (child.name, child.size, child.more) == ("a", None, ("b",))
    assert child != Ours(name="a")


def test_hashes_follow_what_is_compared() -> None:
    one = Child(name="a", parts=(), secret="b")  # type: ignore[arg-type]
    assert hash(one) == hash(replace(one, secret="c"))
    assert len({one, replace(one, secret="c"), replace(one, name="d")}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(Ours(name="a"))


def test_objects_are_frozen() -> None:
    ours = Ours(name="a")
    with pytest.raises(FrozenInstanceError, match="'name'"):
        ours.name = "b"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match="'name'"):
        del ours.name  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match="'other'"):
        ours.other = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "values"), [((), {}), ((), {"size": 1}), ((), {"name": "a", "other": 1}), (("a",), {})]
)
def test_wrong_arguments_are_refused(arguments: tuple[str, ...], values: dict[str, Any]) -> None:
    for kind in (Ours, Theirs):
        with pytest.raises(TypeError):
            kind(*arguments, **values)


def test_what_is_not_supported_is_refused() -> None:
    with pytest.raises(AssertionError):

        @frozen.dataclass(frozen=True, kw_only=True)
        class Other(Ours):
            def __post_init__(self) -> None: ...
