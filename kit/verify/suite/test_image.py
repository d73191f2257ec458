"""What the image says of itself."""

from __future__ import annotations

from kit import labels
from kit.verify import expected
from kit.verify.report import Subject
from kit.verify.suite.conftest import Answer, Fact, require


def test_labels(subject: Subject, packages: Answer, fact: Fact) -> None:
    """Its labels are those that the catalog and the lock make, and the Python it names is the one inside."""
    there = subject.config.get("Labels") or {}
    python = packages.value("environment")["python_version"]
    wrong = [
        f"{name} is `{there.get(name, '')}`, and `{value}` is true"
        for name, value in {**subject.labels, labels.PYTHON: python}.items()
        if there.get(name) != value
    ]
    hint = f"; `kit build {subject.image.name}` builds it anew" if labels.LOCK_HASH in str(wrong) else ""
    require(not wrong, "\n".join(wrong) + hint)
    fact(f"{len(subject.labels) + 1} labels")


def test_environment(subject: Subject) -> None:
    """It sets the variables that it promises."""
    there = expected.variables(subject.config)
    wrong = [
        f"{name}={there.get(name, '')}, and {value} is promised"
        for name, value in subject.environment.items()
        if there.get(name) != value
    ]
    require(not wrong, "\n".join(wrong))
