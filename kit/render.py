"""From the catalog and a lock to the text of a Dockerfile or a compose file; no docker, no clock, no network."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Iterable
from pathlib import Path

from kit import labels, layout, paths
from kit.catalog import Catalog
from kit.catalog.rows import LAYERS, Image
from kit.errors import UnlockedError
from kit.locks.format import Lock, read_lock
from kit.locks.held import bounds, held
from kit.network import NetworkSettings
from kit.spec.container import Place, describe, slug, volume_mounts
from kit.spec.gpu_grant import GpuGrant, grant_in
from kit.spec.request import RunRequest
from kit.targets import compose
from kit.templates import environment

# The images whose compose files are in compose/, as examples; `kit compose NAME` writes any image's.
EXAMPLES = ("tf-cpu", "torch")


def image_environment(image: Image) -> dict[str, str]:
    """The variables every container of the image has."""
    variables = {
        "HOME": layout.HOME,
        "LANG": "C.UTF-8",
        # What pip is held to, and where it installs to, is in the pip.conf of the image's environment and of the user's
        # layer: a variable would hold for every environment that the user makes as well.
        # JupyterLab's terminals and VS Code start this one, and plain sh without it.
        "SHELL": "/bin/bash",
        # Of a user that no passwd file has, programs take the name from here (getpass.getuser, torch.compile's cache).
        "USER": layout.USER,
        # What a training prints is seen as it comes, not once a buffer is full: nobody is at its terminal.
        "PYTHONUNBUFFERED": "1",
        layout.TENSORBOARD_PROXY: layout.PROXY_PATH,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # A package in the user's layer may bring a part of JupyterLab.
        "JUPYTER_PATH": f"{layout.USER_VENV}/share/jupyter",
        "JUPYTER_CONFIG_PATH": f"{layout.USER_VENV}/etc/jupyter",
    }
    if image.is_gpu:
        # For the legacy nvidia runtime; CDI does not read them.
        variables |= {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
        # Kernels compiled from PTX at first use are kept across containers: `kit run` mounts a volume here.
        variables |= {"CUDA_CACHE_PATH": f"{layout.HOME}/.cache/cuda", "CUDA_CACHE_MAXSIZE": "4294967296"}
    if image.is_gpu and image.release.cuda_provider != "base":
        # The bases of nvidia/cuda set it to folders of theirs; the only CUDA is that of the wheels.
        variables["LD_LIBRARY_PATH"] = ""
    return variables


def image_labels(catalog: Catalog, image: Image, *, epoch: int, lock_hash: str) -> dict[str, str]:
    """The labels that say what the image is. Times come from the lock, never from the clock."""
    release = image.release
    created = datetime.datetime.fromtimestamp(epoch, tz=datetime.timezone.utc)
    for_cuda = f" for CUDA {release.cuda}" if image.is_gpu else " for the CPU"
    found = {
        "org.opencontainers.image.created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "org.opencontainers.image.title": image.name,
        "org.opencontainers.image.description": f"{release.framework} {release.version}{for_cuda}, with JupyterLab",
        "org.opencontainers.image.version": release.version,
        "org.opencontainers.image.base.name": catalog.base_for(image).reference,
        labels.IMAGE: image.name,
        labels.FRAMEWORK: release.framework,
        labels.FRAMEWORK_VERSION: release.version,
        labels.CUDA: release.cuda,
        labels.CUDNN: release.cudnn,
        labels.CUDA_PROVIDER: release.cuda_provider,
        labels.MIN_DRIVER: catalog.min_driver(image),
        labels.COMPUTE_CAPABILITIES: " ".join(release.compute_capabilities),
        labels.PTX: " ".join(release.ptx),
        labels.LOCK_HASH: lock_hash,
        labels.UV: catalog.uv_version,
        # Who a dev container is used as. The image's own user is a number, which its tools do not give the caller's.
        labels.DEVCONTAINER: json.dumps([{"remoteUser": layout.USER}]),
    }
    return {name: value for name, value in found.items() if value}


def health_check() -> str:
    """The program that says whether an image's JupyterLab is well: without the comments it is written with."""
    lines = (paths.templates_dir() / "health.py").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def render_dockerfile(catalog: Catalog, image: Image, lock: Lock | None) -> str:
    """The Dockerfile of an image; `lock` is None for one that has none, and the text then says why."""
    epoch = lock.source_date_epoch if lock else 0
    held_to = (*held(catalog, image), *(bounds(catalog, lock) if lock else ()))
    template = f"{image.framework}.Dockerfile.j2"
    return (
        environment()
        .get_template(template)
        .render(
            image=image,
            template=template,
            unlocked="" if lock else catalog.unlocked_reason(image),
            base=catalog.base_for(image).reference,
            epoch=epoch,
            system_packages=sorted(p.name for p in catalog.system_packages if image.flavor in p.flavors),
            # Nothing is installed for a layer without packages: images for the CPU have no CUDA wheels.
            # `devel` has a step of its own.
            layers=[name for name in lock.layers if "==" in lock.layers[name] and name != "devel"] if lock else LAYERS,
            own_index=_own_index(catalog, image),
            environment=image_environment(image),
            labels=image_labels(catalog, image, epoch=epoch, lock_hash=lock.lock_hash if lock else "unlocked"),
            uid=layout.UID,
            user=layout.USER,
            home=layout.HOME,
            home_dirs=layout.HOME_DIRS,
            venv=layout.VENV,
            user_venv=layout.USER_VENV,
            pip_python=layout.PIP_PYTHON,
            entrypoint=layout.ENTRYPOINT,
            constraints=layout.CONSTRAINTS,
            held=[shlex.quote(word) for word in held_to],
            lab_settings=json.dumps(layout.LAB_SETTINGS),
            server_settings=json.dumps(layout.SERVER_SETTINGS),
            locales=layout.LOCALES,
            cjk_font=layout.CJK_FONT,
            profile_file=layout.PROFILE_FILE,
            health_check=json.dumps(["python", "-c", health_check()]),
        )
    )


