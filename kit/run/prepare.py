"""What `run`, `bench` and `verify` share: from a name to an image in the engine of a machine, its GPUs decided."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Callable
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kit import accounts, layout, paths, ports
from kit.catalog import Catalog, load_catalog
from kit.catalog.names import ImageRequest
from kit.decide import compat
from kit.engine import Engine, connect
from kit.errors import BadInputError, FilesError, NoSuchImageError, PortTakenError
from kit.frozen import dataclass
from kit.image.build.ensure import ImageOptions, built_instead, choose_image, ensure_image, network_on
from kit.linux import PROC
from kit.run.containers import user_of
from kit.run.lease import GpuDecision, decide, host_for
from kit.spec.container import NOFILE, Place, group_lines, passwd_lines
from kit.spec.request import INTERPRETERS, PROGRAMS, SERVICE_WORDS

if TYPE_CHECKING:
    from kit.catalog.rows import Image
    from kit.environment.declared import Declared
    from kit.image.environment import Environment
    from kit.network import NetworkSettings
    from kit.remote.ssh import Connection
    from kit.screen import Screen
    from kit.spec.container import Mount
    from kit.spec.gpu_request import GpuRequest
    from kit.spec.request import RunRequest


CAP_SYS_RESOURCE = 24  # linux/capability.h


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An image by name, how it is to get there, the machine it is for, and the GPUs a container of it is to have."""

    name: str  # an image, or `torch` or `tf`
    environment: Declared | None = None  # a project's own, instead of an image by name
    target: str = ""  # the machine behind SSH
    image: ImageOptions = field(default_factory=ImageOptions)
    gpus: GpuRequest | None = None  # None: what the host has
    gpus_are_optional: bool = False  # meant for images that have a use for them
    force: bool = False  # go on when the image was named outright and cannot work there
    takes_built: bool = False  # without a GPU, an image that is there instead of one that would be built


@dataclass(frozen=True, kw_only=True)
class Ready:
    """An image that works on a machine, the machine's engine, and the GPUs a container will be given there."""

    catalog: Catalog
    image: Image
    engine: Engine
    network: NetworkSettings
    gpus: GpuDecision
    options: ImageOptions = field(default_factory=ImageOptions)
    environment: Environment | None = None  # the project's own, on that image
    reference: str = ""  # of the image in the engine, once it was brought

    @property
    def name(self) -> str:
        """Of what runs, for people."""
        return self.environment.name if self.environment else self.image.name

    @property
    def additions(self) -> str:
        """The hash of what the project's own environment adds to the image; empty without one."""
        return self.environment.lock.content_hash if self.environment else ""


def prepare(wanted: Wanted, screen: Screen, check: Callable[[Image], None] = lambda _: None) -> Ready:
    """What is wanted, chosen and decided, before anything is brought to the machine. `check` gets the image before an
    engine is asked, to refuse it.

    Raises NoSuchImageError, IncompatibleError, NoEngineError and NetworkError, what stands against the GPUs, and of a
    project's own environment what `read_environment` raises.
    """
    catalog = load_catalog()
    gpus = wanted.gpus
    host = host_for(gpus, wanted.target)
    environment = None
    if wanted.environment:
        from kit.image.environment import read_environment

        environment = read_environment(catalog, wanted.environment)
    name = environment.image.name if environment else wanted.name
    image = choose_image(catalog, name, host, screen, force=wanted.force)
    if wanted.gpus_are_optional and not image.is_gpu:
        gpus = None
    check(image)
    engine = connect(wanted.target)
    if wanted.takes_built and not host.has_gpu:
        image = built_instead(catalog, name, image, host, engine, wanted.image, screen)
    return Ready(
        catalog=catalog,
        image=image,
        engine=engine,
        network=network_on(wanted.image.build.network, engine),
        gpus=decide(gpus, engine, image, host),
        options=wanted.image,
        environment=environment,
    )


def bring(ready: Ready, screen: Screen) -> Ready:
    """See to it that the engine has the image, or the project's own on it, as its files say. Raises what `ensure_image`
    and `ensure_environment` raise.
    """
    if ready.environment:
        from kit.image.environment import ensure_environment

        reference, is_new = ensure_environment(ready.catalog, ready.environment, ready.engine, ready.options, screen)
    else:
        reference, is_new = ensure_image(ready.catalog, ready.image, ready.engine, ready.options, screen)
    # Who uses which GPU has changed meanwhile.
    gpus = replace(ready.gpus, host=None) if is_new else ready.gpus
    return replace(ready, gpus=gpus, reference=reference)


