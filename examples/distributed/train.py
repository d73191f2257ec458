"""Data-parallel training on one machine: one process for each GPU, or two on the CPU.

    python train.py

which is short for `torchrun --standalone --nproc-per-node=NUMBER train.py`. Each process has its part of the data and
its copy of the network; DistributedDataParallel takes the mean of their gradients, so that all copies stay the same.
"""

import argparse
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.run import main as torchrun
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

IN, WIDTH = 32, 128


def waves(count):
    """Numbers, and a wave of them for a network to learn."""
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(count, IN, generator=generator) * 2 - 1
    return TensorDataset(points, torch.sin(3 * points.sum(1, keepdim=True) / IN**0.5))


def train(options):
    """What each of the processes does."""
    rank, count = dist.get_rank(), dist.get_world_size()
    device = torch.device("cpu")
    if dist.get_backend() == "nccl":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(IN, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
    model = DistributedDataParallel(network.to(device), device_ids=[device.index] if device.type == "cuda" else None)
    data = waves(options.points)
    sampler = DistributedSampler(data)
    batches = DataLoader(data, batch_size=128, sampler=sampler)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if rank == 0:
        print(f"{count} processes, {dist.get_backend()}, {len(sampler)} of {len(data)} points each")

    for epoch in range(options.epochs):
        sampler.set_epoch(epoch)  # another order in each epoch, the same in all processes
        started, total = time.perf_counter(), torch.zeros(1, device=device)
        for points, wanted in batches:
            loss = nn.functional.mse_loss(model(points.to(device)), wanted.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        dist.all_reduce(total)
        if rank == 0:
            seconds = time.perf_counter() - started
            print(f"epoch {epoch + 1}: loss {total.item() / len(batches) / count:.4f}, {seconds:.1f} s")

    # All copies are the same, so one of them is kept.
    if rank == 0:
        Path("runs").mkdir(exist_ok=True)
        torch.save(model.module.state_dict(), "runs/waves.pt")
        print("saved runs/waves.pt")
    sums = [torch.zeros(1, device=device) for _ in range(count)]
    dist.all_gather(sums, sum(p.detach().sum() for p in model.parameters()).reshape(1))
    assert all(torch.equal(sums[0], other) for other in sums), "the copies differ"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--points", type=int, default=20_000)
    options = parser.parse_args()
    if "LOCAL_RANK" not in os.environ:
        processes = torch.cuda.device_count() or 2
        words = [f"--epochs={options.epochs}", f"--points={options.points}"]
        torchrun(["--standalone", f"--nproc-per-node={processes}", __file__, *words])
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        train(options)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
