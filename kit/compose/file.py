"""What is in a compose file: services as `kit run` starts them, for a caller and a machine or for nobody in particular.

tests/unit/test_compose.py compares them with the containers of `kit.run`, field by field and for every image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kit import layout
from kit.catalog.model import Image
from kit.compose.gpus import WORDS, Form, Reservation, injection_in, reservation
from kit.engine import Mount
from kit.gpu import HIDDEN, Injection

ServiceName = Literal["jupyter", "tensorboard"]

# Of a machine nobody has looked at. It is a limit and takes no memory by itself.
SHM = "8gb"
# The names `docker compose` looks for by itself.
FOUND_BY_COMPOSE = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A named volume: its key in the file, its name in the engine, and where it is in the container."""

    key: str
    name: str
    path: str


@dataclass(frozen=True, kw_only=True)
class ComposeService:
    """One service. `${NAME}` in `environment`, `labels` and `published` is for Compose to fill in."""

    name: ServiceName
    command: tuple[str, ...]
    published: str
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    has_healthcheck: bool
    reservation: Reservation | None = None


@dataclass(frozen=True, kw_only=True)
class ComposeFile:
    """Everything the template needs."""

    image: Image
    header: tuple[str, ...]
    project: str
    user: str
    passwd: tuple[str, ...]
    services: tuple[ComposeService, ...]
    mounts: tuple[Mount, ...]
    env_file: str
    volumes: tuple[Volume, ...]
    shm: str
    restart: str
    volumes_exist: bool


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a compose file takes from whoever it is for."""

    uid: int = layout.UID
    gid: int = layout.UID
    owner: str = ""  # the number of who starts it, where that is another than who it runs as
    services: tuple[ServiceName, ...] = ("jupyter",)
    injection: Injection = field(default_factory=Injection)
    logdir: str = "."
    port: int = 0  # of the notebook; 0: the usual one
    restart: str = "no"
    shm_bytes: int = 0  # 0: unknown
    ca_file: str = ""
    proxies: tuple[str, ...] = ()  # names of the proxy variables that are set
    environment: tuple[tuple[str, str], ...] = ()
    env_file: str = ""
    mounts: tuple[Mount, ...] = ()
    volumes_exist: bool = False

    @property
    def uid_text(self) -> str:
        # Root's services are started in another way (no name but root, a server that allows it), so root it stays.
        return "0" if self.uid == 0 else f"${{USER_ID:-{self.uid}}}"

    @property
    def user_text(self) -> str:
        return f"0:{self.gid}" if self.uid == 0 else f"{self.uid_text}:${{GROUP_ID:-{self.gid}}}"

    @property
    def min_compose(self) -> str:
        """The oldest Docker Compose that takes the file."""
        from kit.catalog import load_catalog

        feature = "raw-env-file" if self.env_file else "inline-config"
        return next(r.version for r in load_catalog().engine_minimums if (r.engine, r.feature) == ("compose", feature))

    def filled(self, text: str) -> str:
        """A text as Compose fills it in where neither USER_ID nor GROUP_ID is set."""
        text = text.replace(f"${{USER_ID:-{self.uid}}}", str(self.uid))
        return text.replace(f"${{GROUP_ID:-{self.gid}}}", str(self.gid))


def compose_file(image: Image, settings: Settings, *, project: str, header: Iterable[str]) -> ComposeFile:
    """The compose file of an image; `project` is what its containers' names begin with."""
    uid, user = settings.uid_text, settings.user_text
    name = "root" if settings.uid == 0 else "kit"
    account = f"{name}:x:{user}:{name}:{layout.HOME}:/bin/bash"
    certificates = Mount(source=settings.ca_file, target=layout.CA_FILE, read_only=True)
    return ComposeFile(
        image=image,
        header=tuple(header),
        project=project,
        user=user,
        passwd=(account,) if settings.uid == 0 else ("root:x:0:0:root:/root:/bin/bash", account),
        services=tuple(_service(image, service, settings) for service in settings.services),
        mounts=(*settings.mounts, *([certificates] if settings.ca_file else [])),
        env_file=settings.env_file,
        volumes=tuple(
            Volume(
                key=volume.name,
                name=f"kit-{uid}-{image.name}-{volume.name}" if volume.per_image else f"kit-{uid}-{volume.name}",
                path=volume.path,
            )
            for volume in layout.VOLUMES
        ),
        shm=f"${{SHM_SIZE:-{settings.shm_bytes or SHM}}}",
        restart=f"${{RESTART:-{settings.restart}}}",
        volumes_exist=settings.volumes_exist,
    )


