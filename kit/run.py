"""Start containers of kit's images: a service that stays up and answers, or a command on the caller's terminal."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kit import layout, lease, paths, ports
from kit.catalog.model import Image
from kit.engine import Container, ContainerSpec, Engine, Mount
from kit.errors import BadInputError, NoSuchContainerError, NotReadyError, PortTakenError
from kit.gpu import Injection, parse_request
from kit.network import NetworkSettings

if TYPE_CHECKING:
    from kit.host.model import Host

Service = Literal["jupyter", "tensorboard"]
SERVICES: tuple[Service, ...] = ("jupyter", "tensorboard")
SHM_LIMIT = 16 * 2**30
START_TRIES = 20


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What the user asked to run, and where."""

    image: Image
    service: Service | None = None
    command: tuple[str, ...] = ()
    gpus: str | None = None  # None: what the host has
    host: Host | None = None  # its GPUs as they were just read, for `gpus`; None: read them when they matter
    port: int | None = None
    folder: Path
    user: str  # "UID:GID"
    environment: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    logdir: str = "."
    restart: str = ""
    network: NetworkSettings
    is_terminal: bool = False
    has_input: bool = True
    reference: str = ""  # another image than the one `kit build` makes under this name
    volumes: tuple[Mount, ...] | None = None  # instead of the user's own


@dataclass(frozen=True, kw_only=True)
class Started:
    """A service that answered."""

    name: str
    url: str
    note: str


def caller(environment: dict[str, str] | None = None) -> str:
    """The caller's UID:GID; under sudo the user's who called it, so that files belong to a person and not to root."""
    env = os.environ if environment is None else environment
    if os.geteuid() == 0 and env.get("SUDO_UID") and env.get("SUDO_GID"):
        return f"{env['SUDO_UID']}:{env['SUDO_GID']}"
    return f"{os.getuid()}:{os.getgid()}"


def parse_user(text: str) -> str:
    """`UID` or `UID:GID`, in numbers. Raises BadInputError."""
    uid, _, gid = text.partition(":")
    for number in (uid, gid or uid):
        if not (number.isascii() and number.isdecimal()) or int(number) >= 2**32 - 1:
            raise BadInputError(
                f"--user {text}: not a UID or UID:GID in numbers",
                hint="give numbers such as 1000:1000, or leave out --user to run as yourself",
            )
    return f"{int(uid)}:{int(gid or uid)}"


def shm_bytes(memory_bytes: int) -> int:
    """Shared memory for DataLoader workers: half the machine's memory, at most 16 GiB."""
    return min(memory_bytes // 2, SHM_LIMIT)


def volume_mounts(image: Image, uid: str) -> tuple[Mount, ...]:
    """The user's own named volumes: home, caches, and what `pip install` adds to this image."""
    return tuple(
        Mount(
            source=f"kit-{uid}-{image.name}-{v.name}" if v.per_image else f"kit-{uid}-{v.name}",
            target=v.path,
            is_volume=True,
        )
        for v in layout.VOLUMES
    )


def service_command(request: RunRequest) -> tuple[str, ...]:
    """What the container runs for a service."""
    if request.service == "tensorboard":
        return ("tensorboard", f"--logdir={request.logdir}", "--host=0.0.0.0", f"--port={layout.TENSORBOARD_PORT}")
    command = (
        "jupyter",
        "lab",
        "--ip=0.0.0.0",
        f"--port={layout.JUPYTER_PORT}",
        "--no-browser",
        f"--ServerApp.root_dir={layout.WORKSPACE}",
    )
    # Root only when the caller is root; the server refuses it otherwise and would never answer.
    return (*command, "--allow-root") if request.user.startswith("0:") else command


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
        Mount(source=str(passwd_file(request.user)), target="/etc/passwd", read_only=True),
        *(volume_mounts(image, uid) if request.volumes is None else request.volumes),
        *request.mounts,
    ]
    if request.network.ca_file:
        mounts.append(Mount(source=str(request.network.ca_file.resolve()), target=layout.CA_FILE, read_only=True))
        environment |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"), layout.CA_FILE)
    environment |= dict(request.environment)
    # A proxy's address may have a password in it.
    secret = {name: value for name, value in request.network.proxies.items() if name not in environment}
    if request.service == "jupyter":
        secret["JUPYTER_TOKEN"] = token
    inner = layout.TENSORBOARD_PORT if request.service == "tensorboard" else layout.JUPYTER_PORT
    return ContainerSpec(
        image=request.reference or image.reference,
        name=f"kit-{image.name}-{kind}-{os.urandom(2).hex()}",
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
            "kit.gpus": " ".join(injection.arguments),
            "kit.client": f"{socket.gethostname()}:{os.getpid()}",
            **({lease.LABEL: " ".join(injection.lease)} if injection.lease else {}),
        },
        gpu_arguments=injection.arguments,
        shm_bytes=shm_bytes(engine.memory_bytes),
        remove=not request.service,
        interactive=request.has_input,
        tty=request.is_terminal,
        healthcheck=request.service == "jupyter",
        restart=request.restart,
    ), injection.note


