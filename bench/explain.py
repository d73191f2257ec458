"""Compare `kit explain` with what is right for texts of public threads: `make bench-explain`.

A text is a file and a line: `NAME.log` and a row of `expected.tsv`, in tests/unit/data/errors or in the folder that is
given as the argument.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

from kit.catalog import load_catalog
from kit.decide.explain import explain_lines, known_errors, numbered_lines

TEXTS = Path(__file__).parent.parent / "tests" / "unit" / "data" / "errors"


def main(folder: Path = TEXTS) -> int:
    """Print what differs and the counts; 1 when an answer is wrong."""
    known = known_errors(load_catalog())
    counts = {"right": 0, "wrong": 0, "unknown": 0}
    started = time.perf_counter()
    with (folder / "expected.tsv").open(encoding="utf-8") as rows:
        for row in csv.DictReader(rows, delimiter="\t"):
            with (folder / f"{row['id']}.log").open("rb") as log:
                cause = explain_lines(numbered_lines(log), known).cause
            found = cause.problem.id if cause else ""
            outcome = "right" if found == row["problem"] else "wrong" if found else "unknown"
            counts[outcome] += 1
            if outcome != "right":
                print(
                    f"{outcome}: {row['id']}: {found or 'nothing'} instead of {row['problem']}: {row['right_answer']}"
                )
    print(
        ", ".join(f"{count} {outcome}" for outcome, count in counts.items()),
        f"in {time.perf_counter() - started:.1f} s",
    )
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
