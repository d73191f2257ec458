"""A server and a client: a real sshd and the real engine here, kit on a laptop's side of a real link."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from kit import private_engine
from kit.engine import Engine
from tests.engine import witness
from tests.engine.podman_host import PodmanAccount
from tests.engine.remote.accounts import Account, Accounts
from tests.engine.remote.client import Client, eventually
from tests.engine.remote.network import Link, why_not
from tests.engine.sshd import SSHD, Server

# What a host may be told to set by whoever runs the tests: where the engine is.
PASSED_ON = ("KIT_ENGINE_DIR",)


class Lab:
    """The server's side, with two accounts that may use the engine (alice, bob) and one that may not (carol).

    The client knows the server by several names, each of which shows another thing.
    """

    def __init__(self, folder: Path, engine: Engine, undo: contextlib.ExitStack) -> None:
        mark = os.urandom(3).hex()
        assert engine.socket_path is not None
        self.engine, self.folder = engine, folder
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        self.link = Link(mark)
        undo.callback(self.link.remove)
        self.accounts = Accounts(folder, mark, engine.socket_path)
        undo.callback(self.accounts.remove)
        undo.callback(self._remove_all)
        self.alice = self.accounts.add("alice")
        self.bob = self.accounts.add("bob")
        self.carol = self.accounts.add("carol", may_use_engine=False)
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        (folder / "sshd").mkdir()
        self.sshd = Server(folder / "sshd", address=self.link.server, environment=passed_on)
        undo.callback(self.sshd.stop)
        (folder / "client").mkdir()
        program = private_engine.docker_program()
        programs = "" if shutil.which("docker", path="/usr/local/bin:/usr/bin") or not program else str(program.parent)
        self.client = Client(folder / "client", self.link, programs)
        undo.callback(self.client.end)
        self._configure_ssh()

    def _configure_ssh(self) -> None:
        """The client's ssh_config and known_hosts: `server` is alice's, and each of the others has its own flaw."""
        known = self.client.folder / "known_hosts"
        host, other = ((self.sshd.folder / f"{name}.pub").read_text().split()[:2] for name in ("host_key", "other_key"))
        known.write_text(f"server {' '.join(host)}\nchanged {' '.join(other)}\n")
        many = " ".join(f"gpu{n}" for n in range(1, 8))
        self.client.ssh_config.write_text(
            f"Host bob\n  User {self.bob.name}\nHost carol\n  User {self.carol.name}\n"
            f"Host wrong-key\n  IdentityFile {self.sshd.folder}/other_key\n"
            "Host unknown-key\n  HostKeyAlias unknown\nHost changed-key\n  HostKeyAlias changed\n"
            "Host refusing\n  Port 9\n"
            f"Host silent\n  HostName {self.link.nobody}\n"
            f"Host server bob carol wrong-key unknown-key changed-key refusing {many}\n  HostName {self.link.server}\n"
            # ssh tries every key that any line names.
            f"Host * !wrong-key\n  IdentityFile {self.sshd.folder}/client_key\n"
            f"Host *\n  User {self.alice.name}\n  Port {self.sshd.port}\n  HostKeyAlias server\n"
            "  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
        )

    @property
    def docker(self) -> DockerClient:
        """Who is asked what the engine really has; a new one each time, for tests restart the engine."""
        return witness.client()

    def containers(self, account: Account, *, everything: bool = True) -> list[str]:
        """The names of an account's containers, asked of the engine itself."""
        mine = {"label": f"kit.user={account.uid}:{account.gid}"}
        found = self.docker.containers.list(all=everything, filters=mine, ignore_removed=True)
        return [container.name for container in found]

    def remove_containers(self) -> None:
        for account in self.accounts.made:
            witness.remove(self.docker, *self.containers(account))

    def listed(self, host: str, account: Account, *arguments: str) -> list[dict[str, Any]]:
        """The rows of `kit ps` for an account's containers; others' may run on the same engine."""
        rows: list[dict[str, Any]] = self.client.json("--host", host, "ps", *arguments)
        return [row for row in rows if row["owner"] == account.name]

    def know(self, host: str, account: Account) -> None:
        """Give the client a name for the server as this account sees it."""
        text = f"Host {host}\n  User {account.name}\n  HostName {self.link.server}\n"
        self.client.ssh_config.write_text(text + self.client.ssh_config.read_text())

    def _remove_all(self) -> None:
        self.remove_containers()
        for account in self.accounts.made:
            for name in witness.volumes(self.docker, f"kit-{account.uid}-"):
                self.docker.volumes.get(name).remove(force=True)
            for network in self.docker.networks.list([f"kit-{account.uid}"]):
                network.remove()


