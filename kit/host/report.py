"""A Host as data for `--json`, fit to be pasted into a public report: nothing in it says whose machine it is."""

from __future__ import annotations

import contextlib
import getpass
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from kit import paths, redact
from kit.facts.host import Host

_HOMES = re.compile(r"(?:/home|/Users|[A-Za-z]:\\Users)[/\\][^/\\\s:'\",]+|(?<![\w.-])/root(?![\w.-])")
# Facts of an engine that its machine's own stand for, or that only a build needs.
_UNREPORTED = ("is_containerd_store", "cpus", "memory_bytes")
# Names that are on every machine, and words of other facts: hiding them would hide the fact.
_COMMON = ("root", "ubuntu", "debian", "docker", "user", "nvidia", "kit")


def to_json(host: Host) -> dict[str, Any]:
    """All facts under the names of Host's fields, without user names, home folders, the host's name and secrets."""
    data: dict[str, Any] = anonymous(asdict(host), host)
    data["target"] = "remote" if host.target else ""
    for gpu in data["gpus"]:
        for process in gpu["processes"] or ():
            process["user"] = ""
    for container in data["containers"]:
        if not container["user"].partition(":")[0].isdecimal():
            container["user"] = ""
    engine = data["engine"]
    for name in _UNREPORTED:
        del engine[name]
    if not engine.pop("lists_cdi"):
        engine["cdi_devices"] = []  # they are those of `cdi_specs`
    endpoint = engine["endpoint"]
    if "://" in endpoint and not endpoint.startswith(("unix://", "npipe://")):
        engine["endpoint"] = endpoint.partition("://")[0] + "://"
    return data


def anonymous(data: Any, host: Host) -> Any:
    """Data about a host without the same: what is said of it names its users and addresses too."""
    return _each(data, _hider(_users(host), _machines(host)))


def _users(host: Host) -> set[str]:
    found = {process.user for gpu in host.gpus for process in gpu.processes or ()}
    found |= {container.user for container in host.containers if not container.user.partition(":")[0].isdecimal()}
    if "@" in host.target:
        found.add(host.target.removeprefix("ssh://").rpartition("@")[0].partition(":")[0])
    with contextlib.suppress(OSError, KeyError):  # a user ID without a name
        found.add(getpass.getuser())
    return found - {""}


def _machines(host: Host) -> set[str]:
    if not host.target:
        name = socket.gethostname()
        return {name, name.partition(".")[0]}
    return {host.target.removeprefix("ssh://").rpartition("@")[2].partition("/")[0].partition(":")[0]}


def _hider(users: Iterable[str], machines: Iterable[str]) -> Callable[[str], str]:
    def words(names: Iterable[str]) -> re.Pattern[str] | None:
        found = sorted((re.escape(n) for n in names if len(n) > 1 and n not in _COMMON), key=len, reverse=True)
        return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(found)})(?![A-Za-z0-9])") if found else None

    rules = [(words(users), "user"), (words(set(machines) - {"localhost"}), "host")]
    home = str(paths.home())

    def hide(text: str) -> str:
        if len(home) > 1:
            text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
        text = redact.without_queries(redact.text(redact.without_users(_HOMES.sub("~", text))))
        for pattern, word in rules:
            text = pattern.sub(word, text) if pattern else text
        return text

    return hide


def _each(data: Any, hide: Callable[[str], str]) -> Any:
    """The same data with every text in it changed, and tuples as lists."""
    if isinstance(data, str):
        return hide(data)
    if isinstance(data, dict):
        return {name: _each(value, hide) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_each(value, hide) for value in data]
    return data
