"""Which images CI builds, and the README's table of images; from the catalog alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence

from kit.catalog import Catalog
from kit.errors import BadInputError, UnlockedError
from kit.frozen import dataclass

BEGIN = "<!-- begin: table of images, written by `make readme` -->"
END = "<!-- end: table of images -->"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One image to build."""

    image: str
    framework: str
    cuda: str  # empty for the CPU
    python: str  # of the registry base
    platform: str
    gpu: bool


def jobs(catalog: Catalog, *, names: Sequence[str] = (), with_devel: bool = False) -> list[Job]:
    """The images to build for each platform of CI, in the catalog's order: all that have a lock, or those named.

    Without names the `-devel` images are left out unless `with_devel`: they differ by the compiler alone, and
    double the machine time. Raises NoSuchImageError, and UnlockedError for a name without a lock.
    """
    wanted = {catalog.find(name).name for name in names}
    chosen = [
        image for image in catalog.images() if (image.name in wanted if names else with_devel or not image.flavor)
    ]
    if names:
        for image in chosen:
            if reason := catalog.unlocked_reason(image):
                raise UnlockedError(
                    f"the image `{image.name}` has no lock: {reason}",
                    hint=f"run `kit lock {image.name}` where that can be reached",
                )
    return [
        Job(
            image=image.name,
            framework=image.framework,
            cuda=image.release.cuda,
            python=catalog.base_for(image).python,
            platform=platform.name,
            gpu=image.is_gpu,
        )
        for image in chosen
        for platform in catalog.platforms
        if platform.in_ci and platform.name in image.release.platforms and not catalog.unlocked_reason(image)
    ]


def left_out(catalog: Catalog) -> list[str]:
    """The images that cannot be built because they have no lock yet."""
    return [image.name for image in catalog.images() if catalog.unlocked_reason(image)]


def as_github(found: Iterable[Job]) -> str:
    """The matrix on one line, as `$GITHUB_OUTPUT` takes it."""
    return json.dumps({"include": [dataclasses.asdict(job) for job in found]}, separators=(",", ":"))


def markdown_table(catalog: Catalog) -> str:
    """The images as a Markdown table, one row per framework release."""
    header = [
        "image",
        "framework",
        "CUDA",
        "cuDNN",
        "Python, by base",
        "NVIDIA driver from",
        "base",
        "`-devel`",
        "lock",
    ]
    plain = [image for image in catalog.images() if not image.flavor]
    devel = {image.release.name for image in catalog.images() if image.flavor == "devel"}
    rows = [
        [
            f"`{image.name}`",
            f"{image.framework} {image.release.version}",
            image.release.cuda or "–",
            _short(image.release.cudnn) or "–",
            ", ".join(catalog.pythons_for(image)),
            catalog.min_driver(image) or "–",
            "either" if image.release.cuda_provider != "base" and catalog.suites_for(image) else "registry",
            "yes" if image.release.name in devel else "–",
            "not yet" if catalog.unlocked_reason(image) else "yes",
        ]
        for image in plain
    ]
    lines = ["| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines) + "\n"


def replace_table(text: str, table: str) -> str:
    """A document with the text between its markers replaced. Raises BadInputError when it has not both."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInputError(
            "the file has no place for the table of images", hint=f"it goes between two lines: {BEGIN} and {END}"
        )
    return f"{before}{BEGIN}\n{table}{END}{after}"


def _short(version: str) -> str:
    """`9.5` of `9.5.1.17`: what people compare cuDNN by."""
    return ".".join(version.split(".")[:2])
