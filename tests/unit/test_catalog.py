"""The loader on small catalogs, and the rules the real one must keep."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.catalog import Catalog, load_catalog, tables
from kit.catalog.rows import version_key
from kit.errors import CatalogError, NoSuchImageError

RELEASE = """
[[release]]
name = "torch2.6-cu124"
framework = "torch"
version = "2.6.0"
cuda = "12.4"
cuda_provider = "wheels"
requirements = ["torch==2.6.0"]
pythons = ["3.10"]
platforms = ["linux/amd64"]
distro = "ubuntu22.04"
source = "a page"
verified = "pypi"
"""
TOOLKIT = """
[[toolkit]]
cuda = "12.4"
drivers = { "12.4 GA" = "550.54.14" }
min_driver = "525.60.13"
devel_bases = ["ubuntu22.04"]
source = "a page"
verified = "two-sources"
"""
BASE = """
[[base]]
cuda = "12.4"
flavor = "base"
distro = "ubuntu22.04"
python = "3.10"
glibc = "2.35"
repository = "nvidia/cuda"
tag = "12.4.1-base-ubuntu22.04"
digest_status = "unknown"
source = "a page"
verified = "one-source"
"""


def write(
    folder: Path, *, release: str = RELEASE, toolkit: str = TOOLKIT, base: str = BASE, packages: str = ""
) -> Catalog:
    for name, text in (
        ("frameworks", release),
        ("cuda", toolkit),
        ("bases", base),
        ("packages", packages),
        ("gpus", ""),
    ):
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return load_catalog(folder)


def test_small_catalog(tmp_path: Path) -> None:
    catalog = write(tmp_path)
    assert [image.name for image in catalog.images()] == ["torch2.6-cu124", "torch2.6-cu124-devel"]
    assert catalog.toolkits[0].drivers == (("12.4 GA", "550.54.14"),)
    assert catalog.min_driver(catalog.find("torch")) == "525.60.13"


def test_tables_are_read_when_used(tmp_path: Path) -> None:
    catalog = write(tmp_path)
    (tmp_path / "gpus.toml").write_text("not = [valid", encoding="utf-8")
    assert catalog.find("torch-cu124").release.version == "2.6.0"
    with pytest.raises(CatalogError):
        _ = catalog.gpus


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (
            lambda t: t + 'requirments = ["x"]\n',
            "frameworks.toml: [[release]] row 1 (`torch2.6-cu124`): unknown key `requirments`",
            "did you mean `requirements`?",
        ),
        (
            lambda t: t.replace('version = "2.6.0"\n', ""),
            "frameworks.toml: [[release]] row 1 (`torch2.6-cu124`): the key `version` is missing",
            "",
        ),
        (
            lambda t: t.replace('source = "a page"\n', ""),
            "frameworks.toml: [[release]] row 1 (`torch2.6-cu124`): the key `source` is missing",
            "every row says where it is from",
        ),
        (
            lambda t: t.replace('version = "2.6.0"', "version = 2.6"),
            "frameworks.toml: [[release]] row 1 (`torch2.6-cu124`): key `version`: expected a string, not 2.6",
            "versions are written in quotes",
        ),
        (
            lambda t: t.replace('["torch==2.6.0"]', '"torch==2.6.0"'),
            "frameworks.toml: [[release]] row 1 "
            "(`torch2.6-cu124`): key `requirements`: expected a list, not 'torch==2.6.0'",
            "",
        ),
        (
            lambda t: t.replace('"wheels"', '"weels"'),
            "frameworks.toml: [[release]] row 1 (`torch2.6-cu124`): key "
            "`cuda_provider`: `weels` is not one of 'wheels', 'bundled', 'base', 'none'",
            "",
        ),
        (
            lambda t: t.replace("[[release]]", "[[relese]]"),
            "frameworks.toml: unknown table `relese`",
            "did you mean `release`?",
        ),
        (
            lambda t: t.replace("[[release]]", "[release]"),
            "frameworks.toml: `release` must be a list of tables, written [[release]]",
            "",
        ),
        (
            lambda t: t + t,
            "frameworks.toml: [[release]]: `torch2.6-cu124` is there twice",
            "remove or rename one of the rows",
        ),
        (
            lambda t: t.replace('name = "torch2.6-cu124"', 'name = "torch2.7-cu124"'),
            "frameworks.toml: [[release]] `torch2.7-cu124`: the name does not match torch 2.6.0, CUDA 12.4",
            "it must be `torch2.6-cu124` (or `torch-cu124`)",
        ),
        (
            lambda t: t.replace('cuda = "12.4"', 'cuda = ""'),
            "frameworks.toml: [[release]] `torch2.6-cu124`: cuda is ``, but cuda_provider is `wheels`",
            "a CPU release has no cuda and the provider `none`",
        ),
    ],
)
def test_a_bad_release_is_refused(tmp_path: Path, change: object, message: str, hint: str) -> None:
    catalog = write(tmp_path, release=change(RELEASE))  # type: ignore[operator]
    with pytest.raises(CatalogError) as error:
        catalog.images()
    assert (error.value.message, error.value.hint) == (message, hint)


def test_malformed_toml_names_file_and_line(tmp_path: Path) -> None:
    catalog = write(tmp_path, release=RELEASE + 'name = "again\n')
    with pytest.raises(CatalogError, match=r"frameworks\.toml is not valid TOML: .*line 14"):
        catalog.images()


def test_a_missing_table_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"frameworks\.toml is missing"):
        load_catalog(tmp_path).images()


def test_a_missing_base_or_toolkit_row_is_an_error(tmp_path: Path) -> None:
    catalog = write(tmp_path, base="", toolkit="")
    with pytest.raises(CatalogError, match=r"no \[\[toolkit\]\] `12\.4`"):
        catalog.images()
    catalog = write(tmp_path, base="")
    with pytest.raises(CatalogError, match=r"no \[\[base\]\] for `torch2\.6-cu124`"):
        catalog.base_for(catalog.find("torch"))


def test_a_package_that_two_rows_give_one_image_is_refused(tmp_path: Path) -> None:
    row = '[[package]]\nname = "keras"\nframeworks = ["torch"]\nsource = "a page"\n'
    catalog = write(tmp_path, packages=row + row)
    with pytest.raises(CatalogError, match="`keras` is there twice"):
        catalog.packages_for(catalog.find("torch"))


def test_a_confirmed_pin_wins_over_the_lead(tmp_path: Path) -> None:
    catalog = write(tmp_path)
    assert catalog.base_for(catalog.find("torch")).digest == ""
    pin = {
        "repository": "nvidia/cuda",
        "tag": "12.4.1-base-ubuntu22.04",
        "digest": "sha256:" + "a" * 64,
        "confirmed": "2026-11-21",
    }
    (tmp_path / "pins.json").write_text(json.dumps({"pins": [pin]}), encoding="utf-8")
    base = load_catalog(tmp_path).base_for(catalog.find("torch"))
    assert (base.digest, base.digest_status) == ("sha256:" + "a" * 64, "confirmed")


@pytest.mark.parametrize("text", ["{", "[]", '{"pins": [{"tag": 1}]}', '{"pins": 3}'])
def test_unreadable_pins_are_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path)
    (tmp_path / "pins.json").write_text(text, encoding="utf-8")
    with pytest.raises(CatalogError, match=r"pins\.json"):
        _ = load_catalog(tmp_path).bases


WHEEL = """
[[wheel]]
file = "torch-2.6.0+cu124-cp310-cp310-manylinux_2_28_x86_64.whl"
sha256 = "HASH"
sources = ["a lock file", "another"]

