"""A container as the arguments of `docker run` and `docker create`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kit.errors import BadInputError
from kit.spec.container import ContainerSpec, Mount
from kit.spec.gpu_grant import GpuGrant

# What the engine's command line, its loader or its plugins would obey if it were in their own environment.
OBEYED = r"(LD|DYLD|DOCKER|BUILDKIT|BUILDX|CONTAINERS?|STORAGE|PODMAN|XDG|SSL|OTEL)_.*|GO[A-Z]+|PATH|HOME|TMPDIR"
# A line of the file may have 64 KiB (Go's bufio.Scanner).
LONGEST_LINE = 60_000


def arguments(spec: ContainerSpec) -> list[str]:
    """The arguments for a container, but for its variables (`env_file`): any user of a machine may read arguments."""
    args = [f"--name={spec.name}", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    if spec.user:
        args.append(f"--user={spec.user}")
    args += [f"--group-add={group}" for group in spec.groups]
    if spec.workdir:
        args.append(f"--workdir={spec.workdir}")
    args += [f"--mount={mount_value(mount)}" for mount in spec.mounts]
    # Never on another address: a notebook server is a shell for whoever reaches it.
    args += [f"--publish=127.0.0.1:{outer}:{inner}" for outer, inner in spec.ports]
    args += [f"--label={name}={value}" for name, value in spec.labels.items()]
    args += gpu_arguments(spec.gpus)
    if spec.shm_bytes:
        args.append(f"--shm-size={spec.shm_bytes}")
    if spec.memory_bytes:
        # The swap of the machine is not limited: kernels that cannot would warn at each start.
        args += [f"--memory={spec.memory_bytes}", "--memory-swap=-1"]
    if spec.pids:
        args.append(f"--pids-limit={spec.pids}")
    if spec.cpus:
        args.append(f"--cpus={spec.cpus:g}")
    args += [f"--ulimit={limit}" for limit in spec.ulimits]
    if spec.network:
        args.append(f"--network={spec.network}")
    args += [f"--add-host={name}:{address}" for name, address in spec.hosts]
    if spec.remove:
        args.append("--rm")
    if spec.interactive:
        args.append("--interactive")
    if spec.tty:
        args.append("--tty")
    if not spec.healthcheck:
        args.append("--no-healthcheck")
    if spec.restart:
        args.append(f"--restart={spec.restart}")
    return [*args, spec.image, *spec.command]


def env_file(variables: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Variables as `--env-file` reads them, and those that it cannot hold, of several lines for example: `--env=NAME`
    takes them from the environment of the engine's program. Raises BadInputError for one that the program would obey.
    """
    lines, odd = [], {}
    for name, value in variables.items():
        line = f"{name}={value}"
        is_text = re.match(r"[A-Za-z_]", name) and not re.search(r"[\r\n\ud800-\udfff]", line)
        # Some versions of Podman take quotes away.
        if is_text and not value.startswith(('"', "'")) and len(line.encode()) < LONGEST_LINE:
            lines.append(f"{line}\n")
        elif re.fullmatch(OBEYED, name):
            raise BadInputError(
                f"the variable {name} cannot be passed on: its value is too long, has several lines, or is in quotes",
                hint="set it in the container: `kit run NAME -- env …`",
            )
        else:
            odd[name] = value
    return "".join(lines), odd


def mount_value(mount: Mount) -> str:
    """The value of `--mount`, which is a line of CSV: a comma or a quote in a path stays part of the path."""
    kind = "volume" if mount.is_volume else "bind"
    source = (f"source={mount.source}",) if mount.source else ()  # Podman 5 refuses an empty one
    fields = (f"type={kind}", *source, f"target={mount.target}", *(("readonly",) if mount.read_only else ()))
    return ",".join(_csv(field) for field in fields)


def _csv(field: str) -> str:
    # As Go's encoding/csv reads it, which both engines use.
    return '"' + field.replace('"', '""') + '"' if any(sign in field for sign in ',"\n\r') else field


def gpu_arguments(gpus: GpuGrant) -> list[str]:
    """The arguments that pass GPUs in."""
    if gpus.form == "cdi":
        return [f"--device={device}" for device in gpus.devices]
    if gpus.form == "runtime":
        return ["--gpus=all" if gpus.devices == ("all",) else f'--gpus="device={",".join(gpus.devices)}"']
    return []
