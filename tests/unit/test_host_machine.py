"""What Linux, curl, wget and Python print of a machine and its network."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.facts.host import Endpoint
from kit.host import parse_machine
from kit.host.parse_machine import (
    ProcessFacts,
    is_wsl,
    median_skew,
    parse_cgroup,
    parse_count,
    parse_df,
    parse_endpoint,
    parse_memory,
    parse_os,
    parse_ports,
    parse_process,
    parse_uname,
)
from kit.host.sections import Section, split

ID = "ab12" * 16


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Linux 6.1.0-18-amd64 x86_64\n", ("6.1.0-18-amd64", "linux/amd64")),
        ("Linux 6.8.0-1021-nvidia aarch64\n", ("6.8.0-1021-nvidia", "linux/arm64")),
        ("Linux 5.15.32-v7l+ armv7l", ("5.15.32-v7l+", "linux/arm/v7")),
        ("Linux 6.6 riscv64", ("6.6", "linux/riscv64")),
        ("", ("", "linux/amd64")),
    ],
)
def test_kernel_and_platform(text, found):
    assert parse_uname(text) == found


def test_the_system():
    text = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n'
    assert parse_os(text) == ("Debian GNU/Linux 12 (bookworm)", "debian")
    assert parse_os('ID="rocky"\n') == ("", "rocky")


def test_wsl_by_its_kernel():
    # /proc/version of WSL2
    assert is_wsl("Linux version 6.6.87.2-microsoft-standard-WSL2 (root@439a258ad544) (gcc (GCC) 11.2.0)")
    assert not is_wsl("Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org)")


def test_memory_and_processors():
    assert parse_memory("MemTotal:       24684084 kB\n") == 25276502016
    assert parse_memory("MemTotal: lots") is None
    assert parse_count("2\n") == 2
    assert parse_count("two") is None


def test_room():
    text = (
        "Filesystem     1024-blocks     Used Available Capacity Mounted on\n"
        "/dev/vda         264212084 52384452  54006460      50% /\n"
    )
    assert parse_df(text) == (264212084 * 1024, 54006460 * 1024)
    # Another language changes the header only.
    assert parse_df(text.replace("Available", "Verfügbar")) == parse_df(text)
    assert parse_df("df: /nowhere: No such file or directory\n") is None


def test_ports_in_use_on_loopback():
    def line(address, port):
        return (
            f"   0: {address}:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1592\n"
        )

    text = (
        line("0100007F", 8888)
        + line("00000000", 8889)
        + line("0100A8C0", 8890)
        + line("0" * 32, 6006)
        + line("0" * 24 + "01000000", 6007)
        + line("0" * 16 + "FFFF00000100007F", 6008)
        + line("000080FE00000000FF005450B6AD1DFE", 6009)
        + line("0" * 16 + "FFFF0000" + "0100A8C0", 6010)
        + line("00000000", 22)
    )
    assert parse_ports(text) == (6006, 6007, 6008, 8888, 8889)


@pytest.mark.parametrize(
    ("text", "container"),
    [
        (f"0::/system.slice/docker-{ID}.scope\n", ID),
        (f"12:devices:/docker/{ID}\n11:cpu:/docker/{ID}\n", ID),
        (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container\n", ID),
        (f"0::/kubepods/burstable/pod0f1e2d3c-1111-2222-3333-444455556666/{ID}\n", ID),
        (f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope\n", ID),
        (f"0::/docker/{ID}/docker/{'cd34' * 16}\n", ID),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", ""),
        (f"0::/docker/{ID}ff\n", ""),
        ("", ""),
    ],
)
def test_the_container_of_a_process(text, container):
    assert parse_cgroup(text) == container


def test_a_process():
    assert parse_process(f"alice\npython3\n0::/system.slice/docker-{ID}.scope\n") == ProcessFacts(
        user="alice", name="python3", container=ID
    )
    assert parse_process("UNKNOWN\n\n") == ProcessFacts()


@given(st.text())
def test_garbage_is_no_error(text):
    for name in ("uname", "os", "memory", "count", "df", "ports", "process", "cgroup"):
        getattr(parse_machine, f"parse_{name}")(text)
    endpoint, skew = parse_endpoint(ENDPOINT, Section(code=0, text=text), text)
    assert endpoint.is_reachable in (True, False)
    assert skew is None
    assert split(text, "@@x").found == {}


ENDPOINT = Endpoint(kind="registry", url="https://registry.example")
# Headers as curl and wget print them.
ANSWER = (
    "HTTP/2 401 \r\ncontent-type: application/json\r\ndate: Sat, 21 Nov 2026 14:00:00 GMT\r\n\r\nseconds 0.213000\n"
)
WGET = "  HTTP/1.1 200 OK\n  Date: Sat, 21 Nov 2026 14:00:00 GMT\n"


def test_a_registry_that_wants_a_login_is_reachable():
    endpoint, skew = parse_endpoint(ENDPOINT, Section(code=0, rest="1795269607", text=ANSWER), "")
    assert (endpoint.is_reachable, endpoint.problem, endpoint.seconds) == (True, "", 0.213)
    assert skew == 7


def test_wget_prints_headers_as_errors_and_fails_on_401():
    endpoint, skew = parse_endpoint(ENDPOINT, Section(code=6, rest="1795269600"), WGET.replace("200 OK", "401"))
    assert (endpoint.is_reachable, endpoint.seconds, skew) == (True, None, 0)


@pytest.mark.parametrize(
    ("status", "is_reachable", "problem"),
    [(200, True, ""), (302, True, ""), (405, True, ""), (403, False, "403"), (404, False, "404"), (502, False, "502")],
)
def test_what_a_server_answers(status, is_reachable, problem):
    found, _ = parse_endpoint(ENDPOINT, Section(code=0, text=ANSWER.replace("401", str(status))), "")
    assert (found.is_reachable, found.problem) == (is_reachable, problem)


# The programs' own words; the first five as recorded with curl 7.88 and 8, the others from wget, busybox and Python.
@pytest.mark.parametrize(
    ("code", "said", "problem"),
    [
        (6, "curl: (6) Could not resolve host: nosuch.invalid", "name"),
        (7, "curl: (7) Failed to connect to 127.0.0.1 port 9 after 0 ms: Couldn't connect to server", "refused"),
        (28, "curl: (28) Connection timed out after 2001 milliseconds", "timeout"),
        (60, "curl: (60) SSL certificate problem: self-signed certificate in certificate chain", "certificate"),
        (35, "curl: (35) OpenSSL SSL_connect: Connection reset by peer in connection to x:443", "TLS"),
        (5, "ERROR: cannot verify x's certificate, issued by 'CN=y':", "certificate"),
        (4, "wget: unable to resolve host address 'nosuch.invalid'", "name"),
        (1, "wget: bad address 'nosuch.invalid'", "name"),
        (4, "Connecting to x... failed: Connection refused.", "refused"),
        (1, "urllib.error.URLError: <urlopen error [Errno -2] Name or service not known>", "name"),
        (
            1,
            "urllib.error.URLError: <urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed",
            "certificate",
        ),
        (7, "curl: (7) Failed to connect to x: Network is unreachable", "unreachable"),
        (137, "", "timeout"),
        (3, "", "no answer"),
    ],
)
def test_why_nothing_answers(code, said, problem):
    found, skew = parse_endpoint(ENDPOINT, Section(code=code), said)
    assert (found.is_reachable, found.problem, skew) == (False, problem, None)


def test_nothing_to_ask_with_leaves_it_unknown():
    assert parse_endpoint(ENDPOINT, None, "") == (ENDPOINT, None)


def test_a_proxys_answer_is_not_the_servers():
    text = "HTTP/1.1 200 Connection established\r\n\r\n" + ANSWER.replace("401", "503")
    assert parse_endpoint(ENDPOINT, Section(code=0, text=text), "")[0].problem == "503"


def test_the_clock_by_most_servers():
    assert median_skew([1.0, None, 3600.0, 2.0]) == 2.0
    assert median_skew([None]) is None


def test_sections_are_told_from_what_a_login_prints():
    output = "Welcome!\n@@y no\n@@x one 0 \nfirst\n\n@@x one 3 rest of it\nsecond\n@@x end 0 \n"
    sections = split(output, "@@x")
    assert [(s.code, s.rest, s.text) for s in sections.all("one")] == [(0, "", "first\n"), (3, "rest of it", "second")]
    assert sections.is_complete
    assert (sections.text("two"), sections.get("two"), sections.timed_out("two")) == ("", None, False)
    assert split("@@x one x\n", "@@x").all("one")[0].code == 1


@pytest.mark.parametrize(
    ("text", "modules"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\nGCC version: 12\n",
            "open",
        ),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6\n", "proprietary"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.65.06\n", "open"),
        ("", ""),
        ("something else", ""),
    ],
)
def test_the_flavor_of_the_kernel_modules(text, modules):
    assert parse_machine.parse_modules(text) == modules
    # What is loaded counts before what is on disk.
    assert parse_machine.parse_modules(text, "NVIDIA\n") == (modules or "proprietary")
    assert parse_machine.parse_modules("", "Dual MIT/GPL\n") == "open"
