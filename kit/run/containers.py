"""The containers kit started: whose they are, found by name, described, swept."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from kit import accounts, labels, layout, process, procs, redact
from kit.engine import Container, Engine, connect
from kit.errors import BadInputError, KitError, NoSuchContainerError
from kit.frozen import dataclass
from kit.spec.gpu_grant import read_label

if TYPE_CHECKING:
    from kit.remote.tunnels import Tunnel

# Of a container's log, which the engine hands over whole.
CONTAINER_LINES = 100_000

STOPPED = ("created", "exited", "dead")


@dataclass(frozen=True, kw_only=True)
class Running:
    """A container as `kit ps` shows it."""

    name: str
    image: str  # its name in the catalog; `env-NAME` for a project's own environment on that
    service: str
    url: str  # of the caller's own services that are up; behind SSH when a tunnel leads there
    status: str
    exit_code: int | None  # of one that ended
    gpus: str
    lease: tuple[str, ...]
    user: str  # UID:GID it runs as
    owner: str  # the name of the user who started it; the number when it has none
    is_own: bool
    command: str = ""  # what runs in it, in one line, without what looks like a secret
    folder: str = ""  # of the engine's machine, at /workspace
    since: float = 0.0  # when it was started, or ended if it has; in seconds since 1970, and 0 when that is not known


def caller(environment: dict[str, str] | None = None) -> str:
    """The caller's UID:GID; under sudo the user's who called it, so that files belong to a person and not to root."""
    uid, gid = accounts.sudo_user(environment) or (os.getuid(), os.getgid())
    return f"{uid}:{gid}"


def user_of(engine: Engine) -> str:
    """The caller's UID:GID on the machine of an engine."""
    connection = engine.connection
    return f"{connection.account.uid}:{connection.account.gid}" if connection else caller()


def user_inside(engine: Engine, folder: Path | None = None) -> str:
    """The UID:GID in a container that is the caller outside, so that what is written in a mounted folder is theirs.

    For root, whose containers could leave a program there that makes anybody root, it is whoever owns `folder`.
    """
    user = "0:0" if engine.is_rootless else user_of(engine)
    if folder and not engine.connection and not engine.is_rootless and user.startswith("0:"):
        owner = folder.stat()
        return f"{owner.st_uid}:{owner.st_gid}" if owner.st_uid else user
    return user


def service_url(service: str | None, port: int, token: str, base: str = "") -> str:
    """The address to open in a browser; `base` is the path below which JupyterLab answers, where it has one."""
    return f"http://127.0.0.1:{port}{base or '/'}{'lab' if service == 'jupyter' else ''}?token={quote(token, safe='=')}"


def answers(service: str | None, port: int, token: str, base: str = "") -> bool:
    """True when the service answers on this port, and takes this token: no other server does."""
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    path, known = ("/api/status", "started") if service == "jupyter" else ("/data/environment", "data_location")
    address = f"http://127.0.0.1:{port}{base.rstrip('/')}{path}"
    request = urllib.request.Request(address, headers={"Authorization": f"token {token}"})
    # Never through a proxy: the address is this machine's own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=3) as response:
            body = response.read()
            return response.status == 200 and known in json.loads(body)
    except (urllib.error.URLError, HTTPException, OSError, ValueError):
        return False


def sweep(engine: Engine, *, label: str = labels.IMAGE) -> list[str]:
    """Remove containers that a killed kit of this host left: those created but never started, and the caller's own that
    were to go with it; returns their names.
    """
    host = socket.gethostname()
    removed = []
    for container in engine.listed(label=label):
        owner, _, pid = container.labels.get(labels.CLIENT, "").rpartition(":")
        is_over = procs.is_over(container.labels.get(labels.BOUND, "")) and is_own(container, engine)
        if owner == host and (is_over or (container.status == "created" and not _is_alive(pid))):
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


def owner_of(container: Container) -> str:
    """The UID of the user who started a container."""
    return container.labels.get(labels.OWNER) or container.labels.get(labels.USER, "").partition(":")[0]


def is_own(container: Container, engine: Engine) -> bool:
    """True when the caller started a container, as far as the engine's machine can tell its users apart."""
    return owner_of(container) == user_of(engine).partition(":")[0]


def require_own(
    containers: Sequence[Container],
    engine: Engine,
    *,
    action: str,
    hint: str = "ask them; or give --force if you may",
) -> None:
    """Raise BadInputError when one of these is another user's."""
    others = [container for container in containers if not is_own(container, engine)]
    if others:
        names = ", ".join(f"{c.name} ({c.labels.get(labels.OWNER_NAME) or owner_of(c)})" for c in others)
        raise BadInputError(f"cannot {action} what another user started: {names}", hint=hint)


