"""How much kit's commands cost beside what they call: `make bench-cli`.

Each pair is run alternately, so that whatever else the machine does falls on both; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from kit.catalog import load_catalog
from kit.engine import connect

PYTHON = sys.executable
KIT = str(Path(PYTHON).with_name("kit"))


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Wall-clock seconds of one run; the benchmark ends if the command fails."""
    started = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def compare(ours: list[str], rival: list[str], environment: dict[str, str], rounds: int) -> tuple[float, float]:
    """Median seconds of both commands, run alternately after one warm-up each."""
    seconds(ours, environment)
    seconds(rival, environment)
    pairs = [(seconds(ours, environment), seconds(rival, environment)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default="torch-cu126", help="an image that is built already")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    image = load_catalog().find(arguments.image)
    engine = connect()
    environment = {**os.environ, **engine.environment}
    click = [PYTHON, "-c", "import click"]
    rows = []
    for name, ours, rival, limit in (
        ("kit --help / import click", [KIT, "--help"], click, 1.8),
        ("kit list / import click", [KIT, "list"], click, 2.5),
        (
            "kit run NAME true / docker run --rm NAME true",
            [KIT, "-q", "run", image.name, "true"],
            [engine.program, "run", "--rm", image.reference, "true"],
            1.4,
        ),
        # Issue 3 sets no ratio for these two; `kit doctor` must end within 3 s.
        ("kit resolve / import click", [KIT, "-q", "resolve"], click, None),
        ("kit doctor / docker info", [KIT, "-q", "doctor"], [engine.program, "info"], None),
    ):
        a, b = compare(ours, rival, environment, arguments.rounds)
        rows.append(
            {
                "what": name,
                "kit_s": round(a, 3),
                "rival_s": round(b, 3),
                "ratio": round(a / b, 2),
                "limit": limit,
                "rounds": arguments.rounds,
            }
        )
        goal = f"limit {limit}x" if limit else "no limit"
        print(f"{name:50} {a:7.3f} s {b:7.3f} s  {a / b:5.2f}x  ({goal})", file=sys.stderr)
    print(json.dumps(rows, indent=2))
    sys.exit(any(row["limit"] and row["ratio"] > row["limit"] for row in rows))


if __name__ == "__main__":
    main()
