"""What the user asked to run, and what of it does not depend on the machine it runs on."""

from __future__ import annotations

import itertools
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kit import layout
from kit.config.keys import wrong_name, wrong_target, wrong_value
from kit.errors import BadInputError
from kit.frozen import dataclass
from kit.spec.container import Mount
from kit.spec.gpu_grant import GpuGrant

if TYPE_CHECKING:
    from kit.catalog.rows import Image
    from kit.network import NetworkSettings

Service = Literal["jupyter", "tensorboard"]
SERVICES: tuple[Service, ...] = ("jupyter", "tensorboard")
SHELL = ("bash",)
# Programs that are of no use without somebody at a terminal; the last without a script to run.
TERMINAL_PROGRAMS = ("top", "htop", "nvtop", "watch", "less", "more", "vi", "vim", "nano", "tmux", "pdb", "ipdb", "gdb")
TERMINAL_MODULES = ("pdb", "ipdb", "pudb", "code", "IPython", "bpython", "ptpython")
SHELLS = ("bash", "sh", "dash", "zsh", "fish", "ipython", "ipython3", "bpython", "ptpython", "node", "julia", "R")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What the user wants in a container besides the image and the folder."""

    environment: tuple[tuple[str, str], ...] = ()
    env_file: Path | None = None
    mounts: tuple[Mount, ...] = ()  # their sources as they were written
    logdir: str = "."  # of TensorBoard
    secrets: tuple[tuple[str, str], ...] = ()  # variables that no file of a project is to have
    memory_bytes: int | None = None  # a limit; 0: none, None: the default
    pids: int | None = None  # -1: none


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What the user asked to run."""

    image: Image
    service: Service | None = None
    command: tuple[str, ...] = ()
    port: int | None = None
    folder: Path  # on the machine of the engine
    user: str  # "UID:GID"
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()  # variables whose values are in no file
    memory_bytes: int | None = None  # a limit; 0: none, None: the default
    pids: int | None = None  # -1: none
    mounts: tuple[Mount, ...] = ()
    logdir: str = "."
    restart: str = ""
    network: NetworkSettings
    is_terminal: bool = False
    has_input: bool = True
    reference: str = ""  # another image than the one `kit build` makes under this name
    volumes: tuple[Mount, ...] = ()  # instead of the user's own of the folder
    bound: str = ""  # the process that the container goes with


@dataclass(frozen=True, kw_only=True)
class Started:
    """A service that answered."""

    name: str
    url: str
    gpus: GpuGrant


def parse_user(text: str) -> str:
    """`UID` or `UID:GID`, in numbers. Raises BadInputError."""
    uid, _, gid = text.partition(":")
    for number in (uid, gid or uid):
        # Engines take no more than that.
        if not re.fullmatch("[0-9]{1,10}", number) or int(number) >= 2**31:
            raise BadInputError(
                f"--user {text}: not a UID or UID:GID in numbers",
                hint="give numbers such as 1000:1000, or leave out --user to run as yourself",
            )
    return f"{int(uid)}:{int(gid or uid)}"


def parse_mount(text: str) -> Mount:
    """The value of `--mount`, its source as it was written. Raises BadInputError."""
    parts = text.split(":")
    if len(parts) > 1 and parts[1].startswith("/") and (wrong := wrong_target(parts[1])):
        raise BadInputError(f"--mount: {wrong}", hint="choose another folder in the container")
    if len(parts) not in (2, 3) or parts[2:] not in ([], ["ro"], ["rw"]) or not (parts[0] and parts[1].startswith("/")):
        raise BadInputError(
            f"--mount: '{text}' is not SOURCE:TARGET[:ro]",
            hint="TARGET is a whole path in the container: /srv/set1:/data",
        )
    target = posixpath.normpath(f"/{parts[1].lstrip('/')}")  # which leaves two of them in front
    if target in ("/", *layout.MOUNT_POINTS):
        raise BadInputError(
            f"--mount: '{text}': kit has something at {target} already", hint="choose another folder in the container"
        )
    return Mount(source=parts[0], target=target, read_only=parts[2:] == ["ro"])


def parse_size(text: str) -> int:
    """The value of `--memory` in bytes; 0 for none. Raises BadInputError."""
    found = re.fullmatch(r"([0-9]{1,15})([kmgt]?)i?b?", text.strip().lower())
    size = int(found[1]) * 1024 ** " kmgt".index(found[2] or " ") if found else 0
    if text != "none" and size < 2**23:  # engines refuse less than 6 MB
        raise BadInputError(f"--memory {text}: not a size", hint="give one such as 24g, or none for no limit")
    return size


def parse_count(text: str) -> int:
    """The value of `--pids-limit`; -1, as engines have it, for none. Raises BadInputError."""
    if text != "none" and not re.fullmatch(r"[1-9][0-9]{0,6}", text):
        raise BadInputError(f"--pids-limit {text}: not a number", hint="give one such as 16384, or none for no limit")
    return -1 if text == "none" else int(text)


def parse_variable(text: str) -> tuple[str, str]:
    """The value of `--env`. Raises BadInputError."""
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise BadInputError(f"--env: '{text}' is not NAME=VALUE", hint="NAME= gives the variable an empty value")
    if wrong := wrong_name(name):
        raise BadInputError(f"--env: {wrong}", hint="names are of letters, digits and _, as a rule")
    if wrong := wrong_value(value):
        raise BadInputError(f"--env {name}: {wrong}")
    return name, value


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


def wants_terminal(command: tuple[str, ...]) -> bool:
    """Whether a command is one that somebody sits at: a shell, `python` without a program, an editor, a debugger."""
    name, words = posixpath.basename(command[0]), command[1:]
    if name in TERMINAL_PROGRAMS:
        return True
    if re.fullmatch(r"python[0-9.]*", name):
        options = tuple(itertools.takewhile(lambda word: word.startswith("-"), words))
        rest = words[len(options) :]
        if "-m" in options:
            return rest[:1] != () and rest[0] in TERMINAL_MODULES
        is_alone = not rest and not {"-c", "-V", "-VV", "--version", "-h", "--help"} & {*options}
        return "-i" in options or is_alone
    return name in SHELLS and not [word for word in words if word not in ("-i", "-l", "-il", "-li", "--login")]


def _logdir(words: tuple[str, ...]) -> str:
    """The folder of `--logdir FOLDER`, as TensorBoard itself takes it; empty for any other words."""
    if len(words) == 2 and words[0] == "--logdir":
        return words[1]
    return words[0].partition("=")[2] if len(words) == 1 and words[0].startswith("--logdir=") else ""
