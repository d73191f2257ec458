"""`python -m bench.peers`: the same matrix products by kit's loop and by Triton's `do_bench`, in one process.

A check of the method, for a machine with a GPU and PyTorch: kit's median must not be below the other's.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from functools import partial
from typing import Any

from kit.bench import arithmetic, drivers, suite, timing
from kit.bench.measured import Request, choose_sizes, make_bench
from kit.bench.results import as_json
from kit.bench.work import parse_shapes

ROUNDS = 5
WARM_UP_MS, REPEAT_MS = 100, 500


def compare(bench: Any, sizes: Any, kind: str, do_bench: Any) -> list[dict[str, Any]]:
    """For each shape and layout the medians of both over several rounds, taken in turn, in TFLOP/s."""
    found = []
    for work in bench.matmul(kind, sizes):
        ours, theirs = [], []
        for _ in range(ROUNDS):
            taken = timing.measure(bench, work.call, REPEAT_MS / 1000, before=work.before)
            ours.append(arithmetic.rate(work.amount, arithmetic.spread(taken.seconds).median, work.unit))
            other = do_bench(partial(work.call, 0), warmup=WARM_UP_MS, rep=REPEAT_MS, return_mode="median")
            theirs.append(arithmetic.rate(work.amount, other / 1000, work.unit))
        kit, peer = (arithmetic.percentile(values, 0.5) for values in (ours, theirs))
        found.append(
            {"variant": work.variant, "kind": kind, "kit": kit, "do_bench": peer, "ratio": kit / peer, "n": ROUNDS}
        )
        del work
        bench.release()
    return found


def main() -> int:
    """Measure and print JSON; exit code 3 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers")
    parser.add_argument("--kind", default="bf16", choices=("fp32_ieee", "tf32", "fp16", "bf16"))
    parser.add_argument("--shapes", default="4096x4096x4096,8192x8192x8192", type=parse_shapes)
    options = parser.parse_args()
    devices = drivers.cuda_devices(drivers.load(drivers.CUDA_LIBRARY))
    if not devices:
        sys.stderr.write("error: no GPU\n")
        return 3
    do_bench = importlib.import_module("triton.testing").do_bench
    request = Request(framework="torch", shapes=options.shapes)
    bench, sizes = make_bench(request, devices[0]), choose_sizes(request, devices[0])
    suite.warm_up(bench, sizes)
    found = compare(bench, sizes, options.kind, do_bench)
    sys.stdout.write(
        json.dumps(as_json({"device": devices[0], "framework": bench.facts(), "products": tuple(found)})) + "\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
