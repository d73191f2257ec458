"""The engine of another machine through a shared connection, over a real sshd on this one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from docker import DockerClient

from bench.registry import local_registry
from kit.catalog import load_catalog
from kit.catalog.rows import Image
from kit.engine import Engine, connect
from kit.errors import GpuUnavailableError, KitError, NoEngineError
from kit.image.build.options import SILENT
from kit.image.build.transfer import pulled, transfer_image
from kit.network import NetworkSettings
from kit.remote import ssh
from kit.run import lease
from kit.run.command import follow_job, start_job
from kit.run.containers import user_of
from kit.spec.container import ContainerSpec
from kit.spec.request import RunRequest
from tests.engine import witness
from tests.engine.conftest import Kit, as_environment
from tests.engine.sshd import Server, needs_sshd

pytestmark = [pytest.mark.engine, needs_sshd]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("sshd"))
    yield running
    running.stop()


@pytest.fixture
def there(server: Server, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("KIT_SSH", server.ssh())
    yield connect("machine")
    ssh.close("machine")


def test_it_is_the_same_engine_and_another_path_to_it(there: Engine, engine: Engine) -> None:
    assert there.info == engine.info
    assert there.target == "machine"
    assert not there.is_local
    assert there.memory_bytes == engine.info.memory_bytes
    assert there.socket_path != engine.socket_path


def test_a_second_command_opens_no_second_connection(there: Engine, server: Server) -> None:
    control = ssh.connect("machine").control
    before = control.stat().st_ino
    assert connect("machine").info.version == there.info.version
    assert control.stat().st_ino == before


def test_files_are_sent_once_and_readable_there(there: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir(mode=0o700)
    (folder / "it's").write_text("one")
    (folder / "it's").chmod(0o600)
    first = there.provide(folder)
    assert Path(first).name == "a folder"
    assert (Path(first) / "it's").read_text() == "one"
    assert (Path(first) / "it's").stat().st_mode & 0o044
    made = Path(first).stat().st_ctime_ns
    assert there.provide(folder) == first
    assert Path(first).stat().st_ctime_ns == made, "nothing was sent again"
    (folder / "it's").write_text("two")
    second = there.provide(folder)
    assert second != first
    assert (Path(second) / "it's").read_text() == "two"


def test_eight_at_once_send_one_file(there: Engine, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(os.urandom(8).hex())
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(there.provide(file))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert len(set(found)) == 1
    parent = Path(found[0]).parent
    assert Path(found[0]).read_text() == file.read_text()
    assert [p.name for p in parent.parent.glob(f"{parent.name}.*")] == [], "no half-sent folder is left"


def test_a_scratch_folder_is_gone_afterwards(there: Engine) -> None:
    with there.scratch("1000:1000") as folder:
        (Path(folder) / "result").write_text("41 and 1\n")
        assert Path(folder).stat().st_mode & 0o777 == 0o777
        assert there.read_text(f"{folder}/result") == "41 and 1\n"
        assert there.read_text(f"{folder}/none") is None
    assert not Path(folder).parent.exists()


def test_an_image_is_sent_from_engine_to_engine(
    there: Engine, engine: Engine, docker: DockerClient, tmp_path: Path
) -> None:
    small = "kit/test-transfer:latest"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\nLABEL kit.test=yes\n")
    engine.call(["buildx", "build", "--quiet", "--load", "--tag", small, str(tmp_path)])
    try:
        before = time.time()
        sent = transfer_image(engine, there, small)
        assert sent > 1000
        # Both are one engine here, which had the image before: it says itself that it was given it.
        events = docker.events(since=before, until=time.time(), filters={"event": "load"}, decode=True)
        assert [event["Type"] for event in events] == ["image"]
        assert docker.images.get(small).labels["kit.test"] == "yes"
        with pytest.raises(KitError, match=r"failed|No such image|does not exist") as caught:
            transfer_image(engine, there, "kit/test-none:latest")
        assert caught.value.args
    finally:
        docker.images.remove(small, force=True)


def test_an_image_is_built_and_sent_by_command(kit: Kit, server: Server, tf_cpu: str) -> None:
    """BuildKit over there builds through the connection; its cache makes the second build quick."""
    environment = as_environment(KIT_SSH=server.ssh())
    built = kit("--host", "machine", "build", tf_cpu, "--base", "archive", "--force", env=environment)
    assert f"{tf_cpu}: built in" in built.stderr
    sent = kit("--host", "machine", "build", tf_cpu, "--base", "archive", "--force", "--transfer", env=environment)
    assert "MB sent to machine in" in sent.stderr
    assert f"{tf_cpu}: up to date" in kit("--host", "machine", "build", tf_cpu, "--transfer", env=environment).stderr
    assert "for a machine behind --host" in kit("build", tf_cpu, "--transfer", "--host", "local", code=2).stderr


def test_an_image_is_pulled_there(there: Engine, engine: Engine, docker: DockerClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\nLABEL kit.test=pulled\n")
    (tmp_path / "data").mkdir()
    with local_registry(tmp_path / "data") as registry:
        reference = f"{registry}/lab/x:latest"
        engine.call(["buildx", "build", "--quiet", "--load", "--tag", reference, str(tmp_path)])
        docker.images.push(reference)
        docker.images.remove(reference, force=True)
        wanted = cast("Image", Named("x", "kit/test-pulled:latest"))
        try:
            name = pulled(there, wanted, f"{registry}/lab/", lambda _: False, SILENT)
            assert docker.images.get(name).labels["kit.test"] == "pulled"
            assert "@sha256:" in name
            assert not docker.images.list("kit/test-pulled"), "it has its own name alone"
        finally:
            docker.images.remove(reference, force=True)
    with pytest.raises(KitError, match=r"cannot be reached|could not be pulled"):
        pulled(there, wanted, f"{registry}/lab", lambda _: False, SILENT)


@dataclass(frozen=True)
class Named:
    """What the functions need of an image: its name, and its reference."""

    name: str
    reference: str


def spec(name: str, script: str, image: str) -> ContainerSpec:
    return ContainerSpec(image=image, name=name, command=("sh", "-c", script), labels={"kit.test": "yes"})


@pytest.fixture
def name(docker: DockerClient) -> Iterator[str]:
    name = f"kit-test-{os.urandom(3).hex()}"
    yield name
    witness.remove(docker, name)


def test_reading_goes_on_after_the_connection_was_lost(
    there: Engine, engine: Engine, tf_cpu: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "n=0; while [ $n -lt 40 ]; do n=$((n+1)); echo line $n; echo err $n >&2; sleep 0.1; done; exit 7"
    engine.run_detached(spec(name, script, f"kit/{tf_cpu}:latest"))
    text = {1: b"", 2: b""}
    said: list[str] = []

    def write(kind: int, data: bytes) -> None:
        text[kind] += data

    def cut() -> None:
        while b"line 5\n" not in text[1]:
            time.sleep(0.02)
        ssh.close("machine")

    cutter = threading.Thread(target=cut)
    cutter.start()
    code = follow_job(there, name, write, said.append)
    cutter.join()
    assert code == 7
    assert text[1].decode() == "".join(f"line {n}\n" for n in range(1, 41))
    assert text[2].decode() == "".join(f"err {n}\n" for n in range(1, 41))
    assert any("is lost" in line for line in said)
    assert any("again" in line for line in said)


def test_the_log_of_one_that_ended_is_read_whole(
    there: Engine, engine: Engine, docker: DockerClient, tf_cpu: str, name: str
) -> None:
    engine.run_detached(spec(name, "printf 'a\\n\\nb'; exit 3", f"kit/{tf_cpu}:latest"))
    docker.containers.get(name).wait()
    found: list[bytes] = []
    assert follow_job(there, name, lambda _, data: found.append(data), lambda _: None) == 3
    assert b"".join(found).rstrip(b"\n") == b"a\n\nb"


def test_a_progress_bar_is_seen_while_it_grows(there: Engine, tf_cpu: str, tmp_path: Path) -> None:
    """Nothing holds back what is no whole line yet, as `docker logs --follow` would."""
    catalog = load_catalog()
    seen: list[tuple[float, bytes]] = []
    request = RunRequest(
        image=catalog.find(tf_cpu),
        command=("sh", "-c", "for n in 1 2 3; do printf '\\r%s' $n; sleep 1; done"),
        folder=tmp_path,
        user=user_of(there),
        network=NetworkSettings(proxies={}),
    )
    name, code = start_job(
        request,
        lease.no_gpus(request.image),
        there,
        lambda _: None,
        write=lambda _, data: seen.append((time.monotonic(), data)),
    )
    assert code == 0
    assert b"".join(data for _, data in seen) == b"\r1\r2\r3"
    assert seen[-1][0] - seen[0][0] > 1.5, "each came when it was printed"
    assert not there.is_listed(name), "what was read to its end is removed"


def test_the_lock_of_leases_is_the_machine_s(there: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lock"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(lease, "LOCK_FOLDERS", (folder,))
    monkeypatch.setattr(lease, "LOCK_WAIT_S", 0.5)
    monkeypatch.setattr(lease, "LOCK_NOTICE_S", 0.2)
    told: list[str] = []
    with lease.held(there) as release:
        file = folder / lease.LOCK_NAME
        assert file.stat().st_mode & 0o777 == 0o444
        with pytest.raises(GpuUnavailableError), lease.locked(file, wait_s=0.3):
            pass
        # What runs there meanwhile does not hold it.
        assert there.connection is not None
        assert there.connection.run("(exec >/dev/null 2>&1; sleep 30) & echo $!").stdout.strip().isdecimal()
        release()
        with lease.locked(file, wait_s=5):
            pass
    with (
        lease.locked(file, wait_s=5),
        pytest.raises(GpuUnavailableError, match="cannot be had"),
        lease.held(there, on_wait=told.append),
    ):
        pass
    assert "waiting for another" in told[0]
    with lease.held(there):
        pass


def test_a_lock_ends_with_the_connection(there: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lock"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(lease, "LOCK_FOLDERS", (folder,))
    with lease.held(there):
        ssh.close("machine")
        with lease.locked(folder / lease.LOCK_NAME, wait_s=10):
            pass


def test_no_engine_there(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_SSH", server.ssh())
    monkeypatch.setenv("KIT_ENGINE", "system")  # there may be a Podman
    monkeypatch.setattr(ssh, "_ACCOUNT_SCRIPT", ssh._ACCOUNT_SCRIPT.replace("say socket", "say nothing"))
    with pytest.raises(NoEngineError, match="no container engine answers on machine"):
        connect("machine")
    ssh.close("machine")


def test_a_socket_that_nobody_answers_at(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    dead = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(dead))
    monkeypatch.setenv("KIT_SSH", server.ssh())
    before = ssh._ACCOUNT_SCRIPT
    monkeypatch.setattr(ssh, "_ACCOUNT_SCRIPT", before.replace('socket "/var/run/docker.sock"', f"socket {dead}"))
    engine = connect("machine")  # the next one that answers
    assert engine.connection is not None
    assert engine.connection.account.sockets[0] == str(dead)
    ssh.close("machine")
    only = before.partition('case "${DOCKER_HOST')[0] + f"socket {dead}\n"
    monkeypatch.setattr(ssh, "_ACCOUNT_SCRIPT", only)
    with pytest.raises(NoEngineError) as caught:
        connect("machine")
    assert caught.value.details == (f"{dead}: no answer",)
    ssh.close("machine")
