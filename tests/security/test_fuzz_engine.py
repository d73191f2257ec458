"""What an engine answers, here or behind SSH: no reader of it raises anything but kit's own errors."""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from kit import labels, unix_http
from kit.engine import cdi, stream
from kit.engine.container import from_inspect, from_list
from kit.engine.docker import Engine
from kit.engine.info import parse_info
from kit.engine.messages import translate
from kit.errors import CommandError, KitError
from kit.host import parse_engine
from kit.image.buildlog import BuildLog, PodmanLog
from kit.run import containers
from tests.security.fuzzing import ANY_JSON, damaged, fuzz, replaced

DATA = Path(__file__).parents[1] / "unit/data"
LABELS = {
    labels.IMAGE: "tf-cpu",
    labels.SERVICE: "jupyter",
    labels.USER: "1000:1000",
    labels.OWNER: "1000",
    labels.OWNER_NAME: "ada",
    labels.CLIENT: "host:12",
    labels.GPUS: '--gpus="device=0"',
    labels.LEASE: "0 1",
}
INSPECTED = {
    "Id": "a" * 64,
    "Name": "/kit-tf-cpu-1",
    "Config": {"Image": "kit/tf-cpu", "Labels": LABELS, "Env": ["JUPYTER_TOKEN=x", "A"]},
    "State": {"Status": "exited", "ExitCode": 137, "Running": True, "StartedAt": "2026-11-28T20:00:00Z"},
    "HostConfig": {"PortBindings": {"8888/tcp": [{"HostIp": "127.0.0.1", "HostPort": "20001"}], "1/udp": None}},
}
LISTED = {
    "Id": "a" * 64,
    "Names": ["/kit-tf-cpu-1"],
    "Image": "kit/tf-cpu",
    "State": "running",
    "Status": "Exited (137) 2 hours ago",
    "Labels": LABELS,
    "Ports": [{"PrivatePort": 8888, "PublicPort": 20001, "Type": "tcp"}],
}
INFO = [file.read_bytes() for file in sorted((DATA / "host").glob("*.json"))]


def engine() -> Engine:
    return Engine(program="docker")


@pytest.mark.parametrize(("make", "whole"), [(from_inspect, INSPECTED), (from_list, LISTED)])
def test_containers(make: Any, whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_tunnel_ports", lambda _: {})

    def read(raw: Any) -> None:
        found = make(raw)
        assert all(type(key) is type(value) is str for key, value in found.labels.items())
        assert all(0 < port < 65536 for port in found.ports.values())
        containers.describe(found, engine(), {})
        containers.require_own([found], engine(), action="stop")

    fuzz(replaced([whole]), read)


def test_info() -> None:
    assert INFO
    fuzz(damaged(INFO), lambda data: parse_info(data.decode(errors="replace"), "", "docker"))
    fuzz(replaced([json.loads(data) for data in INFO]), lambda data: parse_info(json.dumps(data), "", "docker"))


def test_its_errors() -> None:
    said = [
        b"Error response from daemon: driver failed programming external connectivity: Bind for 0.0.0.0:80 failed",
        b'docker: Error response from daemon: could not select device driver "nvidia" with capabilities: [[gpu]].',
        b"write /x: no space left on device",
        b"Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
    ]

    def read(data: bytes) -> None:
        text = data.decode(errors="replace")
        translate(CommandError(("docker", "run", text), 125, "", text), {})

    fuzz(damaged(said), read)


def test_what_is_listed_on_a_host() -> None:
    rows = b"id\tname\timage\tstatus\tkit.image=x,kit.user=1:1\t0\nabc\tkit-1\tkit/x\tUp 2 hours\t\t\n"
    fuzz(damaged([rows]), lambda data: parse_engine.parse_containers(data.decode(errors="replace")))
    spec = b"cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ndevices:\n- name: all\n- name: '0'\n"
    fuzz(damaged([spec]), lambda data: cdi.devices_in(data.decode(errors="replace")))


def test_build_logs() -> None:
    files = [file.read_bytes() for folder in ("buildx", "podman") for file in sorted((DATA / folder).iterdir())]
    assert files

    def read(data: bytes) -> None:
        for log in (BuildLog(), PodmanLog()):
            for line in data.decode(errors="replace").splitlines()[:300]:
                log.feed(line)
            assert log.failed is None or log.failed.name is not None
            assert isinstance(log.running, list)

    fuzz(damaged([data[:30_000] for data in files]), read)
    fuzz(st.lists(ANY_JSON, max_size=3).map(json.dumps).map(str.encode), read)


class Socket:
    """An engine\'s socket that gives one answer to all who ask."""

    def __init__(self, path: Path) -> None:
        self.answer, self.path = b"", path
        self.pieces_s = 0.0  # between two bytes
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(path))
        self.listening.listen(64)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            with client:
                try:
                    client.settimeout(5)
                    client.recv(65536)
                    if self.pieces_s:
                        for byte in self.answer:
                            client.sendall(bytes([byte]))
                            time.sleep(self.pieces_s)
                    elif self.answer:
                        client.sendall(self.answer)
                    else:  # without end
                        client.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                        while True:
                            client.sendall(b"x" * (1 << 20))
                except OSError:
                    continue


@pytest.fixture
def answering(tmp_path: Path) -> Any:
    made = Socket(tmp_path / "s")
    yield made
    made.listening.close()


def http(body: bytes) -> bytes:
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + body


def test_answers_of_its_socket(answering: Any) -> None:
    asked = Engine(program="false", socket_path=answering.path)
    whole = [http(json.dumps(value).encode()) for value in (INSPECTED, [LISTED], {"Config": {"Labels": LABELS}})]
    frames = http(b"\1\0\0\0\0\0\0\5hello\2\0\0\0\0\0\0\3err")

    def read(data: bytes) -> None:
        answering.answer = data or b"-"
        for call in (
            lambda: asked.listed(label="x"),
            lambda: asked.containers(label="x"),
            lambda: asked.container("kit-tf-cpu-1"),
            lambda: asked.image_labels("kit/x"),
            asked.tags,
            lambda: asked.is_listed("x"),
        ):
            try:
                call()
            except KitError:
                continue
        with stream.log(answering.path, "x", follow=False) as found:
            for _ in found:
                pass

    fuzz(damaged([*whole, frames]), read)


def test_an_answer_without_end(answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_http, "LONGEST_ANSWER", 4 << 20)
    began = time.monotonic()
    assert unix_http.ask(answering.path, "/info") is None
    assert time.monotonic() - began < 5


def test_an_answer_that_comes_a_byte_at_a_time(answering: Any) -> None:
    answering.answer, answering.pieces_s = http(b"{}" * 1000), 0.01
    began = time.monotonic()
    assert unix_http.ask(answering.path, "/info", timeout_s=1) is None
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("answer", [b"x" * 1_000_000, b"HTTP/1.0 200 OK\r\n" + b"a: b\r\n" * 100_000])
def test_headers_without_end(answering: Any, answer: bytes) -> None:
    answering.answer = answer
    assert unix_http.ask(answering.path, "/info") is None
