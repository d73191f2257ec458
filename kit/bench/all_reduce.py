"""All-reduce between the GPUs of a machine, one process each, and the same product on all of them at once.

PyTorch alone: no MPI and no nccl-tests. The numbers are counted as nccl-tests counts them (busbw).
"""

from __future__ import annotations

import importlib
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.bench import arithmetic
from kit.bench.results import Correctness, Details, Measurement, Variant

if TYPE_CHECKING:
    from kit.bench.work import Sizes

WARM_UPS, ROUNDS = 5, 20
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Answer:
    """What one process found."""

    seconds: list[list[float]]  # of each round, by size
    is_right: bool
    product_tflops: float


def run(ranks: int, backend: str, sizes: Sizes, product: int) -> Measurement:
    """The test's result: bus bandwidth per size, the largest size's is the headline, and each GPU's product rate.

    Raises RuntimeError when the processes do not end, or one of them fails.
    """
    multiprocessing = importlib.import_module("torch.multiprocessing")
    context = multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    queue = context.SimpleQueue()
    arguments = (ranks, port, backend, sizes.all_reduce_bytes, product, queue)
    # `daemon`: none outlives this process, whatever ends it.
    processes = [context.Process(target=worker, args=(rank, *arguments), daemon=True) for rank in range(ranks)]
    start = time.monotonic()
    for process in processes:
        process.start()
    found: dict[int, Answer] = {}
    try:
        while len(found) < ranks:
            if not queue.empty():
                rank, answer = queue.get()
                found[rank] = answer
            elif any(process.exitcode for process in processes):
                raise RuntimeError("a process of the all-reduce ended with an error")
            elif time.monotonic() - start > TIMEOUT_S:
                raise RuntimeError(f"the all-reduce did not end within {TIMEOUT_S:g} s")
            else:
                time.sleep(0.05)
    finally:
        for process in processes:
            process.join(timeout=5 if len(found) == ranks else 0)
            if process.is_alive():
                process.kill()
    return summary(ranks, sizes.all_reduce_bytes, [found[rank] for rank in range(ranks)])


def summary(ranks: int, sizes: tuple[int, ...], answers: list[Answer]) -> Measurement:
    """One result out of all processes' answers: an all-reduce is as slow as its slowest member."""
    by_size = []
    for index, size in enumerate(sizes):
        rounds = [max(answer.seconds[index][i] for answer in answers) for i in range(ROUNDS)]
        rates = [arithmetic.bus_bandwidth(size, seconds, ranks) / 1e9 for seconds in rounds]
        by_size.append((f"{size // 2**20} MiB", arithmetic.spread(rates), rates))
    size_text, middle, rates = by_size[-1]
    is_right = all(answer.is_right for answer in answers)
    return Measurement(
        name="all_reduce",
        outcome="measured",
        unit="GB/s",
        value=round(middle.median, 3),
        p20=round(middle.p20, 3),
        p80=round(middle.p80, 3),
        jitter_percent=round(middle.jitter_percent, 2),
        n=middle.n,
        samples=tuple(round(value, 3) for value in rates),
        variant=f"{ranks} ranks, {size_text}, bus bandwidth",
        variants=tuple(Variant(text, round(part.median, 3)) for text, part, _ in by_size),
        correctness=Correctness(
            "the sum of all ranks, every element", 0.0 if is_right else None, 0.0, repeatable=True, passed=is_right
        ),
        details=Details(product_tflops=tuple(float(f"{answer.product_tflops:.6g}") for answer in answers)),
    )


def worker(rank: int, ranks: int, port: int, backend: str, sizes: tuple[int, ...], product: int, queue: Any) -> None:
    """One rank, in its own process."""
    import datetime

    torch: Any = importlib.import_module("torch")
    distributed: Any = importlib.import_module("torch.distributed")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    is_gpu = backend == "nccl"
    device = torch.device("cuda", rank) if is_gpu else torch.device("cpu")
    if is_gpu:
        torch.cuda.set_device(device)

    def wait() -> None:
        if is_gpu:
            torch.cuda.synchronize()

    # No `device_id`: with it NCCL hangs in torch 2.6.1 to 2.7.1 (stas00's all_reduce_bench.py).
    distributed.init_process_group(
        backend, rank=rank, world_size=ranks, timeout=datetime.timedelta(seconds=TIMEOUT_S / 2)
    )
    try:
        taken, is_right = [], True
        for size in sizes:
            values = torch.full((size // 4,), float(rank + 1), device=device)
            distributed.all_reduce(values)
            is_right = is_right and bool((values == ranks * (ranks + 1) / 2).all())
            values.zero_()  # a sum of sums overflows
            taken.append([_round(distributed, values, wait) for _ in range(WARM_UPS + ROUNDS)][WARM_UPS:])
            del values
        a = torch.randn(product, product, device=device, dtype=torch.float16 if is_gpu else torch.float32)
        a = a / product**0.5
        for _ in range(3):
            a @ a
        wait()
        distributed.barrier()
        start = time.perf_counter()
        for _ in range(ROUNDS):
            a @ a
        wait()
        seconds = (time.perf_counter() - start) / ROUNDS
        rate = arithmetic.rate(arithmetic.matmul_flops(product, product, product), seconds, "TFLOP/s")
        queue.put((rank, Answer(taken, is_right, rate)))
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def _round(distributed: Any, values: Any, wait: Any) -> float:
    distributed.barrier()
    wait()
    start = time.perf_counter()
    distributed.all_reduce(values)
    wait()
    return time.perf_counter() - start
