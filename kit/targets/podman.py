"""A container as the arguments of `podman run` and `podman create`."""

from __future__ import annotations

from dataclasses import replace

from kit.spec.container import ContainerSpec
from kit.targets import docker


def arguments(spec: ContainerSpec, *, image: str) -> list[str]:
    """The arguments for a container; `image` is the whole name under which Podman knows its image."""
    # The health check is a timer of the user's systemd, which may not be there, and nothing here asks for it.
    # After a reboot podman-restart.service starts containers of the policy `always` alone; until then it and
    # `unless-stopped` are the same (podman-run.1.md, --restart).
    own = replace(
        spec,
        image=image,
        healthcheck=False,
        restart="always" if spec.restart == "unless-stopped" else spec.restart,
    )
    # The kernel lets no program in a namespace of its user's name further groups, but it may keep those that it has.
    groups = ["--group-add=keep-groups"] if spec.keeps_groups else []
    # A log in a file keeps every byte, and needs no journal that this user may read. SELinux would keep the container
    # from the user's own folder, and from a GPU.
    return ["--log-driver=k8s-file", "--security-opt=label=disable", *groups, *docker.arguments(own)]