def describe(container: Container, engine: Engine, ports: dict[str, int] | None = None) -> Running:
    """A container with its URL, which has the token in it, from what the engine knows; `ports` are the tunnels'."""
    service = container.labels.get(labels.SERVICE, "")
    if engine.target:
        port = (_tunnel_ports(engine) if ports is None else ports).get(container.name, 0)
    else:
        port = container.ports.get(layout.port_of(service), 0)
    token = container.environment.get(layout.TOKEN, "")
    own = is_own(container, engine)
    is_up = own and service and port and container.status == "running"
    image, is_environment = container.labels.get(labels.IMAGE, ""), container.labels.get(labels.ENVIRONMENT)
    return Running(
        name=container.name,
        image=f"env-{image}" if is_environment else image,
        service=service,
        url=service_url(service, port, token, container.environment.get(layout.BASE_URL, "")) if is_up else "",
        status=container.status,
        exit_code=container.exit_code if container.status in ("exited", "dead") else None,
        gpus=" ".join(read_label(container.labels.get(labels.GPUS, ""))),
        lease=tuple(container.labels.get(labels.LEASE, "").split()),
        user=container.labels.get(labels.USER, ""),
        owner=container.labels.get(labels.OWNER_NAME) or owner_of(container),
        is_own=own,
        command=redact.text(container.command),
        folder=container.folder,
        since=container.since,
    )


def _tunnel_ports(engine: Engine) -> dict[str, int]:
    """The local port that leads to each container of a machine behind SSH."""
    if not engine.target:
        return {}
    from kit.remote import tunnels

    # By the container alone: the same machine may have been named in another way when it was opened.
    return {t.container: t.local_port for t in tunnels.listed() if t.service}


def listed(engine: Engine, *, everything: bool, with_tokens: bool = True) -> list[Running]:
    """The containers kit started; those that ended too when `everything`. Without tokens it is one question."""
    ports = _tunnel_ports(engine)
    found = engine.containers(label=labels.CLIENT) if with_tokens else engine.listed(label=labels.CLIENT)
    return [describe(c, engine, ports) for c in found if everything or c.status == "running"]


