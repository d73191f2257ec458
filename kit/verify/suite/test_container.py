"""A container as `kit run` starts it."""

from __future__ import annotations

import pytest

from kit import layout
from kit.verify.report import Subject
from kit.verify.suite.conftest import Fact, Host, require


def test_volumes(host: Host, fact: Fact) -> None:
    """The workspace, the home and the caches can be written to, as the user it runs as."""
    folders = (layout.WORKSPACE, *(volume.path for volume in layout.VOLUMES))
    tries = [f'{{ f=$(mktemp {folder}/kit.XXXXXX) && rm "$f"; }} 2>/dev/null || echo {folder}' for folder in folders]
    failed = host.run("; ".join(tries)).stdout.split()
    require(not failed, f"cannot be written to: {', '.join(failed)}")
    fact(f"{len(folders)} folders")


def test_shared_memory(subject: Subject, host: Host, fact: Fact) -> None:
    """/dev/shm is as large as kit gives it; docker's own 64 MB end DataLoaders with a bus error."""
    size = int(host.check_output("df --output=size --block-size=1 /dev/shm").split()[-1])
    require(abs(size - subject.shm_bytes) < 2**20, f"{size} bytes, and {subject.shm_bytes} are promised")
    fact(f"{size / 2**30:.1f} GiB")


def test_cuda_cache(subject: Subject, host: Host) -> None:
    """Kernels compiled from PTX outlive the container: their cache is on a volume that can be written to."""
    if not subject.image.is_gpu:
        pytest.skip("the image is built for the CPU")
    folder = host.environment().get("CUDA_CACHE_PATH", "")
    require(folder, "CUDA_CACHE_PATH is not set")
    mounts = [line.split()[1] for line in host.check_output("cat /proc/self/mounts").splitlines()]
    require(folder in mounts, f"{folder} is no volume")
    require(host.run('f=$(mktemp %s/kit.XXXXXX) && rm "$f"', folder).rc == 0, f"{folder} cannot be written to")
