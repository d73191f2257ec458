"""What a container prints, read from an engine that plays a part on a socket."""

import contextlib
import os
import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.engine import stream
from kit.errors import EngineError, NoEngineError, NoSuchContainerError


def frame(kind, data):
    return struct.pack(">BxxxL", kind, len(data)) + data


@pytest.fixture
def answering(tmp_path):
    """Start an engine that answers once, in pieces of a few bytes; returns its socket and what it was asked."""
    threads = []

    def start(answer, piece=5):
        path, asked = tmp_path / f"{len(threads)}.sock", []
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen()

        def serve():
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                asked.append(client.recv(65536).decode())
                for start in range(0, len(answer), piece):
                    client.sendall(answer[start : start + piece])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        threads.append((thread, server))
        return path, asked

    yield start
    for thread, server in threads:
        thread.join(5)
        server.close()


HEAD = b"HTTP/1.0 200 OK\r\nApi-Version: 1.51\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\r\n"
TERMINAL = HEAD.replace(b"multiplexed", b"raw")


def test_both_streams_of_a_log(answering):
    path, asked = answering(HEAD + frame(1, b"one\n") + frame(2, b"") + frame(2, b"two") + frame(1, b"three"))
    with stream.log(path, "a b", follow=True) as frames:
        text = {1: b"", 2: b""}
        for kind, data in frames:
            text[kind] += data
    assert text == {1: b"one\nthree", 2: b"two"}
    assert asked[0].startswith("GET /containers/a%20b/logs?stdout=1&stderr=1&follow=1 HTTP/1.0\r\n")


def test_a_terminal_has_one_stream(answering):
    path, _ = answering(TERMINAL + b"\x01\x00\x00\x00 as it is")
    with stream.log(path, "c", follow=False) as frames:
        assert b"".join(data for _, data in frames) == b"\x01\x00\x00\x00 as it is"


def test_an_old_engine_says_raw_of_both(answering):
    path, _ = answering(TERMINAL.replace(b"1.51", b"1.41") + frame(2, b"x"))
    with stream.log(path, "c", follow=False) as frames:
        assert list(frames) == [(2, b"x")]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_connection_that_breaks_ends_the_stream(answering, cut):
    whole = frame(1, b"abcd")
    path, _ = answering(HEAD + whole + whole[:-cut])
    with stream.log(path, "c", follow=True) as frames:
        seen = b"".join(data for _, data in frames)
    assert seen == b"abcd" + (b"abcd"[: 4 - cut] if cut < 4 else b"")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n{}", NoSuchContainerError),
        (b"HTTP/1.1 500 Error\r\n\r\n{}", EngineError),
        (b"HTTP/1.1 200", NoEngineError),
        (b"nonsense\r\n\r\n", EngineError),
        (b"", NoEngineError),
    ],
)
def test_what_is_no_stream(answering, answer, kind):
    path, _ = answering(answer)
    with pytest.raises(kind), stream.attached(path, "c"):
        pass


@pytest.fixture
def echoing(tmp_path):
    """An engine whose container prints what it is given, until that ends; and what it was asked."""
    path, asked = tmp_path / "echo.sock", []
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve():
        client, _ = server.accept()
        with client, contextlib.suppress(OSError):
            asked.append(client.recv(65536).decode())
            client.sendall(HEAD)
            while data := client.recv(1000):
                client.sendall(frame(1, data))
            client.sendall(frame(2, b"the end"))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield path, asked
    thread.join(5)
    server.close()


def attached(path, source):
    sides = []
    with stream.attached(path, "c", sides.append) as frames, stream.fed(sides[0], source):
        found = {1: b"", 2: b""}
        for kind, data in frames:
            found[kind] += data
    return found


def test_a_container_is_given_a_file_to_its_end(echoing, tmp_path):
    path, asked = echoing
    (tmp_path / "s.py").write_bytes(b"print(1)\n" * 20_000)
    with (tmp_path / "s.py").open("rb") as source:
        assert attached(path, source.fileno()) == {1: b"print(1)\n" * 20_000, 2: b"the end"}
    assert asked[0].startswith("POST /containers/c/attach?stream=1&stdout=1&stderr=1&stdin=1 HTTP/1.1\r\n")


def test_a_container_is_given_what_comes_later(echoing):
    source, sink = os.pipe()
    threading.Timer(0.2, lambda: (os.write(sink, b"later"), os.close(sink))).start()
    assert attached(echoing[0], source) == {1: b"later", 2: b"the end"}
    os.close(source)


def test_a_pipe_that_nobody_writes_to_holds_nobody_up(echoing):
    source, sink = os.pipe()
    sides = []
    with stream.attached(echoing[0], "c", sides.append), stream.fed(sides[0], source):
        pass
    os.close(source)
    os.close(sink)


def test_no_engine(tmp_path):
    with pytest.raises(NoEngineError), stream.attached(tmp_path / "none", "c"):
        pass


pieces = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=9)), max_size=12)


@given(pieces, st.integers(0, 12), pieces)
def test_a_reader_that_comes_back_misses_and_repeats_nothing(first, count, cut):
    """Whatever was read before, and however the engine cuts the same bytes the second time."""

    def whole(frames):
        return {kind: b"".join(data for k, data in frames if k == kind) for kind in (1, 2)}

    seen = {}
    before = list(stream.after(iter(first[:count]), seen))
    assert before == first[:count]
    # The same bytes of each stream, in other pieces.
    sizes = [len(data) for _, data in cut] or [3]
    again = []
    for kind, data in whole(first).items():
        at, turn = 0, 0
        while at < len(data):
            size = sizes[turn % len(sizes)]
            again.append((kind, data[at : at + size]))
            at, turn = at + size, turn + 1
    after = list(stream.after(iter(again), seen))
    total = whole(first)
    assert {k: whole(before)[k] + whole(after)[k] for k in (1, 2)} == total
    assert {k: seen.get(k, 0) for k in (1, 2)} == {k: len(v) for k, v in total.items()}
