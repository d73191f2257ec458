"""kit's private Docker Engine, for machines that have none: nothing installed, everything in one folder.

Here is what a client of it needs, which every command pays for; `daemon` starts and stops it.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from kit import mounts, paths, procs, unix_http
from kit.frozen import dataclass
from kit.private_engine.settings import EnginePaths, Programs


@dataclass(frozen=True, kw_only=True)
class Status:
    """What `kit engine status` says; empty texts and 0 for what a stopped engine has not."""

    running: bool
    socket: str
    version: str
    store: str
    pid: int
    data_root: str
    programs: str


def engine_paths() -> EnginePaths:
    """The files of the engine that KIT_ENGINE_DIR names, or the machine's."""
    return EnginePaths(folder=paths.engine_dir().absolute(), root=mounts.changed_root())


def socket_path() -> Path:
    """The engine's socket, whether it is there or not."""
    return engine_paths().socket


def is_up() -> bool:
    """True when the engine answers; takes milliseconds."""
    return unix_http.is_answering(engine_paths().socket)


def is_denied() -> bool:
    """True when it runs, and this account may not use it."""
    here = engine_paths()
    pid = int(read_state(here).get("pid", 0))
    return unix_http.is_denied(here.socket) and pid > 0 and procs.is_alive(pid)


def docker_program() -> Path | None:
    """The engine's own docker CLI, or None when its programs were never downloaded."""
    found = programs_of(engine_paths()).bin / "docker"
    return found if found.exists() else None


def environment() -> dict[str, str]:
    """What to add to the environment so that `docker` and `docker buildx` are the private engine's.

    DOCKER_CONFIG is a folder of kit's (its CLI plugins are there), so logins made with it are kept apart from the
    user's own.
    """
    here = engine_paths()
    found = programs_of(here)
    return {
        "DOCKER_HOST": f"unix://{here.socket}",
        "DOCKER_CONFIG": str(_client_folder(here, found)),
        # These would win over DOCKER_HOST, or name a builder that the private engine does not have.
        "DOCKER_CONTEXT": "",
        "BUILDX_BUILDER": "",
        "PATH": os.pathsep.join([str(found.bin), os.environ.get("PATH", "/usr/bin:/bin")]),
    }


def status() -> Status:
    """The state of the engine, without changing anything."""
    here = engine_paths()
    state = read_state(here)
    answer = unix_http.get(here.socket, "/version", timeout_s=5)
    version = answer[1] if answer and answer[0] == 200 else None
    store = str(state.get("store", ""))
    return Status(
        running=version is not None,
        socket=str(here.socket),
        store=store,
        version=str((version or {}).get("Version", "")),
        pid=int(state.get("pid", 0)) if version else 0,
        data_root=str(here.data("overlay2" if store == "overlay2" else "containerd")) if store else "",
        programs=str(programs_of(here).folder),
    )


def programs_of(here: EnginePaths) -> Programs:
    """The engine's programs: its own, or those another engine's folder shares (KIT_ENGINE_PROGRAMS)."""
    return Programs(folder=Path(os.environ.get("KIT_ENGINE_PROGRAMS") or here.programs))


def read_state(here: EnginePaths) -> dict[str, Any]:
    try:
        state = json.loads(here.state_file.read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _client_folder(here: EnginePaths, found: Programs) -> Path:
    """A DOCKER_CONFIG whose plugins are the engine's: in its folder for root, in the user's state folder otherwise."""
    folder = here.folder / "client" if os.access(here.folder, os.W_OK) else paths.state_dir() / f"client-{here.id}"
    link = folder / "cli-plugins"
    if not (link.is_symlink() and link.readlink() == found.plugins):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside = folder / f".cli-plugins.{os.getpid()}"
            beside.symlink_to(found.plugins)
            beside.replace(link)
    return folder
