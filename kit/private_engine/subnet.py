"""The private engine's network: its own bridge, subnet and firewall chain, made and removed by kit itself.

Docker's own chains are shared by every Docker daemon on a machine, and one that starts flushes those of the others.
So the private engine runs with Docker's iptables support off, and the few rules it needs are in a chain of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import re
import shlex
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from kit import process
from kit.errors import CommandError, EngineError, MissingProgramError
from kit.frozen import dataclass

Network = ipaddress.IPv4Network

IPV4 = Path("/proc/sys/net/ipv4")
# There when the kernel shows the rules the packets inside a bridge too (k3s, libvirt and others have it do so).
BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
BRIDGED = "-m physdev --physdev-is-bridged"  # would switch that on where it is off
# The chain of all engines, there while kit has switched forwarding on.
CLOSED = "KIT-closed"
ROUTES = Path("/proc/net/route")
CLASS_NET = Path("/sys/class/net")

# Ranges that few networks use, tried in this order.
CANDIDATES = (*(f"172.{n}.0.0/16" for n in range(31, 17, -1)), *(f"10.{n}.0.0/16" for n in range(254, 200, -1)))

# From the kernel's sockios.h; so that neither iproute2 nor brctl must be there.
_SIOCBRADDBR, _SIOCBRDELBR = 0x89A0, 0x89A1
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
_IFF_UP = 0x1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The address range of one engine: the lower half for its default bridge, the upper for networks made later."""

    bridge: str
    chain: str
    pool: Network

    @property
    def bridge_network(self) -> Network:
        return next(self.pool.subnets(new_prefix=20))

    @property
    def gateway(self) -> str:
        return str(next(self.bridge_network.hosts()))

    @property
    def later_networks(self) -> Network:
        return list(self.pool.subnets(prefixlen_diff=1))[1]


def parse_routes(text: str) -> list[Network]:
    """The destinations in /proc/net/route, the default route left out."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        address, mask = (socket.inet_ntoa(struct.pack("<I", int(fields[i], 16))) for i in (1, 7))
        network = ipaddress.IPv4Network(f"{address}/{mask}", strict=False)
        if network.prefixlen:
            found.append(network)
    return found


def choose_pool(taken: Iterable[Network], preferred: str = "") -> Network:
    """A range that collides with nothing in `taken`: the `preferred` one (used before) if it still is free."""
    taken = list(taken)
    for text in (preferred, *CANDIDATES):
        if text and not any(ipaddress.IPv4Network(text).overlaps(network) for network in taken):
            return ipaddress.IPv4Network(text)
    raise EngineError(
        "no private address range is free for the engine's containers",
        hint="see `ip route`: every candidate range is already routed",
    )


def taken_networks() -> list[Network]:
    """Ranges this machine already uses: its routes and its name servers."""
    taken = parse_routes(ROUTES.read_text())
    with contextlib.suppress(OSError):
        for address in re.findall(r"^nameserver\s+([\d.]+)\s*$", Path("/etc/resolv.conf").read_text(), re.MULTILINE):
            with contextlib.suppress(ValueError):
                taken.append(ipaddress.IPv4Network(address))
    return taken


def uplink_mtu() -> int:
    """The packet size of the interface with the default route; containers must not send larger ones."""
    for line in ROUTES.read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 8 and fields[1] == fields[7] == "00000000":
            with contextlib.suppress(OSError, ValueError):
                return min(1500, int((CLASS_NET / fields[0] / "mtu").read_text()))
    return 1500


def add_bridge(plan: Plan, mtu: int) -> None:
    """Make the bridge, give it its address and switch it on; one that is there is made anew."""
    remove_bridge(plan.bridge)
    name = plan.bridge.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCBRADDBR, name + b"\0")
        except OSError as e:
            raise EngineError(
                f"the bridge {plan.bridge} cannot be made: {e.strerror}",
                hint="the kernel needs bridge support (`modprobe bridge`), and kit needs root",
            ) from None
        for request, address in ((_SIOCSIFADDR, plan.gateway), (_SIOCSIFNETMASK, str(plan.bridge_network.netmask))):
            fcntl.ioctl(control, request, struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(address)))
        _set_up(control, name, up=True)
    (CLASS_NET / plan.bridge / "mtu").write_text(str(mtu))


def remove_bridge(name: str) -> None:
    """Remove a bridge; nothing happens when there is none of that name."""
    if not (CLASS_NET / name / "bridge").is_dir():
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _set_up(control, name.encode(), up=False)
        fcntl.ioctl(control, _SIOCBRDELBR, name.encode() + b"\0")


def _set_up(control: socket.socket, name: bytes, *, up: bool) -> None:
    flags = struct.unpack("16sH", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH14x", name, 0))[:18])[1]
    flags = flags | _IFF_UP if up else flags & ~_IFF_UP
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", name, flags))


def bridges_of(names: Iterable[str], database: bytes) -> list[str]:
    """Which of these interfaces belong to an engine with this network database.

    Docker names a network's bridge `br-` and the start of the network's ID, which the database has in plain text.
    """
    return [name for name in names if re.fullmatch("br-[0-9a-f]{12}", name) and name[3:].encode() in database]


def rules(plan: Plan, *, is_closed: bool, sees_bridged: bool) -> list[tuple[str, ...]]:
    """The iptables calls that let the engine's containers out as far as the host's own rules do, and nobody in.

    What refuses stands before the host's rules, what allows after them. Ports are published by docker-proxy, which is a
    process of the host, so nothing but answers needs to come in. Networks do not reach each other, as with Docker's own
    rules. `is_closed`: there is a chain of `closing`. `sees_bridged`: packets inside a bridge pass the rules as well.
    """
    pool, chain, comment = plan.pool, plan.chain, f"-m comment --comment {plan.chain}"
    # Docker names the bridges of networks that are made later.
    ours = (f"-i {plan.bridge} -s {plan.bridge_network}", f"-i br-+ -s {plan.later_networks}")
    answers = f"-d {pool} -m conntrack --ctstate RELATED,ESTABLISHED"
    texts = (
        f"-t nat -A POSTROUTING -s {pool} ! -d {pool} {comment} -j MASQUERADE",
        f"-t filter -N {chain}",
        f"-t filter -A {chain} -i {plan.bridge} -o {plan.bridge} -j RETURN",
        *([f"-t filter -A {chain} {BRIDGED} -j RETURN"] if sees_bridged else []),
        f"-t filter -A {chain} {answers} -j RETURN",
        f"-t filter -A {chain} -d {pool} -j DROP",
        f"-t filter -I FORWARD {comment} -j {chain}",
        *(f"-t filter -A FORWARD {match} {comment} -j ACCEPT" for match in (*ours, answers)),
        *(f"-t filter -I {CLOSED} {match} {comment} -j RETURN" for match in (*ours, answers) if is_closed),
    )
    return [tuple(text.split()) for text in texts]


def closing(open_ones: Iterable[str], bridges: Iterable[str], *, sees_bridged: bool) -> list[tuple[str, ...]]:
    """The iptables calls that keep closed what was closed while the kernel forwarded nothing.

    Not what comes in from the interfaces `open_ones`, which forwarded by themselves, or stays inside a bridge.
    """
    texts = (
        f"-t filter -N {CLOSED}",
        *(f"-t filter -A {CLOSED} -i {name} -j RETURN" for name in open_ones),
        *(f"-t filter -A {CLOSED} -i {name} -o {name} -j RETURN" for name in bridges),
        *([f"-t filter -A {CLOSED} {BRIDGED} -j RETURN"] if sees_bridged else []),
        f"-t filter -A {CLOSED} -j DROP",
        f"-t filter -I FORWARD -m comment --comment {CLOSED} -j {CLOSED}",
    )
    return [tuple(text.split()) for text in texts]


def removals(table: str, listing: str, chain: str) -> list[tuple[str, ...]]:
    """The iptables calls that undo what `iptables -S` lists of this chain, in an order that works."""
    jumps, own = [], False
    for line in listing.splitlines():
        words = shlex.split(line)
        if words[:2] == ["-N", chain]:
            own = True
        elif words[:1] == ["-A"] and words[1] != chain and chain in words:
            jumps.append(("-t", table, "-D", *words[1:]))
    return [*jumps, *([("-t", table, "-F", chain), ("-t", table, "-X", chain)] if own else [])]


def add_rules(plan: Plan, iptables: str) -> None:
    """Add the engine's rules; those of an earlier, broken start are replaced."""
    is_closed = process.run([iptables, "-w", "10", "-S", CLOSED], check=False).returncode == 0
    _replace_rules(plan.chain, iptables, rules(plan, is_closed=is_closed, sees_bridged=BRIDGE_FILTER.exists()))


