"""What is read out of uv's words: each text is one that uv 0.13.8 wrote."""

from __future__ import annotations

import pytest

from kit.environment import conflicts
from kit.environment.conflicts import Unusable, Want

MARKER = "{python_full_version < '3.13' and platform_machine == 'x86_64' and sys_platform == 'linux'}"
START = "error: No solution found when resolving dependencies\n  cause: "
ALL = "we can conclude that your requirements are unsatisfiable."


def test_who_wants_what() -> None:
    said = (
        f"{START}Because all versions of never depend on torch<2.5 and all versions of via depend on never, we can "
        f"conclude that all versions of via depend on torch<2.5.\n         And because kit-lock depends on "
        f"torch{MARKER}==2.6.0 and via{MARKER}, {ALL}"
    )
    found = conflicts.wants(said)
    assert found == [
        Want(who="never", what="torch", specifier="<2.5"),
        Want(who="via", what="never"),
        Want(who="via", what="torch", specifier="<2.5"),
    ]
    assert conflicts.against(found, {"torch": ["2.6.0"]}) == found[0]
    assert conflicts.against(found, {"torch": ["2.4.1"]}) is None
    assert conflicts.asker(found, ["einops", "via"], "never") == "via"
    assert conflicts.asker(found, ["einops"], "never") == ""


def test_of_several_releases_the_newest_counts() -> None:
    said = (
        f"{START}Because allennlp==2.10.1 depends on torch>=1.10.0,<1.13.0 and allennlp==1.0.0 depends on "
        f"torch>=1.5.0,<1.6.0, {ALL}"
    )
    found = conflicts.against(conflicts.wants(said), {"torch": ["2.13.0+cpu"]})
    assert found is not None
    assert (found.text, found.releases) == ("torch>=1.10.0,<1.13.0", "==2.10.1")


def test_a_local_version_is_the_release_that_is_asked_for() -> None:
    found = [Want(who="a", what="torch", specifier="==2.13.0")]
    assert conflicts.against(found, {"torch": ["2.13.0+cpu"]}) is None


def test_several_ranges_are_another_version() -> None:
    said = f"{START}Because foo[gpu]==1.0 depends on one of:\n        torch<2\n        torch>3\n and it is, {ALL}"
    (found,) = conflicts.wants(said)
    assert found == Want(who="foo", what="torch", releases="==1.0")
    assert found.text == "another torch"
    assert conflicts.against([found], {"torch": ["2.6.0"]}) == found


def test_two_that_need_different_versions_of_a_third() -> None:
    said = f"{START}Because a==1 depends on c<2 and b>=1,<2 depends on c>=2, we can conclude that a==1 and b are out."
    one, other = conflicts.pair(conflicts.wants(said)) or (None, None)
    assert one == Want(who="a", what="c", specifier="<2", releases="==1")
    assert other == Want(who="b", what="c", specifier=">=2", releases=">=1,<2")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("nosuch was not found in the package registry and", Unusable(name="nosuch", why=conflicts.ON_NO_INDEX)),
        (f"there are no versions of No.Such{MARKER} and", Unusable(name="no-such", why=conflicts.ON_NO_INDEX)),
        (
            f"there is no version of gradio{MARKER}==99 and",
            Unusable(name="gradio", specifier="==99", why=conflicts.NO_RELEASE),
        ),
        (
            f"only gradio{MARKER}>=3.0 is available and kit-lock depends on gradio{MARKER}<1, we",
            Unusable(name="gradio", specifier="<1", why=conflicts.NO_RELEASE),
        ),
        (
            f"flash{MARKER}==2.0 has no usable wheels and only",
            Unusable(name="flash", specifier="==2.0", why=conflicts.NO_WHEEL),
        ),
        (
            f"yanked{MARKER}==1.0 was yanked (reason: it was broken) and only",
            Unusable(name="yanked", specifier="==1.0", why=conflicts.WITHDRAWN),
        ),
    ],
)
def test_what_cannot_be_taken(said: str, found: Unusable) -> None:
    assert conflicts.unusable(f"{START}Because {said} {ALL}") == [found]


def test_the_python_that_is_in_the_way() -> None:
    said = (
        "error: No solution found when resolving dependencies for split (markers: python_full_version == '3.11.*')\n"
        f"  cause: Because the requested Python version (>=3.11) does not satisfy Python>=3.12 and kit-lock depends on "
        f"newer{MARKER}, {ALL}"
    )
    assert conflicts.python_wanted(said) == ("newer", ">=3.12")
    assert conflicts.python_wanted(f"{START}Because a depends on b and b has no wheels") is None
