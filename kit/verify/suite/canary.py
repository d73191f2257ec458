"""A check that must fail: where it does not, no other check would."""

from __future__ import annotations

from kit.verify.suite.conftest import require


def test_fails() -> None:
    """It fails; it is in no report while it does."""
    require(False, "as it must")