def run_command(request: RunRequest, engine: Engine, on_message: Callable[[str], None]) -> int:
    """Run a command on the caller's terminal and return its exit code; the container is gone afterwards."""
    with reserved_gpus(request, engine, on_message) as (injection, release):
        spec, note = make_spec(request, engine, port=0, token="", injection=injection)
        if note:
            on_message(note)
        return engine.run_attached(spec, release if injection.lease else None)


def start_service(
    request: RunRequest, engine: Engine, on_message: Callable[[str], None], *, timeout_s: float = 90
) -> Started:
    """Start a service and return when it has answered with its token.

    Raises PortTakenError when the asked port is in use, NotReadyError (with the service's last lines) when it does not
    answer within `timeout_s` seconds; the container is removed then, and also when the caller is interrupted.
    """
    sweep(engine)
    import secrets

    token = secrets.token_urlsafe(24)
    first = request.port or (layout.TENSORBOARD_PORT if request.service == "tensorboard" else layout.JUPYTER_PORT)
    for _ in range(START_TRIES):
        with (
            reserved_gpus(request, engine, on_message) as (injection, _),
            ports.reserved(first, exact=request.port is not None) as port,
        ):
            spec, note = make_spec(request, engine, port=port, token=token, injection=injection)
            try:
                engine.run_detached(spec)
            except PortTakenError:
                # Another program took it between the look and the start.
                if request.port is not None:
                    raise
                first = port + 1
                continue
        break
    else:
        raise PortTakenError(f"no free port found in {START_TRIES} tries")
    if note:
        on_message(note)
    try:
        url = service_url(request.service, port, token)
        _wait(engine, spec.name, request.service, port, token, timeout_s)
    except BaseException:
        engine.remove(spec.name, force=True)
        raise
    return Started(name=spec.name, url=url, note=note)


def service_url(service: str | None, port: int, token: str) -> str:
    """The address to open in a browser."""
    return f"http://127.0.0.1:{port}/lab?token={token}" if service == "jupyter" else f"http://127.0.0.1:{port}/"


