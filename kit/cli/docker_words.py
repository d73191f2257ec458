"""What kit has for an option that people know from docker, for whoever tries it."""

from __future__ import annotations

# The commands that start containers, and so are taken for `docker run`.
COMMANDS = ("run", "compose")

_TERMINAL = "leave it out: a command has this terminal, or what is piped to it, by itself"
_CLOSED = "kit has none: its containers have no capabilities and gain none; `docker run` starts an image of kit's, too"
WORDS: dict[str, str] = {
    "-v": "it is `--mount SOURCE:TARGET[:ro]`",
    "--volume": "it is `--mount SOURCE:TARGET[:ro]`",
    "-i": _TERMINAL,
    "--interactive": _TERMINAL,
    "--rm": "leave it out: a command's container goes with it, and `kit rm` removes a service's",
    "-w": "it is `-C FOLDER` for the folder at /workspace; a command starts there",
    "--workdir": "it is `-C FOLDER` for the folder at /workspace; a command starts there",
    "-u": "it is `--user UID:GID`; without it you are who you are here",
    "-m": "it is `--memory SIZE`",
    "--hostname": "a container is named by `--name`",
    "-P": "it is `-p HOST:INNER`, for each port",
    "--publish-all": "it is `-p HOST:INNER`, for each port",
    "--expose": "it is `-p HOST:INNER`, for each port",
    "--net": "it is `--network NAME`",
    "--entrypoint": "the words after NAME are the command: `kit run NAME -- PROGRAM …`",
    "--init": "leave it out: every image has one",
    "--ipc": "it is `--shm-size SIZE`; without it /dev/shm has half the memory, 16 GiB at most",
    "--runtime": "it is `--gpus`; kit knows how the engine passes them in",
    "--device": "it is `--gpus` for GPUs; " + _CLOSED,
    "--privileged": _CLOSED,
    "--cap-add": _CLOSED,
    "--security-opt": _CLOSED,
    "--group-add": "leave it out: the container has your groups",
    "--label": "containers are found by `--name`",
    "-l": "containers are found by `--name`",
}


def of(command: str, option: str) -> str:
    """What to do instead of giving a command an option of docker's; empty when kit has nothing to say about it."""
    return WORDS.get(option, "") if command in COMMANDS else ""
