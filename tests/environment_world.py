"""A small world for tests of projects: a package index, a stranger's, a catalog of two images and their locks."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit import locks, paths
from kit.catalog import load_catalog
from tests.fake_wheels import make_index, make_sdist, make_wheel

RELEASE = """
[[release]]
name = "{name}"
framework = "torch"
version = "{torch}"
cuda = "12.4"
cuda_provider = "wheels"
requirements = ["torch=={torch}"]
pythons = ["3.10", "3.11", "3.13"]
platforms = ["linux/amd64"]
distro = "ubuntu22.04"
suites = ["bookworm"]
source = "a page"
verified = "pypi"
"""


def make_world(root: Path) -> Path:
    """Make it in a folder: `index` and `other`, `catalog`, `images`."""
    wheels, strangers = root / "wheels", root / "strangers"
    wheels.mkdir()
    strangers.mkdir()
    for name, version, *requires in (
        ("torch", "2.6.0", "numpy", "nvidia-cublas-cu12==12.4.5.8"),
        ("torch", "2.4.0", "numpy", "nvidia-cublas-cu12==12.4.5.8"),
        ("nvidia-cublas-cu12", "12.4.5.8"),
        ("numpy", "2.1.0"),
        ("numpy", "1.26.4"),
        ("jupyterlab", "4.0.0", "pydantic>=2", "tomli ; python_version < '3.11'"),
        ("pydantic", "2.13.1"),
        ("pydantic", "2.11.9"),
        ("pydantic", "1.10"),
        ("tomli", "2.0"),
        # What projects add.
        ("einops", "0.8.1"),
        ("einops", "0.8.0"),
        ("gradio", "6.0", "pydantic<2.12", "einops"),
        ("gradio", "5.0", "pydantic"),
        ("wants-old", "1.1", "torch<2.5"),
        ("wants-old", "1.0", "torch<2.5"),
        ("wants-old", "0.9", "torch"),
        ("deep", "2.0", "deeper"),
        ("deep", "1.0"),
        ("deeper", "1.0", "pydantic<2.12"),
        ("slow", "1.2", "torch<2.5"),
        ("slow", "1.1"),
        ("built", "2.0", "flash"),
        ("built", "1.0"),
        ("never", "1.0", "torch<2.5"),
        ("aged", "2.0", "torch<2.5"),
        ("via", "1.0", "never"),
        ("old-school", "1.0", "pydantic<2"),
        ("lightning", "2.0", "einops ; extra == 'extra'"),
        ("only-old-python", "1.0", "tomli>=1 ; python_version < '3.11'"),
        ("both", "1.0"),
        ("needs-stranger", "1.0", "stranger"),
        ("needs-flash", "1.0", "flash"),
    ):
        make_wheel(wheels, name, version, requires=tuple(requires))
    make_wheel(wheels, "some-wheels", "1.1", tag="cp311-cp311-manylinux_2_17_x86_64")
    for tag in ("cp310-cp310-manylinux_2_17_x86_64", "cp311-cp311-manylinux_2_17_x86_64"):
        make_wheel(wheels, "some-wheels", "1.0", tag=tag)
    make_wheel(wheels, "aged", "1.0", tag="cp311-cp311-manylinux_2_17_x86_64")
    make_wheel(wheels, "much-older", "2.0", tag="cp311-cp311-manylinux_2_17_x86_64")
    make_wheel(wheels, "much-older", "1.0")
    make_wheel(wheels, "windows-only", "1.0", tag="cp311-cp311-win_amd64")
    make_wheel(strangers, "both", "9.0")
    make_wheel(strangers, "stranger", "1.0", requires=("both",))
    make_index(root / "index", wheels)
    make_index(root / "other", strangers)
    make_sdist(root / "index", "flash", "2.0")
    newer, withdrawn = (make_wheel(root, name, "1.0") for name in ("newer", "withdrawn"))
    _page(root / "index/newer", newer, 'data-requires-python="&gt;=3.12"')
    _page(root / "index/withdrawn", withdrawn, 'data-yanked="it was broken"')
    _make_catalog(root / "catalog")
    patch = pytest.MonkeyPatch()
    with patch.context() as there:
        for name, value in variables(root).items():
            there.setenv(name, value)
        there.setattr(paths, "images_dir", lambda: root / "images")
        catalog = load_catalog(root / "catalog")
        for image in catalog.images():
            locks.solve(catalog, image)
    return root


def _page(folder: Path, wheel: Path, attributes: str) -> None:
    folder.mkdir()
    (folder / "index.html").write_text(f'<!DOCTYPE html><a href="{wheel.as_uri()}" {attributes}>{wheel.name}</a>')


def variables(root: Path) -> dict[str, str]:
    """The environment in which uv asks that index and no other."""
    return {"UV_DEFAULT_INDEX": (root / "index").as_uri(), "UV_CACHE_DIR": str(root / "cache")}


def _make_catalog(folder: Path) -> None:
    folder.mkdir()
    for name in ("bases.toml", "cuda.toml", "platforms.toml", "guards.toml"):
        (folder / name).write_bytes((load_catalog().folder / name).read_bytes())
    for name in ("gpus.toml", "wheels.toml", "chips.toml", "devices.tsv"):
        (folder / name).write_text("")
    releases = (("torch2.6-cu124", "2.6.0"), ("torch2.4-cu124", "2.4.0"))
    (folder / "frameworks.toml").write_text("".join(RELEASE.format(name=n, torch=t) for n, t in releases))
    (folder / "packages.toml").write_text(
        f"""
[[layer]]
name = "cuda"
patterns = ["nvidia-*"]
reason = "r"
source = "s"
[[held]]
patterns = ["numpy"]
reason = "r"
source = "s"
[[cap]]
requirement = "einops<0.8.1"
reason = "r"
source = "s"
[[built_for]]
package = "numpy"
versions = ">=2"
requirements = ["some-wheels>=0.5"]
reason = "r"
source = "s"
[[package]]
name = "jupyterlab"
source = "s"
[[tool]]
name = "uv"
version = "{load_catalog().uv_version}"
source = "s"
"""
    )
