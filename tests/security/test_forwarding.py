"""What the private engine opens on a machine: its own containers' way out, and nothing else.

The machine is a network namespace, with two networks (`left`, `right`) and the containers of two engines (`one`, `two`)
in namespaces of their own. Of the real machine nothing changes.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip"), reason="network namespaces need root and iproute2"
)

PORT = 7777
SERVE = f"""
import socket
server = socket.create_server(("0.0.0.0", {PORT}))
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""
REACH = f"""
import socket, sys
socket.create_connection((sys.argv[1], {PORT}), timeout=0.7, source_address=(sys.argv[2], 0))
"""
# What `kit engine up` and `down` do about the network, in their order; the programs and the daemon are left out.
ENGINE = """
import ipaddress, sys
from pathlib import Path
from kit.private_engine import machine, subnet
folder, iptables, action, name, pool, pid = sys.argv[1:]
machine.USERS, machine.BEFORE, machine.LOCK = (Path(folder) / name for name in (".", "before.json", "lock"))
machine.SHADOWED = (Path(folder).with_name("shadowed"),)
plan = subnet.Plan(bridge=f"kitbr-{name}", chain=f"KIT-{name}", pool=ipaddress.IPv4Network(pool))
if action == "up":
    machine.enter(name, int(pid), iptables)
    subnet.add_bridge(plan, 1500)
    subnet.add_rules(plan, iptables)
else:
    subnet.remove_bridge(plan.bridge)
    subnet.remove_rules(plan.chain, iptables)
    machine.leave(name, iptables)
"""
POOLS = {"one": "172.31.0.0/16", "two": "172.30.0.0/16"}
ADDRESSES = {
    "left": "10.99.1.2",
    "right": "10.99.2.2",
    "one": "172.31.0.2",
    "one-beside": "172.31.0.3",
    "one-later": "172.31.128.2",
    "one-later-beside": "172.31.128.3",
    "two": "172.30.0.2",
}
_numbers = itertools.count()


