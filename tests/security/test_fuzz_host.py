"""What a host prints, and what is left in files of tunnels: no reader of it raises anything but kit's own errors."""

import json
import os
import socket
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import strategies as st

from kit import paths, process
from kit.errors import NetworkError
from kit.host.assemble import assemble
from kit.host.sections import split
from kit.remote import ssh, sync
from kit.remote.sync import place, watch
from kit.remote.sync.rsync import Observer, Rsync, Transfer, _Reader, check
from kit.remote.tunnels import forward, state
from tests.security.fuzzing import damaged, fuzz, replaced
from tests.unit.test_sync import CONNECTION
from tests.unit.test_tunnel_files import record

DATA = Path(__file__).parents[1] / "unit/data"
PROBE = paths.catalog_dir().parent / "host/probe.sh"
ACCOUNT = "\n".join(
    f"@@m{line}"
    for line in (
        *("user\tada", "uid\t1000", "gid\t1000", "home\t/home/ada", "hostname\tlab", "socket\t/var/run/docker.sock"),
        *("docker\tyes", "podman\tyes", "ends-at-logout\tyes", "proxy-http_proxy\thttp://p:1/", "denied\t/x"),
    )
).encode()
RSYNC = b"""@<f+++++++++ 25000 2026/11/21-17:33:54 a \\#303\\#251//
@.f...p..... 5 2026/11/21-17:33:54 d/only//
@cd+++++++++ 4096 2026/11/21-17:33:54 d///
@cL+++++++++ 4 2026/11/21-17:33:54 l// -> ../k
@*deleting   0 1970/01/01-00:00:00 gone///
d/x is newer
\r         32768   0%    0.00kB/s    0:00:00  \r     25006  41%    7.95MB/s    0:00:02 (xfr#3, to-chk=1/4)
@@kit is 0123abcd
@@kit was 5 1577836800 ./d/x
@@kit link ./d/l
@@kit clock 12
@@kit new
@@kit unmade
Literal data: 510 bytes
Total transferred file size: 25000 bytes
-rw-r--r--           2 2026/11/21 17:33:54 d/z
rsync: [sender] send_files failed to open "/x/y": Permission denied (13)
rsync: [sender] link_stat "/x/y" failed: No such file or directory (2)
rsync: connection unexpectedly closed (0 bytes received so far) [sender]
"""


def text(data: bytes) -> str:
    return data.decode(errors="replace")


def test_who_we_are_there() -> None:
    fuzz(damaged([ACCOUNT]), lambda data: ssh.parse_account(text(data), "@@m"))


def test_what_the_probe_prints() -> None:
    """Of this machine, and with real answers of nvidia-smi and docker in it."""
    printed = subprocess.run(
        ["sh", "-s"],
        input=f"KIT_MARK=@@m KIT_GROUPS='machine gpus engine' KIT_DOCKER=docker\n{PROBE.read_text()}",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout
    folder = DATA / "host"
    answers = "".join(
        f"@@m {name}\n{file.read_text(errors='replace')}\n"
        for name, file in (("nvidia-smi", folder / "smi-a100-mig-535.xml"), ("info", folder / "docker-28-private.json"))
    )
    assert "@@m" in printed

    def read(data: bytes) -> None:
        assemble(split(text(data), "@@m"))

    fuzz(damaged([printed.encode(), (printed + answers).encode()]), read)


def test_why_ssh_failed() -> None:
    fuzz(st.tuples(st.sampled_from((1, 124, 255)), st.text()), lambda pair: ssh.failure("u@h", *pair))


def test_what_rsync_and_the_host_print(tmp_path: Path) -> None:
    where = place.Place(remote_folder="/home/ada/there", beside="/home/ada/kit-workspaces/project-0", origin="")
    rsync = Rsync(connection=CONNECTION, folder=tmp_path, place=where)

    def read(data: bytes) -> None:
        seen = watch.Watch(rsync, None, sync.SILENT)
        done = Transfer()
        reader = _Reader(done, Observer(status=lambda _: None, item=seen.item, note=seen.note))
        for line in text(data).split("\n"):
            reader.line(line)
        known = where.record(done.identity)
        known.add(sync._versions(done))
        known.names()
        seen.tell("to h")
        sync._aside_here(rsync, done, ".before-fetch-1", sync.SILENT)
        for name in (*done.newer, *(item.name for item in done.items), *done.listed, *done.replaced, *done.links):
            assert not name.startswith("/"), name
            assert ".." not in name.split("/")
            known.find(name)
        for done.code in (0, 12, 23, 255):
            check(rsync, done, to_host=done.code == 12)

    fuzz(damaged([RSYNC]), read)


def test_what_is_kept_about_a_copy(tmp_path: Path) -> None:
    file = tmp_path / "record"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        known = place.Record(file)
        for name in ("a", "d/x", *known.names()[:10]):
            known.find(name)

    fuzz(damaged([b"a\t5\t2026/11/21-17:33:54\nd/x\t7\t2026/11/21-17:33:54\n" * 3]), read)


@pytest.mark.parametrize("is_json", [True, False])
def test_files_of_tunnels(is_json: bool, own_machine: None) -> None:
    paths.state_folder("tunnels")
    whole = json.loads(json.dumps(record_as_json()))
    identity = whole["tunnel"]["id"]
    file = state.file(identity, "json")

    def read(data: object) -> None:
        file.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode(errors="replace"))
        found = state.read(identity)
        if found:
            state.orphans(found)

    fuzz(replaced([whole]) if is_json else damaged([json.dumps(whole).encode()]), read)


def record_as_json() -> dict[str, object]:
    state.write(made := record())
    loaded: dict[str, object] = json.loads(state.file(made.tunnel.id, "json").read_text())
    return loaded


def test_files_of_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "control"))
        listening.listen(4096)
        listening.setblocking(False)
        account = ssh.Account(user="u", uid=1, gid=1, home="/h", hostname="h", sockets=("/s",))
        whole = json.loads(json.dumps({**asdict(account), "mark": ssh._mark("h")}))

        def read(data: object) -> None:
            (tmp_path / "account.json").write_text(json.dumps(data), errors="replace")
            ssh._open_one("h", "h", tmp_path)
            listening.accept()[0].close()

        fuzz(replaced([whole]), read)


def test_what_a_tunnel_s_ssh_prints() -> None:
    lines = f"{forward.UP_LINE}\n{forward.LIFE}abc 2026\nchannel 2: x\nsomething\n".encode()

    def read(data: bytes) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.write(writer, data[:60_000])
        os.close(writer)
        output = forward.Output(reader)
        output.read()
        os.close(reader)
        assert len(output.text) < 30 * 4096

    fuzz(damaged([lines]), read)


@pytest.mark.parametrize("printed", ["yes", "cat /dev/zero"])
def test_a_host_that_prints_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str) -> None:
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\nexec {printed}\n")
    program.chmod(0o755)
    monkeypatch.setenv("KIT_SSH", str(program))
    monkeypatch.setattr(process, "LONGEST_OUTPUT", 1 << 20)
    with pytest.raises(NetworkError) as caught:
        ssh.connect("h")
    assert caught.value.details == ("it printed more than 1 MB",)
