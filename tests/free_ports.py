"""Ports of this machine that nothing listens on, and that no other process of the same tests takes meanwhile."""

import os

from kit import ports

FIRST, EACH = 20000, 1000


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row, from the thousand of this process of pytest-xdist.

    All are below those that the kernel gives to clients.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 12
    start = FIRST + worker * EACH
    for port in range(start, start + EACH - count, count):
        if all(ports.is_free(p) for p in range(port, port + count)):
            return port
    raise RuntimeError(f"{count} ports in a row are not free from {start} to {start + EACH - 1}")