class Machine:
    """A machine with networks, in namespaces, whose names all begin with `mark`."""

    def __init__(self, folder: Path, iptables: str) -> None:
        self.mark = f"kit{os.getpid()}-{next(_numbers)}-"
        self.folder, self.iptables = folder, iptables
        self._children: list[subprocess.Popen[str]] = []
        self._links = itertools.count()
        self.add("host")
        self.set("ip_forward", "0")  # a new namespace has it from the real machine
        self.run("host", "ip", "link", "set", "lo", "up")
        for number, name in enumerate(("left", "right"), 1):
            self.run("host", "ip", "link", "add", name, "type", "bridge")
            self.run("host", "ip", "address", "add", f"10.99.{number}.1/24", "dev", name)
            self.run("host", "ip", "link", "set", name, "up")
            self.plug(name, name, ADDRESSES[name], 24, f"10.99.{number}.1")

    def add(self, name: str) -> None:
        subprocess.run(["ip", "netns", "add", self.mark + name], check=True)

    def run(self, name: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", self.mark + name, *words]
        return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60)

    def plug(self, name: str, bridge: str, address: str, prefix: int, gateway: str) -> None:
        """A new namespace at a bridge of the machine, with somebody who answers."""
        self.add(name)
        link = f"veth{next(self._links)}"
        self.run("host", "ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", self.mark + name)
        self.run("host", "ip", "link", "set", link, "master", bridge, "up")
        for words in (
            ("address", "add", f"{address}/{prefix}", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
            ("route", "add", "default", "via", gateway),
        ):
            self.run(name, "ip", *words)
        command = ["ip", "netns", "exec", self.mark + name, sys.executable, "-c", SERVE]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._children.append(child)
        assert child.stdout is not None
        child.stdout.readline()

    def up(self, engine: str, pid: int | None = None) -> None:
        self._engine("up", engine, pid or os.getpid())
        bridge = f"kitbr-{engine}"
        base = POOLS[engine].removesuffix(".0.0/16")
        for name in (name for name in ADDRESSES if name in (engine, f"{engine}-beside")):
            self.plug(name, bridge, ADDRESSES[name], 20, f"{base}.0.1")

    def later(self) -> None:
        """A network that was made with `docker network create` in the engine `one`."""
        self.run("host", "ip", "link", "add", "br-0123456789ab", "type", "bridge")
        self.run("host", "ip", "address", "add", "172.31.128.1/24", "dev", "br-0123456789ab")
        self.run("host", "ip", "link", "set", "br-0123456789ab", "up")
        for name in ("one-later", "one-later-beside"):
            self.plug(name, "br-0123456789ab", ADDRESSES[name], 24, "172.31.128.1")

    def down(self, engine: str) -> None:
        self._engine("down", engine, 0)

    def _engine(self, action: str, engine: str, pid: int) -> None:
        words = (str(self.folder / "users"), self.iptables, action, engine, POOLS[engine], str(pid))
        done = self.run("host", sys.executable, "-c", ENGINE, *words, check=False)
        assert done.returncode == 0, done.stderr

    def reaches(self, source: str, target: str, *, address: str = "") -> bool:
        words = (sys.executable, "-c", REACH, ADDRESSES[target], address or ADDRESSES[source])
        return self.run(source, *words, check=False).returncode == 0

    def set(self, name: str, value: str) -> None:
        self.run("host", "sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{name}")

    def rule(self, *words: str) -> None:
        self.run("host", self.iptables, *words)

    def state(self) -> dict[str, str]:
        """All of the machine's that an engine could leave changed."""
        links = "for i in /sys/class/net/*; do case $i in */veth*) ;; *) echo $i;; esac; done"
        return {
            **{table: self.run("host", self.iptables, "-t", table, "-S").stdout for table in ("filter", "nat")},
            "settings": self.run("host", "sh", "-c", "grep -r . /proc/sys/net/ipv4/conf | grep -v /veth | sort").stdout,
            "ip_forward": self.run("host", "cat", "/proc/sys/net/ipv4/ip_forward").stdout,
            "links": self.run("host", "sh", "-c", links).stdout,
            "folders": str(sorted(file.name for file in self.folder.iterdir())),
        }

    def end(self) -> None:
        for child in self._children:
            child.kill()
            child.wait()
        for name in ("host", *ADDRESSES):
            subprocess.run(["ip", "netns", "delete", self.mark + name], capture_output=True, check=False)


@pytest.fixture(params=["iptables-nft", "iptables-legacy"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    program = shutil.which(request.param, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if not program or subprocess.run(["unshare", "--net", program, "-t", "nat", "-S"], check=False).returncode:
        pytest.skip(f"{request.param} does not work here")
    made = Machine(tmp_path, program)
    yield made
    made.end()


def test_networks_that_were_apart_stay_apart_while_containers_get_out(machine: Machine) -> None:
    machine.set("conf/all/accept_redirects", "0")  # as hardened machines have it
    before = machine.state()
    assert not machine.reaches("left", "right")
    machine.up("one")
    assert machine.reaches("one", "left")
    assert machine.reaches("one", "right")
    assert machine.reaches("one", "one-beside"), "of one bridge"
    assert not machine.reaches("left", "right")
    assert not machine.reaches("left", "one"), "not published"
    machine.down("one")
    assert machine.state() == before


def test_nobody_passes_as_a_container(machine: Machine) -> None:
    """A packet that says it comes from a container, and comes from another network, goes nowhere."""
    machine.up("one")
    machine.run("left", "ip", "address", "add", "172.31.0.9/32", "dev", "lo")
    machine.rule("-t", "mangle", "-A", "POSTROUTING", "-d", ADDRESSES["right"])
    machine.reaches("left", "right", address="172.31.0.9")
    counted = machine.run("host", machine.iptables, "-t", "mangle", "-L", "POSTROUTING", "-v", "-x", "-n").stdout
    assert counted.splitlines()[2].split()[0] == "0", counted


def test_networks_of_an_engine_are_apart_and_whole(machine: Machine) -> None:
    machine.up("one")
    machine.later()
    assert machine.reaches("one-later", "one-later-beside")
    assert machine.reaches("one-later", "left")
    assert not machine.reaches("one-later", "one")
    assert not machine.reaches("one", "one-later")


@pytest.mark.parametrize("forwards", ["0", "1"])
def test_engines_are_apart_and_the_last_puts_all_back(machine: Machine, forwards: str) -> None:
    machine.set("ip_forward", forwards)
    before = machine.state()
    machine.up("one")
    machine.up("two")
    for source, target in (("one", "two"), ("two", "one")):
        assert machine.reaches(source, "right")
        assert not machine.reaches(source, target), f"{source} → {target}"
    machine.down("one")
    assert machine.reaches("two", "right")
    assert machine.reaches("left", "right") == (forwards == "1")
    machine.down("two")
    assert machine.state() == before


def test_an_engine_that_was_killed_leaves_nothing_either(machine: Machine) -> None:
    """Its process is gone, and another engine's end puts the machine back; its own takes away what is its own."""
    before = machine.state()
    with subprocess.Popen(["sleep", "100"]) as killed:
        machine.up("one", killed.pid)
        killed.kill()
    machine.up("two")
    assert not machine.reaches("left", "right")
    machine.down("two")
    assert machine.state()["ip_forward"] == before["ip_forward"]
    machine.down("one")
    assert machine.state() == before


@pytest.mark.parametrize("forwards", ["0", "1"])
def test_the_hosts_own_rules_hold_for_containers(machine: Machine, forwards: str) -> None:
    machine.set("ip_forward", forwards)
    machine.rule("-A", "FORWARD", "-d", "10.99.2.0/24", "-j", "DROP")
    machine.up("one")
    assert machine.reaches("one", "left")
    assert not machine.reaches("one", "right")


def test_a_host_that_drops_by_default_lets_containers_out(machine: Machine) -> None:
    """As ufw and Docker leave it; the host's rule for its own networks holds."""
    machine.set("ip_forward", "1")
    machine.rule("-P", "FORWARD", "DROP")
    before = machine.state()
    machine.up("one")
    assert machine.reaches("one", "right")
    assert not machine.reaches("left", "right")
    machine.down("one")
    assert machine.state() == before


def test_what_was_open_stays_open(machine: Machine) -> None:
    """Interfaces that forward by themselves, while the machine as a whole does not."""
    for name in ("left", "right"):
        machine.set(f"conf/{name}/forwarding", "1")
    before = machine.state()
    assert machine.reaches("left", "right")
    machine.up("one")
    assert machine.reaches("left", "right")
    machine.down("one")
    assert machine.reaches("left", "right")
    assert machine.state() == before
