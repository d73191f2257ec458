"""VS Code: the address under which it attaches to a container, and the program that opens it.

The Dev Containers extension reads the address. Its maintainers name the form in microsoft/vscode-remote-release issues
8764 (2023-08-31), 5278 and 6832 and document it nowhere; the extension itself writes `settings.context` for a container
of another docker context. What is in `settings` is what its settings `docker.host` and `docker.context` take.
With Podman here VS Code must be told so, in its setting `dev.containers.dockerPath`
(code.visualstudio.com/remote/advancedcontainers/docker-options, "Podman"). With Podman on another machine its
maintainers have no way that works: vscode-remote-release issues 4643, 5971 and 11324.
The form inside a Remote-SSH window (`…@ssh-remote+HOST`) is left out: it works only while such a window is open.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from urllib.parse import quote

from kit import layout, process
from kit.engine import Engine
from kit.errors import BadInputError, MissingProgramError, NoSuchContainerError, UnsupportedHostError
from kit.frozen import dataclass
from kit.remote.ssh import SSH_VARIABLE, context_endpoint
from kit.run.containers import find, require_own

PROGRAM = "code"
# Where docker looks by itself, on either end.
USUAL_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")


def attach_uri(
    container: str, *, folder: str = layout.WORKSPACE, engine_settings: Mapping[str, str] | None = None
) -> str:
    """The address that VS Code opens attached to a running container, in a folder of it.

    `engine_settings`: {"host": address} or {"context": name} of the engine, in docker's spelling; none for the one
    docker uses by itself.
    """
    what: dict[str, object] = {"containerName": f"/{container.removeprefix('/')}"}
    if engine_settings:
        what["settings"] = dict(engine_settings)
    # As JSON.stringify writes it: the hex is compared where VS Code looks for windows and folders it opened before.
    text = json.dumps(what, separators=(",", ":"), ensure_ascii=False)
    return f"vscode-remote://attached-container+{text.encode().hex()}{quote(folder)}"


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """How VS Code gets to a container, and what its user should know."""

    container: str
    uri: str
    notes: tuple[str, ...] = ()


def attach(engine: Engine, name: str, *, folder: str, force: bool = False) -> Attachment:
    """The address of a running container that a name stands for, opened at a folder in it.

    Raises BadInputError for a folder that is not a whole path, and for another user's container without `force`;
    NoSuchContainerError when it does not run, UnsupportedHostError where VS Code cannot attach.
    """
    if not folder.startswith("/"):
        raise BadInputError(f"--folder {folder}: not a whole path in the container", hint="give it as /workspace/src")
    require_attachable(engine, name)
    container = find(engine, name)
    if not force:
        require_own([container], engine, action="attach VS Code to")
    if container.status != "running":
        raise NoSuchContainerError(
            f"{container.name} does not run (status: {container.status}), so VS Code cannot attach to it",
            hint="`kit ps` lists what runs",
        )
    settings, notes = engine_settings(engine), []
    if not engine.features.can_attach_by_uri:
        title, program = engine.features.title, engine.program
        notes.append(f'VS Code must know of {title}: "dev.containers.dockerPath": "{program}" in its settings')
    if not is_lasting(settings):
        notes.append(f"it leads through kit's connection to {engine.target}, which ends some time after its last use")
    uri = attach_uri(container.name, folder=folder, engine_settings=settings)
    return Attachment(container=container.name, uri=uri, notes=tuple(notes))


def require_attachable(engine: Engine, name: str) -> None:
    """Raise UnsupportedHostError for an engine whose containers VS Code cannot attach to."""
    if engine.target and not engine.features.can_attach_by_uri:
        raise UnsupportedHostError(
            f"VS Code cannot attach to containers of {engine.features.title} on another machine ({engine.target}): "
            "only to Docker's",
            hint=f"`kit --host {engine.target} exec {name} bash` is a shell in it; a notebook's own editor is at "
            f"`kit --host {engine.target} url {name}`",
        )


def engine_settings(engine: Engine) -> dict[str, str]:
    """How docker reaches an engine without kit, for `attach_uri`: empty when it does so by itself."""
    if not engine.features.can_attach_by_uri:
        return {}
    if connection := engine.connection:
        if context_endpoint(connection.target).startswith("ssh://"):
            return {"context": connection.target}
        account = connection.account
        if not account.has_docker or os.environ.get(SSH_VARIABLE):
            # `docker` over ssh needs a docker over there, and ssh's own configuration to know the machine.
            return {"host": f"unix://{engine.socket_path}"}
        address = connection.address if "://" in connection.address else f"ssh://{connection.address}"
        socket = next(iter(account.sockets), "")
        return {"host": address + ("" if socket in USUAL_SOCKETS else socket)}
    if host := engine.environment.get("DOCKER_HOST") or os.environ.get("DOCKER_HOST"):
        return {"host": host}
    if engine.socket_path:
        return {}
    context = os.environ.get("DOCKER_CONTEXT") or engine.call(["context", "show"], timeout_s=20).strip()
    return {"context": context} if context and context != "default" else {}


def is_lasting(settings: Mapping[str, str]) -> bool:
    """False for an engine that is reached through kit's own connection, which ends some time after its last use."""
    return not settings.get("host", "").endswith("/engine.sock")


def open_uri(uri: str, *, program: str = PROGRAM) -> None:
    """Open an address in VS Code. Raises MissingProgramError without it, CommandError when it refuses."""
    try:
        process.run([program, "--folder-uri", uri], timeout_s=60)
    except MissingProgramError:
        raise MissingProgramError(
            f"the program `{program}` is not installed",
            hint="VS Code puts it there: `Shell Command: Install 'code' command in PATH`; --program names another",
        ) from None
