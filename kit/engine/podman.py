"""Podman, by its own command line: its Docker interface takes a request for a GPU and ignores it.

That is https://github.com/containers/podman/issues/22645. Where it runs as an ordinary user (rootless), root inside a
container is that user outside, so what it writes is the user's own.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from kit.engine import Engine
from kit.engine.model import Container, ContainerSpec, EngineInfo
from kit.errors import CommandError, DiskFullError, EngineFeatureError, GpuUnavailableError, KitError
from kit.labels import IMAGE

if TYPE_CHECKING:
    from kit.engine.stream import Frames

PROGRAM = "podman"
# Where it looks for CDI specifications; it does not list what it finds (containers/common, docs/containers.conf.5.md).
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
REGISTRY = "docker.io"
# What to do about errors for which Docker has another way.
HINTS: dict[type[KitError], str] = {
    DiskFullError: "free some with `podman system prune`, or move the data (`graphroot` in storage.conf)",
    GpuUnavailableError: f"`ls {' '.join(CDI_FOLDERS)}` shows what specifications there are; make a new one with "
    "`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`",
}


def full_name(reference: str) -> str:
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


def short_name(reference: str) -> str:
    """The name docker has for an image of a whole name."""
    return reference.removeprefix(f"{REGISTRY}/").removeprefix("library/")


class Podman(Engine):
    """Podman on this machine."""

    kind = "podman"
    forced = ("--force", "--time=0")  # else it waits 10 s for what runs to end

    def __init__(self) -> None:
        super().__init__(program=PROGRAM)

    @cached_property
    def info(self) -> EngineInfo:
        raw = json.loads(self.call(["info", "--format=json"], timeout_s=30))
        host, store = raw["host"], raw["store"]
        return EngineInfo(
            version=raw["version"]["Version"],
            is_containerd_store=False,
            cdi_devices=(),
            cdi_spec_dirs=CDI_FOLDERS,
            runtimes=(),
            data_root=store.get("graphRoot", ""),
            cpus=int(host.get("cpus") or 0),
            memory_bytes=int(host.get("memTotal") or 0),
            is_rootless=bool((host.get("security") or {}).get("rootless")),
        )

    @property
    def memory_bytes(self) -> int:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    @property
    def is_rootless(self) -> bool:
        return os.geteuid() != 0

    @cached_property
    def is_local(self) -> bool:
        return True

    def full_name(self, reference: str) -> str:
        return full_name(reference)

    def arguments(self, spec: ContainerSpec) -> list[str]:
        # The health check is a timer of the user's systemd, which may not be there, and nothing here asks for it.
        # After a reboot podman-restart.service starts containers of the policy `always` alone; until then it and
        # `unless-stopped` are the same (podman-run.1.md, --restart).
        own = replace(
            spec,
            image=full_name(spec.image),
            healthcheck=False,
            restart="always" if spec.restart == "unless-stopped" else spec.restart,
        )
        # A log in a file keeps every byte, and needs no journal that this user may read. SELinux would keep the
        # container from the user's own folder, and from a GPU.
        return ["--log-driver=k8s-file", "--security-opt=label=disable", *own.arguments()]

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
        from kit.engine import stream

        seen: dict[int, int] = {}
        yield from stream.after(frames, seen)
        self.container(name)
        with super().log(name, follow=False) as rest:
            yield from stream.after(rest, seen)

    def failure(self, error: CommandError) -> KitError:
        found = super().failure(error)
        if hint := HINTS.get(type(found)):
            return type(found)(found.message, hint=hint, details=found.details)
        return found

    def image_labels(self, reference: str) -> dict[str, str] | None:
        return super().image_labels(full_name(reference))

    def tags(self) -> list[str]:
        printed = self.call(
            ["image", "ls", f"--filter=reference={REGISTRY}/kit/*", "--format={{.Repository}}:{{.Tag}}"], timeout_s=30
        )
        return [short_name(name) for name in printed.split()]

    def containers(self, *, label: str = IMAGE) -> list[Container]:
        return [replace(found, image=short_name(found.image)) for found in super().containers(label=label)]

    def container(self, name: str) -> Container:
        found = super().container(name)
        return replace(found, image=short_name(found.image))

    def require_buildx(self) -> str:
        raise EngineFeatureError("Podman has no buildx; it builds by itself")


__all__ = ["PROGRAM", "Podman", "full_name", "short_name"]