@pytest.fixture(scope="package")
def lab(tf_cpu: str) -> Iterator[Lab]:
    from kit.engine import connect

    if not (SSHD and shutil.which("ssh") and shutil.which("rsync")):
        pytest.skip("needs sshd, ssh and rsync: install openssh-server and rsync")
    if reason := why_not():
        pytest.skip(reason)
    engine = connect()
    if engine.socket_path is None:
        pytest.skip("needs an engine with a socket on this machine")
    folder = Path(tempfile.mkdtemp(prefix="kit-remote-"))
    folder.chmod(0o755)
    with contextlib.ExitStack() as undo:
        yield Lab(folder, engine, undo)


@pytest.fixture
def client(lab: Lab) -> Iterator[Client]:
    """The laptop; what the test started on the server and left there is removed."""
    yield lab.client
    lab.link.restore()
    lab.link.plug()
    if lab.sshd.process.poll() is not None:
        lab.sshd.start()
    lab.remove_containers()
    lab.client.close()
    eventually(lab.client.is_quiet, "no process of the client's: no ssh, no tunnel, no kit", timeout_s=20)


@dataclass(frozen=True, kw_only=True)
class Host:
    """An account on the server, the name that the client has for it, and what the account's engine says itself."""

    name: str
    lab: Lab
    account: Account
    podman: PodmanAccount | None = None  # its engine; without it the lab's

    @property
    def uid_inside(self) -> int:
        """Who the account is in a container."""
        return 0 if self.podman else self.account.uid

    def containers(self, *, everything: bool = True) -> list[str]:
        if self.podman:
            return self.podman.containers(everything=everything)
        return self.lab.containers(self.account, everything=everything)

    def log(self, name: str) -> str:
        """What a container printed."""
        if self.podman:
            return self.podman.run(f"podman logs {name} 2>&1").stdout
        printed: bytes = self.lab.docker.containers.get(name).logs()
        return printed.decode()

    def ports(self, name: str) -> set[int]:
        """The ports of the server that lead into a container."""
        if self.podman:
            lines = self.podman.run(f"podman port {name}").stdout.splitlines()
            return {int(line.rpartition(":")[2]) for line in lines}
        bound = self.lab.docker.containers.get(name).ports.values()
        return {int(binding["HostPort"]) for bindings in bound for binding in bindings or ()}

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """The rows of `kit ps` for the account's containers."""
        return self.lab.listed(self.name, self.account, *arguments)


@pytest.fixture(scope="package")
def podman_account(lab: Lab, request: pytest.FixtureRequest) -> PodmanAccount:
    """An account with Podman and the small image, which the client knows as `podman`."""
    account: PodmanAccount = request.getfixturevalue("podman_host").account
    request.getfixturevalue("podman_tf_cpu")
    lab.know("podman", account.account)
    return account


@pytest.fixture(params=["docker", "podman"])
def host(request: pytest.FixtureRequest, lab: Lab, client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A server with Docker, and one with Podman."""
    if request.param == "docker":
        yield Host(name="server", lab=lab, account=lab.alice)
        return
    podman: PodmanAccount = request.getfixturevalue("podman_account")
    # The laptop's kit is told to want the private engine, which Podman is not.
    monkeypatch.setitem(client.environment, "KIT_ENGINE", "")
    yield Host(name="podman", lab=lab, account=podman.account, podman=podman)
    podman.remove_containers()


@pytest.fixture
def project(lab: Lab) -> Path:
    """An empty folder of the client's to run things from."""
    return Path(tempfile.mkdtemp(prefix="project-", dir=lab.client.work))


def mount_small(folder: Path, size: str) -> contextlib.ExitStack:
    """A file system of this size at a folder, until the stack is closed."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    undo = contextlib.ExitStack()
    undo.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)
    return undo
