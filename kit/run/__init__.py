"""Start containers of kit's images, here or behind SSH: a service that answers, a command on the caller's terminal, or
a job that goes on without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kit.run.command import follow_job, run_command, start_job
    from kit.run.containers import (
        Running,
        answers,
        caller,
        close_tunnels,
        describe,
        find,
        is_own,
        listed,
        open_tunnel,
        require_own,
        service_url,
        sweep,
        user_inside,
        user_of,
    )
    from kit.run.request import (
        SERVICES,
        SHELL,
        RunRequest,
        Service,
        Started,
        as_command,
        parse_user,
        service_command,
        shm_bytes,
        volume_mounts,
    )
    from kit.run.service import start_service
    from kit.run.spec import decide_gpus, host_for, make_spec, passwd_file, reserved_gpus

# Each module is imported when something of it is first used: `kit ps` needs the second alone, and its time on a host is
# measured against bare ssh's (`make bench-remote`).
_MODULES = {
    "command": ("follow_job", "run_command", "start_job"),
    "containers": (
        "Running",
        "answers",
        "caller",
        "close_tunnels",
        "describe",
        "find",
        "is_own",
        "listed",
        "open_tunnel",
        "require_own",
        "service_url",
        "sweep",
        "user_inside",
        "user_of",
    ),
    "request": (
        "SERVICES",
        "SHELL",
        "RunRequest",
        "Service",
        "Started",
        "as_command",
        "parse_user",
        "service_command",
        "shm_bytes",
        "volume_mounts",
    ),
    "service": ("start_service",),
    "spec": ("decide_gpus", "host_for", "make_spec", "passwd_file", "reserved_gpus"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


__all__ = [
    "SERVICES",
    "SHELL",
    "RunRequest",
    "Running",
    "Service",
    "Started",
    "answers",
    "as_command",
    "caller",
    "close_tunnels",
    "decide_gpus",
    "describe",
    "find",
    "follow_job",
    "host_for",
    "is_own",
    "listed",
    "make_spec",
    "open_tunnel",
    "parse_user",
    "passwd_file",
    "require_own",
    "reserved_gpus",
    "run_command",
    "service_command",
    "service_url",
    "shm_bytes",
    "start_job",
    "start_service",
    "sweep",
    "user_inside",
    "user_of",
    "volume_mounts",
]
