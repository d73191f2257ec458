"""What all private engines of one machine share: set up by the first that starts, put back by the last that ends."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from kit import files, procs
from kit.paths import write_text
from kit.private_engine import subnet

RUN = Path("/run")
USERS = RUN / "kit-engines"
BEFORE = USERS / "before.json"
LOCK = USERS / "lock"  # held for milliseconds
LOCK_WAIT_S = 60.0
# Folders that Docker and containerd use whatever they are told; each engine sees one of its own in their place.
SHADOWED = (RUN / "containerd", RUN / "docker", RUN / "runc", Path("/opt/containerd"))


def enter(engine: str, pid: int, iptables: str) -> None:
    """Prepare the machine for an engine that process `pid` is about to start; `settle` says who runs it then."""
    with files.locked(LOCK, wait_s=LOCK_WAIT_S):
        if not _before():
            made = [str(folder) for folder in SHADOWED if not folder.exists()]
            found = subnet.forwarding()
            write_text(BEFORE, json.dumps({"boot": procs.boot(), "made": made, "forwarding": found}))
            if found["ip_forward"] != "1":
                subnet.close(found, iptables)
        for folder in SHADOWED:
            folder.mkdir(exist_ok=True, mode=0o711)
        subnet.set_forwarding({"ip_forward": "1"})
        _write(engine, pid)


def settle(engine: str, pid: int) -> None:
    """The engine runs, as process `pid`."""
    with files.locked(LOCK, wait_s=LOCK_WAIT_S):
        _write(engine, pid)


def leave(engine: str, iptables: str) -> None:
    """The engine has ended: if it was the last, the machine is put back as it was before the first."""
    with files.locked(LOCK, wait_s=LOCK_WAIT_S):
        with contextlib.suppress(FileNotFoundError):
            (USERS / f"{engine}.engine").unlink()
        if _live():
            return
        if before := _before():
            subnet.set_forwarding(before["forwarding"])
            for folder in before["made"]:
                # A folder that something else uses by now is not empty, and stays.
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        if iptables:
            subnet.remove_rules(subnet.CLOSED, iptables)
        BEFORE.unlink(missing_ok=True)
        # Last of all: whoever waits for it makes a new one then, with the folder.
        LOCK.unlink()
        with contextlib.suppress(OSError):
            USERS.rmdir()


def _before() -> dict[str, Any]:
    """How the machine was before the first engine, since it was started; empty when none has changed it."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        before: dict[str, Any] = json.loads(BEFORE.read_text())
        if before["boot"] == procs.boot():
            return before
    return {}


def _write(engine: str, pid: int) -> None:
    write_text(USERS / f"{engine}.engine", json.dumps({"pid": pid, "start": procs.start_time(pid)}))


def _live() -> list[str]:
    """The engines that run; entries of engines that were killed, or are from before a reboot, are removed."""
    found = []
    for file in USERS.glob("*.engine"):
        try:
            entry = json.loads(file.read_text())
            alive = procs.is_running(entry["pid"], entry["start"])
        except (OSError, ValueError, KeyError):
            alive = False
        if alive:
            found.append(file.stem)
        else:
            file.unlink(missing_ok=True)
    return found
