"""A container as the arguments of `docker run` and `docker create`."""

from __future__ import annotations

from kit.spec.container import ContainerSpec, Mount
from kit.spec.gpu_grant import GpuGrant


def arguments(spec: ContainerSpec) -> list[str]:
    """The arguments for a container; the values of its secrets are not in them."""
    args = [f"--name={spec.name}", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    if spec.user:
        args.append(f"--user={spec.user}")
    if spec.workdir:
        args.append(f"--workdir={spec.workdir}")
    args += [f"--env={name}={value}" for name, value in spec.environment.items()]
    args += [f"--env={name}" for name in spec.secret_environment]
    args += [f"--mount={mount_value(mount)}" for mount in spec.mounts]
    # Never on another address: a notebook server is a shell for whoever reaches it.
    args += [f"--publish=127.0.0.1:{outer}:{inner}" for outer, inner in spec.ports]
    args += [f"--label={name}={value}" for name, value in spec.labels.items()]
    args += gpu_arguments(spec.gpus)
    if spec.shm_bytes:
        args.append(f"--shm-size={spec.shm_bytes}")
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
