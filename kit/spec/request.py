"""What the user asked to run, and what of it does not depend on the machine it runs on."""

from __future__ import annotations

import itertools
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kit import layout
from kit.config.keys import wrong_name, wrong_target, wrong_value
from kit.errors import BadInputError
from kit.frozen import dataclass
from kit.spec.container import Mount, Ulimit
from kit.spec.gpu_grant import GpuGrant

if TYPE_CHECKING:
    from kit.catalog.rows import Image
    from kit.network import NetworkSettings

Service = Literal["jupyter", "tensorboard"]
SERVICES: tuple[Service, ...] = ("jupyter", "tensorboard")
# What people call them.
SERVICE_WORDS: dict[str, Service] = {
    "jupyter": "jupyter",
    "notebook": "jupyter",
    "jupyterlab": "jupyter",
    "lab": "jupyter",
    "tensorboard": "tensorboard",
    "tb": "tensorboard",
}
SHELL = ("bash",)
# What runs a file that is named alone.
INTERPRETERS = {".py": "python", ".sh": "bash"}
# Programs that the first word of a command often is.
PROGRAMS = ("python", "python3", "pip", "bash", "sh", "shell", "ipython", "torchrun", "accelerate", "nvidia-smi")
# Programs that people reach for, which no image has.
ABSENT = ("conda", "mamba", "micromamba")
# As docker has them.
ULIMITS = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"),
    *("rtprio", "rttime", "sigpending", "stack"),
)
SERVER_OPTION = r"--[A-Z][A-Za-z]*\.[a-z_]+"
# Of whichever class of the server's: the address that kit listens at and asks.
KITS_OWN_TRAITS = {
    "ip": "it listens where kit publishes it, on 127.0.0.1 of this machine",
    "port": "`--port` is the one on this machine",
    "token": f"`-e {layout.TOKEN}=…` is the token of your own; an empty one would let in everybody on the machine",
    "allow_root": "it follows from who it runs as: `--user`",
    "certfile": "the server is on 127.0.0.1 alone; what stands before it has the certificate",
    "sock": "kit looks for it at a port",
}
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
    cpus: float = 0  # 0: all
    shm_bytes: int = 0  # 0: the default
    ulimits: tuple[Ulimit, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()  # besides a service's own: on 127.0.0.1, in the container
    joins: str = ""  # the engine's network; empty: the user's own
    server_options: tuple[str, ...] = ()  # of JupyterLab

    @property
    def as_they_are(self) -> dict[str, Any]:
        """Those that a request has as they were asked for, whatever machine it is for."""
        names = ("environment", "memory_bytes", "pids", "cpus", "shm_bytes", "ulimits", "ports", "joins")
        return {name: getattr(self, name) for name in names}


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
    cpus: float = 0  # 0: all
    shm_bytes: int = 0  # 0: the default
    ulimits: tuple[Ulimit, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()  # besides the service's own: on 127.0.0.1, in the container
    joins: str = ""  # the engine's network; empty: the user's own
    server_options: tuple[str, ...] = ()  # of JupyterLab
    name: str = ""  # of the container; empty: one that kit makes up
    mounts: tuple[Mount, ...] = ()
    logdir: str = "."
    restart: str = ""
    network: NetworkSettings
    is_terminal: bool = False
    has_input: bool = True
    reference: str = ""  # another image than the one `kit build` makes under this name
    additions: str = ""  # of a project's own environment: the hash of what it adds to the image
    volumes: tuple[Mount, ...] = ()  # instead of the user's own of the folder
    bound: str = ""  # the process that the container goes with


@dataclass(frozen=True, kw_only=True)
class Started:
    """A service that answered."""

    name: str
    url: str
    gpus: GpuGrant


def own_token(asked: Contents | RunRequest) -> str:
    """The token that the user has chosen for a service, as its variable; empty for none. Raises BadInputError for one
    that anybody on the machine guesses, or that no address takes.
    """
    variables = dict([*asked.secrets, *asked.environment])
    token = variables.get(layout.TOKEN, "")
    if layout.TOKEN in variables and not re.fullmatch(r"[!-~]{8,200}", token):
        raise BadInputError(
            f"the value of {layout.TOKEN} is no token: 8 to 200 letters, digits and signs",
            hint="leave it out for a random one; whoever guesses it has a shell as you",
        )
    return token


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
    if text.startswith(("type=", "source=", "src=")):
        raise BadInputError(
            "--mount is SOURCE:TARGET[:ro] here, and not docker's list of fields",
            hint="/srv/set1:/data:ro, for example",
        )
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


def parse_size(text: str, option: str = "--memory") -> int:
    """The value of `--memory` or `--shm-size` in bytes; 0 for none. Raises BadInputError."""
    found = re.fullmatch(r"([0-9]{1,15})([kmgt]?)i?b?", text.strip().lower())
    size = int(found[1]) * 1024 ** " kmgt".index(found[2] or " ") if found else 0
    if (text != "none" or option != "--memory") and size < 2**23:  # engines refuse less than 6 MB
        none = ", or none for no limit" if option == "--memory" else ""
        raise BadInputError(f"{option} {text}: not a size", hint=f"give one such as 24g{none}")
    return size


def parse_count(text: str) -> int:
    """The value of `--pids-limit`; -1, as engines have it, for none. Raises BadInputError."""
    if text != "none" and not re.fullmatch(r"[1-9][0-9]{0,6}", text):
        raise BadInputError(f"--pids-limit {text}: not a number", hint="give one such as 16384, or none for no limit")
    return -1 if text == "none" else int(text)


def parse_cpus(text: str) -> float:
    """The value of `--cpus`; 0, as engines have it, for none. Raises BadInputError."""
    if text == "none":
        return 0
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", text) or float(text) < 0.01:  # engines refuse less
        raise BadInputError(f"--cpus {text}: not a number", hint="give one such as 4 or 1.5, or none for no limit")
    return float(text)


def parse_ulimit(text: str) -> Ulimit:
    """The value of `--ulimit`, as docker takes it. Raises BadInputError."""
    name, sign, value = text.partition("=")
    soft, _, hard = value.partition(":")
    number = r"-1|unlimited|[0-9]{1,18}"
    if not sign or name not in ULIMITS or not re.fullmatch(number, soft) or not re.fullmatch(number, hard or soft):
        raise BadInputError(
            f"--ulimit {text}: not NAME=SOFT[:HARD]",
            details=(f"names: {', '.join(ULIMITS)}",),
            hint="numbers, of bytes for memory, or unlimited: memlock=unlimited, stack=67108864, nofile=65536:524288",
        )
    low, high = (-1 if each == "unlimited" else int(each) for each in (soft, hard or soft))
    if high != -1 and (low == -1 or low > high):
        raise BadInputError(f"--ulimit {text}: the first number is above the second", hint="give the lower one first")
    return Ulimit(name=name, soft=low, hard=high)


def parse_port(text: str) -> tuple[int, int]:
    """The value of `--publish`: HOST:INNER, or one number for both. Raises BadInputError."""
    *address, outer, inner = text.split(":") if ":" in text else (text, text)
    ports = [int(each) if re.fullmatch("[0-9]{1,5}", each) else 0 for each in (outer, inner)]
    if address not in ([], ["127.0.0.1"], ["localhost"]):
        raise BadInputError(
            f"--publish {text}: kit publishes on 127.0.0.1 alone",
            hint=f"leave out the address ({outer}:{inner}); from another machine it is `ssh -L`, or `kit --host`",
        )
    if not all(1 <= port <= 65535 for port in ports):
        raise BadInputError(
            f"--publish {text}: not HOST:INNER", hint="give two ports such as 7860:7860, or one for both"
        )
    return ports[0], ports[1]


def parse_name(text: str) -> str:
    """The value of `--name`, as engines and host names take it. Raises BadInputError."""
    if text and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{1,62}", text):
        raise BadInputError(
            f"--name '{text}': no name of a container",
            hint="2 to 63 letters, digits, `-` and `_`, with a letter or digit first",
        )
    return text


def parse_network(text: str) -> str:
    """The value of `--network`. Raises BadInputError."""
    if text and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
        raise BadInputError(
            f"--network '{text}': no name of a network",
            hint="`docker network ls` lists those there are; host is this machine's own, none is none",
        )
    return text


def require_publishing(network: str) -> None:
    """Raise BadInputError for a network in which nothing can be published, as a service is."""
    if network in (layout.HOST_NETWORK, layout.NO_NETWORK):
        raise BadInputError(
            f"--network {network} is for a command: a service is published on 127.0.0.1 and nowhere else",
            hint="leave it out; `--publish HOST:INNER` publishes a further port",
        )


def parse_server_option(text: str) -> str:
    """An option of JupyterLab's. Raises BadInputError for what is none, and for those that are kit's to say."""
    name, sign, _ = text.partition("=")
    if not sign or not re.fullmatch(SERVER_OPTION, name):
        raise BadInputError(
            f"'{text}' is no option of JupyterLab's as kit passes it on",
            hint="as `jupyter lab --help-all` has them, with a `=`: --ServerApp.base_url=/me",
        )
    trait = name.partition(".")[2]
    if trait in KITS_OWN_TRAITS:
        raise BadInputError(f"{name} is kit's to say", hint=KITS_OWN_TRAITS[trait])
    return text


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


def split_server_options(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words after the image's name without the options of JupyterLab's own that stand behind it, and those options
    (`jupyter --ServerApp.base_url=/me`). Raises BadInputError for options that are kit's to say.
    """
    name, *options = words or ("",)
    if name in ("", "--") or not options or not all(re.match(SERVER_OPTION, word) for word in options):
        return words, ()
    return (name,), tuple(map(parse_server_option, options))


def as_command(words: tuple[str, ...]) -> tuple[Service | None, tuple[str, ...], str]:
    """What the words after the image's name mean: a service, or a command (`shell` and nothing at all: a shell); and
    the folder of `tensorboard --logdir`, empty without one.
    """
    if not words or words == ("shell",):
        return None, SHELL, ""
    if words[0] == "--":
        # click leaves the sign in place once it has stopped reading options, which it does at the image's name.
        return None, words[1:] or SHELL, ""
    if words[0].startswith("-"):
        raise BadInputError(
            f"`{words[0]}` after the image's name is no option of kit's, and no program",
            hint=f"options come before it: kit run {words[0]} NAME {' '.join(words[1:])}".rstrip()
            + (" (a terminal and removal need none)" if words[0] in ("-it", "-ti", "-i", "-t", "--rm") else ""),
        )
    if words[0] in ABSENT:
        raise BadInputError(
            f"there is no {words[0]} in kit's images",
            hint="`pip install PACKAGE` in a container adds to what is there, and `kit list` shows the other images; "
            f"one of your own, in a mounted folder: kit run NAME -- {' '.join(words)}",
        )
    if service := SERVICE_WORDS.get(words[0]):
        return service, (), _logdir_of(service, words)
    if words[0].endswith(".ipynb") and "/" not in words[0]:
        raise BadInputError(
            f"{words[0]} is a notebook, and no program",
            hint="`kit run NAME jupyter` opens JupyterLab in this folder; "
            f"without a browser: kit run NAME -- jupyter execute {words[0]}",
        )
    # What stands in a folder and is named with it (`./train.py`) runs as it says itself.
    interpreter = next((program for ending, program in INTERPRETERS.items() if words[0].endswith(ending)), "")
    if interpreter and not words[0].startswith((".", "/", "~")):
        words = (interpreter, *words)
    return None, words, ""


def _logdir_of(service: Service, words: tuple[str, ...]) -> str:
    """The folder of TensorBoard, empty without one. Raises BadInputError when the words say more than the service."""
    if len(words) == 1 or (service == "jupyter" and words in (("jupyter", "lab"), ("jupyter", "notebook"))):
        return ""
    if service == "tensorboard" and (logdir := _logdir(words[1:])):
        return logdir
    hint = f"to run the program itself: kit run NAME -- {' '.join(words)}"
    if words[1].startswith("-"):
        hint = f"options of kit's come before the name: kit run {' '.join(words[1:])} NAME {service}; {hint}"
    raise BadInputError(f"{service} takes no further words, got: {' '.join(words[1:])}", hint=hint)


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
