"""A locked environment for other tools: what is in their files, and what is said not to be."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit import paths, takeover
from kit.catalog import load_catalog
from kit.config.files import parse
from kit.environment import export as exporting
from kit.environment.export import FORMS, export
from kit.environment.format import EnvironmentLock, Package, SystemLayer, SystemPackage, write
from kit.errors import LockError
from kit.locks import solver
from kit.locks.format import parse_requirements, read_lock, sha256

CATALOG = load_catalog()
IMAGE = CATALOG.find("tf-cpu")
LOCK = read_lock(paths.images_dir() / IMAGE.name, IMAGE)
HASH = "sha256:" + "a" * 64
TORCH = CATALOG.find("torch-cpu")


def lock(*packages: Package, image: Any = IMAGE, system: tuple[SystemLayer, ...] = ()) -> EnvironmentLock:
    own = read_lock(paths.images_dir() / image.name, image)
    return EnvironmentLock(
        kit="0.1.0",
        uv=CATALOG.uv_version,
        inputs_hash=HASH,
        image=image.name,
        image_lock=own.lock_hash,
        pythons=tuple(CATALOG.pythons_for(image)),
        source_date_epoch=0,
        requirements_hash=sha256("".join(package.requirement.text() for package in packages)),
        packages=packages,
        system=system,
    )


EINOPS = Package(name="einops", version="0.8.0", hashes=(HASH,))
PANDAS = Package(
    name="pandas",
    version="2.2.3",
    replaces=next(version for name, version in LOCK.packages if name == "pandas"),
    index="https://wheels.example/simple",
    hashes=(HASH,),
)
APEX = Package(name="apex", version="0.1", index="built", source="apex==0.1", hashes=(HASH,))
FFMPEG = SystemLayer(
    suite="bookworm",
    architecture="amd64",
    wanted=("ffmpeg",),
    packages=(SystemPackage(name="ffmpeg", version="7:5.1", architecture="amd64", file="pool/f.deb", sha256="b" * 64),),
)


def test_requirements_have_the_image_s_packages_and_the_project_s_in_their_place(tmp_path: Path) -> None:
    write(tmp_path, lock(EINOPS, PANDAS, APEX, system=(FFMPEG,)))
    exported = export("requirements", tmp_path, CATALOG)
    text = "".join(line for line in exported.text.splitlines(keepends=True) if not line.startswith("--"))
    entries = parse_requirements(text)
    found = {(entry.name, entry.version) for entry in entries}
    assert found == {*LOCK.packages, ("einops", "0.8.0"), ("pandas", "2.2.3")} - {("pandas", PANDAS.replaces)}
    assert all(entry.hashes for entry in entries)
    assert "--extra-index-url https://wheels.example/simple\n" in exported.text
    assert [line.partition(":")[0] for line in exported.left] == ["apex 0.1", "packages of the distribution"]
    assert all(f"# Not in it: {line}" in exported.text for line in exported.left)


def test_the_index_of_the_framework_is_named(tmp_path: Path) -> None:
    write(tmp_path, lock(image=TORCH))
    assert f"--extra-index-url {TORCH.release.index}\n" in export("requirements", tmp_path, CATALOG).text


def test_environment_yml_is_what_conda_reads(tmp_path: Path) -> None:
    write(tmp_path, lock(EINOPS, PANDAS, system=(FFMPEG,)))
    exported = export("environment.yml", tmp_path, CATALOG)
    document = yaml.safe_load(exported.text)
    python, pip, packages = document["dependencies"]
    assert python == f"python={CATALOG.base_for(IMAGE).python}"
    assert pip == "pip"
    assert "einops==0.8.0" in packages["pip"]
    assert packages["pip"][0] == "--extra-index-url https://wheels.example/simple"
    assert len(packages["pip"]) == len(LOCK.packages) + 2
    assert any(line.startswith("the hashes") for line in exported.left)


def answer(of: exporting.Whole, **changed: str) -> dict[str, Any]:
    """What uv says of these packages: each with a wheel that is locked, one that is not, and a source."""
    rows: dict[tuple[str, str], Any] = {}
    for package in of.packages:
        file = f"{package.name.replace('-', '_')}-{package.version}-py3-none-any.whl"
        good = {"url": f"https://files.example/{file}", "size": 5, "hashes": {"sha256": package.hashes[0][7:]}}
        other = {"url": f"https://files.example/other-{file}", "hashes": {"sha256": "f" * 64}}
        wheels = [other] if package.name in changed else [other, good]
        rows[package.name, package.version] = {"name": package.name, "version": package.version, "wheels": wheels}
    return {"packages": list(rows.values())}


def whole(*packages: Package) -> exporting.Whole:
    return exporting.whole(CATALOG, IMAGE, LOCK, lock(*packages))


def test_pylock_has_the_locked_wheels_alone() -> None:
    of = whole(EINOPS, PANDAS)
    exported = exporting.pylock(of, answer(of))
    pylock = pytest.importorskip("packaging.pylock")  # its releases since 26.0 have it
    parsed = pylock.Pylock.from_dict(parse(exported.text, Path("pylock.toml")))
    assert str(parsed.lock_version) == "1.0"
    assert {(p.name, str(p.version)) for p in parsed.packages} == {(p.name, p.version) for p in of.packages}
    for package in parsed.packages:
        assert package.wheels is not None
        assert len(package.wheels) == 1
        assert package.sdist is None
    numpy = [p for p in parsed.packages if p.name == "numpy"]
    assert len(numpy) > 1
    assert all(p.marker for p in numpy)


def test_pylock_without_a_locked_wheel_is_refused() -> None:
    of = whole(EINOPS)
    with pytest.raises(LockError, match=r"no wheel of einops 0\.8\.0 with a hash that is locked"):
        exporting.pylock(of, answer(of, einops=""))


def test_pylock_asks_the_index_for_the_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, lock(EINOPS, PANDAS))
    asked: list[tuple[str, tuple[str, ...]]] = []

    def addresses(catalog: Any, image: Any, requirements: str, indexes: tuple[str, ...], network: Any) -> str:
        asked.append((requirements, indexes))
        return "packages = []\n"

    monkeypatch.setattr(solver, "addresses", addresses)
    with pytest.raises(LockError, match="no wheel of"):
        export("pylock", tmp_path, CATALOG)
    ((pins, indexes),) = asked
    assert "einops==0.8.0\n" in pins
    assert indexes == ("https://wheels.example/simple",)


@pytest.mark.parametrize("form", FORMS)
def test_without_a_lock_there_is_nothing_to_export(form: str, tmp_path: Path) -> None:
    with pytest.raises(LockError, match=r"there is no .*kit\.lock"):
        export(form, tmp_path, CATALOG)


def test_a_lock_of_another_state_of_its_image_is_refused() -> None:
    other = dataclasses.replace(lock(EINOPS), image_lock="sha256:" + "0" * 64)
    with pytest.raises(LockError, match="another state"):
        exporting.whole(CATALOG, IMAGE, LOCK, other)


def test_a_gpu_image_says_which_driver_it_takes() -> None:
    image = CATALOG.find("torch2.7-cu126")
    own = read_lock(paths.images_dir() / image.name, image)
    assert any("CUDA 12.6" in line for line in exporting.whole(CATALOG, image, own, lock(image=image)).left)


@pytest.mark.parametrize("form", ["requirements", "environment.yml"])
def test_what_was_exported_can_be_taken_over(form: str, tmp_path: Path) -> None:
    write(tmp_path, lock(EINOPS))
    path = tmp_path / ("requirements.txt" if form == "requirements" else form)
    path.write_text(export(form, tmp_path, CATALOG).text, encoding="utf-8")
    found = takeover.read(path, CATALOG)
    assert CATALOG.find(found.image) == IMAGE
    assert "einops==0.8.0" in found.packages
    # What the image holds is left, and each with a version that it has.
    assert all("the image has" in left.reason for left in found.left if "==" in left.text), found.left
