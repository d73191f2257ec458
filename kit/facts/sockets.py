"""Where a Docker engine may listen: the candidates in the order in which they are tried, for Python and for a shell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from kit import paths
from kit.frozen import dataclass

# Which engine the user wants: `private`, `system` or `podman`.
ENGINE_VARIABLE = "KIT_ENGINE"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A socket in a folder that a variable of the environment may name."""

    choice: Literal["system", "private"] = "system"  # the value of KIT_ENGINE that leaves the others out
    variable: str = ""
    folder: str = ""  # where the variable is not set; `{uid}` is the user's ID
    file: str = "docker.sock"

    def path(self) -> Path:
        """Where it is on this machine."""
        return Path(os.environ.get(self.variable) or self.folder.format(uid=os.getuid()), self.file)

    def word(self) -> str:
        """The same as a word of a POSIX shell."""
        folder = self.folder.format(uid="$(id -u)")
        return f'"{f"${{{self.variable}:-{folder}}}" if self.variable else folder}/{self.file}"'


@dataclass(frozen=True, kw_only=True)
class Access:
    """Whose an engine's socket is, for an account that may not use it. No name of a person is in it."""

    is_roots: bool
    group: str = ""  # which may use it too; empty: none may
    is_member: bool = False  # of that group by the machine's files, though this session does not have it yet
    has_sudo: bool = False


# After what the user's own docker settings name. Without any there may still be Podman.
CANDIDATES = (
    Candidate(folder="/var/run"),
    Candidate(variable="XDG_RUNTIME_DIR", folder="/run/user/{uid}"),
    Candidate(variable="HOME", folder="/", file=".docker/run/docker.sock"),
    Candidate(variable="HOME", folder="/", file=".docker/desktop/docker.sock"),
    Candidate(choice="private", variable="KIT_ENGINE_DIR", folder="/var/lib/kit", file="run/docker.sock"),
)


def docker_config() -> Path:
    """The file in which docker keeps its user's settings."""
    return Path(os.environ.get("DOCKER_CONFIG") or paths.home() / ".docker") / "config.json"
