"""The container for a request: its GPUs, and everything else the engine is told."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kit import layout, lease, paths
from kit.engine import ContainerSpec, Engine, Mount
from kit.gpu import Injection, parse_request
from kit.labels import LEASE, OWNER, OWNER_NAME
from kit.run.containers import sweep, user_of
from kit.run.request import RunRequest, service_command, shm_bytes, volume_mounts

if TYPE_CHECKING:
    from kit.facts.host import Host


def passwd_file(user: str) -> Path:
    """A passwd file that has the caller, for programs that look their own name up; made once per user."""
    uid, _, gid = user.partition(":")
    file = paths.state_dir() / "passwd" / f"{uid}-{gid}"
    name = "root" if uid == "0" else "kit"
    lines = [f"{name}:x:{uid}:{gid}:{name}:{layout.HOME}:/bin/bash"]
    if uid != "0":
        lines.insert(0, "root:x:0:0:root:/root:/bin/bash")
    text = "".join(f"{line}\n" for line in lines)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        paths.write_text(file, text)
    return file


def make_spec(
    request: RunRequest, engine: Engine, *, port: int, token: str, injection: Injection | None = None
) -> tuple[ContainerSpec, str]:
    """The container for a request, and lines for the user (may be empty). Raises what `decide_gpus` raises."""
    image, uid = request.image, request.user.partition(":")[0]
    injection = injection or decide_gpus(request, engine)
    kind = request.service or "run"
    environment = {"USER": "root" if uid == "0" else "kit", **dict(injection.environment)}
    mounts = [
        Mount(source=str(request.folder), target=layout.WORKSPACE),
        Mount(source=engine.provide(passwd_file(request.user)), target="/etc/passwd", read_only=True),
        *(volume_mounts(image, uid) if request.volumes is None else request.volumes),
        *request.mounts,
    ]
    if request.network.ca_file:
        certificates = engine.provide(request.network.ca_file)
        mounts.append(Mount(source=certificates, target=layout.CA_FILE, read_only=True))
        environment |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"), layout.CA_FILE)
    environment |= dict(request.environment)
    # A proxy's address may have a password in it.
    secret = {**request.network.proxies, **dict(request.secrets)}
    secret = {name: value for name, value in secret.items() if name not in environment}
    if request.service == "jupyter":
        secret["JUPYTER_TOKEN"] = token
    inner = layout.TENSORBOARD_PORT if request.service == "tensorboard" else layout.JUPYTER_PORT
    return ContainerSpec(
        image=request.reference or image.reference,
        name=f"kit-{image.name}-{kind}-{os.urandom(3).hex()}",
        command=service_command(request) if request.service else request.command,
        user=request.user,
        workdir=layout.WORKSPACE,
        environment=environment,
        secret_environment=secret,
        mounts=tuple(mounts),
        ports=((port, inner),) if request.service else (),
        labels={
            "kit.image": image.name,
            "kit.service": request.service or "",
            "kit.user": request.user,
            **_owner(engine),
            "kit.gpus": " ".join(injection.arguments),
            "kit.client": f"{socket.gethostname()}:{os.getpid()}",
            **({LEASE: " ".join(injection.lease)} if injection.lease else {}),
        },
        gpu_arguments=injection.arguments,
        shm_bytes=shm_bytes(engine.memory_bytes),
        remove=not request.service,
        interactive=request.has_input,
        tty=request.is_terminal,
        healthcheck=request.service == "jupyter",
        restart=request.restart,
    ), injection.note


def _owner(engine: Engine) -> dict[str, str]:
    """Who started a container, so that nobody else stops it by mistake."""
    uid = user_of(engine).partition(":")[0]
    name = engine.connection.account.user if engine.connection else lease.user_name(int(uid))
    return {OWNER: uid, **({OWNER_NAME: name} if name else {})}


def host_for(gpus: str | None, target: str = "") -> Host:
    """A machine with the GPUs a container may be given: none for `none`, those that are named or that
    CUDA_VISIBLE_DEVICES leaves on this one, else all; for a lease with who uses them. Raises BadInputError, and for a
    `target` behind SSH what reaching it raises.
    """
    from dataclasses import replace

    from kit.gpus import named, units, visible
    from kit.host import read_gpus

    request = parse_request(gpus) if gpus is not None else None
    if request and request.kind == "none":
        return replace(read_gpus(target), gpus=(), pci_gpus=())
    host = read_gpus(target, with_use=bool(request and request.is_lease))
    names = request.names if request and request.names else None
    if not target and (request is None or request.is_lease):
        names = visible(os.environ)
    if names == ():
        return replace(host, gpus=(), pci_gpus=())
    wanted = tuple(dict.fromkeys(unit.gpu for unit in named(units(host), names or ("all",))))
    return replace(host, gpus=wanted) if wanted else host


def decide_gpus(request: RunRequest, engine: Engine) -> Injection:
    """The GPUs of a container. Raises what stands against those that were asked for."""
    image = request.image
    return lease.decide(request.gpus, engine, is_gpu_image=image.is_gpu, image=image.name, host=request.host)


@contextlib.contextmanager
def reserved_gpus(
    request: RunRequest, engine: Engine, on_message: Callable[[str], None]
) -> Iterator[tuple[Injection, Callable[[], None]]]:
    """The GPUs of a container that is started in the block. Of those kit chooses no other `kit run` of this machine
    gets one meanwhile, until the function that comes with them is called: when the engine has the container.
    """
    if not lease.is_lease(request.gpus):
        yield decide_gpus(request, engine), lambda: None
        return
    if request.host is None:
        from dataclasses import replace

        # Before the lock is held: nvidia-smi takes seconds where the driver does not stay loaded.
        request = replace(request, host=host_for(request.gpus, engine.target))
    with lease.held(engine, on_wait=on_message) as release:
        sweep(engine, label=LEASE)
        yield decide_gpus(request, engine), release
