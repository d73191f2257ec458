"""A container, or several, as a compose file for Docker Compose.

What depends on who starts it stays open as `${NAME}`, with the described value as its default; the values of secrets
are in no file.
"""

from __future__ import annotations

import json
import re
from typing import Any

from kit import labels, layout
from kit.errors import BadInputError
from kit.frozen import dataclass
from kit.network import HUB, INDEX_VARIABLES, LOOPBACK, PROXY_VARIABLES, TRUSTED_HOST, has_login
from kit.spec.container import ContainerSpec, Mount, group_lines, passwd_lines
from kit.spec.gpu_grant import GpuGrant

# Of a machine nobody has looked at. It is a limit and takes no memory by itself.
SHM = "8gb"
# What a description begins with, and the file says in its own way.
OWN_MOUNTS = (layout.WORKSPACE, layout.PASSWD_FILE, layout.GROUP_FILE)
# Addresses of mirrors, of this machine as long as whoever starts the file has set no other.
MIRRORS = (*INDEX_VARIABLES, TRUSTED_HOST, HUB)


@dataclass(frozen=True, kw_only=True)
class ComposeFile:
    """What a compose file starts; the label `kit.service` names each service."""

    header: tuple[str, ...]
    project: str  # what the containers' names begin with, before the user's number
    services: tuple[ContainerSpec, ...]
    env_file: str = ""
    volumes_exist: bool = False
    groups: tuple[tuple[int, str], ...] = ()  # of the user, besides the first: number and name

    @property
    def user(self) -> str:
        """UID:GID of the services."""
        return self.services[0].user

    @property
    def project_name(self) -> str:
        """The name of the project, of this user: a neighbour may have a folder of the same name, and Compose would
        take the two for one project and replace one's containers by the other's.
        """
        return f"{self.project}-{self.user.partition(':')[0]}"

    @property
    def volumes(self) -> tuple[Mount, ...]:
        return tuple(mount for mount in self.services[0].mounts if mount.is_volume)


def min_compose(*, env_file: bool = False) -> str:
    """The oldest Docker Compose that takes a file, also one with an `env_file`."""
    from kit.catalog import load_catalog

    feature = "raw-env-file" if env_file else "inline-config"
    return next(r.version for r in load_catalog().engine_minimums if (r.engine, r.feature) == ("compose", feature))


def text(file: ComposeFile) -> str:
    """The text of a compose file."""
    from kit.templates import environment

    jinja = environment()
    # YAML takes JSON's strings. In `text` Compose fills in `${NAME}`; a `literal` has nothing to fill in.
    jinja.filters["text"] = _quoted
    jinja.filters["literal"] = _literal
    jinja.filters["literals"] = lambda values: f"[{', '.join(_literal(value) for value in values)}]"
    uid, _, gid = file.user.partition(":")
    # Root's services are started in another way (no name but root, a server that allows it), so root it stays.
    open_uid = "0" if uid == "0" else f"${{USER_ID:-{uid}}}"
    open_gid = gid if uid == "0" else f"${{GROUP_ID:-{gid}}}"
    user = f"{open_uid}:{open_gid}"
    return jinja.get_template("compose.yaml.j2").render(
        file=file,
        project=f"{file.project}-{open_uid}",
        user=user,
        passwd=passwd_lines(user),
        group=group_lines(open_gid, file.groups),
        network=next((service.network for service in file.services), ""),
        services=[_service(service, user) for service in file.services],
        volumes=[
            {
                "key": next(v.name for v in layout.VOLUMES if v.path == volume.target),
                "name": volume.source.replace(f"kit-{uid}-", f"kit-{open_uid}-", 1),
                "path": volume.target,
            }
            for volume in file.volumes
        ],
        workspace=layout.WORKSPACE,
    )


def _service(spec: ContainerSpec, user: str) -> dict[str, Any]:
    """A service as the template has it; strings may have `${NAME}` in them, and have `$$` for a sign that is meant."""
    name = spec.labels[labels.SERVICE]
    (port, inner), *ports = spec.ports
    secrets = {variable: _from_caller(variable, value) for variable, value in spec.secret_environment.items()}
    token = {variable: secrets.pop(variable) for variable in (layout.TOKEN,) if variable in secrets}
    return {
        "name": name,
        "image": spec.image,
        "command": spec.command,
        "environment": {**secrets, **{key: _plain(value) for key, value in spec.environment.items()}, **token},
        "published": [
            f"127.0.0.1:${{{name.upper()}_PORT:-{port}}}:{inner}",
            *(f"127.0.0.1:{outer}:{inside}" for outer, inside in ports),
        ],
        "groups": [str(group) for group in spec.groups],
        "cpus": f"{spec.cpus:g}" if spec.cpus else "",
        "ulimits": spec.ulimits,
        "hosts": [f"{host}:{address}" for host, address in spec.hosts],
        "mounts": [mount for mount in spec.mounts[len(OWN_MOUNTS) :] if not mount.is_volume],
        "memory": spec.memory_bytes,
        "pids": spec.pids,
        "shm": f"${{SHM_SIZE:-{spec.shm_bytes or SHM}}}",
        "restart": f"${{RESTART:-{spec.restart or 'no'}}}",
        "has_healthcheck": spec.healthcheck,
        "labels": {**{key: _plain(value) for key, value in spec.labels.items()}, labels.USER: user},
        "reservation": _reservation(spec.gpus),
    }


def _from_caller(variable: str, value: str) -> str | None:
    """A secret, from the environment or `.env` of whoever starts the file; None takes it as it is there, if it is."""
    if variable == layout.TOKEN:
        return "${JUPYTER_TOKEN:?set it, in the environment or in .env, to a random token}"
    if variable in PROXY_VARIABLES:
        there = f"${{{variable}:-${{{variable.upper()}:-}}}}"
        # As `kit.network.with_loopback` has it.
        return f"{','.join(LOOPBACK)},{there}" if variable == "no_proxy" and value != "*" else there
    if variable in MIRRORS:
        is_plain = re.fullmatch(r"[\w:/.,@%+~=&?# -]*", value) and not any(map(has_login, value.split()))
        return f"${{{variable}:-{value if is_plain else ''}}}"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        return None
    return f"${{{variable}?set it: no file of a project has what your configuration of kit says}}"


def _reservation(gpus: GpuGrant) -> dict[str, Any] | None:
    """The GPUs of a service, as `deploy.resources.reservations.devices` has them; without `device_ids` all."""
    if gpus.form is None:
        return None
    if gpus.form == "cdi":
        return {"driver": "cdi", "device_ids": gpus.devices}
    return {"driver": "nvidia", "device_ids": () if gpus.devices == ("all",) else gpus.devices}


def _plain(value: str) -> str:
    return value.replace("$", "$$")


def _quoted(value: str) -> str:
    """A string as YAML 1.2 takes it in double quotes, whatever is in it. Raises BadInputError when it is not text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadInputError(
            "a compose file is UTF-8 text, and a name or value for it is not", hint="rename it, or leave it out"
        ) from None
    # JSON has no escapes beyond U+FFFF, and leaves characters as they are that YAML does not allow.
    plain = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in plain)


def _literal(value: str) -> str:
    return _quoted(_plain(value))
