"""A container engine on another machine: its socket, brought here through the shared SSH connection."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from kit import ssh
from kit.engine import Engine, api
from kit.errors import EngineError, KitError, NoEngineError

PING_S = 5.0
SOCKET = "engine.sock"
# docker/cli, cli-plugins/manager/manager_unix.go
PLUGIN_FOLDERS = tuple(
    Path(parent) / "docker/cli-plugins"
    for parent in ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")
)


def _own_docker() -> tuple[str, dict[str, str]]:
    """The docker command line of kit's private engine, and its variables: where there is no other, or none that
    builds.
    """
    import shutil

    if shutil.which("docker") and _has_buildx():
        return "", {}
    from kit import private_engine

    program = private_engine.docker_program()
    return (str(program), private_engine.environment()) if program else ("", {})


def _has_buildx() -> bool:
    """Whether docker on this machine has the plugin; looked up as docker does, without starting it."""
    user = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "cli-plugins"
    return any((folder / "docker-buildx").exists() for folder in (user, *PLUGIN_FOLDERS))


class RemoteEngine(Engine):
    """The engine of a machine behind SSH. The docker command line runs here, the containers there."""

    def __init__(self, connection: ssh.Connection) -> None:
        self.socket_path = connection.folder / SOCKET
        self.connection: ssh.Connection = connection

    def __getattr__(self, name: str) -> Any:
        """Which docker command line is used, looked up when it is: much is asked of the socket alone."""
        if name not in ("program", "environment"):
            raise AttributeError(name)
        own, variables = _own_docker()
        self.program = own or "docker"
        self.environment = {
            **variables,
            # These would win over DOCKER_HOST, or name a builder that the engine over there does not have.
            "DOCKER_CONTEXT": "",
            "BUILDX_BUILDER": "",
            "DOCKER_HOST": f"unix://{self.socket_path}",
        }
        return self.__dict__[name]

    @property
    def memory_bytes(self) -> int:
        return self.info.memory_bytes

    @cached_property
    def is_local(self) -> bool:
        return False

    def provide(self, path: Path) -> str:
        """Send a file or folder there, unless it is there already, and say under which path."""
        import hashlib

        archive = _archive(path)
        mark = hashlib.sha256(archive).hexdigest()[:16]
        folder = posixpath.join(self.connection.account.home, ".cache/kit/provided", mark)
        there = posixpath.join(folder, path.name)
        if self.connection.run('test -e "$1"', arguments=[there], check=False).returncode != 0:
            self.connection.run(
                'set -e; mkdir -p "$(dirname "$1")"; beside="$(mktemp -d "$1.XXXXXX")"; tar -x -f - -C "$beside"; '
                # Another kit process may have been faster; then its folder is as good as this one.
                'chmod 755 "$beside"; mv -T "$beside" "$1" 2>/dev/null || rm -rf "$beside"; test -e "$2"',
                arguments=[folder, there],
                input=archive,
            )
        return there

    @contextlib.contextmanager
    def scratch(self, user: str) -> Iterator[str]:
        """An empty folder there, open to all in a folder that is not; gone after the block."""
        made = self.connection.run(
            'set -e; umask 077; mkdir -p "$HOME/.cache/kit"; outer="$(mktemp -d "$HOME/.cache/kit/scratch.XXXXXX")"; '
            'mkdir "$outer/inside"; chmod 777 "$outer/inside"; echo "$outer"'
        )
        outer = made.stdout.strip().splitlines()[-1]
        try:
            yield f"{outer}/inside"
        finally:
            # A connection that is gone leaves it behind; it is in a folder of what can be made again.
            with contextlib.suppress(KitError):
                self.connection.run('rm -rf "$1"', arguments=[outer], check=False)

    def read_text(self, path: str) -> str | None:
        done = self.connection.run('test -e "$1" || exit 9; cat "$1"', arguments=[path], check=False)
        if done.returncode == 9:
            return None
        if done.returncode != 0:
            raise EngineError(f"{path} on {self.target} cannot be read", details=tuple(done.stderr.splitlines()[-1:]))
        return done.stdout


def _archive(path: Path) -> bytes:
    """A file or folder as a tar archive, the same bytes for the same content; readable by all."""
    import io
    import tarfile

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if member.name.rpartition("/")[2] == "__pycache__":
            return None
        member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT, dereference=True) as tar:
        tar.add(path, arcname=path.name, filter=plain)
    return target.getvalue()


def connect(target: str, *, may_ask: bool | None = None) -> RemoteEngine:
    """The container engine of a machine behind SSH.

    Raises NetworkError when the machine cannot be reached, NoEngineError when no engine answers there, or when this
    account may use none.
    """
    connection = ssh.connect(target, may_ask=may_ask)
    if _answers(connection.folder / SOCKET):
        return RemoteEngine(connection)
    if (connection.folder / SOCKET).exists():
        # It was there before. Either the engine there is gone for now, or the connection is: this one sleeps until it
        # finds out for itself, a new one knows at once.
        ssh.close(target)
        connection = ssh.connect(target, may_ask=may_ask)
    if _forward(connection):
        return RemoteEngine(connection)
    account = connection.account
    if account.denied:
        raise NoEngineError(
            f"{account.user} has no right to use the container engine of {target} ({', '.join(account.denied)})",
            hint=f"its administrator gives it: `sudo usermod -aG docker {account.user}`; then end the connection that "
            f"was made without it: `kit --host {target} tunnel close --all`",
        )
    if account.has_podman and not account.has_docker:
        raise NoEngineError(
            f"{target} has Podman and no Docker; through Podman's Docker interface no GPU would reach a container",
            hint=f"install Docker Engine there, or kit's private engine: `ssh {target} sudo kit engine up`",
        )
    raise NoEngineError(
        f"no container engine answers on {target}",
        hint="install Docker Engine there, or run `sudo kit engine up` there",
        details=tuple(f"{socket}: no answer" for socket in account.sockets),
    )


def _answers(socket: Path) -> bool:
    answer = api.ask(socket, "/_ping", timeout_s=PING_S)
    return answer is not None and answer[0] == 200


def _forward(connection: ssh.Connection) -> bool:
    """Bring the first engine's socket that answers here; False when none does."""
    local = connection.folder / SOCKET
    for there in connection.account.sockets:
        forward = f"{local}:{there}"
        local.unlink(missing_ok=True)
        connection.control_command("forward", "-L", forward)
        if _answers(local):
            return True
        connection.control_command("cancel", "-L", forward)
    local.unlink(missing_ok=True)
    return False


__all__ = ["RemoteEngine", "connect"]