[[metadata]]
package = "torch"
version = "2.6.0+cu124"
requires = []
source = "a page"
""".replace("HASH", "0" * 64)
OWN = RELEASE.replace(
    'requirements = ["torch==2.6.0"]',
    'index = "https://index.example/whl"\nindex_packages = ["torch"]\nrequirements = ["torch==2.6.0+cu124"]',
)


def test_the_wheels_of_a_release(tmp_path: Path) -> None:
    (tmp_path / "wheels.toml").write_text(WHEEL, encoding="utf-8")
    catalog = write(tmp_path, release=OWN)
    (wheel,) = catalog.wheels_for(catalog.releases[0])
    assert (wheel.package, wheel.version, wheel.hash) == ("torch", "2.6.0+cu124", "sha256:" + "0" * 64)
    two = OWN.replace('["torch"]', '["torch", "torchvision"]')
    catalog = write(tmp_path, release=two)
    assert catalog.wheels_for(catalog.releases[0]) == (), "of torchvision none are known"
    assert load_catalog().wheels_for(load_catalog().find("torch-cu126").release) == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (', "another"', "", "fewer than two sources"),
        ('"another"', '"a lock file"', "fewer than two sources"),
        ("0" * 64, "0" * 63, "which is not one"),
        ("0" * 64, "A" * 64, "which is not one"),
        ("-manylinux_2_28_x86_64.whl", ".tar.gz", "that is no wheel's file name"),
        ('version = "2.6.0+cu124"', 'version = "2.5.0+cu124"', "no [[metadata]] of torch 2.6.0+cu124"),
        ('sources = ["a lock file", "another"]', "", "the key `sources` is missing"),
        (WHEEL, WHEEL + WHEEL.partition("[[metadata]]")[0], "is there twice"),
    ],
)
def test_a_bad_row_of_a_wheel_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in WHEEL
    (tmp_path / "wheels.toml").write_text(WHEEL.replace(old, new), encoding="utf-8")
    catalog = write(tmp_path, release=OWN)
    with pytest.raises(CatalogError) as error:
        catalog.wheels_for(catalog.releases[0])
    assert message in error.value.message


def test_every_wheel_is_of_a_release_and_has_two_sources_of_different_owners() -> None:
    used = {wheel for release in CATALOG.releases for wheel in CATALOG.wheels_for(release)}
    assert used == set(CATALOG.wheels)
    for wheel in CATALOG.wheels:
        # Who has the file: a repository's name, or the number of a public source file.
        owners = {re.search(r"^[\w.-]+/[\w.-]+(?= )|public source file no\. \d+", source) for source in wheel.sources}
        assert None not in owners, wheel.file
        assert len({owner[0] for owner in owners if owner}) >= 2, wheel.file
    for row in CATALOG.wheel_metadata:
        assert row.source.strip()
        assert not any(name in " ".join(row.requires) for name in ("nvidia", "cuda", "triton"))


def test_a_digest_and_its_status_go_together(tmp_path: Path) -> None:
    catalog = write(tmp_path, base=BASE.replace('"unknown"', '"unconfirmed"'))
    with pytest.raises(CatalogError, match="digest_status is `unconfirmed`, but digest is ``"):
        _ = catalog.bases


@given(st.text(max_size=24))
@settings(deadline=None)
def test_any_text_is_an_image_or_a_clear_refusal(name: str) -> None:
    catalog = load_catalog()
    try:
        image = catalog.find(name)
    except NoSuchImageError as refusal:
        image, said = None, refusal.message
    assert name in said if image is None else image in catalog.images()


# The catalog that ships.

CATALOG = load_catalog()
IMAGES = CATALOG.images()
NAMES = {image.name for image in IMAGES}


@pytest.mark.parametrize(
    "table",
    [
        "releases",
        "packages",
        "system_packages",
        "layer_rules",
        "bases",
        "suites",
        "toolkits",
        "platforms",
        "architectures",
        "gpus",
        "conda_names",
        "conda_system",
        "conda_images",
        "debian_names",
        "import_names",
        "framework_packages",
        "instead",
        "known_indexes",
        "docker_images",
        "left_variables",
    ],
)
def test_every_row_has_a_source(table: str) -> None:
    rows = getattr(CATALOG, table)
    assert rows
    for row in rows:
        assert row.source.strip(), row
        assert getattr(row, "verified", "none").strip(), row


def test_the_images_that_were_asked_for_are_there() -> None:
    wanted = {
        "torch1.13-cu117",
        "torch2.0-cu117",
        "torch2.4-cu121",
        "torch2.6-cu124",
        "torch2.7-cu126",
        "torch2.10-cu128",
        "torch2.14-cu130",
        "torch2.15-cu132",
        "tf2.14-cu118",
        "tf2.15-cu122",
        "tf2.17-cu123",
        "tf2.19-cu125",
        "tf2.21-cu125",
        "tf-cpu",
        "tf2.10-cu112",
        "tf2.4-cu110",
        "torch-cpu",
        "torch-cu118",
        "torch1.8-cu111",
        "torch1.5-cu101",
    }
    assert wanted <= NAMES


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_every_image_resolves_fully(image) -> None:  # type: ignore[no-untyped-def]
    assert CATALOG.find(image.name) == image
    base = CATALOG.base_for(image)
    pythons = CATALOG.pythons_for(image)
    assert set(pythons) <= set(image.release.pythons), "a base has a Python that the wheels do not support"
    assert pythons == sorted(pythons, key=version_key)
    assert base.distro == image.release.distro
    assert bool(CATALOG.min_driver(image)) == image.is_gpu
    if image.is_gpu:
        major = image.release.cuda.split(".")[0]
        floors = {"11": "450.80.02", "12": "525.60.13", "13": "580"}  # minor-version compatibility
        assert CATALOG.min_driver(image) == floors.get(major, CATALOG.toolkit(image.release.cuda).drivers[0][1])
    if image.release.cuda_provider == "base":
        assert base.flavor in ("cudnn-runtime", "cudnn-devel")
        assert base.cudnn == image.release.cudnn
        assert not image.release.suites, "a registry-free base has no CUDA to give"
    packages = {package.name for package in CATALOG.packages_for(image)}
    assert packages >= {
        "jupyterlab",
        "ipywidgets",
        "tensorboard",
        "numpy",
        "pandas",
        "scipy",
        "matplotlib",
        "scikit-learn",
        "pillow",
        "opencv-python-headless",
        "tqdm",
        "pip",
    }
    assert ("torch-geometric" in packages) == (image.framework == "torch")
    assert ("keras-tuner" in packages) == (image.framework == "tensorflow")


def test_compute_capabilities_are_known_ones() -> None:
    known = {row.compute_capability for row in CATALOG.architectures}
    for release in CATALOG.releases:
        for capability in (*release.compute_capabilities, *release.ptx):
            assert capability in known, release.name
        if release.cuda and release.cuda_provider != "none" and not release.unlocked:
            assert release.compute_capabilities, release.name
            toolkit = CATALOG.toolkit(release.cuda)
            newest = max(release.compute_capabilities, key=version_key)
            assert version_key(newest) <= version_key(toolkit.cc_max), release.name


def test_every_gpu_has_a_known_architecture() -> None:
    known = {row.compute_capability for row in CATALOG.architectures}
    assert len(CATALOG.gpus) == 149
    for gpu in CATALOG.gpus:
        assert gpu.compute_capability in known, gpu.names


def test_aliases_find_their_image() -> None:
    for image in IMAGES:
        for alias in CATALOG.aliases(image):
            assert CATALOG.find(alias) == image


def test_text_has_no_unknown_digests() -> None:
    for base in CATALOG.bases:
        assert base.digest == "" or re.fullmatch(r"sha256:[0-9a-f]{64}", base.digest)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("torch2.7-cu126", "torch2.7-cu126"),
        ("torch-cu126", "torch2.7-cu126"),
        ("torch2.7.1-cu126", "torch2.7-cu126"),
        ("torch2.6", "torch2.6-cu124"),
        ("torch2.7", "torch2.7-cu126"),  # torch-cu118 is 2.7 too, and has no lock
        ("torch-cu117", "torch2.0-cu117"),
        ("torch2.1", None),  # not 2.10
        ("torch", "torch2.15-cu132"),
        ("torch-devel", "torch2.15-cu132-devel"),
        ("torch-cpu", "torch-cpu"),
        ("torch2.13-cpu", "torch-cpu"),
        ("torch-cu118", "torch-cu118"),
        ("torch2.7-cu118", "torch-cu118"),
        ("torch-cu126-devel", "torch2.7-cu126-devel"),
        ("tf", "tf2.21-cu125"),
        ("tensorflow", "tf2.21-cu125"),
        ("tf2.21", "tf2.21-cu125"),
        ("tf2.21-cpu", "tf-cpu"),
        ("tf-cu125", "tf2.21-cu125"),
        ("tf2.19-cu125", "tf2.19-cu125"),
        ("tf-cpu-devel", None),
        ("torch1.5-cu101-devel", None),
        ("torch9-cu126", None),
        ("jax-cu126", None),
        ("", None),
        ("-devel", None),
        ("torch-cu126-devel-devel", None),
    ],
)
def test_names(asked: str, name: str | None) -> None:
    if name is not None:
        assert CATALOG.find(asked).name == name
        return
    with pytest.raises(NoSuchImageError):
        CATALOG.find(asked)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(NoSuchImageError) as error:
        CATALOG.find("torch-cu162")
    assert "torch-cu126" in error.value.hint
    with pytest.raises(NoSuchImageError) as error:
        CATALOG.find("tf-cpu-devel")
    assert error.value.message == "`tf-cpu` has no `-devel` flavor: it is for the CPU"


def test_rows_are_frozen() -> None:
    release = CATALOG.releases[0]
    assert {field.name for field in fields(release)} >= {"name", "source"}
    with pytest.raises(AttributeError):
        release.name = "other"  # type: ignore[misc]


def remembered(name: str) -> Path:
    return Path.home() / f".cache/kit/catalog/{name}.json"


def test_a_table_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_catalog().suites
    assert remembered("bases.toml").stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(tables, "_parse", lambda _: pytest.fail("it is parsed again"))
    assert load_catalog().suites == expected == CATALOG.suites


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[",
        b"null",
        b'["another text", {}]',
        b"[" * 100_000,
        lambda text: json.dumps([text, None]).encode(),
        lambda text: json.dumps([text + "\n", {"suite": []}]).encode(),
        lambda text: json.dumps([text, {"suite": []}, 1]).encode(),
    ],
)
def test_a_cache_that_is_not_of_the_text_is_written_again(content: bytes | Callable[[str], bytes]) -> None:
    text = (CATALOG.folder / "bases.toml").read_text(encoding="utf-8")
    file = remembered("bases.toml")
    file.parent.mkdir(parents=True)
    file.write_bytes(content if isinstance(content, bytes) else content(text))
    assert load_catalog().suites == CATALOG.suites
    assert json.loads(file.read_text(encoding="utf-8"))[0] == text


def test_without_a_home_tables_are_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))  # no folder: nothing can be written below it
    assert load_catalog().suites == CATALOG.suites

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert load_catalog().suites == CATALOG.suites


def test_only_kits_own_tables_are_remembered(tmp_path: Path) -> None:
    assert write(tmp_path).releases
    assert not remembered("frameworks.toml").exists()


def test_what_is_remembered_is_what_was_parsed() -> None:
    for name in tables.TABLES:
        document = tables.parse_file(CATALOG.folder / name)
        assert json.loads(remembered(name).read_text(encoding="utf-8"))[1] == document
        assert tables.parse_file(CATALOG.folder / name) == document
