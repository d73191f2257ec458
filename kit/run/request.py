"""What the user asked to run, and what of it does not depend on the machine it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kit import layout
from kit.engine import Mount
from kit.errors import BadInputError

if TYPE_CHECKING:
    from kit.catalog.model import Image
    from kit.facts.host import Host
    from kit.network import NetworkSettings

Service = Literal["jupyter", "tensorboard"]
SERVICES: tuple[Service, ...] = ("jupyter", "tensorboard")
SHM_LIMIT = 16 * 2**30
SHELL = ("bash",)


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What the user asked to run, and where."""

    image: Image
    service: Service | None = None
    command: tuple[str, ...] = ()
    gpus: str | None = None  # None: what the host has
    host: Host | None = None  # its GPUs as they were just read, for `gpus`; None: read them when they matter
    port: int | None = None
    folder: Path  # on the machine of the engine
    user: str  # "UID:GID"
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()  # variables whose values are in no argument list
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
    tunnel_id: str = ""  # of the tunnel to it, where it is behind SSH


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
    return layout.jupyter_command(int(request.user.partition(":")[0]))


def as_command(words: tuple[str, ...]) -> tuple[Service | None, tuple[str, ...], str]:
    """What the words after the image's name mean: a service, or a command (`shell` and nothing at all: a shell); and
    the folder of `tensorboard --logdir`, empty without one.
    """
    if not words or words == ("shell",):
        return None, SHELL, ""
    if words[0] == "--":
        # click leaves the sign in place once it has stopped reading options, which it does at the image's name.
        return None, words[1:] or SHELL, ""
    for service in SERVICES:
        if words[0] == service:
            logdir = _logdir(words[1:]) if service == "tensorboard" else ""
            if len(words) > 1 and not logdir:
                hint = f"to run the program itself: kit run NAME -- {' '.join(words)}"
                if words[1].startswith("-"):
                    hint = (
                        f"options of kit's come before the name: kit run {' '.join(words[1:])} NAME {service}; {hint}"
                    )
                raise BadInputError(f"{service} takes no further words, got: {' '.join(words[1:])}", hint=hint)
            return service, (), logdir
    return None, words, ""


def _logdir(words: tuple[str, ...]) -> str:
    """The folder of `--logdir FOLDER`, as TensorBoard itself takes it; empty for any other words."""
    if len(words) == 2 and words[0] == "--logdir":
        return words[1]
    return words[0].partition("=")[2] if len(words) == 1 and words[0].startswith("--logdir=") else ""
