"""Damaged words of uv's about a solve that failed: package names and reasons in them are other people's."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from kit.environment import conflicts
from tests.security.fuzzing import damaged, fuzz

MARKER = "{python_full_version < '3.13' and platform_machine == 'x86_64' and sys_platform == 'linux'}"
TEXTS = [
    text.encode()
    for text in (
        f"cause: Because all versions of never depend on torch<2.5 and all versions of via depend on never, we can\n"
        f"         And because kit-lock depends on torch{MARKER}==2.6.0 and via{MARKER}, we can conclude that",
        "Because foo[gpu]==1.0 depends on one of:\n        torch<2\n        torch>3.*\n and a>=1 depends on b~=1,!=1",
        f"Because yanked{MARKER}==1.0 was yanked (reason: it was broken) and only yanked{MARKER}==1.0 is available",
        f"requested Python version (>=3.11) does not satisfy Python>=3.12 and kit-lock depends on newer{MARKER}",
        f"only gradio{MARKER}>=3.0 is available and kit-lock depends on gradio{MARKER}<1",
        "flash==2.0 has no usable wheels and never was not found in the package registry",
    )
]
LONG = [
    "a" * 200_000,
    "a-" * 100_000,
    "a depends on " * 20_000,
    "a depends on b" + " and b" * 30_000,
    "{" * 200_000,
    "a==" + "1," * 100_000,
    "a depends on b" + "<1," * 60_000,
    "was yanked (reason: " * 10_000,
    "a[" * 100_000,
]


def read(said: bytes) -> None:
    text = said.decode(errors="replace")
    found = conflicts.wants(text)
    conflicts.against(found, {"torch": ["2.6.0", "2.7.0+cpu"], "b": ["1"]})
    conflicts.pair(found)
    conflicts.asker(found, ["via", "a"], "never")
    conflicts.unusable(text)
    conflicts.python_wanted(text)
    conflicts.withdrawn_because(text, "yanked")


def test_damaged_words() -> None:
    fuzz(damaged(TEXTS), read)


@pytest.mark.parametrize("text", LONG, ids=lambda text: text[:12])
def test_long_words(text: str) -> None:
    fuzz(st.just(text.encode()), read)
