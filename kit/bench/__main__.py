"""`python -m kit.bench`: measure this machine or container, with the framework that this Python has.

The result goes to stdout, everything else to stderr. Exit codes: 0, 1 when a verdict is FAIL, 2 for wrong usage or no
such framework, 3 when there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

NO_GPU, WRONG_USE, FAILED = 3, 2, 1


def parser() -> argparse.ArgumentParser:
    """The options. `kit bench` passes its own on."""
    made = argparse.ArgumentParser(prog="python -m kit.bench", description=(__doc__ or "").split("\n")[0])
    made.add_argument("--framework", required=True, choices=("torch", "tf"))
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only tests the code")
    made.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    made.add_argument("--quiet", action="store_true", help="nothing on stdout")
    made.add_argument("--save", metavar="FILE", help="write the result as JSON to a file")
    made.add_argument("--only", metavar="TEST,…", default="", help="these tests alone")
    made.add_argument("--shapes", metavar="MxNxK,…", default="", help="of the matrix products")
    made.add_argument("--soak", metavar="MINUTES", type=float, default=0.0, help="a sustained run after the tests")
    made.add_argument("--expect", metavar="FILE", help="JSON of tables to rate by; kit's own without it")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Measure, judge, print; returns the exit code."""
    from kit.bench import measured
    from kit.bench.results import as_json
    from kit.bench.text import lines

    options = parser().parse_args(arguments)
    # The frameworks' libraries print to stdout when they feel like it; the result alone may be there.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        request = measured.parse_request(options)
        result = measured.measure(request, say)
    except measured.NoDeviceError as e:
        say(f"error: {e}")
        return NO_GPU
    except (ValueError, ImportError) as e:
        say(f"error: {e}")
        return WRONG_USE
    if options.save:
        write(Path(options.save), json.dumps(as_json(result)))
    if not options.quiet:
        out.write(
            json.dumps(as_json(result)) + "\n" if options.json else "".join(f"{line}\n" for line in lines(result))
        )
        out.flush()
    return FAILED if result.summary.outcome == "FAIL" else 0


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())