def answers(service: str | None, port: int, token: str) -> bool:
    """True when the service answers on this port, and (Jupyter) takes this token: no other server does."""
    import urllib.error
    import urllib.request

    path = "/api/status" if service == "jupyter" else "/"
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if service == "jupyter":
        request.add_header("Authorization", f"token {token}")
    # Never through a proxy: the address is this machine's own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=3) as response:
            body = response.read()
            return response.status == 200 and (service != "jupyter" or "started" in json.loads(body))
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _wait(engine: Engine, name: str, service: str | None, port: int, token: str, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    next_look = time.monotonic() + 2
    while time.monotonic() < end:
        if answers(service, port, token):
            return
        if time.monotonic() >= next_look:
            container = engine.container(name)
            if container.status not in ("running", "created", "restarting"):
                raise NotReadyError(
                    f"{service} ended with exit code {container.exit_code} instead of answering",
                    details=tuple(engine.logs(name, tail=15)),
                )
            next_look = time.monotonic() + 2
        time.sleep(0.1)
    raise NotReadyError(
        f"{service} did not answer on port {port} within {timeout_s:g} s", details=tuple(engine.logs(name, tail=15))
    )


def sweep(engine: Engine, *, label: str = "kit.image") -> list[str]:
    """Remove containers that a killed kit of this host left created but never started; returns their names."""
    host = socket.gethostname()
    removed = []
    for container in engine.containers(label=label):
        owner, _, pid = container.labels.get("kit.client", "").rpartition(":")
        if container.status == "created" and owner == host and not _is_alive(pid):
            engine.remove(container.name, force=True)
            removed.append(container.name)
    return removed


def _is_alive(pid: str) -> bool:
    """Whether a process runs; not by /proc, which hides those of other users on many shared servers (hidepid)."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True, kw_only=True)
class Running:
    """A container as `kit ps` shows it."""

    name: str
    image: str
    service: str
    url: str
    status: str
    gpus: str
    lease: tuple[str, ...]
    user: str
    started: str


def describe(container: Container) -> Running:
    """A container with its URL, which has the token in it, from what the engine knows."""
    service = container.labels.get("kit.service", "")
    port = next(iter(container.ports.values()), 0)
    token = container.environment.get("JUPYTER_TOKEN", "")
    is_up = service and port and container.status == "running"
    return Running(
        name=container.name,
        image=container.labels["kit.image"],
        service=service,
        url=service_url(service, port, token) if is_up else "",
        status=container.status,
        gpus=container.labels.get("kit.gpus", ""),
        lease=tuple(container.labels.get(lease.LABEL, "").split()),
        user=container.labels.get("kit.user", ""),
        started=container.started,
    )


def listed(engine: Engine, *, everything: bool) -> list[Running]:
    """The containers kit started; those that ended too when `everything`."""
    return [describe(c) for c in engine.containers(label="kit.client") if everything or c.status == "running"]


def find(engine: Engine, name: str) -> Container:
    """The container of kit's that a name stands for: its own name, with or without `kit-`, the start of one, or the
    image's name, if only one container fits. Raises NoSuchContainerError, also when several do.
    """
    all_of_them = engine.containers(label="kit.client")
    for test in (lambda c: c.name in (name, f"kit-{name}"), lambda c: c.name.startswith((name, f"kit-{name}"))):
        found = [c for c in all_of_them if test(c)]
        if len(found) == 1:
            return found[0]
        if found:
            running = [c for c in found if c.status == "running"]
            if len(running) == 1:
                return running[0]
            raise NoSuchContainerError(
                f"'{name}' stands for {len(found)} containers",
                details=tuple(c.name for c in found),
                hint="give one whole name",
            )
    raise NoSuchContainerError(
        f"no container of kit's is named '{name}'",
        details=tuple(c.name for c in all_of_them),
        hint="`kit ps --all` lists them",
    )


def as_command(words: tuple[str, ...]) -> tuple[Service | None, tuple[str, ...]]:
    """What the words after the image's name mean: a service, or a command (`shell` and nothing at all: a shell)."""
    if not words or words == ("shell",):
        return None, ("bash",)
    if words[0] == "--":
        # click leaves the sign in place once it has stopped reading options, which it does at the image's name.
        return None, words[1:] or ("bash",)
    for service in SERVICES:
        if words[0] == service:
            if len(words) > 1:
                hint = f"to run the program itself: kit run NAME -- {' '.join(words)}"
                if words[1].startswith("-"):
                    hint = (
                        f"options of kit's come before the name: kit run {' '.join(words[1:])} NAME {service}; {hint}"
                    )
                raise BadInputError(f"{service} takes no further words, got: {' '.join(words[1:])}", hint=hint)
            return service, ()
    return None, words


def host_for(gpus: str | None) -> Host:
    """This machine with the GPUs a container may be given: none for `none`, those that are named or that
    CUDA_VISIBLE_DEVICES leaves, else all; for a lease with who uses them. Raises BadInputError.
    """
    from dataclasses import replace

    from kit.gpus import named, units, visible
    from kit.host import read_gpus

    request = parse_request(gpus) if gpus is not None else None
    if request and request.kind == "none":
        return replace(read_gpus(), gpus=(), pci_gpus=())
    host = read_gpus(with_use=bool(request and request.is_lease))
    names = request.names if request and request.names else None
    if request is None or request.is_lease:
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
        request = replace(request, host=host_for(request.gpus))
    with lease.locked(lease.lock_file(), on_wait=on_message) as release:
        sweep(engine, label=lease.LABEL)
        yield decide_gpus(request, engine), release
