"""What `kit compose` does: describe what `kit run` would start, and write it down."""

from __future__ import annotations

from dataclasses import field, replace
from pathlib import Path
from typing import Literal

from kit import accounts, layout
from kit.catalog import Catalog, load_catalog
from kit.catalog.rows import Image
from kit.compose.start import version_problem
from kit.compose.written import notes_on, stamped, write, write_token
from kit.config import read_env_file
from kit.decide import compat
from kit.engine import Engine, connect
from kit.environment.declared import Declared
from kit.errors import BadInputError, NoEngineError
from kit.facts.engine import EngineFacts, GpuForm
from kit.frozen import dataclass
from kit.host import read_gpus
from kit.image.build.ensure import choose_image, network_on
from kit.image.build.inputs import current
from kit.image.build.options import BuildOptions
from kit.image.environment import Environment, read_environment, reference_of
from kit.network import NetworkSettings
from kit.run import mount_points
from kit.run.containers import caller, user_inside, user_of
from kit.run.lease import no_gpus
from kit.run.prepare import groups_on, mount_on, network_notes, open_files, ports_of_host
from kit.screen import Screen
from kit.spec.container import LIMITS, NOFILE, ContainerSpec, Place, describe, slug
from kit.spec.gpu_grant import HIDDEN_GPUS, GpuGrant, grant, grant_in, refuse_cpu_image
from kit.spec.gpu_request import GpuRequest
from kit.spec.request import Contents, RunRequest, Service, own_token, parse_port, require_publishing
from kit.targets import compose

FORM_WORDS: dict[GpuForm, str] = {"cdi": "GPUs by CDI", "runtime": "GPUs by the NVIDIA runtime"}


@dataclass(frozen=True, kw_only=True)
class ComposeRequest:
    """What to write a compose file of, and for whom."""

    name: str
    environment: Declared | None = None  # a project's own, instead of an image by name
    services: tuple[Service, ...]  # the notebook first
    target: str = ""  # the machine behind SSH it is for
    gpus: GpuRequest | None = None
    form: GpuForm | None = None  # None: as the engine can
    port: int | None = None  # of the notebook; None: the usual one
    user: str = ""  # UID:GID; empty: the caller
    contents: Contents = field(default_factory=Contents)
    restart: str = ""
    network: NetworkSettings
    output: Path | None  # None: it is printed
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A compose file, and what whoever starts it should know."""

    image: Image
    name: str  # of that, or of the project's own environment on it
    file: compose.ComposeFile
    text: str
    engine: Engine | None  # None: none answers here, which may not be the machine that will use the file
    gpus: GpuGrant
    gpu_line: str
    has_image: bool = True
    notes: tuple[str, ...] = ()  # on what lies beside the file
    problem: str = ""  # why the docker here cannot start the file
    is_new: bool = False  # not there before, word for word
    token: Literal["written", "there", "missing", ""] = ""


def make(request: ComposeRequest, screen: Screen) -> Composed:
    """Write a compose file, make its volumes, and see to its token; print nothing, and write nothing without `output`.

    Raises BadInputError for a file that kit did not write, and for GPUs that only `kit run` can choose;
    GpuUnavailableError for those that the engine does not know, NoEngineError when none answers behind SSH.
    """
    catalog = load_catalog()
    environment = read_environment(catalog, request.environment) if request.environment else None
    image = environment.image if environment else _image(catalog, request, screen)
    engine = _engine(request.target)
    reference = _reference(catalog, environment, engine) if environment else ""
    info = engine.info if engine else None
    gpus = _gpus(request, image, info)
    folder = request.output.absolute().parent if request.output else Path.cwd()
    file, lines = _described(request, image, gpus, engine, folder, environment=environment, reference=reference)
    made = Composed(
        image=image,
        name=environment.name if environment else image.name,
        file=file,
        text=stamped(compose.text(file)),
        engine=engine,
        gpus=gpus,
        gpu_line=_gpu_line(gpus.form, info),
    )
    if request.output is None:
        return made
    notes = notes_on(request.output, made.text, force=request.force)
    is_new = write(request.output, made.text, force=request.force)
    if engine:
        for volume in file.volumes:
            engine.make_volume(volume.source)
        if environment:
            has_image = engine.image_labels(reference) is not None
        else:
            has_image = current(catalog, image, engine, BuildOptions()) is not None
        made = replace(made, has_image=has_image)
        if made.has_image:
            for service in file.services:
                mount_points.make(engine, service)
        elif any(mount_points.nested(service.mounts) for service in file.services):
            notes.append("once the image is there, `kit compose` again makes the places of these mounts as yours")
        if engine.features.has_compose and not request.target:
            oldest = compose.min_compose(env_file=request.contents.env_file is not None)
            made = replace(made, problem=version_problem(engine, oldest))
    return replace(made, is_new=is_new, notes=(*lines, *notes), token=write_token(folder, own_token(request.contents)))


def _image(catalog: Catalog, request: ComposeRequest, screen: Screen) -> Image:
    """The image a name stands for; one that is named outright need not work on this machine."""
    asked = compat.parse_name(catalog, request.name)
    if isinstance(asked, Image):
        return asked
    host = read_gpus(request.target)
    if request.gpus is not None and request.gpus.is_none:
        host = replace(host, gpus=(), pci_gpus=())
    return choose_image(catalog, request.name, host, screen)


def _reference(catalog: Catalog, environment: Environment, engine: Engine | None) -> str:
    """The name of the environment's image, which says what it is made of, and so what it stands on."""
    found = reference_of(catalog, environment, engine) if engine else ""
    if not found:
        raise BadInputError(
            f"{environment.name} is not built yet, and what a compose file calls it follows from what it stands on",
            hint="build it first: `kit build` in the project's folder, with the same --host",
        )
    return found


