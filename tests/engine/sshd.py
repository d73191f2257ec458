"""A real sshd with keys, configuration and port of its own, and an ssh configuration that knows it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(
    not (SSHD and shutil.which("ssh") and shutil.which("ssh-keygen")),
    reason="needs sshd, ssh and ssh-keygen: install openssh-server",
)
USER = pwd.getpwuid(os.getuid()).pw_name
# In the environment of what sessions run, so that it can be found.
MARK = "KIT_TEST_SSHD"
LISTEN = "0A"  # in /proc/net/tcp


def yes_no(value: bool) -> str:
    return "yes" if value else "no"


class Server:
    """An sshd that lets one key in, and an ssh configuration that knows it as `machine`."""

    def __init__(
        self,
        folder: Path,
        *,
        address: str = "127.0.0.1",
        environment: Mapping[str, str] | None = None,
        wants_password: bool = False,
    ) -> None:
        """`environment` is added to that of every session; `wants_password`: keys do not do."""
        self.folder, self.address = folder, address
        for name in ("host_key", "client_key", "other_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name], check=True, timeout=60
            )
        (folder / "authorized_keys").write_text((folder / "client_key.pub").read_text())
        with socket.create_server((address, 0)) as probe:
            self.port: int = probe.getsockname()[1]
        variables = {MARK: str(folder), **(environment or {})}
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress {address}\nHostKey {folder}/host_key\nPidFile {folder}/sshd.pid\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n"
            f"PasswordAuthentication {yes_no(wants_password)}\nPubkeyAuthentication {yes_no(not wants_password)}\n"
            "KbdInteractiveAuthentication no\nPrintMotd no\nPrintLastLog no\n"
            # One line: sshd takes no second one.
            f"SetEnv {' '.join(f'{name}={value}' for name, value in variables.items())}\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd insists on giving up its rights
        self.log = (folder / "log").open("ab")
        self.start()

    def start(self) -> None:
        """Start the server, on the port it had before; returns when it listens."""
        self.process = subprocess.Popen(
            [str(SSHD), "-D", "-e", "-f", self.folder / "sshd_config"],
            stdin=subprocess.DEVNULL,
            stderr=self.log,
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as client:
                if client.connect_ex((self.address, self.port)) == 0:
                    return
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"sshd did not start: {(self.folder / 'log').read_text()}")

    def kill(self) -> None:
        """Kill the server and every session of its, with what runs in them."""
        self.process.kill()
        self.process.wait(timeout=20)
        self.kill_sessions()

    def kill_sessions(self) -> None:
        """Kill what serves the open connections, and what runs in them; the server goes on listening."""
        deadline = time.monotonic() + 20
        while found := self._sessions():
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            assert time.monotonic() < deadline, f"processes of sshd that cannot be killed: {found}"
            time.sleep(0.05)

    def _sessions(self) -> set[int]:
        """The processes that hold a connection to this server's port, and what they run."""
        inodes = set()
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            if words[1].endswith(f":{self.port:04X}") and words[3] != LISTEN:
                inodes.add(f"socket:[{words[9]}]")
        found = set(marked(f"{MARK}={self.folder}"))
        for handle in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
            with contextlib.suppress(OSError):
                if str(handle.readlink()) in inodes:
                    found.add(int(handle.parts[2]))
        return found - {self.process.pid}

    def stop(self) -> None:
        """End the server and its sessions for good; the connections of clients end with them."""
        self.kill()
        self.log.close()

    def ssh(
        self, *, key: str = "client_key", known: bool = True, port: int | None = None, hosts: str = "machine"
    ) -> str:
        """An ssh command for KIT_SSH: with a configuration of its own, and nothing of the user's."""
        host_key = (self.folder / "host_key.pub").read_text().split()
        (self.folder / "known_hosts").write_text(f"kit-test {host_key[0]} {host_key[1]}\n" if known else "")
        (self.folder / "ssh_config").write_text(
            f"Host {hosts}\n  HostName {self.address}\n  HostKeyAlias kit-test\n  Port {port or self.port}\n"
            f"  User {USER}\n"
            f"Host *\n  IdentityFile {self.folder}/{key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n"
        )
        return f"ssh -F {self.folder}/ssh_config"


def marked(mark: str) -> list[int]:
    """The processes that have `NAME=value` in the environment they were started with."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in file.read_bytes().split(b"\0"):
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found
