"""What `run`, `bench` and `verify` share: from a name to an image in the engine of a machine, its GPUs decided."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kit import accounts, paths
from kit.catalog import Catalog, load_catalog
from kit.decide import compat
from kit.engine import Engine, connect
from kit.errors import BadInputError, NoSuchImageError
from kit.frozen import dataclass
from kit.image.build.ensure import ImageOptions, choose_image, ensure_image, network_on
from kit.run.containers import user_of
from kit.run.lease import GpuDecision, decide, host_for
from kit.spec.container import Place, passwd_lines

if TYPE_CHECKING:
    from kit.catalog.rows import Image
    from kit.network import NetworkSettings
    from kit.remote.ssh import Connection
    from kit.screen import Screen
    from kit.spec.container import Mount
    from kit.spec.gpu_request import GpuRequest
    from kit.spec.request import RunRequest


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An image by name, how it is to get there, the machine it is for, and the GPUs a container of it is to have."""

    name: str  # an image, or `torch` or `tf`
    target: str = ""  # the machine behind SSH
    image: ImageOptions = field(default_factory=ImageOptions)
    gpus: GpuRequest | None = None  # None: what the host has
    gpus_are_optional: bool = False  # meant for images that have a use for them
    force: bool = False  # go on when the image was named outright and cannot work there


@dataclass(frozen=True, kw_only=True)
class Ready:
    """An image that works on a machine, the machine's engine, and the GPUs a container will be given there."""

    catalog: Catalog
    image: Image
    engine: Engine
    network: NetworkSettings
    gpus: GpuDecision
    options: ImageOptions = field(default_factory=ImageOptions)
    reference: str = ""  # of the image in the engine, once it was brought


def prepare(wanted: Wanted, screen: Screen, check: Callable[[Image], None] = lambda _: None) -> Ready:
    """What is wanted, chosen and decided, before anything is brought to the machine. `check` gets the image before an
    engine is asked, to refuse it.

    Raises NoSuchImageError, IncompatibleError, NoEngineError and NetworkError, and what stands against the GPUs.
    """
    catalog = load_catalog()
    gpus = wanted.gpus
    host = host_for(gpus, wanted.target)
    image = choose_image(catalog, wanted.name, host, screen, force=wanted.force)
    if wanted.gpus_are_optional and not image.is_gpu:
        gpus = None
    check(image)
    engine = connect(wanted.target)
    return Ready(
        catalog=catalog,
        image=image,
        engine=engine,
        network=network_on(wanted.image.build.network, engine),
        gpus=decide(gpus, engine, image, host),
        options=wanted.image,
    )


def bring(ready: Ready, screen: Screen) -> Ready:
    """See to it that the engine has the image as its files say. Raises what `ensure_image` raises."""
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
    if not name or not configured_image:
        return name or configured_image, words
    try:
        compat.parse_name(load_catalog(), name)
    except NoSuchImageError:
        return configured_image, (name, *words)
    return name, words


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
    if not os.path.exists(source):  # noqa: PTH110
        raise BadInputError(f"--mount: {source} does not exist", hint="make it first, or correct the path")
    return replace(mount, source=source)


def _path_on(connection: Connection, path: str) -> str:
    """A path of a machine behind SSH, with ~ as the home folder there."""
    return connection.account.home + path[1:] if path == "~" or path.startswith("~/") else path


def new_name(request: RunRequest, *, use: str = "") -> str:
    """A name for a new container of a request; `use` instead of the service in it."""
    return f"kit-{request.image.name}-{use or request.service or 'run'}-{os.urandom(3).hex()}"


def place_on(engine: Engine, request: RunRequest) -> Place:
    """What a container's description takes from the engine's machine; the files it mounts are there afterwards."""
    owner = user_of(engine).partition(":")[0]
    name = engine.connection.account.user if engine.connection else accounts.user_name(int(owner))
    ca_file = request.network.ca_file
    return Place(
        memory_bytes=engine.memory_bytes,
        can_limit=engine.can_limit,
        network=engine.own_network(owner),
        passwd_file=engine.provide(_passwd_file(request.user)),
        ca_file=engine.provide(ca_file) if ca_file else "",
        owner=owner,
        owner_name=name,
        client=f"{socket.gethostname()}:{os.getpid()}",
    )


def _passwd_file(user: str) -> Path:
    """The passwd file of a user; made once."""
    file = paths.usable_folder(paths.state_folder, "passwd") / user.replace(":", "-")
    text = "".join(f"{line}\n" for line in passwd_lines(user))
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        # Whom the container runs as reads it there; others cannot reach it.
        paths.write_text(file, text, mode=0o600 if user.startswith(f"{os.getuid()}:") else 0o644)
    return file
