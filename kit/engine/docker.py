"""Docker, by its command line and, where it listens on this machine, by its socket."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kit import accounts, files, labels, linux, process, unix_http
from kit.engine import answers, cdi, stream
from kit.engine.answers import items, mapping, parsed, texts
from kit.engine.container import Container, from_inspect, from_list
from kit.engine.info import parse_info
from kit.engine.messages import NO_HINTS, Hints, translate
from kit.engine.usage import Usage, of_docker
from kit.errors import CommandError, EngineError, EngineFeatureError, KitError, MissingProgramError, NoEngineError
from kit.facts.engine import FEATURES, EngineFacts, Features
from kit.spec.container import LIMITS, Limit
from kit.targets import docker as target

if TYPE_CHECKING:
    import socket

    from kit.engine.stream import Frames
    from kit.remote.ssh import Connection
    from kit.spec.container import ContainerSpec

# /images/json, filtered by reference=kit/*
OWN_IMAGES = "/images/json?filters=%7B%22reference%22%3A%5B%22kit%2F%2A%22%5D%7D"
# Begins the names of volumes with nobody's files: which image kit made.
RECORDS = "kit-made-"
# What tells one life of a container from another.
LIFE = 'container inspect --format "{{if .State.Running}}{{.Id}} {{.State.StartedAt}}{{end}}"'
NO_ENGINE_HINT = "start kit's private engine with `kit engine up`, or install Docker Engine"


class Engine:
    """A container engine that answers; made by `connect`."""

    kind: Literal["docker", "podman"] = "docker"
    info_command: tuple[str, ...] = ("info", "--format={{json .}}")
    forced: tuple[str, ...] = ("--force",)  # the arguments of `rm` that kill what runs
    hints: ClassVar[Hints] = NO_HINTS  # what to do about errors for which it has another way than Docker
    connection: Connection | None = None  # to the machine behind SSH that the engine is on

    def __init__(
        self, *, program: str = "docker", environment: Mapping[str, str] | None = None, socket_path: Path | None = None
    ) -> None:
        self.program = program  # the engine's command line
        self.environment = dict(environment or {})  # what that needs in its environment
        self.socket_path = socket_path  # to ask directly; None: only by the command line

    def call(
        self,
        args: Sequence[str],
        *,
        timeout_s: float = 120,
        input: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run one command of the engine and return what it printed.

        Raises the KitError kind its error text stands for (`kit.engine.messages`).
        """
        done = self.ask(args, timeout_s=timeout_s, input=input, environment=environment)
        if done.returncode != 0:
            error = CommandError((self.program, *args), done.returncode, done.stdout, done.stderr)
            raise self.failure(error) from error
        return done.stdout

    def ask(
        self,
        args: Sequence[str],
        *,
        timeout_s: float = 120,
        input: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> process.Completed:
        """Run one command of the engine to its end, whatever its exit code is; as exit code 124 after `timeout_s`
        seconds. Raises NoEngineError without its program.
        """
        try:
            with self.prepared(args, environment) as (command, variables):
                return process.run(command, timeout_s=timeout_s, input=input, env=variables, check=False)
        except CommandError as e:
            return process.Completed(args=e.command, returncode=e.returncode, stdout=e.stdout, stderr=e.stderr)
        except MissingProgramError:
            hint = NO_ENGINE_HINT
            if self.connection:
                hint = "install the docker command line here (package docker-cli or docker-ce-cli); no engine is needed"
            raise NoEngineError(f"the program `{self.program}` is not installed", hint=hint) from None

    @contextlib.contextmanager
    def prepared(
        self,
        args: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        on_terminal: bool = False,
        ends_with_input: bool = False,
    ) -> Iterator[tuple[list[str], dict[str, str]]]:
        """One command of the engine as a program to start, and its variables. `environment`: a container's, for `run`
        and `create`; they are in no argument list. `on_terminal`: for a terminal, and not for pipes.
        `ends_with_input`: it is over when its input is, wherever it runs; nothing is printed then but what it prints
        itself.
        """
        if not environment:
            yield [self.program, *args], self.environment
            return
        text, odd = target.env_file(environment)
        with linux.unlisted(text) as path:
            yield self._with_file(args, path, odd), {**self.environment, **odd}

    def _with_file(self, args: Sequence[str], path: str, odd: Mapping[str, str]) -> list[str]:
        """A command that makes a container, with the variables in a file that only this process has open."""
        return [self.program, *with_variables(args, path, odd)]

    def life(self, name: str) -> str:
        """A POSIX script for the engine's machine: what it prints is the same as long as a container runs, another when
        it was started anew, and nothing when it does not run.
        """
        return f"{self.program} {LIFE} {shlex.quote(name)}"

    def failure(self, error: CommandError) -> KitError:
        """A failed command of the engine as the kind of error its text stands for."""
        return translate(error, self.hints)

    @property
    def features(self) -> Features:
        """What engines of this kind can do."""
        return FEATURES[self.kind]

    def full_name(self, reference: str) -> str:
        """The name under which this engine knows an image."""
        return reference

    def short_name(self, reference: str) -> str:
        """The name that docker has for an image of this engine's."""
        return reference

    def arguments(self, spec: ContainerSpec) -> list[str]:
        """The arguments of the engine's `run` and `create` for a container."""
        return target.arguments(spec)

    def cautions(self, spec: ContainerSpec) -> tuple[str, ...]:
        """What the user should know of a container that is to stay, in lines."""
        return ()

    @cached_property
    def info(self) -> EngineFacts:
        """The engine's own description, and the CDI devices it does not list itself (asked once, kept).

        Raises NoEngineError when it does not answer.
        """
        said = self._said
        if said.lists_cdi or not said.cdi_folders:
            return said
        return said.with_cdi(cdi.devices_of(said.cdi_folders, self.connection))

    @cached_property
    def _said(self) -> EngineFacts:
        """The engine's own description alone, for which no file is looked at (one call, kept)."""
        answer = unix_http.ask(self.socket_path, "/info")
        facts = parse_info(answer[1].decode(errors="replace"), "", self.kind) if answer and answer[0] == 200 else None
        if facts is None or facts.problem:
            facts = parse_info(self.call(self.info_command, timeout_s=30), "", self.kind)
        if facts.problem:
            raise NoEngineError(f"the container engine does not answer: {facts.problem_text}", hint=NO_ENGINE_HINT)
        return facts

    @property
    def is_here(self) -> bool:
        """True when it is known, without asking, that the engine runs on this machine."""
        return self.socket_path is not None and self.connection is None

    @property
    def is_rootless(self) -> bool:
        """True when the engine runs as its user: root inside a container is that user outside."""
        # The socket of one that runs as root is root's, and need not be asked.
        return not (self.is_here and _owner(self.socket_path) == 0) and self._said.is_rootless

    @property
    def memory_bytes(self) -> int:
        """The memory of the machine the engine runs on."""
        return (linux.memory_bytes() if self.is_here else 0) or self._said.memory_bytes

    def image_labels(self, reference: str) -> dict[str, str] | None:
        """The labels of a local image, or None when there is no such image."""
        found = self._image(reference)
        return found[1] if found else None

    def image_id(self, reference: str) -> str:
        """What names the content of a local image and no other's; empty when there is no such image."""
        found = self._image(reference)
        return found[0] if found else ""

    @property
    def can_limit(self) -> tuple[Limit, ...]:
        """What it can limit in a container without failing."""
        if self.features.limits_anyhow:
            return LIMITS
        return tuple(limit for limit in LIMITS if limit in self._said.controllers)

    def own_network(self, owner: str) -> str:
        """The network of a user's containers, which those of others do not reach, made if need be; empty where the
        engine keeps them apart by itself.
        """
        if not self.features.shares_bridge:
            return ""
        name = f"kit-{owner}"

        def is_there() -> bool:
            answer = unix_http.get(self.socket_path, f"/networks/{name}")
            return answer[0] == 200 if answer else self.ask(["network", "inspect", name], timeout_s=30).returncode == 0

        if not is_there():
            # A network of one's own does not have the packet size that an administrator gave the default one.
            mtu = "com.docker.network.driver.mtu"
            format = f'{{{{index .Options "{mtu}"}}}}'
            size = self.ask(["network", "inspect", f"--format={format}", "bridge"], timeout_s=30).stdout.strip()
            option = [f"--opt={mtu}={size}"] if size.isdecimal() else []
            try:
                self.call(["network", "create", *option, name], timeout_s=60)
            except EngineError:
                if not is_there():  # another start of the same user may have been faster
                    raise
        return name

    @property
    def is_private(self) -> bool:
        """Whether it is kit's own."""
        from kit import private_engine

        return self.is_here and self.socket_path == private_engine.socket_path()

    def host_address(self) -> str:
        """The address at which the engine's machine is for containers; empty where there is none, or none is known."""
        if not self.features.shares_bridge or self.is_rootless:
            return ""
        format = "--format={{range .IPAM.Config}}{{.Gateway}} {{end}}"
        said = self.ask(["network", "inspect", format, "bridge"], timeout_s=30).stdout.split()
        return next((address for address in said if re.fullmatch(r"[0-9]+(\.[0-9]+){3}", address)), "")

    def _image(self, reference: str) -> tuple[str, dict[str, str]] | None:
        answer = unix_http.get(self.socket_path, f"/images/{reference}/json")
        if answer and answer[0] in (200, 404):
            found = answer[1]
            return (
                (str(found.get("Id")), texts(mapping(found.get("Config")).get("Labels"))) if answer[0] == 200 else None
            )
        try:
            arguments = ["image", "inspect", "--format={{json .Config.Labels}} {{.Id}}", self.full_name(reference)]
            text = self.call(arguments, timeout_s=30)
        except EngineError as e:
            said = " ".join((e.message, *e.details)).lower()
            if "no such image" in said or "image not known" in said:
                return None
            raise
        said, _, identifier = text.strip().rpartition(" ")
        return identifier, texts(parsed(said))

    def image_digest(self, reference: str) -> str:
        """The digest under which its registry has a local image; empty when there is no image, or it is from none."""
        name = self.full_name(reference)
        done = self.ask(["image", "inspect", "--format={{json .RepoDigests}}", name], timeout_s=30)
        of = name.partition("@")[0].removesuffix(":latest")
        # Of names of images and digests: nothing in it that JSON would escape.
        found = re.search(rf'"{re.escape(of)}@(sha256:[0-9a-f]{{64}})"', done.stdout)
        return found[1] if found and done.returncode == 0 else ""

    def note_made(self, reference: str) -> None:
        """Keep in the engine that kit made the image that has this name now: in the label of a volume, which nothing
        that is pulled or loaded can bring along, as it can an image's labels and name.
        """
        name = _record(reference)
        noted = (f"--label={labels.IMAGE_ID}={self.image_id(reference)}", f"--label={labels.OWNER}={self._caller}")
        self.ask(["volume", "rm", "--force", name], timeout_s=30)
        self.call(["volume", "create", *noted, name], timeout_s=30)

    def made_labels(self, reference: str) -> dict[str, str] | None:
        """The labels of a local image that kit made; None when there is no such image, or it is anybody else's."""
        if (found := self._image(reference)) is None:
            return None
        return found[1] if self._noted(reference).get(labels.IMAGE_ID) == found[0] else None

    def made_by(self, reference: str) -> str:
        """The UID of who had kit make an image; empty where that was not noted."""
        return self._noted(reference).get(labels.OWNER, "")

    def _noted(self, reference: str) -> dict[str, str]:
        name = _record(reference)
        answer = unix_http.get(self.socket_path, f"/volumes/{name}")
        if answer and answer[0] in (200, 404):
            return texts(answer[1].get("Labels"))
        done = self.ask(["volume", "inspect", "--format={{json .Labels}}", name], timeout_s=30)
        return texts(parsed(done.stdout)) if done.returncode == 0 else {}

    @property
    def _caller(self) -> int:
        """The caller's UID on the engine's machine; under sudo the user's who called it."""
        if self.connection:
            return self.connection.account.uid
        return (accounts.sudo_user() or (os.getuid(),))[0]

    @cached_property
    def usage(self) -> Usage:
        """What it keeps on its disk (asked once, kept)."""
        return of_docker(self.call(["system", "df", "--verbose", "--format={{json .}}"], timeout_s=300))

    @property
    def is_kits(self) -> bool:
        """True for kit's private engine: all that is in it, kit had made."""
        from kit import private_engine  # most machines have an engine of their own

        return self.connection is None and self.socket_path == private_engine.socket_path()

    def remove_image(self, reference: str) -> None:
        """Delete an image that no container uses, and the note of who made it."""
        self.call(["image", "rm", self.full_name(reference)], timeout_s=300)
        self.ask(["volume", "rm", "--force", _record(reference)], timeout_s=30)

    def prune_build_cache(self) -> None:
        """Delete what builds left that no image needs."""
        self.call(["builder", "prune", "--all", "--force"], timeout_s=1800)

    @property
    def target(self) -> str:
        """The machine behind SSH that the engine is on, as the user named it; empty when it was not reached so."""
        return self.connection.target if self.connection else ""

    def make_volume(self, name: str) -> None:
        """Make a named volume; one that is there stays as it is."""
        self.call(["volume", "create", name], timeout_s=30)

    def has_volume(self, name: str) -> bool:
        """Whether there is a volume of this name."""
        names = self.call(["volume", "ls", "--quiet", f"--filter=name={name}"], timeout_s=30)  # also of longer names
        return name in names.split()

    def volume_users(self, name: str) -> list[str]:
        """The containers that have a volume, those that ended too."""
        words = ["ps", "--all", f"--filter=volume={name}", "--format={{.Names}}"]
        return self.call(words, timeout_s=30).split()

    def remove_volume(self, name: str) -> None:
        """Delete a volume. Raises EngineError when there is none, or a container has it."""
        self.call(["volume", "rm", name], timeout_s=300)

    def manifest_command(self, reference: str) -> list[str]:
        """The command that asks the registry whether it has an image."""
        return ["buildx", "imagetools", "inspect", reference]

    def provide(self, path: Path) -> str:
        """The path under which the engine's machine has a file or folder of this one, to mount it read-only."""
        return str(path.resolve())

    @contextlib.contextmanager
    def scratch(self, user: str) -> Iterator[str]:
        """An empty folder on the engine's machine that a container of `user` (UID:GID) may write to; gone after the
        block.
        """
        with files.scratch("scratch") as outside:
            folder = outside / "folder"
            folder.mkdir()
            uid, _, gid = user.partition(":")
            if os.geteuid() == 0 and uid != "0":
                os.chown(folder, int(uid), int(gid))
            elif self.is_rootless or os.geteuid() != int(uid):
                folder.chmod(0o777)
            yield str(folder)

    def read_text(self, path: str) -> str | None:
        """A text file of the engine's machine; None when it is not there."""
        try:
            return Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def load_image(self, archive: Path) -> None:
        """Take the image of an archive into the engine."""
        self.call(["image", "load", "--quiet", "--input", str(archive)], timeout_s=3600)

    def untag(self, reference: str) -> None:
        """Take a name from an image, and remove it if that was its last; it is no error when there is none."""
        self.ask(["image", "rm", "--force", self.full_name(reference)])

    def export(self, name: str, target: Path) -> None:
        """Write the file system of a container to a tar file on this machine."""
        self.call(["export", f"--output={target}", name], timeout_s=3600)

    def tags(self) -> list[str]:
        """The references of kit's own local images."""
        if (answer := unix_http.get_list(self.socket_path, OWN_IMAGES)) is not None:
            return [tag for image in answer for tag in items(image.get("RepoTags")) if isinstance(tag, str)]
        wanted = f"--filter=reference={self.full_name('kit/*')}"
        printed = self.call(["image", "ls", wanted, "--format={{.Repository}}:{{.Tag}}"], timeout_s=30)
        return [self.short_name(name) for name in printed.split()]

    def own_labels(self) -> dict[str, dict[str, str]]:
        """The labels of each of kit's own local images, by its reference."""
        if (answer := unix_http.get_list(self.socket_path, OWN_IMAGES)) is not None:
            return {tag: texts(image.get("Labels")) for image in answer for tag in items(image.get("RepoTags"))}
        return {name: self.image_labels(name) or {} for name in self.tags()}

    def require_buildx(self) -> str:
        """The version of buildx. Without it the docker command line silently uses the old builder."""
        try:
            return self.call(["buildx", "version"], timeout_s=20).strip()
        except EngineError:
            raise EngineFeatureError(
                "this docker has no buildx, so it cannot build with BuildKit",
                hint="install the buildx plugin (package docker-buildx or docker-buildx-plugin), "
                "or use kit's private engine: `kit engine up`",
            ) from None

    def stream(
        self, args: Sequence[str], on_line: Callable[[str], None], environment: Mapping[str, str] | None = None
    ) -> int:
        """Run one command of the engine, handing on each line as it comes; returns its exit code. `environment`: the
        command's own, which on this machine no argument list has.
        """
        with self.prepared(args) as (command, variables):
            return process.stream(command, on_line, env={**variables, **(environment or {})})

    def attach(self, args: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
        """Run one command of the engine on the caller's terminal; returns its exit code."""
        with self.prepared(args, environment, on_terminal="--tty" in args) as (command, variables):
            return process.attach(command, env=variables)

    @property
    def takes_input(self) -> bool:
        """Whether what `started` starts can be given input."""
        return self.socket_path is not None

    @contextlib.contextmanager
    def started(
        self, spec: ContainerSpec, on_created: Callable[[], None] = lambda: None, *, input: int | None = None
    ) -> Iterator[Frames]:
        """Start a container that stays, and read what it prints from the first byte on until it or the block ends.

        `on_created` is called when the engine has the container. `input`: the descriptor of its standard input, for an
        engine that `takes_input`. Nothing is left behind when it cannot start.
        """
        if self.socket_path is None:
            self.run_detached(spec)
            on_created()
            with self.log(spec.name, follow=True) as frames:
                yield frames
            return
        try:
            self.call(["create", "--pull=never", *self.arguments(spec)], environment=spec.variables)
            on_created()
            sides: list[socket.socket] = []
            on_input = None if input is None else sides.append
            with stream.attached(self.socket_path, spec.name, on_input) as frames:
                self.call(["start", spec.name])
                with contextlib.nullcontext() if input is None else stream.fed(sides[0], input):
                    yield frames
        except BaseException:
            # Another error is on its way; what this one leaves behind the next command sweeps.
            with contextlib.suppress(KitError):
                if self.container(spec.name).status == "created":
                    self.remove(spec.name, force=True)
            raise

    @contextlib.contextmanager
    def log(self, name: str, *, follow: bool) -> Iterator[Frames]:
        """What a container printed so far; with `follow` also what it prints until it, or the connection, ends."""
        if self.socket_path is not None:
            with stream.log(self.socket_path, name, follow=follow) as frames:
                yield frames
            return
        arguments = ["logs", *(["--follow"] if follow else []), name]
        with (
            self.prepared(arguments, ends_with_input=True) as (command, variables),
            process.stream_bytes(command, env=variables) as frames,
        ):
            yield self._translated(frames, arguments)

    def _translated(self, frames: Frames, arguments: Sequence[str]) -> Frames:
        try:
            yield from frames
        except CommandError as e:
            raise self.failure(CommandError((self.program, *arguments), e.returncode, e.stdout, e.stderr)) from e

    @cached_property
    def is_local(self) -> bool:
        """True when the engine listens on this machine, and not at an address of another one."""
        if self.is_here or self.connection:
            return self.is_here
        endpoint = os.environ.get("DOCKER_HOST") or self.call(
            ["context", "inspect", "--format={{.Endpoints.docker.Host}}"], timeout_s=20
        )
        return endpoint.strip().startswith(("unix://", "npipe://"))

    def run_attached(self, spec: ContainerSpec, on_created: Callable[[], None] | None = None) -> int:
        """Start a container on the caller's terminal and wait for it; returns its exit code.

        `on_created` is called, from another thread, when the engine has the container, which is before it starts.
        """
        args = ["run", "--pull=never", *self.arguments(spec)]
        code = -1
        try:
            # `docker create` and `docker start --attach` would say when, too, but exit with 1 where `docker run` has
            # 125, 126 and 127, and leave the container where this process is killed in between.
            with _watched(lambda: self.is_listed(spec.name), on_created) if on_created else contextlib.nullcontext():
                code = self.attach(args, spec.variables)
        finally:
            # Interrupted, or what ended is not the command but the program that waited for it.
            if code < 0 or (code and self.is_listed(spec.name)):
                self._discard(spec, was_told=code < 0 and not spec.tty)
        return code

    def _discard(self, spec: ContainerSpec, *, was_told: bool = True) -> None:
        """Remove a container that did not start or that nobody waits for; not another one of a name that was chosen.

        One that nobody has told to end is told, and has the time for it: `docker run` hands signals on, but not where
        it has a terminal, and one that goes away takes it along.
        """
        try:
            found = self.container(spec.name).labels.get(labels.CLIENT)
        except KitError:  # none is there, or the engine does not say
            found = None
        if found not in (None, spec.labels.get(labels.CLIENT)):
            return
        try:
            if not was_told:
                with contextlib.suppress(EngineError):
                    self.stop(spec.name)
        finally:
            self.remove(spec.name, force=True)

    def is_listed(self, name: str) -> bool:
        """True when the engine has a container of this name, running or not."""
        answer = unix_http.get_list(self.socket_path, _listing("name", f"%5E%2F{name}%24"))
        if answer is not None:
            return bool(answer)
        return bool(self.call(["ps", "--all", "--quiet", f"--filter=name=^/?{name}$"], timeout_s=30).strip())

    def run_detached(self, spec: ContainerSpec) -> str:
        """Start a container and leave it running; returns its ID. Nothing is left behind when it cannot start."""
        try:
            args = ["run", "--detach", "--pull=never", *self.arguments(spec)]
            return self.call(args, environment=spec.variables).strip()
        except BaseException:
            self._discard(spec)
            raise

    def containers(self, *, label: str = labels.IMAGE) -> list[Container]:
        """All containers with a label, running or not, newest first."""
        answer = unix_http.get_list(self.socket_path, _listing("label", label))
        if (
            answer is not None
            and (raw := self._inspected([answers.text(found.get("Id")) for found in answer])) is not None
        ):
            return [from_inspect(found) for found in raw]
        names = self.call(["ps", "--all", "--quiet", f"--filter=label={label}"], timeout_s=30).split()
        if not names:
            return []
        done = self.ask(["container", "inspect", *names])
        # One that ended and was removed since the list was made is no error: the rest is printed all the same.
        if any("no such container" not in line.lower() for line in done.stderr.splitlines() if line.strip()):
            raise self.failure(CommandError(done.args, done.returncode, done.stdout, done.stderr))
        return [self._container(raw) for raw in items(parsed(done.stdout))]

    def all_containers(self) -> list[Container]:
        """Every container there is, kit's or not, without their environment; none where the socket cannot be asked."""
        return [from_list(found) for found in unix_http.get_list(self.socket_path, "/containers/json?all=1") or ()]

    def listed(self, *, label: str) -> list[Container]:
        """The same in one question, however many there are, but without their environment."""
        answer = unix_http.get_list(self.socket_path, _listing("label", label))
        return self.containers(label=label) if answer is None else [from_list(found) for found in answer]

    def _inspected(self, names: Sequence[str]) -> list[dict[str, Any]] | None:
        """What the engine has of each container but those that are gone; None when it cannot be asked directly."""
        found = []
        for name in names:
            answer = unix_http.get(self.socket_path, f"/containers/{name}/json")
            if answer is None or answer[0] not in (200, 404):
                return None
            if answer[0] == 200:
                found.append(answer[1])
        return found

    def container(self, name: str) -> Container:
        """One container by name. Raises NoSuchContainerError."""
        if (known := self._inspected([name])) and known[0].get("Name") == f"/{name}":
            return from_inspect(known[0])
        found = items(parsed(self.call(["container", "inspect", name], timeout_s=30)))
        if not found:
            raise EngineError(f"the container engine does not say what {name} is")
        return self._container(found[0])

    def _container(self, raw: Any) -> Container:
        found = from_inspect(raw)
        return replace(found, image=self.short_name(found.image))

    def logs(self, name: str, *, tail: int) -> list[str]:
        """The last lines a container printed, both streams."""
        done = self.ask(["logs", f"--tail={tail}", name])
        return (done.stdout + done.stderr).splitlines()[-tail:]

    def start(self, name: str) -> None:
        """Start a container that has ended, or was never started, as it is."""
        self.call(["start", name])

    def stop(self, name: str, *, timeout_s: int = 10) -> None:
        self.call(["stop", f"--time={timeout_s}", name], timeout_s=timeout_s + 60)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a container; with `force` also a running one, and it is no error when there is none."""
        done = self.ask(["rm", *(self.forced if force else ()), "--volumes", name])
        if done.returncode != 0 and not force:
            raise self.failure(CommandError(done.args, done.returncode, done.stdout, done.stderr))


def _record(reference: str) -> str:
    return f"{RECORDS}{re.sub('[/:]', '-', reference)}"


def with_variables(args: Sequence[str], path: str, odd: Mapping[str, str]) -> list[str]:
    """A command of the engine that makes a container, with its variables: of a file, and of its own environment."""
    return [args[0], f"--env-file={path}", *(f"--env={name}" for name in odd), *args[1:]]


@contextlib.contextmanager
def _watched(is_so: Callable[[], bool], on_so: Callable[[], None]) -> Iterator[None]:
    """Call `on_so` from another thread as soon as `is_so`, if that is before the block ends."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.05):
            try:
                if is_so():
                    on_so()
                    return
            except KitError:
                return  # whoever waits then waits until the block ends, whose own error is the one to tell

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


def _listing(kind: str, value: str) -> str:
    """What asks for all the containers, ended ones too, of which a filter holds."""
    return f"/containers/json?all=1&filters=%7B%22{kind}%22%3A%5B%22{value}%22%5D%7D"


def _owner(path: Path | None) -> int | None:
    try:
        return path.stat().st_uid if path else None
    except OSError:
        return None