def _engine(target: str) -> Engine | None:
    try:
        return connect(target)
    except NoEngineError:
        if target:
            raise
        return None


def _gpus(request: ComposeRequest, image: Image, info: EngineFacts | None) -> GpuGrant:
    """The GPUs of the notebook, in the form that was asked for, else the engine's, else CDI."""
    gpus = request.gpus
    if gpus is not None and gpus.is_lease:
        raise BadInputError(
            f"--gpus {gpus.text}: a compose file cannot lease GPUs, it is started again and again",
            hint="name them: --gpus all, or --gpus device=0,1; `kit run --gpus free` leases",
        )
    if not image.is_gpu:
        refuse_cpu_image(gpus, image.name)
        return GpuGrant()
    if gpus is not None and gpus.is_none:
        return HIDDEN_GPUS
    here = info.gpu_form if info else None
    chosen = request.form or here or "cdi"
    return grant(gpus, info, has_gpu=True) if info and chosen == here else grant_in(chosen, gpus)


def _gpu_line(form: GpuForm | None, info: EngineFacts | None) -> str:
    """The form in words, and what the engine here has to say to it."""
    if form is None:
        return "on the CPU"
    words = FORM_WORDS[form]
    if info is None:
        return f"{words} (no engine answers here to be asked)"
    here = info.gpu_form
    if here == form:
        return words
    if here is None:
        return f"{words}, though the engine here passes no GPU in (`kit doctor` says why); CPU: --gpus none"
    return f"{words}, though `kit run` takes {FORM_WORDS[here].removeprefix('GPUs by ')} on the engine here"