def listed_everywhere(
    hosts: Iterable[str], *, everything: bool, with_tokens: bool
) -> Iterator[tuple[str, list[Running] | KitError]]:
    """The containers of many machines, each as soon as it has answered, or why it has not: one delays no other."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    def ask(host: str) -> list[Running]:
        # Nobody can answer ten questions for passwords at once.
        return listed(connect(host, may_ask=False), everything=everything, with_tokens=with_tokens)

    with ThreadPoolExecutor(max_workers=32) as pool:
        waiting = {pool.submit(ask, host): host for host in hosts}
        try:
            for answer in as_completed(waiting):
                try:
                    yield waiting[answer], answer.result()
                except KitError as e:
                    yield waiting[answer], e
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            process.end_running()
            raise


def targets(engine: Engine, names: Sequence[str], *, everything: bool, statuses: Sequence[str]) -> list[Container]:
    """The containers that are named, or with `everything` all of the caller's own that have one of these statuses.

    Another user's must be named, whatever `--force` says of it: `--all` would take a whole laboratory's. Raises
    BadInputError when nothing is named, NoSuchContainerError.
    """
    if not names and not everything:
        raise BadInputError("no container named", hint="name one or more (`kit ps --all` lists them), or give --all")
    if not everything:
        return [find(engine, name) for name in names]
    found = [c for c in engine.containers(label=labels.CLIENT) if not statuses or c.status in statuses]
    return [c for c in found if is_own(c, engine)]


def stop(engine: Engine, names: Sequence[str], *, everything: bool, force: bool, timeout_s: int) -> Iterator[str]:
    """Stop containers; each one's name when it has. Raises BadInputError for another user's, without `force`."""
    chosen = targets(engine, names, everything=everything, statuses=("running", "restarting", "paused"))
    if not force:
        require_own(chosen, engine, action="stop")
    for container in chosen:
        engine.stop(container.name, timeout_s=timeout_s)
        close_tunnels(container.name, engine)
        yield container.name


def remove(engine: Engine, names: Sequence[str], *, everything: bool, force: bool) -> Iterator[str]:
    """Remove containers; each one's name when it is gone. Raises BadInputError for another user's and for one that
    runs, without `force`.
    """
    chosen = targets(engine, names, everything=everything, statuses=() if force else STOPPED)
    if not force:
        require_own(chosen, engine, action="remove")
    for container in chosen:
        if not force and container.status not in STOPPED:
            raise BadInputError(
                f"{container.name} is {container.status}",
                hint=f"stop it first (`kit stop {container.name}`), or give --force",
            )
        engine.remove(container.name, force=force)
        close_tunnels(container.name, engine)
        yield container.name


def find(engine: Engine, name: str, *, first: Sequence[str] = ("running",)) -> Container:
    """The container of kit's that a name stands for: its own name, with or without `kit-`, the start of one, what was
    typed to start it (`torch-cu126`, `jupyter`, `torch-cu126-jupyter`), or the end of its name, if only one container
    fits; the caller's own before others', and those with a status of `first` before the rest. Raises
    NoSuchContainerError, also when several do.
    """
    if not name:  # every name begins with it, and a script's unset variable is nobody's choice
        raise NoSuchContainerError("a container's name is empty", hint="`kit ps --all` lists them")
    all_of_them = engine.containers(label=labels.CLIENT)
    for test in _meanings(name):
        found = [c for c in all_of_them if test(c)]
        if len(found) == 1:
            return found[0]
        if found:
            own = [c for c in found if is_own(c, engine)]
            preferred = [c for c in own or found if c.status in first]
            for some in (own, preferred):
                if len(some) == 1:
                    return some[0]
            raise NoSuchContainerError(
                f"'{name}' stands for {len(found)} containers",
                details=tuple(
                    " ".join(filter(None, (c.name, f"({c.status})", c.folder and f"in {c.folder}"))) for c in found
                ),
                hint="give one whole name, or the end of one",
            )
    raise NoSuchContainerError(
        f"no container of kit's is named '{name}'",
        details=tuple(c.name for c in all_of_them),
        hint="`kit ps --all` lists them",
    )


def running_service(engine: Engine, *, image: str, additions: str = "", service: str, folder: Path) -> Running | None:
    """The caller's own service of an image, or of a project's own environment that makes these additions to it, that
    runs with this folder and answers; behind SSH a tunnel leads to it.
    """
    wanted = {labels.IMAGE: image, labels.SERVICE: service}
    for listed_one in engine.listed(label=labels.CLIENT):
        is_it = wanted.items() <= listed_one.labels.items() and labels.BOUND not in listed_one.labels
        is_it = is_it and listed_one.labels.get(labels.ENVIRONMENT, "") == additions
        if not (is_it and listed_one.status == "running" and listed_one.folder == str(folder)):
            continue
        if not is_own(listed_one, engine):
            continue
        container = engine.container(listed_one.name)
        open_tunnel(container, engine)
        found = describe(container, engine)
        port = found.url.partition("127.0.0.1:")[2].partition("/")[0]
        has = container.environment
        if port and answers(service, int(port), has.get(layout.TOKEN, ""), has.get(layout.BASE_URL, "")):
            return found
    return None


def _meanings(name: str) -> Iterator[Callable[[Container], bool]]:
    """What a name may say of a container, what it says most clearly first."""
    yield lambda c: c.name in (name, f"kit-{name}")
    yield lambda c: c.name.startswith((name, f"kit-{name}"))
    yield lambda c: _is_of(c, *_image_and_service(name))
    yield lambda c: c.name.endswith(f"-{name.lstrip('-')}")


def _image_and_service(name: str) -> tuple[str, str]:
    """`torch-cu126-jupyter`, `torch-cu126` or `jupyter` as the name of an image and that of a service, or empty."""
    from kit.spec.request import SERVICE_WORDS

    image, _, service = name.rpartition("-")
    service = SERVICE_WORDS.get(service, "")
    return (image, service) if service else (name, "")


def _is_of(container: Container, image: str, service: str) -> bool:
    """Whether a container is of an image that this name may stand for, and this service; empty: whichever."""
    from kit.catalog.names import ImageRequest

    if image.startswith("env-"):
        if labels.ENVIRONMENT not in container.labels:
            return False
        image = image.removeprefix("env-")
    asked, has = ImageRequest.parse(image), ImageRequest.parse(container.labels.get(labels.IMAGE, ""))
    is_image = not image or (asked is not None and has is not None and asked.covers(has))
    return is_image and service in ("", container.labels.get(labels.SERVICE))


def open_tunnel(container: Container, engine: Engine, *, port: int | None = None) -> Tunnel | None:
    """A tunnel to a running service of a machine behind SSH, on the asked port or the next free one from the usual one;
    None when the container is no such service. Raises what `tunnels.open_tunnel` raises.
    """
    service = container.labels.get(labels.SERVICE, "")
    remote_port = container.ports.get(layout.port_of(service), 0)
    if not engine.target or not service or not remote_port or container.status != "running":
        return None
    from kit.remote import tunnels

    target = next((t.target for t in tunnels.listed() if t.container == container.name), engine.target)
    return tunnels.open_tunnel(
        target,
        container=container.name,
        service=service,
        remote_port=remote_port,
        first_port=port or layout.port_of(service),
        life=engine.life(container.name),
        exact=port is not None,
    )


def close_tunnels(name: str, engine: Engine) -> None:
    """Close what leads from here to a container of a machine behind SSH."""
    if engine.target:
        from kit.remote import tunnels

        tunnels.close_for(name)


def numbered_lines(engine: Engine, name: str) -> Iterator[tuple[int, str]]:
    """The numbered lines a container printed, and how it ended. Raises NoSuchContainerError."""
    try:
        found = find(engine, name).name
    except NoSuchContainerError:
        if not engine.is_listed(name):
            raise
        found = name  # not one of kit's
    lines = engine.logs(found, tail=CONTAINER_LINES)
    yield from enumerate(lines, start=1)
    state = json.loads(engine.call(["container", "inspect", "--format={{json .State}}", found], timeout_s=30))
    if not state.get("Running"):
        yield len(lines), json.dumps({key: state.get(key) for key in ("ExitCode", "OOMKilled", "Error")})