def _own_index(catalog: Catalog, image: Image) -> dict[str, str]:
    """What follows the name of a layer that has packages of the release's own index: that index, and their names."""
    release = image.release
    layers = {catalog.layer_of(package) for package in release.index_packages}
    return {
        layer: f" {release.index} {' '.join(p for p in release.index_packages if catalog.layer_of(p) == layer)}"
        for layer in layers
    }


def compose_examples(image: Image) -> dict[str, str]:
    """The files of an image under compose/, by name: for the CPU one, for GPUs one in each form."""
    if not image.is_gpu:
        return {f"{image.name}.yaml": _compose_example(image, f"{image.name}.yaml", GpuGrant(), "")}
    plain, cdi = f"{image.name}.yaml", f"{image.name}.cdi.yaml"
    by_runtime = f"GPUs by the NVIDIA runtime; {cdi} has them by CDI, where `docker info` lists them."
    by_cdi = f"GPUs by CDI; {plain} has them by the NVIDIA runtime, for engines without CDI devices."
    return {
        plain: _compose_example(image, plain, grant_in("runtime"), by_runtime),
        cdi: _compose_example(image, cdi, grant_in("cdi"), by_cdi),
    }


def _compose_example(image: Image, name: str, gpus: GpuGrant, gpu_line: str) -> str:
    """An image's notebook server with all GPUs, for whoever starts it."""
    header = (
        f"Generated by `kit render {image.name}` from templates/compose.yaml.j2 and kit/catalog; do not edit.",
        f"JupyterLab as `kit run {image.name} jupyter` starts it; for your own machine: kit compose {image.name}",
        *([gpu_line] if gpu_line else []),
        f"Needs `kit build {image.name}` and Docker Compose {compose.min_compose()} or newer.",
        "Variables: USER_ID and GROUP_ID (who it runs as, if not 1000:1000), JUPYTER_PORT, FOLDER, SHM_SIZE,",
        "  OPEN_FILES (less, where the engine may not give 524288), RESTART.",
        f"  JUPYTER_TOKEN=$(openssl rand -hex 24) docker compose --file compose/{name} up",
    )
    request = RunRequest(
        image=image,
        service="jupyter",
        folder=Path(),
        user=f"{layout.UID}:{layout.UID}",
        volumes=volume_mounts(image.name, str(layout.UID), f"compose-{image.name}"),
        network=NetworkSettings(proxies={}),
    )
    # Of no kit process, so that none takes it for left behind by one that is gone.
    service = describe(request, Place(client="compose"), gpus, port=layout.JUPYTER_PORT)
    # By image: these files lie in one folder.
    return compose.text(compose.ComposeFile(header=header, project=f"kit-{slug(image.name)}", services=(service,)))


def expected_files(catalog: Catalog, images: Iterable[Image]) -> dict[Path, str]:
    """Every rendered file of these images, by path: a Dockerfile each, and compose files for the examples."""
    files, examples = {}, [catalog.find(name) for name in EXAMPLES]
    for image in images:
        folder = paths.images_dir() / image.name
        try:
            lock = read_lock(folder, image)
        except UnlockedError:
            lock = None  # on purpose
        files[folder / "Dockerfile"] = render_dockerfile(catalog, image, lock)
        if image in examples:
            for name, text in compose_examples(image).items():
                files[paths.compose_dir() / name] = text
    return files


def render(catalog: Catalog, images: list[Image]) -> list[Path]:
    """Write the images' Dockerfiles and compose files; returns those that changed."""
    files = expected_files(catalog, images)
    changed = [path for path, text in files.items() if _problem(path, text)]
    for path in changed:
        paths.write_text(path, files[path])
    return changed


def check(catalog: Catalog, images: list[Image]) -> dict[Path, str]:
    """The rendered files that are not what they should be: each "missing", "differs", or, of no image, "left over"."""
    problems = {path: _problem(path, text) for path, text in expected_files(catalog, images).items()}
    problems |= dict.fromkeys(left_over(catalog), "left over")
    return {path: problem for path, problem in problems.items() if problem}


def _problem(path: Path, text: str) -> str:
    if not path.is_file():
        return "missing"
    return "" if path.read_text(encoding="utf-8") == text else "differs"


def left_over(catalog: Catalog) -> list[Path]:
    """Folders under images/ that belong to no image of the catalog, and files under compose/ that are no example's."""
    names = {image.name for image in catalog.images()}
    examples = {name for example in EXAMPLES for name in compose_examples(catalog.find(example))}
    folders = [f for f in paths.images_dir().glob("*") if f.is_dir() and f.name not in names]
    return sorted(folders) + sorted(f for f in paths.compose_dir().glob("*.yaml") if f.name not in examples)
