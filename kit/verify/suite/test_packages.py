"""The Python packages: those of the lock, and no others."""

from __future__ import annotations

from kit.verify import expected
from kit.verify.report import Subject
from kit.verify.suite.conftest import PYTHON, Answer, Fact, Host, require


def _expected(subject: Subject, packages: Answer) -> dict[str, str]:
    return expected.packages(subject.lock, packages.value("environment"), subject.added, subject.own)


def test_locked(subject: Subject, packages: Answer, fact: Fact) -> None:
    """Every locked package is there at its version."""
    locked = _expected(subject, packages)
    missing = expected.missing(locked, packages.value("installed"))
    require(not missing, "\n".join(missing))
    fact(f"{len(locked)} packages")


def test_besides(subject: Subject, packages: Answer) -> None:
    """No other package is there."""
    locked = _expected(subject, packages)
    others = expected.besides(locked, packages.value("installed"))
    require(not others, f"not locked: {', '.join(others)}")


def test_constraints(subject: Subject, host: Host, packages: Answer, fact: Fact) -> None:
    """`pip install` in a container is held to the framework, its CUDA and numpy, in the file that pip itself names."""
    locked = _expected(subject, packages)
    read = host.run(f'cat "$({PYTHON} -m pip config get global.constraint)"')
    require(read.rc == 0, read.stderr)
    lines = read.stdout.splitlines()
    missing = expected.missing(
        expected.matching(locked, subject.held), [line.split("==", 1) for line in lines if "==" in line]
    )
    require(not missing, "pip is not held to: " + "; ".join(missing))
    broken = expected.broken(locked, lines)
    require(not broken, "the lock itself is not: " + "; ".join(broken))
    fact(f"{sum('==' in line for line in lines)} at their version, {len(lines)} in all")


def test_byte_code(packages: Answer, fact: Fact) -> None:
    """Byte code belongs to its source, so that no start compiles it again."""
    found = packages.value("byte_code")
    require(found["count"], "no module is compiled")
    require(not found["stale"], "of another source: " + ", ".join(found["stale"][:5]))
    fact(f"{found['count']} modules")
