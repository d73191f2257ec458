"""A program that never stops printing is ended, and costs no more memory than kit allows."""

from __future__ import annotations

import resource
import sys

import pytest

from kit import process
from kit.errors import CommandError


@pytest.mark.parametrize("stream", ["", " >&2"])
def test_what_is_read_whole_has_a_bound(stream: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CommandError) as failed:
        process.run(["sh", "-c", f"yes{stream}"], check=False)
    assert failed.value.details == ("it printed more than 64 MB",)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10 < 200, "MB"


def test_what_is_read_by_lines_has_a_longest_one() -> None:
    program = f"import sys; sys.stdout.write('a' * {4 * process.LONGEST_LINE})"
    lines: list[str] = []
    assert process.stream([sys.executable, "-c", program], lines.append) == 0
    assert max(map(len, lines)) < 2 * process.LONGEST_LINE
    assert sum(map(len, lines)) == 4 * process.LONGEST_LINE


def test_the_lines_of_a_program_beside_have_a_longest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "INTERRUPT_PATIENCE_S", 0.5)
    with process.coprocess(["sh", "-c", "timeout 2 yes | tr -d '\\n'"], input="") as (next_line, _):
        line = next_line(10)
    assert line is not None
    assert len(line) <= process.LONGEST_LINE


def test_input_and_output_of_any_size_within_the_bound() -> None:
    text = "0123456789abcdef" * 2**18
    assert process.run(["cat"], input=text).stdout == text
    assert process.run(["true"], input=text).stdout == "", "who reads nothing"
    both = process.run(["sh", "-c", "seq 100000 & seq 100000 >&2; wait"])
    assert both.stdout == both.stderr
    assert both.stdout.endswith("\n100000\n")
