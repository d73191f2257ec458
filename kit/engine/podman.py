"""Podman, by its own command line: its Docker interface takes a request for a GPU and ignores it.

That is https://github.com/containers/podman/issues/22645. Where it runs as an ordinary user (rootless), root inside a
container is that user outside, so what it writes is the user's own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from kit.engine import stream
from kit.engine.answers import items, mapping, number, parsed, text
from kit.engine.docker import Engine, with_variables
from kit.engine.messages import Hints
from kit.engine.usage import Stored, Usage
from kit.errors import DiskFullError, EngineFeatureError, GpuUnavailableError
from kit.facts.engine import CDI_FOLDERS
from kit.targets import podman as target

if TYPE_CHECKING:
    from kit.engine.stream import Frames
    from kit.spec.container import ContainerSpec

PROGRAM = "podman"
REGISTRY = "docker.io"
# Starts a program with a file open.
HANDED_ON = 'exec 9<"$1"; shift; exec "$@"'


class Podman(Engine):
    """Podman on this machine."""

    kind = "podman"
    info_command = ("info", "--format=json")
    forced = ("--force", "--time=0")  # else it waits 10 s for what runs to end
    hints: ClassVar[Hints] = {
        DiskFullError: "`kit clean` shows what of kit's takes it and frees some, `podman system prune` more; "
        "or move the data (`graphroot` in storage.conf)",
        GpuUnavailableError: f"`ls {' '.join(CDI_FOLDERS)}` shows what specifications there are; make a new one with "
        "`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`",
    }

    def __init__(self) -> None:
        super().__init__(program=PROGRAM)

    @property
    def is_here(self) -> bool:
        return self.connection is None

    @property
    def is_rootless(self) -> bool:
        return (self.connection.account.uid if self.connection else os.geteuid()) != 0

    def _with_file(self, args: Sequence[str], path: str, odd: Mapping[str, str]) -> list[str]:
        # A rootless Podman is in a user namespace of its own, out of which it may not look into this process.
        return ["sh", "-c", HANDED_ON, "sh", path, self.program, *with_variables(args, "/dev/fd/9", odd)]

    def full_name(self, reference: str) -> str:
        """The whole name of an image, as docker means a short one: `ubuntu:24.04` is `docker.io/library/ubuntu:24.04`.

        Podman would look for a short one in each registry it is told of. A tag beside a digest says nothing and is left
        out: it takes only one of the two.
        """
        name, sign, digest = reference.partition("@")
        first, _, rest = name.partition("/")
        if not rest:
            name = f"{REGISTRY}/library/{name}"
        elif not ("." in first or ":" in first or first == "localhost"):
            name = f"{REGISTRY}/{name}"
        if digest and ":" in name.rpartition("/")[2]:
            name = name.rpartition(":")[0]
        return f"{name}{sign}{digest}"

    def short_name(self, reference: str) -> str:
        return reference.removeprefix(f"{REGISTRY}/").removeprefix("library/")

    def arguments(self, spec: ContainerSpec) -> list[str]:
        return target.arguments(spec, image=self.full_name(spec.image))

    def cautions(self, spec: ContainerSpec) -> tuple[str, ...]:
        if not spec.restart:
            return ()
        command = f"systemctl {'--user ' if self.is_rootless else ''}enable podman-restart"
        return (f"Podman starts it again after a reboot only where its service for that is on: `{command}`",)

    @contextlib.contextmanager
    def log(self, name: str, *, follow: bool) -> Iterator[Frames]:
        with super().log(name, follow=follow) as frames:
            yield self._whole(frames, name) if follow else frames

    def _whole(self, frames: Frames, name: str) -> Frames:
        """`podman logs --follow` may end before it has read all there is (4.3.1, on a busy machine)."""
        seen: dict[int, int] = {}
        yield from stream.after(frames, seen)
        self.container(name)
        with super().log(name, follow=False) as rest:
            yield from stream.after(rest, seen)

    def make_volume(self, name: str) -> None:
        # It refuses to make one that is there.
        if self.ask(["volume", "exists", name], timeout_s=30).returncode != 0:
            super().make_volume(name)

    @cached_property
    def usage(self) -> Usage:
        # `system df --verbose` takes no format; of volumes nothing else says a size.
        images = items(parsed(self.call(["images", "--format=json"])))
        volumes = self.call(["volume", "ls", "--quiet"]).split()
        unused = self.call(["volume", "ls", "--quiet", "--filter=dangling=true"]).split()
        return Usage(
            images=tuple(
                Stored(
                    name=self.short_name(text(name)),
                    size=number(mapping(image).get("Size")),
                    is_used=number(mapping(image).get("Containers")) > 0,
                )
                for image in images
                for name in items(mapping(image).get("Names"))
            ),
            volumes=tuple(Stored(name=name, size=None, is_used=name not in unused) for name in volumes),
        )

    def manifest_command(self, reference: str) -> list[str]:
        return ["manifest", "inspect", self.full_name(reference)]

    def require_buildx(self) -> str:
        raise EngineFeatureError("Podman has no buildx; it builds by itself")
