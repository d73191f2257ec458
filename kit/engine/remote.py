"""A container engine on another machine: Docker's socket, brought here through the shared SSH connection, or Podman's
command line, run there.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from kit import paths, process, unix_http
from kit.engine.docker import LIFE, Engine, with_variables
from kit.engine.podman import PROGRAM, Podman
from kit.errors import BadInputError, CommandError, EngineError, KitError, NetworkError, NoEngineError
from kit.remote import ssh
from kit.spec.container import ContainerSpec
from kit.targets.docker import env_file

PING_S = 5.0
# A command that is over when its input is: sshd tells it nothing when the client is gone, and a log may be silent.
_UNTIL_INPUT_ENDS = """exec 3<&0
{program} "$@" 3<&- </dev/null & command=$!
{{ cat <&3; kill "$command"; }} >/dev/null 2>&1 & watch=$!
wait "$command"; code=$?
kill "$watch" 2>/dev/null
exit "$code"
"""
SOCKET = "engine.sock"
# docker/cli, cli-plugins/manager/manager_unix.go
PLUGIN_FOLDERS = tuple(
    Path(parent) / "docker/cli-plugins"
    for parent in ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")
)


def _own_docker() -> tuple[str, dict[str, str]]:
    """The docker command line and its variables: the private engine's where there is no other, or none that builds."""
    import shutil

    if shutil.which("docker") and _has_buildx():
        return "docker", {}
    from kit import private_engine

    program = private_engine.docker_program()
    return (str(program), private_engine.environment()) if program else ("docker", {})


def _has_buildx() -> bool:
    """Whether docker on this machine has the plugin; looked up as docker does, without starting it."""
    user = Path(os.environ.get("DOCKER_CONFIG") or paths.home() / ".docker") / "cli-plugins"
    return any((folder / "docker-buildx").exists() for folder in (user, *PLUGIN_FOLDERS))


