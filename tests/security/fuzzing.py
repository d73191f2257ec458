"""Damaged inputs for whatever reads what others wrote: each reader is called for a while, and its answer is checked.

A reader may give a value or raise a `KitError`. Any other exception is exit code 70 to a user, and fails the test with
the smallest input that raises it, as does one that takes longer than a second.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from kit.errors import KitError

# For each test: a moment beside the others, longer in CI's own job (`.ci/run fuzz`).
SECONDS = float(os.environ.get("KIT_FUZZ_SECONDS") or 0.3)
FIRST_SEED = int(os.environ.get("KIT_FUZZ_SEED", "0"))
LIMIT_S = 1.0

Value = TypeVar("Value")


class Hang(Exception):
    """A reader did not answer in time."""


def fuzz(inputs: st.SearchStrategy[Value], read: Callable[[Value], Any]) -> None:
    """Call a reader with inputs until the time is over: no exception but `KitError`, no call over a second."""

    def on_alarm(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"no answer within {LIMIT_S:g} s")

    def check(value: Value) -> None:
        before = [(number, signal.signal(number, on_alarm)) for number in (signal.SIGPROF, signal.SIGALRM)]
        # Of the processor's time, which no other program of a busy machine takes; and of the clock, for what waits.
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        signal.setitimer(signal.ITIMER_REAL, 20 * LIMIT_S)
        try:
            read(value)
        except KitError:
            pass
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before:
                signal.signal(number, handler)

    options = settings(
        max_examples=200,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    end = time.monotonic() + SECONDS
    for number in itertools.count(FIRST_SEED):
        seed(number)(options(given(inputs)(check)))()
        if time.monotonic() >= end:
            return


# What breaks readers: ends of numbers, types of another kind, controls, halves of characters, much of one thing.
_PIECES = (
    *(b"\0", b"\xff", b"\xc3", b"\r", b"\n", b"\x1b[2J", b'"', b"'", b"\\", b",", b"=", b"[", b"]", b"{", b"}", b"[["),
    *(b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999", b"null", b"true", b'""', b"{}", b"[]", b"../..", b"/"),
    *("\u202e".encode(), "\u0661".encode(), b"[" * 5000, b"a" * 40_000, b"=" * 20_000, b"://" * 5_000, b"@" * 10_000),
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, corpus: Sequence[bytes]) -> bytes:
    """One of these files with up to six parts left out, repeated, exchanged or filled with something odd."""
    data = draw(st.sampled_from(list(corpus)))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 0, 1, 2, 8, 64, 512))))
        piece = draw(st.one_of(st.sampled_from(_PIECES), st.binary(max_size=8), st.just(data[start:end] * 2)))
        data = data[:start] + piece + data[end:]
    return data


# Any value of JSON, and what Python's reader takes beside it.
ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(("", "../../etc/passwd", "\x1b]0;x\x07", "a" * 10_000, "1" * 5_000, "sha256:", "\ud800")),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


@st.composite
def replaced(draw: st.DrawFn, corpus: Sequence[Any]) -> Any:
    """One of these values of JSON in which up to four parts, however deep, are another value or missing."""
    value = draw(st.sampled_from(list(corpus)))
    for _ in range(draw(st.integers(1, 4))):
        value = _with_one_replaced(draw, value)
    return value


def _with_one_replaced(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, (dict, list)) and value and draw(st.integers(0, 5)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(st.sampled_from(keys))
        copied = value.copy()
        if draw(st.integers(0, 7)) == 0:
            del copied[key]
        else:
            copied[key] = _with_one_replaced(draw, value[key])
        return copied
    return draw(ANY_JSON)
