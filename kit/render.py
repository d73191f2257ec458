"""From the catalog and a lock to the text of a Dockerfile or a compose file; no docker, no clock, no network."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jinja2

from kit import compose, layout, paths
from kit.catalog import Catalog
from kit.catalog.model import LAYERS, Image
from kit.errors import UnlockedError
from kit.locks.format import Lock, read_lock

# The images whose compose files are in compose/, as examples; `kit compose NAME` writes any image's.
EXAMPLES = ("tf-cpu", "torch")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A rendered file that is not what the catalog and the templates say."""

    path: Path
    problem: str  # "missing", "differs", "left over"


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(paths.templates_dir())
    environment = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.globals["mounts"] = environment.get_template("macros.j2").module.mounts  # type: ignore[attr-defined]
    return environment


def image_environment(image: Image) -> dict[str, str]:
    """The variables every container of the image has."""
    variables = {
        "HOME": layout.HOME,
        "LANG": "C.UTF-8",
        # `pip install` in a running container cannot replace what is locked. That it adds to the user's own folder is
        # in the virtual environment's pip.conf: as a variable it would hold for `pip list` and `pip freeze` too.
        "PIP_CONSTRAINT": layout.CONSTRAINTS,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
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
    labels = {
        "org.opencontainers.image.created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "org.opencontainers.image.title": image.name,
        "org.opencontainers.image.description": f"{release.framework} {release.version}{for_cuda}, with JupyterLab",
        "org.opencontainers.image.version": release.version,
        "org.opencontainers.image.base.name": catalog.base_for(image).reference,
        "kit.image": image.name,
        "kit.framework": release.framework,
        "kit.framework-version": release.version,
        "kit.cuda": release.cuda,
        "kit.cudnn": release.cudnn,
        "kit.cuda-provider": release.cuda_provider,
        "kit.min-driver": catalog.min_driver(image),
        "kit.compute-capabilities": " ".join(release.compute_capabilities),
        "kit.ptx": " ".join(release.ptx),
        "kit.lock-hash": lock_hash,
    }
    return {name: value for name, value in labels.items() if value}


def render_dockerfile(catalog: Catalog, image: Image, lock: Lock | None) -> str:
    """The Dockerfile of an image; `lock` is None for one that has none, and the text then says why."""
    epoch = lock.source_date_epoch if lock else 0
    template = f"{image.framework}.Dockerfile.j2"
    return (
        _environment()
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
            environment=image_environment(image),
            labels=image_labels(catalog, image, epoch=epoch, lock_hash=lock.lock_hash if lock else "unlocked"),
            uid=layout.UID,
            home=layout.HOME,
            home_dirs=layout.HOME_DIRS,
            venv=layout.VENV,
            constraints=layout.CONSTRAINTS,
            lab_settings=json.dumps(layout.LAB_SETTINGS),
        )
    )


def render_compose(file: compose.ComposeFile) -> str:
    """The text of a compose file."""
    environment = _environment()
    # YAML takes JSON's strings. In `text` Compose fills in `${NAME}`; a `literal` has nothing to fill in.
    environment.filters["text"] = _quoted
    environment.filters["literal"] = _literal
    environment.filters["literals"] = lambda values: f"[{', '.join(_literal(value) for value in values)}]"
    return environment.get_template("compose.yaml.j2").render(file=file, workspace=layout.WORKSPACE)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _literal(value: str) -> str:
    return _quoted(value.replace("$", "$$"))


def lock_or_none(catalog: Catalog, image: Image) -> Lock | None:
    """The image's lock; None when the catalog says that it has none."""
    try:
        return read_lock(paths.images_dir() / image.name, image)
    except UnlockedError:
        return None


def expected_files(catalog: Catalog, images: Iterable[Image]) -> dict[Path, str]:
    """Every rendered file of these images, by path: a Dockerfile each, and compose files for the examples."""
    files, examples = {}, [catalog.find(name) for name in EXAMPLES]
    for image in images:
        text = render_dockerfile(catalog, image, lock_or_none(catalog, image))
        files[paths.images_dir() / image.name / "Dockerfile"] = text
        if image in examples:
            for name, file in compose.examples(image).items():
                files[paths.compose_dir() / name] = render_compose(file)
    return files


def render(catalog: Catalog, images: list[Image]) -> list[Path]:
    """Write the images' Dockerfiles and compose files; returns those that changed."""
    files = expected_files(catalog, images)
    changed = [path for path, text in files.items() if _problem(path, text)]
    for path in changed:
        paths.write_text(path, files[path])
    return changed


def check(catalog: Catalog, images: list[Image]) -> list[Difference]:
    """What differs between the rendered files and what they should be; what nothing renders any more included."""
    problems = {path: _problem(path, text) for path, text in expected_files(catalog, images).items()}
    problems |= dict.fromkeys(left_over(catalog), "left over")
    return [Difference(path=path, problem=problem) for path, problem in problems.items() if problem]


def _problem(path: Path, text: str) -> str:
    if not path.is_file():
        return "missing"
    return "" if path.read_text(encoding="utf-8") == text else "differs"


def left_over(catalog: Catalog) -> list[Path]:
    """Folders under images/ that belong to no image of the catalog, and files under compose/ that are no example's."""
    names = {image.name for image in catalog.images()}
    examples = {name for example in EXAMPLES for name in compose.examples(catalog.find(example))}
    folders = [f for f in paths.images_dir().glob("*") if f.is_dir() and f.name not in names]
    return sorted(folders) + sorted(f for f in paths.compose_dir().glob("*.yaml") if f.name not in examples)