class OtherMachine(Engine):
    """An engine of a machine behind SSH: what any of them does with the files there."""

    connection: ssh.Connection

    def provide(self, path: Path) -> str:
        """Send a file or folder there, unless it is there already, and say under which path."""
        import hashlib

        archive = _archive(path)
        mark = hashlib.sha256(archive).hexdigest()[:16]
        folder = posixpath.join(self.connection.account.home, ".cache/kit/provided", mark)
        there = posixpath.join(folder, path.name)
        if self.connection.run('test -e "$1"', arguments=[there], check=False).returncode != 0:
            self.connection.run(
                'set -e; mkdir -p "$(dirname "$1")"; beside="$(mktemp -d "$1.XXXXXX")"; '
                # Containers of other users read it, whatever the umask of the login is. tar would take a backslash in
                # the name of a folder (CORP\ada) for the beginning of an escape.
                '(umask 022; cd "$beside"; tar -x -f -); '
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
            'mkdir "$outer/inside"; chmod 777 "$outer/inside"; printf "%s\\n" "$outer"'
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


class RemoteEngine(OtherMachine):
    """Docker on a machine behind SSH. The docker command line runs here, the containers there."""

    # Both are looked up when they are used: much is asked of the socket alone.
    program = cached_property(lambda self: self._command_line[0])
    environment = cached_property(lambda self: self._command_line[1])

    def __init__(self, connection: ssh.Connection) -> None:
        self.socket_path = connection.folder / SOCKET
        self.connection = connection

    def life(self, name: str) -> str:
        sockets = " ".join(map(shlex.quote, self.connection.account.sockets))
        # A private engine has its docker beside it; where there is none, what the engine itself says.
        return (
            f'for socket in {sockets}; do found=$(PATH="$PATH:${{socket%/run/*}}/programs/bin" '
            f'docker --host "unix://$socket" {LIFE} {shlex.quote(name)} || curl -s --unix-socket "$socket" '
            f'http://engine/containers/{quote(name)}/json | tr , "\\n" | grep -A 9 "\\"Running\\":true" | '
            'grep -o "\\"StartedAt\\":\\"[^\\"]*" | head -n 1); [ -z "$found" ] || break; done; echo "$found"'
        )

    @cached_property
    def _command_line(self) -> tuple[str, dict[str, str]]:
        program, variables = _own_docker()
        return program, {
            **variables,
            # These would win over DOCKER_HOST, or name a builder that the engine over there does not have.
            "DOCKER_CONTEXT": "",
            "BUILDX_BUILDER": "",
            "DOCKER_HOST": f"unix://{self.socket_path}",
        }


class RemotePodman(OtherMachine, Podman):
    """Podman on a machine behind SSH; its own command line runs there."""

    def __init__(self, connection: ssh.Connection) -> None:
        super().__init__()
        self.connection = connection

    @contextlib.contextmanager
    def prepared(
        self,
        args: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        on_terminal: bool = False,
        ends_with_input: bool = False,
    ) -> Iterator[tuple[list[str], dict[str, str]]]:
        script, words = f'exec {PROGRAM} "$@"', list(args)
        if ends_with_input:
            script = _UNTIL_INPUT_ENDS.format(program=PROGRAM)
        secrets = []
        if environment:
            text, odd = env_file(environment)
            words = with_variables(words, "/dev/fd/9", odd)
            if odd:
                secrets.append(self._file_of(self._exports(odd)))
                script, words = f'. "$1"; rm -f "$1"; shift; {script}', [*secrets, *words]
            secrets.insert(0, self._file_of(text))
            script, words = f'exec 9<"$1"; rm -f "$1"; shift; {script}', [secrets[0], *words]
        remote = " ".join(["sh", "-c", shlex.quote(script), "sh", *map(shlex.quote, words)])
        options = ["-tt" if on_terminal else "-T", *(["-q"] if ends_with_input else [])]
        try:
            # Else a terminal's type that is not known there would change what is printed.
            yield self.connection.command(remote, *options), {"LC_ALL": "C"}
        except BaseException:
            if secrets:
                with contextlib.suppress(KitError):
                    self.connection.run('rm -f "$@"', arguments=secrets, check=False)
            raise

    def ask(
        self,
        args: Sequence[str],
        *,
        timeout_s: float = 120,
        input: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> process.Completed:
        if input is not None or environment:
            return super().ask(args, timeout_s=timeout_s, input=input, environment=environment)
        # Most are short, and there are many: each would be a login.
        command = (PROGRAM, *args)
        try:
            done = self.connection.ask(f'exec {PROGRAM} "$@"', arguments=args, timeout_s=timeout_s)
            code, out, err = done.returncode, done.stdout, done.stderr
        except CommandError as e:
            code, out, err = e.returncode, e.stdout, e.stderr
        return process.Completed(args=command, returncode=code, stdout=out, stderr=err)

    def _exports(self, environment: Mapping[str, str]) -> str:
        for name in environment:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise BadInputError(
                    f"the variable {name!r} cannot be passed to Podman on {self.target}",
                    hint="give it a name of letters, digits and _ alone",
                )
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())

    def _file_of(self, text: str) -> str:
        """A file there, for our eyes only, of variables that must be in no list of processes."""
        made = self.connection.run(
            'set -e; umask 077; folder="${XDG_RUNTIME_DIR:-$HOME/.cache/kit}"; mkdir -p "$folder"; '
            # Of a command whose connection was lost before it could remove its own.
            'find "$folder" -maxdepth 1 -name "kit-variables.*" -mmin +60 -exec rm -f {} + 2>/dev/null || true; '
            'file="$(mktemp "$folder/kit-variables.XXXXXX")"; cat > "$file"; printf "%s\\n" "$file"',
            input=text,
        )
        return made.stdout.strip().splitlines()[-1]

    def failure(self, error: CommandError) -> KitError:
        # Podman's own codes are 125 to 127, and those of what it runs.
        if error.returncode == 255 and (
            not {*error.command[1:2]} & {"run", "exec", "start"}
            or re.search(r"^(ssh|mux_client|kex|Connection|client_loop)", error.stderr, re.M)
        ):
            return ssh.failure(self.target, 255, error.stderr, doing="used")
        if error.returncode == 124 and error.stderr.startswith("no end after"):
            # Who does not answer: Podman, or the machine?
            try:
                self.connection.ping(PING_S)
            except NetworkError as e:
                return e
        if error.returncode == 127 and re.search(rf"{PROGRAM}:( command)? not found", error.stderr):
            return NoEngineError(
                f"{self.target} has no Podman any more",
                hint=f"`kit --host {self.target} tunnel close --all` ends the connection that was made when it had",
            )
        return super().failure(error)

    def run_attached(self, spec: ContainerSpec, on_created: Callable[[], None] | None = None) -> int:
        code = super().run_attached(spec, on_created)
        if code == 255:
            # The connection is gone, and whoever sat at it: nobody will end what it ran.
            self.remove(spec.name, force=True)
        return code

    def load_image(self, archive: Path) -> None:
        with self.prepared(["image", "load", "--quiet"]) as (command, variables):
            try:
                process.pipe(["cat", str(archive)], command, sink_env=variables)
            except CommandError as e:
                raise self.failure(e) from e

    def export(self, name: str, target: Path) -> None:
        with self.prepared(["export", name]) as (command, variables):
            try:
                process.pipe(command, ["sh", "-c", 'exec cat > "$1"', "sh", str(target)], source_env=variables)
            except CommandError as e:
                raise self.failure(e) from e

    def cautions(self, spec: ContainerSpec) -> tuple[str, ...]:
        account, lines = self.connection.account, super().cautions(spec)
        if not account.ends_at_logout:
            return lines
        return (
            f"warning: {self.target} ends what {account.user} runs when the last login there ends, containers too; "
            f"`ssh {self.target} loginctl enable-linger` keeps them",
            *lines,
        )


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


def alive(connection: ssh.Connection, may_ask: bool | None) -> ssh.Connection:
    """A connection that works: this one, or a new one, which knows at once when there is none."""
    try:
        connection.ping(PING_S)
        return connection
    except NetworkError:
        ssh.close(connection.target)
        return ssh.connect(connection.target, may_ask=may_ask)


def forward(connection: ssh.Connection) -> bool:
    """Bring the first engine's socket that answers here; False when none does."""
    local = connection.folder / SOCKET
    for there in connection.account.sockets:
        addresses = f"{local}:{there}"
        local.unlink(missing_ok=True)
        connection.control_command("forward", "-L", addresses)
        if unix_http.is_answering(local, timeout_s=PING_S):
            return True
        connection.control_command("cancel", "-L", addresses)
    local.unlink(missing_ok=True)
    return False
