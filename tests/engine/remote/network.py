"""A network of two machines that are one: the server's end here, the client's in a network namespace of its own."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import random
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from kit.private_engine.subnet import taken_networks

Result = TypeVar("Result")
# A hardware address that nobody has: packets to it are lost without a word.
NOBODY = "02:00:00:00:00:01"
_CLONE_NEWNET = 0x40000000


def ip(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert not check or done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def why_not() -> str:
    """Why no such network can be made here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces and accounts"
    name = f"kit-try-{os.urandom(3).hex()}"
    try:
        done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return "needs `ip`: install iproute2"
    ip("netns", "del", name, check=False)
    return f"needs network namespaces: {done.stderr.strip()}" if done.returncode else ""


class Link:
    """A cable between this machine (the server) and a network namespace (the client)."""

    def __init__(self, mark: str) -> None:
        self.namespace = f"kit-client-{mark}"
        # Names of at most 15 characters; the tests of the private engine overlook interfaces whose name begins so.
        self._server_end, self._client_end = f"veths{mark}", f"vethc{mark}"
        self.server, self.client, self.nobody = self._addresses()
        ip("netns", "add", self.namespace)
        try:
            ip("link", "add", self._server_end, "type", "veth", "peer", self._client_end, "netns", self.namespace)
            ip("addr", "add", f"{self.server}/29", "dev", self._server_end)
            ip("link", "set", self._server_end, "up")
            self._inside("addr", "add", f"{self.client}/29", "dev", self._client_end)
            self._inside("link", "set", "lo", "up")
            self._inside("link", "set", self._client_end, "up")
            self._inside("neigh", "add", self.nobody, "lladdr", NOBODY, "nud", "permanent", "dev", self._client_end)
        except BaseException:
            self.remove()
            raise

    @staticmethod
    def _addresses() -> tuple[str, str, str]:
        """Three addresses of a network that this machine has no way to yet: two that are used, and one that is not."""
        taken = taken_networks()
        while True:
            network = ipaddress.IPv4Network((f"10.{random.randrange(60, 200)}.{random.randrange(256)}.0", 29))
            if not any(network.overlaps(other) for other in taken):
                first, second, third = [str(address) for address in network.hosts()][:3]
                return first, second, third

    def _inside(self, *arguments: str, check: bool = True) -> str:
        return ip("-n", self.namespace, *arguments, check=check)

    def cut(self) -> None:
        """Lose every packet from now on, both ways, without either end being told: Wi-Fi out of reach."""
        for address, where, arguments in (
            (self.server, self._client_end, ("-n", self.namespace)),
            (self.client, self._server_end, ()),
        ):
            ip(*arguments, "neigh", "replace", address, "lladdr", NOBODY, "nud", "permanent", "dev", where)

    def restore(self) -> None:
        self._inside("neigh", "del", self.server, "dev", self._client_end, check=False)
        ip("neigh", "del", self.client, "dev", self._server_end, check=False)

    def unplug(self) -> None:
        """Take the client's interface down, as a laptop that sleeps does: it has no way to anywhere, and knows it."""
        self._inside("link", "set", self._client_end, "down")

    def plug(self) -> None:
        self._inside("link", "set", self._client_end, "up")
        # They went with the interface.
        self._inside("neigh", "replace", self.nobody, "lladdr", NOBODY, "nud", "permanent", "dev", self._client_end)

    def command(self, *arguments: str) -> list[str]:
        """The command that runs a program on the client's side."""
        return ["ip", "netns", "exec", self.namespace, *arguments]

    def inside(self, function: Callable[..., Result], *arguments: object, **options: object) -> Result:
        """Call a function whose sockets are those of the client's side."""

        def enter() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            with Path("/run/netns", self.namespace).open() as namespace:
                # For this thread alone, which ends afterwards.
                if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns to {self.namespace}")

        with ThreadPoolExecutor(1, initializer=enter) as thread:
            return thread.submit(function, *arguments, **options).result()

    def processes(self) -> dict[int, str]:
        """The processes on the client's side: {PID: command line}."""
        found = {}
        for pid in map(int, ip("netns", "pids", self.namespace).split()):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if words.strip():  # a zombie has none
                    found[pid] = words.strip()
        return found

    def remove(self) -> None:
        """Kill what runs on the client's side, and remove both ends."""
        for pid in ip("netns", "pids", self.namespace, check=False).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        ip("netns", "del", self.namespace, check=False)
        ip("link", "del", self._server_end, check=False)