def name_and_words(name: str, words: tuple[str, ...], configured_image: str) -> tuple[str, tuple[str, ...]]:
    """The image and what to run in it; the configured image when the first word is none. Raises BadInputError."""
    if not name and not configured_image:
        raise BadInputError(
            "no image named", hint="`kit list` shows them; `image` in kit.toml names the one of a project"
        )
    if not name:
        return configured_image, words
    try:
        compat.parse_name(load_catalog(), name)
    except NoSuchImageError:
        if configured_image:
            return configured_image, (name, *words)
        if is_command(name):
            image, rest = (words[0], words[1:]) if words and ImageRequest.parse(words[0]) else ("torch", words)
            raise NoSuchImageError(
                f"there is no image `{name}`",
                hint=f"the image comes first: `{' '.join(('kit run', image, name, *rest))}`; `kit list` shows them",
            ) from None
        raise
    return name, words


def is_command(word: str) -> bool:
    """Whether this is what people run in an image: a service, a script, a program."""
    return word in (*SERVICE_WORDS, *PROGRAMS) or word.endswith((*INTERPRETERS, ".ipynb"))


def folder_on(
    engine: Engine, folder: Path, remote_folder: str, screen: Screen, *, include: tuple[str, ...] = ()
) -> Path:
    """The folder for /workspace on the engine's machine: behind SSH one that was named, else a copy, sent now
    (`include`: with that, though git ignores it).

    Raises BadInputError when the named one is not there, and what sending raises.
    """
    if engine.connection is None:
        return folder
    if not remote_folder:
        from kit.remote.sync import push

        with screen.sending(folder) as progress:
            done = push(engine.connection, folder, include=include, progress=progress)
        screen.sent(done)
        return Path(done.remote_folder)
    there = _path_on(engine.connection, remote_folder)
    if not there.startswith("/") or engine.connection.run('test -d "$1"', arguments=[there], check=False).returncode:
        raise BadInputError(
            f"--remote-folder {remote_folder}: no such folder on {engine.target}",
            hint="give a whole path, or one with ~/",
        )
    return Path(there)


def mount_on(mount: Mount, connection: Connection | None) -> Mount:
    """A mount as it was asked for, with its whole source on the machine behind a connection or on this one.

    Raises BadInputError when it is not there; of another machine its engine says so.
    """
    if connection:
        there = _path_on(connection, mount.source)
        if not there.startswith("/"):
            raise BadInputError(
                f"--mount: '{mount.source}' is not a whole path on {connection.target}",
                hint="give a whole path, or one with ~/",
            )
        return replace(mount, source=there)
    source = os.path.realpath(os.path.expanduser(mount.source))  # noqa: PTH111 (raises nothing, whatever is written)
    try:
        os.stat(source)  # noqa: PTH116 (as above)
    except PermissionError:
        # An engine that runs as root could; what its user may not see is not theirs to mount.
        raise FilesError(
            f"--mount: {source}: you may not enter the folder that it is in", hint="ask its owner, or mount another one"
        ) from None
    except (OSError, ValueError):
        raise BadInputError(f"--mount: {source} does not exist", hint="make it first, or correct the path") from None
    return replace(mount, source=source)


def _path_on(connection: Connection, path: str) -> str:
    """A path of a machine behind SSH, with ~ as the home folder there."""
    return connection.account.home + path[1:] if path == "~" or path.startswith("~/") else path


def new_name(request: RunRequest, *, use: str = "") -> str:
    """The name that was asked for, or a new one for a container of a request; `use` instead of the service in it."""
    return request.name or f"kit-{request.image.name}-{use or request.service or 'run'}-{os.urandom(3).hex()}"


def require_free(engine: Engine, request: RunRequest) -> None:
    """Raise BadInputError when there is a container of the name that was asked for, and PortTakenError when one of the
    further ports is in use here.
    """
    if taken := [port for port, _ in request.ports if engine.is_here and not ports.is_free(port)]:
        raise PortTakenError(f"port {taken[0]} is in use", hint="give --publish another one: HOST:INNER")
    if request.name and engine.is_listed(request.name):
        raise BadInputError(
            f"--name {request.name}: there is a container of that name",
            hint=f"`kit rm {request.name}` removes it once it has ended; or give another name",
        )