def _service(image: Image, name: ServiceName, settings: Settings) -> ComposeService:
    is_notebook = name == "jupyter"
    # TensorBoard reads files: it reserves no GPU that the notebook could use.
    hidden = Injection(environment=HIDDEN) if image.is_gpu else Injection()
    injection = settings.injection if is_notebook else hidden
    port = layout.JUPYTER_PORT if is_notebook else layout.TENSORBOARD_PORT
    environment = {"USER": "root" if settings.uid == 0 else "kit", **dict(injection.environment)}
    if settings.ca_file:
        environment |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"), layout.CA_FILE)
    environment |= {variable: value.replace("$", "$$") for variable, value in settings.environment}
    # By name alone: a proxy's address may have a password in it.
    proxies = {variable: f"${{{variable}:-${{{variable.upper()}:-}}}}" for variable in settings.proxies}
    environment = {**proxies, **environment}
    if is_notebook:
        environment["JUPYTER_TOKEN"] = "${JUPYTER_TOKEN:?set it, in the environment or in .env, to a random token}"
    return ComposeService(
        name=name,
        command=layout.jupyter_command(settings.uid) if is_notebook else _tensorboard_command(settings),
        published=f"127.0.0.1:${{{name.upper()}_PORT:-{(is_notebook and settings.port) or port}}}:{port}",
        environment=environment,
        labels={
            "kit.image": image.name,
            "kit.service": name,
            "kit.user": settings.user_text,
            **({"kit.owner": settings.owner} if settings.owner else {}),
            "kit.gpus": " ".join(injection.arguments),
            # Of no kit process, so that none takes it for left behind by one that is gone.
            "kit.client": "compose",
        },
        has_healthcheck=is_notebook,
        reservation=reservation(injection),
    )


def _tensorboard_command(settings: Settings) -> tuple[str, ...]:
    return ("tensorboard", f"--logdir={settings.logdir}", "--host=0.0.0.0", f"--port={layout.TENSORBOARD_PORT}")


def project_name(folder: Path, settings: Settings) -> str:
    """What the containers' names begin with: kit's mark, the folder, and the user, whose neighbour may have a folder of
    the same name. Compose would take them for one project and replace one's containers by the other's.
    """
    return f"kit-{_slug(folder.name)}-{settings.uid_text}"


def _slug(name: str) -> str:
    """A name as Compose takes it in a project's: lower-case letters, digits, `-` and `_`."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_") or "folder"


def header(image: Image, settings: Settings, form: Form | None) -> tuple[str, ...]:
    """The first lines of a file that `kit compose` writes."""
    words = "".join(f" --with {name}" for name in settings.services if name != "jupyter")
    variables = ["JUPYTER_TOKEN (needed)", *(f"{name.upper()}_PORT" for name in settings.services), "FOLDER"]
    variables += ["SHM_SIZE", "RESTART", *([] if settings.uid == 0 else ["USER_ID", "GROUP_ID"])]
    gpus = WORDS[form] if form else "On the CPU"
    return (
        f"Generated by `kit compose {image.name}{words}`. Change it as you like: kit then leaves it alone.",
        f"{gpus}. Needs `kit build {image.name}` and Docker Compose {settings.min_compose} or newer.",
        "Variables, from the environment or from .env beside this file:",
        f"{', '.join(variables)}.",
    )


def examples(image: Image) -> dict[str, ComposeFile]:
    """The files of an image under compose/, by name: for the CPU one, for GPUs one in each form."""
    if not image.is_gpu:
        return {f"{image.name}.yaml": _example(image, None, f"{image.name}.yaml")}
    names: dict[Form, str] = {"nvidia": f"{image.name}.yaml", "cdi": f"{image.name}.cdi.yaml"}
    return {name: _example(image, form, name) for form, name in names.items()}


def _example(image: Image, form: Form | None, name: str) -> ComposeFile:
    """An image's notebook server with all GPUs, for whoever starts it."""
    how = {
        "cdi": f"{WORDS['cdi']}; {image.name}.yaml has them by the NVIDIA runtime, for engines without CDI devices.",
        "nvidia": f"{WORDS['nvidia']}; {image.name}.cdi.yaml has them by CDI, where `docker info` lists them.",
    }
    lines = (
        f"Generated by `kit render {image.name}` from templates/compose.yaml.j2 and kit/catalog; do not edit.",
        f"JupyterLab as `kit run {image.name} jupyter` starts it; for your own machine: kit compose {image.name}",
        *([how[form]] if form else []),
        f"Needs `kit build {image.name}` and Docker Compose {Settings().min_compose} or newer.",
        "Variables: USER_ID and GROUP_ID (who it runs as, if not 1000:1000), JUPYTER_PORT, FOLDER, SHM_SIZE, RESTART.",
        f"  JUPYTER_TOKEN=$(openssl rand -hex 24) docker compose --file compose/{name} up",
    )
    settings = Settings(injection=injection_in(form) if form else Injection())
    # By image: these files lie in one folder.
    return compose_file(image, settings, project=f"kit-{_slug(image.name)}-{settings.uid_text}", header=lines)