def close(before: Mapping[str, str], iptables: str) -> None:
    """Keep closed what these settings of `forwarding` say is closed, whatever the kernel forwards from now on."""
    names = [folder.name for folder in CLASS_NET.iterdir()]
    open_ones = [name for name in names if before.get(f"conf/{name}/forwarding") == "1"]
    bridges = [name for name in names if (CLASS_NET / name / "bridge").is_dir()]
    _replace_rules(CLOSED, iptables, closing(open_ones, bridges, sees_bridged=BRIDGE_FILTER.exists()))


def _replace_rules(chain: str, iptables: str, calls: Iterable[tuple[str, ...]]) -> None:
    remove_rules(chain, iptables)
    for arguments in calls:
        try:
            process.run([iptables, "-w", "10", *arguments])
        except CommandError as e:
            remove_rules(chain, iptables)
            raise EngineError(
                "the firewall rules of the engine's containers cannot be added",
                details=e.details,
                hint="the kernel needs NAT and connection tracking (nf_nat, nf_conntrack)",
            ) from None


def remove_rules(chain: str, iptables: str) -> None:
    """Remove every rule of the engine's, and no other."""
    for table in ("filter", "nat"):
        listing = process.run([iptables, "-w", "10", "-t", table, "-S"], check=False).stdout
        for arguments in removals(table, listing, chain):
            process.run([iptables, "-w", "10", *arguments], check=False)


def working_iptables(candidates: Iterable[str]) -> str:
    """The first of these programs whose backend this kernel supports."""
    details: list[str] = []
    for program in candidates:
        try:
            process.run([program, "-w", "10", "-t", "nat", "-S"])
        except MissingProgramError:
            continue
        except CommandError as e:
            details += e.details[:2]
        else:
            return program
    raise EngineError(
        "no iptables works on this kernel",
        details=tuple(details),
        hint="load the kernel's NAT support (`modprobe iptable_nat` or `modprobe nft_chain_nat`)",
    )


def forwarding() -> dict[str, str]:
    """The kernel's settings that say what it forwards, and those that it changes when that is switched on or off."""
    interfaces = [f"conf/{folder.name}/forwarding" for folder in (IPV4 / "conf").iterdir() if folder.name != "all"]
    names = ["ip_forward", "conf/all/accept_redirects", *interfaces]
    return {name: (IPV4 / name).read_text().strip() for name in names}


def set_forwarding(settings: Mapping[str, str]) -> None:
    """Write the settings that differ; those of interfaces that are gone are left out."""
    for name, value in settings.items():
        file = IPV4 / name
        if file.exists() and file.read_text().strip() != value:
            file.write_text(value)
