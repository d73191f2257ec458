"""What runs: everything about a container, described once for every form it is written in (`kit.targets`). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from kit import labels, layout
from kit.frozen import dataclass
from kit.spec.gpu_grant import GpuGrant

if TYPE_CHECKING:
    from kit.spec.request import RunRequest

SHM_LIMIT = 16 * 2**30


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder or file of the host, or a named volume, inside a container."""

    source: str  # empty: a new volume without a name
    target: str
    is_volume: bool = False
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """Everything about a container to start."""

    image: str
    name: str
    command: tuple[str, ...] = ()
    user: str = ""  # UID:GID
    workdir: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    secret_environment: Mapping[str, str] = field(default_factory=dict)  # values stay out of argument lists and files
    mounts: tuple[Mount, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()  # (port on 127.0.0.1, port in the container)
    labels: Mapping[str, str] = field(default_factory=dict)
    gpus: GpuGrant = field(default_factory=GpuGrant)
    shm_bytes: int = 0  # 0: the engine's default
    remove: bool = False
    interactive: bool = False
    tty: bool = False
    healthcheck: bool = False
    restart: str = ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a description takes from the machine the container is for, and from who starts it there."""

    memory_bytes: int = 0  # 0: unknown
    passwd_file: str = ""  # where that machine has the files that are mounted
    ca_file: str = ""
    owner: str = ""  # UID of who starts it
    owner_name: str = ""
    client: str  # HOST:PID of the kit that starts it, or who else does


def passwd_lines(user: str) -> tuple[str, ...]:
    """A passwd file that has the user (UID:GID), for programs that look their own name up."""
    uid = user.partition(":")[0]
    name = "root" if uid == "0" else "kit"
    own = f"{name}:x:{user}:{name}:{layout.HOME}:/bin/bash"
    return (own,) if uid == "0" else ("root:x:0:0:root:/root:/bin/bash", own)


def shm_bytes(memory_bytes: int) -> int:
    """Shared memory for DataLoader workers: half the machine's memory, at most 16 GiB."""
    return min(memory_bytes // 2, SHM_LIMIT)


def volume_mounts(image: str, uid: str) -> tuple[Mount, ...]:
    """The user's own named volumes: home, caches, and what `pip install` adds to this image."""
    return tuple(
        Mount(
            source=f"kit-{uid}-{image}-{v.name}" if v.per_image else f"kit-{uid}-{v.name}",
            target=v.path,
            is_volume=True,
        )
        for v in layout.VOLUMES
    )


def service_command(request: RunRequest) -> tuple[str, ...]:
    """What the container runs for a service."""
    if request.service == "tensorboard":
        return ("tensorboard", f"--logdir={request.logdir}", "--host=0.0.0.0", f"--port={layout.TENSORBOARD_PORT}")
    return layout.jupyter_command(int(request.user.partition(":")[0]))


def describe(
    request: RunRequest, place: Place, gpus: GpuGrant, *, name: str = "", port: int = 0, token: str = ""
) -> ContainerSpec:
    """The container for a request: what `kit run` starts, and every other form of it says."""
    image, uid = request.image, request.user.partition(":")[0]
    mounts = [
        Mount(source=str(request.folder), target=layout.WORKSPACE),
        Mount(source=place.passwd_file, target=layout.PASSWD_FILE, read_only=True),
        *(volume_mounts(image.name, uid) if request.volumes is None else request.volumes),
        *request.mounts,
    ]
    environment = {"USER": "root" if uid == "0" else "kit", **dict(gpus.environment)}
    if place.ca_file:
        mounts.append(Mount(source=place.ca_file, target=layout.CA_FILE, read_only=True))
        environment |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"), layout.CA_FILE)
    environment |= dict(request.environment)
    # A proxy's address may have a password in it.
    secret = {**request.network.proxies, **dict(request.secrets)}
    secret = {variable: value for variable, value in secret.items() if variable not in environment}
    if request.service == "jupyter":
        secret["JUPYTER_TOKEN"] = token
    owner = {labels.OWNER: place.owner, labels.OWNER_NAME: place.owner_name}
    return ContainerSpec(
        image=request.reference or image.reference,
        name=name,
        command=service_command(request) if request.service else request.command,
        user=request.user,
        workdir=layout.WORKSPACE,
        environment=environment,
        secret_environment=secret,
        mounts=tuple(mounts),
        ports=((port, layout.port_of(request.service)),) if request.service else (),
        labels={
            labels.IMAGE: image.name,
            labels.SERVICE: request.service or "",
            labels.USER: request.user,
            **{label: value for label, value in owner.items() if value},
            labels.GPUS: " ".join(gpus.devices),
            labels.CLIENT: place.client,
            **({labels.LEASE: " ".join(gpus.lease)} if gpus.lease else {}),
            **({labels.BOUND: request.bound} if request.bound else {}),
        },
        gpus=gpus,
        shm_bytes=shm_bytes(place.memory_bytes),
        remove=not request.service,
        interactive=request.has_input,
        tty=request.is_terminal,
        healthcheck=request.service == "jupyter",
        restart=request.restart,
    )
