"""The one place that reads the engine's error text: each known text becomes the kind of error it stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from kit.errors import (
    BadInputError,
    BaseNotFoundError,
    CommandError,
    DiskFullError,
    EngineDeniedError,
    EngineError,
    GpuUnavailableError,
    KitError,
    NetworkError,
    NoEngineError,
    NoSuchContainerError,
    PortTakenError,
)

# `Run 'docker run --help' for more information`, `See 'docker rm --help'.`, `Usage:  docker stop [OPTIONS] …`
USAGE = r"(?i)\s*((run|see) '(docker|podman)\b.*--help'|usage:\s+(docker|podman)\b|aliases:|options:|\s*$)"
Hints = Mapping[type[KitError], str]
NO_HINTS: Hints = MappingProxyType({})
# (parts of the text in lower case, kind, what happened, what to do); the first of which one matches wins.
Known = tuple[tuple[tuple[str, ...], type[KitError], str, str], ...]
KNOWN: Known = (
    (
        ("no space left on device",),
        DiskFullError,
        "no space left where the container engine keeps its data",
        "`kit clean` shows what of kit's takes it and frees some, `docker system prune` (build cache: `docker builder "
        "prune`) more; or move the engine's data",
    ),
    (
        ("port is already allocated", "address already in use"),
        PortTakenError,
        "the port is in use",
        "leave out --port to get a free one",
    ),
    (
        ("address pools have been fully subscribed", "non-overlapping ipv4 address pool"),
        EngineError,
        "the engine has no address range left for a network of your containers",
        "`docker network prune` removes those that nobody uses; `default-address-pools` in its daemon.json adds some",
    ),
    (
        ("unresolvable cdi devices",),
        GpuUnavailableError,
        "the engine knows no such GPU",
        "list what it knows with `docker info`; make a new specification with `sudo nvidia-ctk cdi generate "
        "--output=/etc/cdi/nvidia.yaml`",
    ),
    (
        ('could not select device driver "cdi"',),
        GpuUnavailableError,
        "the engine takes no GPU by CDI",
        'turn it on: `"features": {"cdi": true}` in /etc/docker/daemon.json, and restart docker (25 or newer)',
    ),
    (
        ("could not select device driver",),
        GpuUnavailableError,
        "the engine has no way to pass a GPU through",
        "install the NVIDIA Container Toolkit: `sudo nvidia-ctk runtime configure --runtime=docker`; restart docker",
    ),
    (
        ("unable to parse docker host", "docker endpoint: parse", "invalid proto", "invalid bind address"),
        NoEngineError,
        "the address of the container engine that is set is none",
        "correct DOCKER_HOST (unix:///PATH, tcp://HOST:PORT or ssh://HOST), or unset it: kit then looks here",
    ),
    (
        ("docker daemon at tcp:", "docker daemon at http", "docker daemon at ssh:"),
        NoEngineError,
        "no container engine answers at the address that is set",
        "check DOCKER_HOST and `docker context ls`; without them kit looks for an engine on this machine",
    ),
    (
        ("cannot connect to the docker daemon", "is the docker daemon running"),
        NoEngineError,
        "no container engine answers",
        "start kit's private engine with `kit engine up`, or install Docker Engine",
    ),
    (
        ("unable to resolve docker endpoint",),
        NoEngineError,
        "the docker context that is set does not exist",
        "`docker context ls` lists those there are; DOCKER_CONTEXT or `docker context use` chooses one",
    ),
    (
        ("error during connect",),
        NoEngineError,
        "no container engine answers at the address that is set",
        "check DOCKER_HOST and `docker context ls`; without them kit looks for an engine on this machine",
    ),
    (
        ("permission denied while trying to connect",),
        EngineDeniedError,
        "no right to use the container engine",
        "`kit doctor` says whose it is, and how you come to use it",
    ),
    (
        ("bind source path does not exist", "error while creating mount source path"),
        EngineError,
        "the engine does not see a folder or file that is to be in the container",
        "if it is there, the engine's root may not look: mount sshfs with `-o allow_other`, export NFS with "
        "`no_root_squash`, or open the folders above it (`chmod o+x`); else copy it to a disk of the machine",
    ),
    (
        ("is already in use by container", "name is already in use"),
        BadInputError,
        "there is a container of that name",
        "give another --name, or remove it: `kit ps --all`, `kit rm`",
    ),
    (
        ("network not found", "no such network", "set up container networking: network "),
        BadInputError,
        "the engine has no such network",
        "`docker network ls` lists them; --network may be left out",
    ),
    (("no such container",), NoSuchContainerError, "there is no such container", "`kit ps` lists what runs"),
)

# The same for what a registry says while a build looks for its base image.
REGISTRY: Known = (
    (
        ("manifest unknown", ": not found", "pull access denied"),
        BaseNotFoundError,
        "the registry does not have this base image",
        "",
    ),
    (
        ("no such host", "connection refused", "i/o timeout", "deadline exceeded", "failed to do request"),
        NetworkError,
        "the registry cannot be reached",
        "",
    ),
)


def recognise(lines: Iterable[str], known: Known = KNOWN, *, hints: Hints = NO_HINTS) -> KitError | None:
    """The error a text stands for, with the telling line as its detail; None when it is none of the known.

    `hints`: what to do about some kinds instead.
    """
    for line in lines:
        lower = line.lower()
        for parts, kind, message, hint in known:
            if any(part in lower for part in parts):
                return kind(message, hint=hints.get(kind, hint), details=(line.strip(),))
    return None


def translate(error: CommandError, hints: Hints = NO_HINTS) -> KitError:
    """A failed command of the engine as the kind of error its text stands for; EngineError when it is not known."""
    said = (error.stderr.strip() or error.stdout.strip()).splitlines()
    # How the engine's own command line is used helps nobody here.
    lines = [line for line in said if not re.match(USAGE, line)] or said
    return recognise(lines, hints=hints) or EngineError(error.message, details=tuple(lines[-8:]))
