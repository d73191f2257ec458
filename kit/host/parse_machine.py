"""What Linux and its tools print of a machine, as facts. Pure, never raises."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from kit.facts.host import Endpoint
from kit.frozen import dataclass
from kit.host.sections import KILLED, Section

# The ports services of kit's start from, and the next nine of each.
WATCHED_PORTS = (*range(6006, 6016), *range(8888, 8898))
# Answers that show a server is there: it wants a login, or does not take the short question (HEAD).
_ANSWERS = (401, 405, 501)
# Of curl; `man curl`, EXIT CODES.
_CURL = {5: "name", 6: "name", 28: "timeout", 35: "TLS", 51: "certificate", 60: "certificate", 77: "certificate"}
# In the words of curl, wget, busybox and Python, in lower case.
_WORDS = (
    ("certificate", ("certificate",)),
    ("name", ("could not resolve", "unable to resolve", "name or service not known", "name resolution", "bad address")),
    ("refused", ("refused", "couldn't connect to server")),
    ("timeout", ("timed out", "timeout")),
    ("unreachable", ("no route to host", "network is unreachable")),
)

_LICENSES: dict[str, Literal["open", "proprietary"]] = {"Dual MIT/GPL": "open", "NVIDIA": "proprietary"}


@dataclass(frozen=True, kw_only=True)
class ProcessFacts:
    """What /proc says of a process; `container` is the full ID of the one it runs in."""

    user: str = ""
    name: str = ""
    container: str = ""


def parse_uname(text: str) -> tuple[str, str]:
    """Kernel release and docker's platform, of `uname -srm`."""
    words = text.split()
    if len(words) < 3:
        return "", "linux/amd64"
    from kit.catalog import load_catalog

    machine = words[-1]
    return words[1], next((row.name for row in load_catalog().platforms if row.machine == machine), f"linux/{machine}")


def parse_os(text: str) -> tuple[str, str]:
    """PRETTY_NAME and ID of /etc/os-release."""
    pairs = dict(re.findall(r"""^([A-Z_]+)=["']?(.*?)["']?\s*$""", text, re.MULTILINE))
    return pairs.get("PRETTY_NAME", ""), pairs.get("ID", "")


def is_wsl(kernel: str) -> bool:
    """True for the kernel of WSL, by /proc/version."""
    return "microsoft" in kernel.lower()


def parse_modules(text: str, license_text: str = "") -> Literal["open", "proprietary", ""]:
    """The flavor of NVIDIA's kernel modules, of /proc/driver/nvidia/version; empty when it is not one that is known.

    `NVIDIA UNIX Open Kernel Module for x86_64  570.124.06`, `NVIDIA UNIX x86_64 Kernel Module  535.54.03`. Where none
    is loaded, by the license of the module on disk: `Dual MIT/GPL`, `NVIDIA`.
    """
    line = next((line for line in text.splitlines() if "Kernel Module" in line), "")
    if not line:
        return _LICENSES.get(license_text.strip(), "")
    return "open" if "Open Kernel Module" in line else "proprietary" if "NVIDIA UNIX" in line else ""


def parse_memory(text: str) -> int | None:
    """Bytes, of the line MemTotal in /proc/meminfo."""
    found = re.search(r"MemTotal:\s+(\d{1,15}) kB", text)
    return int(found[1]) * 1024 if found else None


def parse_count(text: str) -> int | None:
    text = text.strip()
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) else None


def parse_df(text: str) -> tuple[int, int] | None:
    """Bytes in all and free, of `df -Pk` for one path; POSIX fixes its columns."""
    found = re.search(r"\s(\d{1,18})\s+\d{1,18}\s+(\d{1,18})\s+\d{1,3}%\s", text)
    return (int(found[1]) * 1024, int(found[2]) * 1024) if found else None


def parse_ports(text: str) -> tuple[int, ...]:
    """Those of WATCHED_PORTS that are in use on loopback, of the listening lines of /proc/net/tcp and tcp6."""
    used = set()
    for address, port in re.findall(r"^\s*\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) ", text, re.MULTILINE):
        # In the byte order of the machine: 127.0.0.1 ends in 7F on the little-endian ones that have NVIDIA GPUs.
        is_any = int(address, 16) == 0 or address == "0" * 16 + "FFFF0000" + "0" * 8
        is_v4 = len(address) == 8 or address.startswith("0" * 16 + "FFFF0000")
        if is_any or address == "0" * 24 + "01000000" or (is_v4 and address.endswith("7F")):
            used.add(int(port, 16))
    return tuple(port for port in WATCHED_PORTS if port in used)


def parse_process(text: str) -> ProcessFacts:
    """Three things the script prints of a process: its owner, its name, its control groups."""
    user, _, rest = text.partition("\n")
    name, _, groups = rest.partition("\n")
    return ProcessFacts(
        user="" if user.strip() == "UNKNOWN" else user.strip(), name=name.strip(), container=parse_cgroup(groups)
    )


def parse_cgroup(text: str) -> str:
    """The full ID of the container in /proc/PID/cgroup, the outermost where there are several; empty for none."""
    found = re.search(
        r"(?:docker|libpod|podman|containerd|crio|kubepods)[^\n]*?(?<![0-9a-f])([0-9a-f]{64})(?![0-9a-f])", text
    )
    return found[1] if found else ""


def parse_endpoint(endpoint: Endpoint, answer: Section | None, errors: str) -> tuple[Endpoint, float | None]:
    """Whether an address answered, from what curl, wget or Python printed; and this clock minus the server's."""
    if answer is None:
        return endpoint, None
    text = f"{answer.text}\n{errors}"
    statuses = [int(code) for code in re.findall(r"^\s*HTTP/[\d.]+ (\d{3})\b", text, re.MULTILINE)]
    # Before the last status comes a proxy's own answer; wget fails on an answer such as 401 too.
    if statuses and answer.code not in KILLED and f"curl: ({answer.code})" not in text:
        status = statuses[-1]
        is_reachable = status < 400 or status in _ANSWERS
        taken = re.search(r"^seconds (\d+\.\d+)$", text, re.MULTILINE)
        found = replace(
            endpoint,
            is_reachable=is_reachable,
            problem="" if is_reachable else str(status),
            seconds=float(taken[1]) if taken else None,
        )
        return found, _skew(text, answer.rest)
    return replace(endpoint, is_reachable=False, problem=_network_problem(answer.code, text)), None


def _network_problem(code: int, text: str) -> str:
    lower = text.lower()
    if code in KILLED:
        return "timeout"
    # Exit codes are read only beside curl's own words: they mean other things elsewhere.
    if code in _CURL and f"curl: ({code})" in lower:
        return _CURL[code]
    return next((problem for problem, parts in _WORDS if any(part in lower for part in parts)), "no answer")


def _skew(text: str, ended: str) -> float | None:
    from email.utils import parsedate_to_datetime

    dates = re.findall(r"^\s*Date:\s*(.+?)\s*$", text, re.MULTILINE | re.IGNORECASE)
    if not dates or not re.fullmatch(r"[0-9]{1,12}", ended):
        return None
    try:
        return float(ended) - parsedate_to_datetime(dates[-1]).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def median_skew(skews: Iterable[float | None]) -> float | None:
    """What most servers say; one of them may be wrong itself."""
    import statistics  # which takes longer to import than all else here together

    known = [skew for skew in skews if skew is not None]
    return statistics.median(known) if known else None
