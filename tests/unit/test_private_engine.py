"""The private engine's decisions: its files, daemon configuration, address range and firewall rules."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from pathlib import Path

import pytest

from kit import apt, mounts, private_engine, procs
from kit.catalog import load_catalog
from kit.errors import EngineError, UnsupportedHostError
from kit.private_engine import daemon, processes, programs, subnet
from kit.private_engine.settings import EnginePaths, daemon_configuration

PLACES = EnginePaths(folder=Path("/var/lib/kit"))
PLAN = subnet.Plan(bridge=PLACES.bridge, chain=PLACES.chain, pool=ipaddress.IPv4Network("172.31.0.0/16"))

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


def configuration(**changes: object) -> dict[str, object]:
    arguments: dict[str, object] = {
        "store": "containerd",
        "mtu": 1400,
        "proxy_program": Path("/p/docker-proxy"),
        "init_program": None,
        "registry_mirrors": (),
        "insecure_registries": ("127.0.0.0/8",),
        "runtimes": {},
        **changes,
    }
    return dict(json.loads(daemon_configuration(PLACES, PLAN, **arguments)))  # type: ignore[arg-type]


def test_two_engines_share_no_name() -> None:
    other = EnginePaths(folder=Path("/srv/other"))
    for name in ("id", "bridge", "chain", "cgroup", "mark", "socket", "run"):
        assert getattr(other, name) != getattr(PLACES, name)


def test_names_fit_their_limits() -> None:
    deep = EnginePaths(folder=Path("/" + "deep/" * 40))
    assert len(deep.bridge) <= 15, "the kernel's limit for an interface"
    assert len(deep.chain) <= 28, "iptables' limit for a chain"
    for places in (deep, PLACES, EnginePaths(folder=Path("/" + "x" * 51))):
        assert len(f"{places.run}/exec/containerd/containerd-debug.sock.ttrpc") <= 107


def test_daemon_configuration_stays_in_its_folder() -> None:
    found = configuration()
    for key in ("data-root", "exec-root", "pidfile"):
        assert str(found[key]).startswith("/var/lib/kit/")
    assert found["hosts"] == ["unix:///var/lib/kit/run/docker.sock"]
    assert found["features"] == {"containerd-snapshotter": True, "cdi": True}
    assert "/etc/cdi" in found["cdi-spec-dirs"]
    assert "/var/run/cdi" in found["cdi-spec-dirs"]
    assert found["iptables"] is found["ip-forward"] is False
    assert found["mtu"] == 1400


def test_stores_have_their_own_data() -> None:
    overlay2 = configuration(store="overlay2")
    assert overlay2["features"] == {"containerd-snapshotter": False, "cdi": True}
    assert overlay2["storage-driver"] == "overlay2"
    assert overlay2["data-root"] != configuration()["data-root"]


def test_registries_and_runtimes() -> None:
    found = configuration(
        registry_mirrors=("https://mirror.example",),
        init_program=Path("/p/docker-init"),
        runtimes={"nvidia": "/usr/bin/nvidia-container-runtime"},
    )
    assert found["registry-mirrors"] == ["https://mirror.example"]
    assert found["runtimes"] == {"nvidia": {"path": "/usr/bin/nvidia-container-runtime"}}
    assert found["init-path"] == "/p/docker-init"


def test_bridge_and_later_networks_do_not_overlap() -> None:
    assert not PLAN.bridge_network.overlaps(PLAN.later_networks)
    assert ipaddress.IPv4Address(PLAN.gateway) in PLAN.bridge_network


def test_routes() -> None:
    assert [str(n) for n in subnet.parse_routes(ROUTES)] == ["192.0.2.0/24", "172.17.0.0/16"]
    assert subnet.parse_routes("") == subnet.parse_routes("header\nshort line\n") == []


def test_pool_avoids_what_is_taken() -> None:
    taken = [ipaddress.IPv4Network(text) for text in ("172.31.4.0/24", "172.16.0.0/12")]
    assert str(subnet.choose_pool([])) == "172.31.0.0/16"
    assert str(subnet.choose_pool(taken[:1])) == "172.30.0.0/16"
    assert str(subnet.choose_pool(taken)).startswith("10.")


def test_pool_keeps_the_one_used_before() -> None:
    assert str(subnet.choose_pool([], "10.222.0.0/16")) == "10.222.0.0/16"
    assert str(subnet.choose_pool([ipaddress.IPv4Network("10.222.1.0/24")], "10.222.0.0/16")) == "172.31.0.0/16"


def test_no_pool_left() -> None:
    with pytest.raises(EngineError, match="no private address range"):
        subnet.choose_pool([ipaddress.IPv4Network("0.0.0.0/0")])


def test_rules_are_undone_from_their_listing() -> None:
    pool, chain = "172.31.0.0/16", PLAN.chain
    filter_listing = f"""\
