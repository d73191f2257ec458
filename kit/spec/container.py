"""What runs: everything about a container, described once for every form it is written in (`kit.targets`). Pure."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kit import labels, layout
from kit.frozen import dataclass
from kit.network import HOST_NAME
from kit.spec.gpu_grant import GpuGrant

if TYPE_CHECKING:
    from kit.spec.request import RunRequest

SHM_LIMIT = 16 * 2**30
# Half of the processes and threads that the kernel allows a machine that nobody has configured (PID_MAX_DEFAULT in its
# include/linux/threads.h), so that no container takes all of them. A DataLoader worker is one or two, a framework has
# some for each core, NCCL a few for each GPU.
PIDS_LIMIT = 16384
# What the machine keeps for itself, an eighth or this: else the kernel may kill what others run, or the SSH server.
KEPT_BYTES = 4 * 2**30


# Open files of a container. What an engine gives by itself is the service manager's 1024 in some versions, which a
# DataLoader or a file system of many shards soon has open, and a thousand times as many in others, which programs that
# close every number there is take minutes over. The second number is what systemd lets any program ask for.
NOFILE = (65536, 524288)


Limit = Literal["memory", "pids"]
LIMITS: tuple[Limit, ...] = ("memory", "pids")


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder or file of the host, or a named volume, inside a container."""

    source: str  # empty: a new volume without a name
    target: str
    is_volume: bool = False
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Ulimit:
    """A limit of a process, by the name that engines have for it; -1 for none."""

    name: str
    soft: int
    hard: int

    def __str__(self) -> str:
        return f"{self.name}={self.soft}:{self.hard}"


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """Everything about a container to start."""

    image: str
    name: str
    command: tuple[str, ...] = ()
    user: str = ""  # UID:GID
    groups: tuple[int, ...] = ()  # besides the one of the user
    keeps_groups: bool = False  # has those of who starts it, which have no number inside
    workdir: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    secret_environment: Mapping[str, str] = field(default_factory=dict)  # values stay out of a compose file
    mounts: tuple[Mount, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()  # (port on 127.0.0.1, port in the container)
    labels: Mapping[str, str] = field(default_factory=dict)
    gpus: GpuGrant = field(default_factory=GpuGrant)
    shm_bytes: int = 0  # 0: the engine's default
    memory_bytes: int = 0  # the limit; 0: none
    pids: int = 0  # the limit of processes and threads; -1: none, 0: the engine's default
    cpus: float = 0  # how many it may use the time of; 0: all
    ulimits: tuple[Ulimit, ...] = ()
    network: str = ""  # empty: the engine's default
    hosts: tuple[tuple[str, str], ...] = ()  # names that lead to an address, `host-gateway` for the engine's machine
    remove: bool = False
    interactive: bool = False
    tty: bool = False
    healthcheck: bool = False
    restart: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """All of its environment. Any value may be a secret: none is to be in a list of processes."""
        return {**self.environment, **self.secret_environment}


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a description takes from the machine the container is for, and from who starts it there."""

    memory_bytes: int = 0  # 0: unknown
    can_limit: tuple[Limit, ...] = LIMITS
    network: str = ""  # whose containers no other user's reach
    passwd_file: str = ""  # where that machine has the files that are mounted
    group_file: str = ""
    ca_file: str = ""
    groups: tuple[tuple[int, str], ...] = ()  # of the user there, besides the first: number and name
    keeps_groups: bool = False  # the engine hands on those of who starts it, and no others
    open_files: int = NOFILE[1]  # as many as the engine may allow a container; 0: what it does by itself is best
    host_ports: frozenset[int] = frozenset()  # of that machine's own, those that a container reaches
    timezone: str = ""
    notes: tuple[str, ...] = ()  # for the user, of what it cannot give
    owner: str = ""  # UID of who starts it
    owner_name: str = ""
    client: str  # HOST:PID of the kit that starts it, or who else does


def passwd_lines(user: str) -> tuple[str, ...]:
    """A passwd file that has the user (UID:GID), for programs that look their own name up."""
    uid = user.partition(":")[0]
    name = "root" if uid == "0" else "kit"
    own = f"{name}:x:{user}:{name}:{layout.HOME}:/bin/bash"
    return (own,) if uid == "0" else ("root:x:0:0:root:/root:/bin/bash", own)


def group_lines(gid: str, groups: tuple[tuple[int, str], ...] = ()) -> tuple[str, ...]:
    """A group file that has a user's own group, and their others under the names that they have outside."""
    lines = ["root:x:0:"] if gid != "0" else []
    lines.append(f"{'root' if gid == '0' else 'kit'}:x:{gid}:")
    taken = {"root", "kit"}
    for number, name in groups:
        plain = re.sub(r"[^\w.-]", "_", name) or "group"  # of a directory service, such as `domain users`
        plain = f"{plain}-{number}" if plain in taken else plain
        taken.add(plain)
        lines.append(f"{plain}:x:{number}:")
    return tuple(lines)


def shm_bytes(memory_bytes: int) -> int:
    """Shared memory for DataLoader workers: half the machine's memory, at most 16 GiB."""
    return min(memory_bytes // 2, SHM_LIMIT)


def memory_limit(memory_bytes: int) -> int:
    """The memory of a container that nobody limits, on a machine with so much."""
    return memory_bytes - min(memory_bytes // 8, KEPT_BYTES)


def _limit(asked: int | None, default: int) -> int:
    return default if asked is None else asked


def _ulimits(asked: tuple[Ulimit, ...], place: Place) -> tuple[Ulimit, ...]:
    soft, hard = (min(limit, place.open_files) for limit in NOFILE)
    default = {"nofile": Ulimit(name="nofile", soft=soft, hard=hard)} if hard else {}
    return tuple({**default, **{limit.name: limit for limit in asked}}.values())


def slug(name: str) -> str:
    """A name as engines take it in those of volumes and projects: lower-case letters, digits, `-` and `_`."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:40] or "folder"


def project_of(folder: Path) -> str:
    """What tells the volumes of one folder from those of another: the same name as long as it stays where it is."""
    return f"{slug(folder.name)}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"


def volume_mounts(image: str, uid: str, project: str) -> tuple[Mount, ...]:
    """The user's own named volumes of a project: home, and what `pip install` adds to this image."""
    return tuple(
        Mount(
            source="-".join(("kit", uid, project, *((image,) if v.per_image else ()), v.name)),
            target=v.path,
            is_volume=True,
        )
        for v in layout.VOLUMES
    )


def fresh_volumes(uid: str) -> tuple[Mount, ...]:
    """Volumes without a name, which go with the container, for work of kit's own: what the user added to theirs is not
    the image's. The CUDA cache stays, and no project's container has it.
    """
    fresh = (Mount(source="", target=v.path, is_volume=True) for v in layout.VOLUMES)
    return (*fresh, Mount(source=f"kit-{uid}-cuda", target=layout.CUDA_CACHE, is_volume=True))


def service_command(request: RunRequest) -> tuple[str, ...]:
    """What the container runs for a service."""
    if request.service == "tensorboard":
        program = resources.files("kit.spec").joinpath("tensorboard.py").read_text(encoding="utf-8")
        options = (f"--logdir={request.logdir}", "--host=0.0.0.0", f"--port={layout.TENSORBOARD_PORT}")
        return ("python", "-c", program, *options)
    return layout.jupyter_command(int(request.user.partition(":")[0]), request.server_options)


def describe(
    request: RunRequest, place: Place, gpus: GpuGrant, *, name: str = "", port: int = 0, token: str = ""
) -> ContainerSpec:
    """The container for a request: what `kit run` starts, and every other form of it says."""
    image, uid = request.image, request.user.partition(":")[0]
    taken = {mount.target for mount in request.mounts}
    volumes = request.volumes or volume_mounts(image.name, uid, project_of(request.folder))
    mounts = [
        Mount(source=str(request.folder), target=layout.WORKSPACE),
        Mount(source=place.passwd_file, target=layout.PASSWD_FILE, read_only=True),
        Mount(source=place.group_file, target=layout.GROUP_FILE, read_only=True),
        *(volume for volume in volumes if volume.target not in taken),
        *request.mounts,
    ]
    environment = {"USER": "root" if uid == "0" else "kit", **dict(gpus.environment)}
    if place.timezone:
        environment["TZ"] = place.timezone
    if place.ca_file:
        mounts.append(Mount(source=place.ca_file, target=layout.CA_FILE, read_only=True))
        environment |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"), layout.CA_FILE)
    reached = request.network.inside(None if request.joins == layout.HOST_NETWORK else place.host_ports)
    environment |= {**reached.plain, **dict(request.environment)}
    # An address may have a password in it.
    secret = {**reached.secret, **dict(request.secrets)}
    secret = {variable: value for variable, value in secret.items() if variable not in environment}
    if request.service:
        # Where nothing but a server reads it, it is one of a service and no variable of its user's.
        environment.pop(layout.TOKEN, None)
        secret[layout.TOKEN] = token
        if base := layout.base_url(request.server_options) if request.service == "jupyter" else "":
            environment[layout.BASE_URL] = base
            environment[layout.TENSORBOARD_PROXY] = f"{base.rstrip('/')}{layout.PROXY_PATH}"
    owner, can = {labels.OWNER: place.owner, labels.OWNER_NAME: place.owner_name}, place.can_limit
    return ContainerSpec(
        image=request.reference or image.reference,
        name=name,
        command=service_command(request) if request.service else request.command,
        user=request.user,
        groups=tuple(number for number, _ in place.groups),
        keeps_groups=place.keeps_groups,
        workdir=layout.WORKSPACE,
        environment=environment,
        secret_environment=secret,
        mounts=tuple(mounts),
        ports=(*(((port, layout.port_of(request.service)),) if request.service else ()), *request.ports),
        labels={
            labels.IMAGE: image.name,
            labels.SERVICE: request.service or "",
            labels.USER: request.user,
            **{label: value for label, value in owner.items() if value},
            labels.GPUS: " ".join(gpus.devices),
            labels.CLIENT: place.client,
            **({labels.ENVIRONMENT: request.additions} if request.additions else {}),
            **({labels.LEASE: " ".join(gpus.lease)} if gpus.lease else {}),
            **({labels.BOUND: request.bound} if request.bound else {}),
        },
        gpus=gpus,
        shm_bytes=request.shm_bytes or shm_bytes(place.memory_bytes),
        memory_bytes=_limit(request.memory_bytes, memory_limit(place.memory_bytes) if "memory" in can else 0),
        pids=_limit(request.pids, PIDS_LIMIT if "pids" in can else 0),
        cpus=request.cpus,
        ulimits=_ulimits(request.ulimits, place),
        network=request.joins or place.network,
        hosts=((HOST_NAME, "host-gateway"),) if reached.uses_host else (),
        remove=not request.service,
        interactive=request.has_input,
        tty=request.is_terminal,
        healthcheck=request.service == "jupyter",
        restart=request.restart,
    )
