"""A notebook on a server, from the first command to a cell; several users and several hosts."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.conftest import KIT
from tests.engine.notebook import execute, get, split
from tests.engine.remote.client import Client, eventually
from tests.engine.remote.conftest import Host, Lab

pytestmark = pytest.mark.engine
CELL = """
import os, socket
print(open("data.txt").read(), os.getuid(), os.getcwd())
open("from-kernel", "w").write("x")
"""


def local_port(url: str) -> int:
    return int(split(url)[0].rpartition(":")[2])


def listening_at(address: str, inside: Callable[..., object]) -> set[int]:
    """The ports below the ephemeral ones that take connections at this address, on one side of the link."""

    def look() -> set[int]:
        found = set()
        for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                where, port = words[1].split(":")
                if where in ("00000000", f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}"):
                    found.add(int(port, 16))
        return found

    ports = inside(look)
    assert isinstance(ports, set)
    return ports


def test_first_run_to_a_cell_through_the_tunnel(host: Host, client: Client, project: Path) -> None:
    (project / "data.txt").write_text("from the laptop")
    started = client.json("--host", host.name, "run", "tf-cpu", "jupyter", cwd=project)
    url, name = started["url"], started["name"]
    assert client.link.inside(execute, url, CELL).split() == [
        "from",
        "the",
        "laptop",
        str(host.uid_inside),
        "/workspace",
    ]
    made = list(host.account.home.rglob("from-kernel"))
    assert [(file.stat().st_uid, file.stat().st_gid) for file in made] == [(host.account.uid, host.account.gid)]

    address, token = split(url)
    for wrong in ("", "0" * len(token)):
        assert client.link.inside(get, f"{address}/api/status", token=wrong)[0] == 403
    # On the loopback of both sides, and nowhere else.
    assert local_port(url) in listening_at("127.0.0.1", client.link.inside)
    assert local_port(url) not in listening_at(client.link.client, client.link.inside)
    there = host.ports(name)
    assert there <= listening_at("127.0.0.1", lambda look: look())
    assert not there & listening_at(client.link.server, lambda look: look())
    for process in Path("/proc").glob("[0-9]*/cmdline"):  # of both sides
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            assert token.encode() not in process.read_bytes()

    row = next(row for row in client.json("--host", host.name, "ps") if row["name"] == name)
    assert (row["image"], row["service"], row["status"], row["url"]) == ("tf-cpu", "jupyter", "running", url)
    assert client.kit("url", name, KIT_HOST=host.name).stdout.strip() == url
    assert client.kit("exec", "--host", host.name, name, "sh", "-c", "id -u; exit 3", code=3).stdout.split() == [
        str(host.uid_inside)
    ]
    logs = client.kit("--host", host.name, "logs", name)
    assert "Jupyter Server" in logs.stdout + logs.stderr
    client.kit("ps", code=10, KIT_ENGINE="private")  # there is no engine on the laptop

    client.kit("--host", host.name, "stop", name)
    assert client.json("tunnel", "ls") == []
    with pytest.raises(OSError, match="refused"):
        client.link.inside(socket.create_connection, ("127.0.0.1", local_port(url)), 5)
    client.kit("--host", host.name, "rm", name)
    assert host.containers() == []
    client.close()
    eventually(client.is_quiet, "no process of the client's", timeout_s=20)


@pytest.mark.parametrize("host", ["docker"], indirect=True)
def test_tensorboard_beside_the_notebook(host: Host, client: Client, project: Path) -> None:
    arguments = ("--host", host.name, "run", "--logdir", "runs", "--tensorboard", "tf-cpu", "jupyter")
    started = client.json(*arguments, cwd=project)
    (beside,) = started["beside"]
    assert client.link.inside(execute, started["url"], "print(1)") == "1\n"
    status, body = client.link.inside(get, beside["url"])
    assert status == 200
    assert b"TensorBoard" in body
    assert {row["service"] for row in client.json("tunnel", "ls")} == {"jupyter", "tensorboard"}
    client.kit("--host", host.name, "stop", "--all")
    assert client.json("tunnel", "ls") == []
    assert host.containers(everything=False) == []


def test_a_port_that_is_taken_here(lab: Lab, client: Client, project: Path) -> None:
    def listen() -> socket.socket:
        return socket.create_server(("127.0.0.1", 8888))

    with client.link.inside(listen):
        done = client.kit("--host", "server", "run", "--port", "8888", "tf-cpu", "jupyter", code=16, cwd=project)
        assert "port 8888" in done.stderr
        assert lab.containers(lab.alice) == []
        assert client.json("tunnel", "ls") == []
        url = client.json("--host", "server", "run", "tf-cpu", "jupyter", cwd=project)["url"]
    assert local_port(url) > 8888
    assert client.link.inside(get, url)[0] == 200


def test_a_port_that_is_taken_there(client: Client, project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        # Of the two ports that this kit may draw one is taken.
        code = (
            f"import sys; from kit.run import service; service.REMOTE_PORTS = ({port}, {port + 2})\n"
            "from kit.cli import main; sys.argv = ['kit', '--host', 'server', 'run', 'tf-cpu', 'jupyter']; main()"
        )
        done = client.run(sys.executable, "-c", code, cwd=project)
    assert done.returncode == 0, done.stderr
    assert client.link.inside(get, done.stdout.strip())[0] == 200


def test_two_users_of_one_server(lab: Lab, client: Client, project: Path) -> None:
    urls, names = {}, {}
    for host in ("server", "bob"):
        started = client.json("--host", host, "run", "tf-cpu", "jupyter", cwd=project)
        urls[host], names[host] = started["url"], started["name"]
    assert local_port(urls["server"]) != local_port(urls["bob"])
    for host, account in (("server", lab.alice), ("bob", lab.bob)):
        assert client.link.inside(execute, urls[host], "import os; print(os.getuid())").split() == [str(account.uid)]
    rows = {row["name"]: row for row in client.json("--host", "bob", "ps")}
    assert rows[names["bob"]]["url"] == urls["bob"]
    assert rows[names["server"]]["url"] == "", "the token is alice's"
    listing = client.kit("--host", "bob", "ps").stdout
    assert lab.alice.name in listing
    for command in ("stop", "rm"):
        done = client.kit("--host", "bob", command, names["server"], code=2)
        assert lab.alice.name in done.stderr
        assert "--force" in done.stderr
    client.kit("--host", "bob", "stop", "--all")
    assert lab.containers(lab.alice, everything=False) == [names["server"]]
    assert lab.containers(lab.bob, everything=False) == []
    client.kit("--host", "bob", "stop", "--force", names["server"])
    assert lab.containers(lab.alice, everything=False) == []


def test_ten_hosts_of_which_three_are_dead(client: Client, project: Path) -> None:
    alive = [f"gpu{n}" for n in range(1, 8)]
    dead = ["silent", "refusing", "nosuch.invalid"]
    config = client.folder / "config/kit/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f"hosts = {json.dumps([dead[0], *alive, *dead[1:]])}\n")
    try:
        client.kit("--host", "gpu3", "run", "--detach", "tf-cpu", "--", "sleep", "100", cwd=project)
        began = time.monotonic()
        done = client.kit("--json", "ps", "--all-hosts")
        # One attempt to reach the silent one, and on a slow machine seven logins beside it.
        assert time.monotonic() - began < 40
        # All seven are one machine: what runs there is seen through each of them.
        assert sorted({row["host"] for row in json.loads(done.stdout) if row["name"]}) == alive
        for host in dead:
            assert f"{host} cannot be reached" in done.stderr
        # Who reads it sees the others before the silent one is given up.
        job = client.start("ps", "--all-hosts")
        for host in alive:
            job.until(host, timeout_s=30)
        assert job.process.poll() is None
        assert job.code() == 0
        assert "silent cannot be reached" in job.err
    finally:
        config.unlink()
    client.kit("--host", "gpu3", "stop", "--all", "--time", "0")


def test_facts_of_the_server(client: Client, gpus_alone: None) -> None:
    gpus = client.json("--host", "server", "gpus")
    assert len({row["uuid"] for row in gpus}) == len(gpus) == len(list(Path("/dev").glob("nvidia[0-9]*")))
    done = client.run(KIT, "--json", "--host", "server", "doctor")
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert report["host"]["engine"]["version"]
    blocking = [row for row in report["findings"] if row["severity"] == "block"]
    assert [row for row in blocking if row["check"].startswith("engine")] == []


def test_one_machine_by_two_names(lab: Lab, client: Client, project: Path) -> None:
    """What was opened under one name is found, and closed, under another."""
    started = client.json("--host", "server", "run", "tf-cpu", "tensorboard", cwd=project)
    assert client.json("--host", "gpu1", "url", started["name"])["url"] == started["url"]
    assert [row["url"] for row in lab_rows(client, "gpu2", started["name"])] == [started["url"]]
    assert len(client.json("tunnel", "ls")) == 1
    client.kit("--host", "gpu3", "stop", started["name"])
    assert client.json("tunnel", "ls") == []
    client.kit("--host", "server", "rm", started["name"])


def lab_rows(client: Client, host: str, name: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = client.json("--host", host, "ps")
    return [row for row in rows if row["name"] == name]