-P INPUT ACCEPT
-P FORWARD ACCEPT
-N DOCKER
-N {chain}
-N KIT-other
-A FORWARD -m comment --comment {chain} -j {chain}
-A FORWARD -m comment --comment KIT-other -j KIT-other
-A FORWARD -j DOCKER
-A {chain} -s {pool} -j ACCEPT
-A {chain} -d {pool} -j DROP
"""
    nat_listing = f"""\
-P POSTROUTING ACCEPT
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s {pool} ! -d {pool} -m comment --comment {chain} -j MASQUERADE
"""
    assert subnet.removals("filter", filter_listing, chain) == [
        ("-t", "filter", "-D", "FORWARD", "-m", "comment", "--comment", chain, "-j", chain),
        ("-t", "filter", "-F", chain),
        ("-t", "filter", "-X", chain),
    ]
    assert subnet.removals("nat", nat_listing, chain) == [
        (
            "-t",
            "nat",
            "-D",
            "POSTROUTING",
            "-s",
            pool,
            "!",
            "-d",
            pool,
            "-m",
            "comment",
            "--comment",
            chain,
            "-j",
            "MASQUERADE",
        )
    ]
    assert subnet.removals("nat", "", chain) == subnet.removals("filter", filter_listing, "KIT-none") == []


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize("sees_bridged", [True, False])
def test_every_rule_names_its_engine(is_closed: bool, sees_bridged: bool) -> None:
    found = subnet.rules(PLAN, is_closed=is_closed, sees_bridged=sees_bridged)
    assert all(PLAN.chain in rule for rule in found)
    assert any(subnet.CLOSED in rule for rule in found) == is_closed
    assert any("physdev" in rule for rule in found) == sees_bridged, "the match would switch that on"
    closing = subnet.closing(["eth1"], ["br0"], sees_bridged=sees_bridged)
    assert any("physdev" in rule for rule in closing) == sees_bridged


def test_what_refuses_stands_before_the_hosts_rules_and_what_allows_after_them() -> None:
    in_forward = [rule for rule in subnet.rules(PLAN, is_closed=False, sees_bridged=False) if "FORWARD" in rule]
    assert {(rule[2], rule[-1]) for rule in in_forward} == {("-I", PLAN.chain), ("-A", "ACCEPT")}
    in_chain = [rule[-1] for rule in subnet.rules(PLAN, is_closed=False, sees_bridged=False) if rule[3] == PLAN.chain]
    assert set(in_chain[1:]) == {"RETURN", "DROP"}


def test_bridges_of_custom_networks() -> None:
    database = b'\0junk{"id":"0123456789abcdef0123"}'
    names = ["lo", "docker0", "br-0123456789ab", "br-ffffffffffff", "br-lan"]
    assert subnet.bridges_of(names, database) == ["br-0123456789ab"]


def test_mount_points() -> None:
    found = mounts.parse_mounts(
        "a /x/with\\040space ext4 rw 0 0\nb /x tmpfs rw 0 0\nc /x/y/z proc rw 0 0\nd /xy tmpfs rw 0 0\n\n"
    )
    assert found == ["/x/with space", "/x", "/x/y/z", "/xy"]
    assert mounts.below(found, Path("/x")) == ["/x/with space", "/x/y/z"], "neither /x itself nor its neighbour"


def test_a_chroot_is_told_from_the_machine_around_it() -> None:
    machine = "25 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n26 25 0:5 / /proc rw - proc proc rw\n"
    assert mounts.changed_root(machine) == ""
    assert mounts.changed_root(machine.replace("/ / rw", "/tmp/root / rw")) == "/tmp/root"
    assert mounts.changed_root("26 25 0:5 / /proc rw - proc proc rw\n").startswith("@")
    assert EnginePaths(folder=PLACES.folder, root="/tmp/root").id != PLACES.id


def test_own_process_is_alive_and_belongs_to_no_engine() -> None:
    assert procs.start_time(os.getpid())
    assert procs.start_time(2**22 + 1) == ""
    assert processes.belonging_to("KIT_PRIVATE_ENGINE=none", "kit-none") == []


def test_start_script_shadows_shared_folders() -> None:
    script = daemon.start_script(EnginePaths(folder=Path("/tmp/a b")))
    assert "mount -n --bind '/tmp/a b/run/run-containerd' /run/containerd" in script
    assert script.splitlines()[-1] == "exec dockerd --config-file '/tmp/a b/run/daemon.json'"


def test_programs_of_debian_are_pinned_for_every_machine_that_may_have_an_engine() -> None:
    catalog = load_catalog()
    machines = {row.debian for row in catalog.platforms if row.engine_glibc}
    for machine in machines:
        rows = [row for row in catalog.engine_packages if row.architecture == machine]
        assert {row.name for row in rows} == {*programs.DOCKER_PACKAGES["debian"], programs.INIT_PACKAGES["debian"][0]}
        for row in rows:
            assert re.fullmatch("[0-9a-f]{64}", row.sha256)
            version = row.version.partition(":")[2] or row.version
            assert re.fullmatch(rf"pool/main/[a-z/.-]+/{row.name}_{re.escape(version)}_(all|{machine})\.deb", row.path)
    assert {row.architecture for row in catalog.engine_packages} == machines
    assert not {"testing", "stable", "sid"} & {row.name for row in catalog.engine_suites}, "they change their meaning"


def test_the_hosts_own_release_is_read_with_its_updates() -> None:
    main = apt.Source(uri="http://mirror.example/debian", suite="bookworm", components=("main",), options={})
    debian = apt.Distribution(family="debian", codename="bookworm")
    assert [s.suite for s in apt.host_suite(main, debian)] == ["bookworm", "bookworm-updates"]
    ubuntu = apt.Distribution(family="ubuntu", codename="jammy")
    assert [(s.suite, s.components) for s in apt.host_suite(main, ubuntu)] == [
        ("jammy", ("main", "universe")),
        ("jammy-updates", ("main", "universe")),
    ]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("glibc_version", lambda: (2, 31), "2.31"),
        ("glibc_version", lambda: (), "another C library"),
        ("platform.system", lambda: "Darwin", "Darwin"),
        ("shutil.which", lambda _: None, "apt-get"),
        ("apt.architecture", lambda: "riscv64", "riscv64"),
    ],
)
def test_unsupported_hosts_are_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, said: str
) -> None:
    monkeypatch.setattr(f"kit.private_engine.programs.{name}", value)
    with pytest.raises(UnsupportedHostError, match=said) as caught:
        programs.check_host()
    assert "install" in caught.value.hint


@pytest.mark.parametrize(("sudo", "hint"), [("/usr/bin/sudo", "sudo -E kit engine up"), (None, "administrator")])
def test_plain_user_is_told_to_use_sudo(
    monkeypatch: pytest.MonkeyPatch, sudo: str | None, hint: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("KIT_ENGINE_DIR", str(tmp_path))
    monkeypatch.setattr("kit.private_engine.programs.check_host", lambda: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda _: sudo)
    with pytest.raises(UnsupportedHostError, match="root") as caught:
        daemon.up()
    assert hint in caught.value.hint


def test_stopped_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KIT_ENGINE_DIR", str(tmp_path))
    monkeypatch.delenv("KIT_ENGINE_PROGRAMS", raising=False)
    found = private_engine.status()
    assert not found.running
    assert not private_engine.is_up()
    assert found.pid == 0
    assert found.version == ""
    assert found.socket == str(private_engine.socket_path())
    assert private_engine.docker_program() is None


def test_state_that_is_no_json_is_no_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KIT_ENGINE_DIR", str(tmp_path))
    for text in ("", "[]", "{half", "\0"):
        (tmp_path / "state.json").write_text(text)
        assert private_engine.status().store == ""


def test_environment_beats_the_users_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KIT_ENGINE_DIR", str(tmp_path))
    monkeypatch.setenv("KIT_ENGINE_PROGRAMS", "/shared/programs")
    found = private_engine.environment()
    assert found["DOCKER_HOST"] == f"unix://{private_engine.socket_path()}"
    assert found["DOCKER_CONTEXT"] == found["BUILDX_BUILDER"] == ""
    assert found["PATH"].startswith("/shared/programs/bin:")
    assert (Path(found["DOCKER_CONFIG"]) / "cli-plugins").readlink() == Path("/shared/programs/plugins")


def test_what_builds_leave_is_bounded() -> None:
    gc = configuration()["builder"]["gc"]
    assert gc == {"enabled": True, "defaultKeepStorage": "20GB"}
