import contextlib
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import ports
from kit.errors import PortTakenError
from tests.free_ports import free_ports

CONTEXT = multiprocessing.get_context("fork")


@contextlib.contextmanager
def listening(address: str = "127.0.0.1", port: int = 0):
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def start() -> int:
    return free_ports(30)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_listened_on_is_not_free(address):
    with listening(address) as port:
        assert not ports.is_free(port)
    assert ports.is_free(port)


def test_a_port_just_left_by_a_connection_is_free(start):
    with listening(port=start) as port, socket.create_connection(("127.0.0.1", port)):
        pass  # the closed connection stays in TIME_WAIT, which docker's proxy does not mind either
    assert ports.is_free(start)


def test_the_first_port_is_taken_when_it_is_free(tmp_path, start):
    with ports.reserved(start, exact=False, folder=tmp_path) as port:
        assert port == start


def test_used_and_reserved_ports_are_passed_over(tmp_path, start):
    with (
        listening(port=start),
        ports.reserved(start, exact=False, folder=tmp_path) as first,
        ports.reserved(start, exact=False, folder=tmp_path) as second,
    ):
        assert (first, second) == (start + 1, start + 2)


def test_a_reservation_ends_with_its_block_also_after_an_error(tmp_path, start):
    with pytest.raises(RuntimeError), ports.reserved(start, exact=True, folder=tmp_path):
        raise RuntimeError
    with ports.reserved(start, exact=True, folder=tmp_path) as port:
        assert port == start


def test_an_exact_port_in_use_is_an_error_with_a_way_out(tmp_path):
    with (
        listening() as port,
        pytest.raises(PortTakenError, match=f"port {port} on 127.0.0.1 is in use") as caught,
        ports.reserved(port, exact=True, folder=tmp_path),
    ):
        pass
    assert "--port" in caught.value.hint


def test_an_exact_port_that_another_kit_holds_is_an_error(tmp_path, start):
    with (
        ports.reserved(start, exact=True, folder=tmp_path),
        pytest.raises(PortTakenError),
        ports.reserved(start, exact=True, folder=tmp_path),
    ):
        pass


def test_the_search_ends_at_the_last_port(tmp_path):
    with contextlib.ExitStack() as stack:
        if ports.is_free(65535):
            stack.enter_context(listening(port=65535))
        with (
            pytest.raises(PortTakenError, match="no free port from 65535 to 65535"),
            ports.reserved(65535, exact=False, folder=tmp_path),
        ):
            pass


@settings(max_examples=25)
@given(used=st.sets(st.integers(0, 9)))
def test_the_lowest_port_nobody_holds_is_chosen(tmp_path_factory, used):
    folder = tmp_path_factory.mktemp("ports")
    start = free_ports(11)
    with contextlib.ExitStack() as stack:
        for offset in used:
            stack.enter_context(ports.reserved(start + offset, exact=True, folder=folder))
        with ports.reserved(start, exact=False, folder=folder) as port:
            assert port == start + min(set(range(11)) - used)


def _hold(folder, start, found, release):
    with ports.reserved(start, exact=False, folder=folder) as port:
        found.put(port)
        release.wait(30)


def test_twenty_processes_at_once_get_twenty_ports(tmp_path, start):
    found, release = CONTEXT.Queue(), CONTEXT.Event()
    holders = [CONTEXT.Process(target=_hold, args=(tmp_path, start, found, release)) for _ in range(20)]
    for holder in holders:
        holder.start()
    got = [found.get(timeout=20) for _ in holders]
    release.set()
    for holder in holders:
        holder.join(20)
    assert sorted(got) == list(range(start, start + 20))


def test_a_killed_holder_frees_its_port(tmp_path, start):
    found, release = CONTEXT.Queue(), CONTEXT.Event()
    holder = CONTEXT.Process(target=_hold, args=(tmp_path, start, found, release))
    holder.start()
    assert found.get(timeout=20) == start
    with pytest.raises(PortTakenError), ports.reserved(start, exact=True, folder=tmp_path):
        pass
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(20)
    with ports.reserved(start, exact=True, folder=tmp_path) as port:
        assert port == start


def test_reservations_are_kept_in_the_state_folder_of_the_user(start):
    from kit import paths

    with ports.reserved(start, exact=True):
        assert (paths.state_dir() / "ports" / str(start)).is_file()


def test_looking_for_a_port_takes_no_noticeable_time(tmp_path, start):
    begun = time.monotonic()
    with ports.reserved(start, exact=False, folder=tmp_path):
        assert time.monotonic() - begun < 0.1


TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1ED2 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:1ED3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 010011AC:1ED4 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   3: 010011AC:1ED5 0200007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   4: short
"""
TABLE6 = """  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:1ED6 00000000000000000000000000000000:0000 0A
   1: 00000000000000000000000001000000:1ED7 00000000000000000000000000000000:0000 0A
"""


def test_who_listens_where_is_read_from_the_kernels_table():
    assert ports.listening(TABLE, "172.17.0.1") == {0x1ED3, 0x1ED4}
    assert ports.listening(TABLE, "127.0.0.1") == {0x1ED2, 0x1ED3}
    assert ports.listening(TABLE6, "172.17.0.1") == {0x1ED6}
    assert ports.listening("", "172.17.0.1") == frozenset()


def test_a_listener_of_this_machine_is_found():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert port in ports.listening(Path("/proc/net/tcp").read_text(), "127.0.0.1")
    assert port not in ports.listening(Path("/proc/net/tcp").read_text(), "127.0.0.1")