def place_on(engine: Engine, request: RunRequest) -> Place:
    """What a container's description takes from the engine's machine; the files it mounts are there afterwards."""
    owner = user_of(engine).partition(":")[0]
    name = engine.connection.account.user if engine.connection else accounts.user_name(int(owner))
    ca_file, groups, host_ports = (
        request.network.ca_file,
        groups_on(engine, request.user),
        ports_of_host(engine, request),
    )
    return Place(
        memory_bytes=engine.memory_bytes,
        can_limit=engine.can_limit,
        # Only where none is asked for is one of the user's own needed.
        network="" if request.joins else engine.own_network(owner),
        passwd_file=engine.provide(_account_file(request.user, "passwd", passwd_lines(request.user))),
        group_file=engine.provide(
            _account_file(request.user, "group", group_lines(request.user.partition(":")[2], groups))
        ),
        ca_file=engine.provide(ca_file) if ca_file else "",
        groups=groups,
        keeps_groups=engine.features.keeps_groups and engine.is_rootless,
        open_files=open_files(engine),
        host_ports=host_ports,
        timezone=accounts.timezone(),
        notes=network_notes(request, host_ports),
        owner=owner,
        owner_name=name,
        client=f"{socket.gethostname()}:{os.getpid()}",
    )


def open_files(engine: Engine) -> int:
    """How many files the engine may let a container have open; 0 for one that sees to that itself, as a rootless one
    does, which allows what its user may.

    A root that lacks CAP_SYS_RESOURCE, as in a container, raises no limit, and the engine is then bound by its own.
    """
    if engine.is_rootless or engine.features.has_own_limits:
        return 0
    found = re.search(r"^CapBnd:\s*([0-9a-f]{1,16})$", engine.read_text(f"{PROC}/self/status") or "", re.MULTILINE)
    if found is None or int(found[1], 16) >> CAP_SYS_RESOURCE & 1:
        return NOFILE[1]
    own = re.search(
        r"^Max open files\s+\S+\s+([0-9]{1,18})", engine.read_text(f"{PROC}/self/limits") or "", re.MULTILINE
    )
    return min(NOFILE[1], int(own[1])) if own else 0


def groups_on(engine: Engine, user: str) -> tuple[tuple[int, str], ...]:
    """The groups of a user (UID:GID) on the engine's machine besides that one, where they have numbers in a container:
    of the caller, and for root of whom it runs as. Somebody else is nobody of whose groups kit disposes.
    """
    uid, gid = map(int, user.split(":"))
    if engine.is_rootless:
        return ()
    if account := (engine.connection.account if engine.connection else None):
        found = [group.partition(":")[::2] for group in account.groups] if account.uid == uid else []
        return tuple((int(number), name) for number, name in found if int(number) != gid)
    return accounts.groups_of(uid, gid) if os.geteuid() in (0, uid) else ()


def ports_of_host(engine: Engine, request: RunRequest) -> frozenset[int]:
    """The ports of a proxy or mirror on the loopback of the engine's machine that a container reaches at that machine's
    address: those whose program listens there, too.
    """
    wanted = request.network.loopback_ports
    if not wanted or request.joins or not (address := engine.host_address()):
        return frozenset()
    tables = [engine.read_text(f"{PROC}/net/{name}") or "" for name in ("tcp", "tcp6")]
    return wanted & frozenset().union(*(ports.listening(table, address) for table in tables))


def network_notes(request: RunRequest, host_ports: frozenset[int]) -> tuple[str, ...]:
    """Lines on the network of a container: what it has in common with its machine, and what it does not reach."""
    if request.joins == layout.HOST_NETWORK:
        return ("warning: --network host: the container reaches, and listens at, every port of this machine",)
    return tuple(
        f"warning: {address} is on this machine's loopback, which no container reaches: it is left out. Let it listen "
        "on all addresses (Clash: `allow-lan: true`), and kit leads containers there; or `--network host` for a command"
        for address in request.network.inside(host_ports).left_out
    )


def open_ports(
    engine: Engine, name: str, published: tuple[tuple[int, int], ...], on_message: Callable[[str], None]
) -> None:
    """Lead the further ports of a container behind SSH here, each to the same port or the next free one."""
    if not engine.target or not published:
        return
    from kit.remote import tunnels

    for port, inner in published:
        tunnel = tunnels.open_tunnel(
            engine.target, container=name, service="", remote_port=port, first_port=port, life=engine.life(name)
        )
        on_message(f"port {inner} of {name}: http://127.0.0.1:{tunnel.local_port}")


def _account_file(user: str, name: str, lines: tuple[str, ...]) -> Path:
    """The passwd or group file of a user; made once."""
    text = "".join(f"{line}\n" for line in lines)
    # Groups may be others in another login, whose container runs.
    mark = "" if name == "passwd" else f"-{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:8]}"
    file = paths.usable_folder(paths.state_folder, name) / f"{user.replace(':', '-')}{mark}"
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        # Whom the container runs as reads it there; others cannot reach it.
        paths.write_text(file, text, mode=0o600 if user.startswith(f"{os.getuid()}:") else 0o644)
    return file
