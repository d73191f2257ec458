"""Start containers of kit's images, here or behind SSH: a service that answers, a command on the caller's terminal, or
a job that goes on without it.
"""

from __future__ import annotations

from kit.run.command import follow_job, run_command, start_job
from kit.run.containers import (
    Running,
    answers,
    close_tunnels,
    describe,
    find,
    is_own,
    listed,
    open_tunnel,
    require_own,
    service_url,
    sweep,
)
from kit.run.request import (
    SERVICES,
    SHELL,
    RunRequest,
    Service,
    Started,
    as_command,
    caller,
    parse_user,
    service_command,
    shm_bytes,
    user_of,
    volume_mounts,
)
from kit.run.service import start_service
from kit.run.spec import decide_gpus, host_for, make_spec, passwd_file, reserved_gpus

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
    "user_of",
    "volume_mounts",
]