def _described(
    request: ComposeRequest,
    image: Image,
    gpus: GpuGrant,
    engine: Engine | None,
    folder: Path,
    *,
    environment: Environment | None,
    reference: str,
) -> tuple[compose.ComposeFile, tuple[str, ...]]:
    """The file, and lines on what its containers do not reach."""
    contents = request.contents
    require_publishing(contents.joins)
    user = request.user or (user_inside(engine, folder) if engine else caller())
    owner = (user_of(engine) if engine else caller()).partition(":")[0]
    network = network_on(request.network, engine) if engine else request.network
    ca_file = network.ca_file
    groups = groups_on(engine, user) if engine else ()
    own_ports = tuple(map(parse_port, environment.declared.ports)) if environment else ()
    contents = replace(contents, ports=tuple(dict.fromkeys((*contents.ports, *own_ports))))
    asked = RunRequest(
        image=image,
        reference=reference,
        additions=environment.lock.content_hash if environment else "",
        folder=_there(folder.resolve(), engine),  # whose volumes `kit run` has
        user=user,
        **contents.as_they_are,
        secrets=contents.secrets,
        mounts=tuple(mount_on(mount, engine.connection if engine else None) for mount in contents.mounts),
        logdir=contents.logdir,
        restart=request.restart,
        network=network,
    )
    host_ports = ports_of_host(engine, asked) if engine else frozenset()
    place = Place(
        memory_bytes=engine.memory_bytes if engine else 0,
        can_limit=engine.can_limit if engine else LIMITS,
        ca_file=(engine.provide(ca_file) if engine else str(ca_file)) if ca_file else "",
        groups=groups,
        open_files=open_files(engine) if engine else NOFILE[1],
        host_ports=host_ports,
        timezone=accounts.timezone(),
        owner=owner if user.partition(":")[0] != owner else "",
        # Of no kit process, so that none takes it for left behind by one that is gone.
        client="compose",
    )

    def service(name: Service) -> ContainerSpec:
        # TensorBoard reads files: it reserves no GPU that the notebook could use.
        own = gpus if name == "jupyter" else no_gpus(image).grant
        port = (request.port if name == "jupyter" else None) or layout.port_of(name)
        mine = replace(asked, service=name, ports=asked.ports if name == "jupyter" else ())
        if name == "jupyter":
            mine = replace(mine, server_options=contents.server_options)
        return describe(mine, place, own, port=port)

    file = compose.ComposeFile(
        header=_header(request, image, gpus.form, uid=user.partition(":")[0]),
        project=f"kit-{slug(folder.name)}",
        services=tuple(service(name) for name in request.services),
        env_file=_beside(contents.env_file, folder) if contents.env_file else "",
        volumes_exist=engine is not None and request.output is not None,
        groups=groups,
    )
    return file, network_notes(asked, host_ports)


def _there(folder: Path, engine: Engine | None) -> Path:
    """The folder on the engine's machine: behind SSH where `kit sync` has it."""
    if engine is None or engine.connection is None:
        return folder
    from kit.remote.sync import place

    return Path(place.find(engine.connection, folder).remote_folder)


def _header(request: ComposeRequest, image: Image, form: GpuForm | None, *, uid: str) -> tuple[str, ...]:
    """The first lines of the file."""
    own = "" if request.environment else f" {image.name}"
    words = own + "".join(f" --with {name}" for name in request.services if name != "jupyter")
    variables = ["JUPYTER_TOKEN (needed)", *(f"{name.upper()}_PORT" for name in request.services), "FOLDER"]
    variables += ["SHM_SIZE", "OPEN_FILES", "RESTART", *([] if uid == "0" else ["USER_ID", "GROUP_ID"])]
    oldest = compose.min_compose(env_file=request.contents.env_file is not None)
    how = FORM_WORDS[form] if form else "On the CPU"
    return (
        f"Generated by `kit compose{words}`. Change it as you like: kit then leaves it alone.",
        f"{how}. Needs `kit build{own}` and Docker Compose {oldest} or newer.",
        "Variables, from the environment or from .env beside this file:",
        f"{', '.join(variables)}.",
    )


def _beside(file: Path, folder: Path) -> str:
    """A path as a compose file in `folder` has it: relative where it can go along with it. Raises BadInputError."""
    read_env_file(file)
    path = file.absolute()
    return f"./{path.relative_to(folder)}" if path.is_relative_to(folder) else str(path)
