"""Reading, splitting, comparing and solving locks, without a network: uv is given a folder of made-up wheels."""

from __future__ import annotations

import dataclasses
import datetime
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import locks, paths
from kit.catalog import Catalog, load_catalog
from kit.catalog.model import LAYERS, Image
from kit.errors import CheckFailedError, LockError, UnlockedError
from kit.locks import solver
from tests.conftest import Project

CATALOG = load_catalog()
IMAGES = CATALOG.images()
LOCKED = [image for image in IMAGES if not CATALOG.unlocked_reason(image)]
HASH = "sha256:" + "0" * 64


def copy_lock(image: Image, folder: Path) -> Path:
    target = folder / image.name
    target.mkdir()
    for name in (locks.REQUIREMENTS_FILE, locks.LOCK_FILE):
        (target / name).write_bytes((paths.images_dir() / image.name / name).read_bytes())
    return target


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return copy_lock(CATALOG.find("tf-cpu"), tmp_path)


# What is committed.


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_committed_locks_are_what_the_catalog_asks_for(image: Image) -> None:
    locks.check(CATALOG, image)


@pytest.mark.parametrize("image", LOCKED, ids=lambda image: image.name)
def test_committed_locks_keep_the_rules(image: Image) -> None:
    lock = locks.read_lock(paths.images_dir() / image.name, image)
    names = {name for name, _ in lock.packages}
    assert not {"torch", "tensorflow"} <= names
    assert {"jupyterlab", "pip", "numpy", "tensorboard"} <= names
    release = image.release
    versions = dict(lock.packages)
    frameworks = {"torch": ("torch",), "tensorflow": ("tensorflow", "tensorflow-cpu")}[release.framework]
    assert release.version in {versions.get(name, "").partition("+")[0] for name in frameworks}
    for layer, text in lock.layers.items():
        for entry in locks.parse_requirements(text):
            assert entry.hashes
            assert "+" not in entry.version or release.index, f"{entry.name} {entry.version} is not from PyPI"
            assert layer == "devel" or CATALOG.layer_of(entry.name) == layer
    has_cuda = any(name.startswith("nvidia-cublas") for name in names)
    assert has_cuda == (release.cuda_provider == "wheels")
    cudnn = {version for name, version in lock.packages if name.startswith("nvidia-cudnn")}
    assert cudnn <= {release.cudnn}
    assert "://" not in lock.requirements, "a lock names no place: any index or mirror has the same wheels"


@pytest.mark.parametrize("image", [i for i in LOCKED if i.flavor], ids=lambda image: image.name)
def test_a_devel_lock_is_the_plain_one_and_a_section(image: Image) -> None:
    plain = locks.read_lock(paths.images_dir() / image.release.name, Image(release=image.release))
    devel = locks.read_lock(paths.images_dir() / image.name, image)
    assert {layer: devel.layers[layer] for layer in LAYERS} == plain.layers
    names = {entry.name for entry in locks.parse_requirements(devel.layers["devel"])}
    assert ("nvidia-cuda-nvcc" in names) == bool(CATALOG.toolkit(image.release.cuda).nvcc_wheels)


def test_an_unlocked_image_says_why() -> None:
    image = next(image for image in IMAGES if CATALOG.unlocked_reason(image))
    with pytest.raises(UnlockedError) as error:
        locks.read_lock(paths.images_dir() / image.name, image)
    assert image.release.unlocked in error.value.message
    assert f"kit lock {image.name}" in error.value.hint


# Reading.


def test_read(copied: Path) -> None:
    lock = locks.read_lock(copied, CATALOG.find("tf-cpu"))
    assert lock.image == "tf-cpu"
    assert lock.lock_hash == lock.requirements_hash
    assert tuple(lock.layers) == LAYERS
    day = datetime.datetime.fromtimestamp(lock.source_date_epoch, tz=datetime.timezone.utc)
    assert day.isoformat() == f"{lock.snapshot}T00:00:00+00:00"
    assert not locks.is_stale(lock, CATALOG, CATALOG.find("tf-cpu"))


@pytest.mark.parametrize("old", ["==2", "sha256:a", "# layer: apps", "# Generated"])
def test_a_changed_character_is_found(copied: Path, old: str) -> None:
    path = copied / locks.REQUIREMENTS_FILE
    text = path.read_text()
    at = text.index(old) + len(old) - 1
    path.write_text(text[:at] + ("3" if text[at] != "3" else "4") + text[at + 1 :])
    with pytest.raises(LockError) as error:
        locks.read_lock(copied, CATALOG.find("tf-cpu"))
    assert error.value.message == f"{path} is not what kit wrote: its hash is not the one in lock.json"
    assert "`kit lock tf-cpu`" in error.value.hint


def test_changed_line_endings_are_found(copied: Path) -> None:
    path = copied / locks.REQUIREMENTS_FILE
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(LockError, match="is not what kit wrote"):
        locks.read_lock(copied, CATALOG.find("tf-cpu"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"\xff\xfe", "cannot be read"),
        (b"[]", "has the schema None"),
        (b'{"schema": 99}', "has the schema 99; this kit reads 1"),
        (b'{"schema": 1}', "the key `_` is missing"),
    ],
)
def test_an_unreadable_lock_json_is_refused(copied: Path, content: bytes, message: str) -> None:
    (copied / locks.LOCK_FILE).write_bytes(content)
    with pytest.raises(LockError, match=message):
        locks.read_lock(copied, CATALOG.find("tf-cpu"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("layers", []), ("source_date_epoch", "1"), ("base", {"digest": ""}), ("packages", True), ("unlocked", None)],
)
def test_a_key_of_another_type_is_refused(copied: Path, key: str, value: object) -> None:
    path = copied / locks.LOCK_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(LockError, match=f"`{key}`"):
        locks.read_lock(copied, CATALOG.find("tf-cpu"))


def test_a_lock_of_another_image_is_refused(copied: Path) -> None:
    with pytest.raises(LockError, match="is the lock of `tf-cpu`, not of `torch2"):
        locks.read_lock(copied, CATALOG.find("torch-cu126"))


@pytest.mark.parametrize("name", [locks.REQUIREMENTS_FILE, locks.LOCK_FILE])
def test_a_missing_file_is_refused(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(LockError, match=f"{name} is missing"):
        locks.read_lock(copied, CATALOG.find("tf-cpu"))


def test_an_edit_of_lock_json_that_no_hash_covers_is_found(copied: Path) -> None:
    path = copied / locks.LOCK_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "source_date_epoch": 1}, indent=2) + "\n")
    with pytest.raises(LockError, match="is not what kit wrote"):
        locks.check(CATALOG, CATALOG.find("tf-cpu"), copied)


def _with(catalog: Catalog, name: str, **changes: object) -> Catalog:
    """The catalog with one release changed."""
    changed = Catalog(catalog.folder)
    changed.__dict__["releases"] = tuple(
        dataclasses.replace(r, **changes) if r.name == name else r for r in catalog.releases
    )  # type: ignore[arg-type]
    return changed


@pytest.mark.parametrize(
    "changes",
    [
        {"constraints": ("numpy<2",)},
        {"requirements": ("tensorflow==0",)},
        {"suites": ("trixie",)},
        {"distro": "ubuntu22.04"},
    ],
)
def test_a_changed_row_makes_the_lock_stale(copied: Path, changes: dict[str, object]) -> None:
    catalog = _with(CATALOG, "tf-cpu", **changes)
    image = catalog.find("tf-cpu")
    assert locks.is_stale(locks.read_lock(copied, image), catalog, image)
    with pytest.raises(CheckFailedError) as error:
        locks.check(catalog, image, copied)
    assert error.value.details
    assert "`kit lock tf-cpu`" in error.value.hint


def test_prose_in_a_row_does_not_make_the_lock_stale(copied: Path) -> None:
    catalog = _with(CATALOG, "tf-cpu", source="another page", note="more")
    locks.check(catalog, catalog.find("tf-cpu"), copied)


# The format.

ENTRY = st.builds(
    locks.Requirement,
    name=st.sampled_from(["numpy", "nvidia-cublas-cu12", "a1", "backports.tarfile", "keras"]),
    version=st.lists(st.integers(0, 999), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts))),
    marker=st.sampled_from(["", "python_full_version < '3.12'", "platform_machine == 'aarch64' or os_name == 'nt'"]),
    hashes=st.lists(st.integers(0, 2**256 - 1).map(lambda n: f"sha256:{n:064x}"), min_size=1, max_size=3).map(tuple),
)


@given(st.lists(ENTRY, max_size=6))
def test_entries_survive_being_written_and_read(entries: list[locks.Requirement]) -> None:
    assert locks.parse_requirements("".join(entry.text() for entry in entries)) == entries


@given(st.tuples(*(st.lists(ENTRY, max_size=4) for _ in LAYERS)))
def test_sections_survive_being_joined_and_split(sections: tuple[list[locks.Requirement], ...]) -> None:
    text = "# Generated\n" + "".join(
        f"\n# layer: {layer}\n" + "".join(entry.text() for entry in entries)
        for layer, entries in zip(LAYERS, sections, strict=True)
    )
    found = locks.split_layers(text)
    assert [locks.parse_requirements(found[layer]) for layer in LAYERS] == list(sections)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("numpy==1\n", "is before the first section"),
        ("# layer: cuda\n# layer: cuda\n", "unexpected section"),
        ("# layer: other\n", "unexpected section"),
        ("# layer: cuda\n# layer: apps\n", "no section for framework"),
    ],
)
def test_bad_sections_are_refused(text: str, message: str) -> None:
    with pytest.raises(LockError, match=message):
        locks.split_layers(text)


@pytest.mark.parametrize(
    "entry",
    [
        "numpy==1.0",
        "numpy>=1.0 --hash=" + HASH,
        "numpy==1.0 --hash=md5:00",
        "-e . --hash=" + HASH,
        "numpy @ https://example.org/numpy.whl --hash=" + HASH,
        f"numpy==1.0 --hash={HASH} --hash=sha256:12",
        f"--index-url https://example.org --hash={HASH}",
    ],
)
def test_an_entry_without_exact_version_and_hashes_is_refused(entry: str) -> None:
    with pytest.raises(LockError, match="cannot read the entry"):
        locks.parse_requirements(entry + "\n")


# Markers.


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("", ""),
        ("sys_platform == 'linux'", ""),
        ("sys_platform == 'win32'", None),
        ("python_full_version < '3.11'", None),
        ("platform_machine == 'aarch64'", None),
        (
            "python_full_version < '3.12' and platform_machine == 'x86_64' and sys_platform == 'linux'",
            "python_full_version < '3.12'",
        ),
        ("python_full_version < '3.11.5' and sys_platform == 'linux'", "python_full_version < '3.11.5'"),
    ],
)
def test_markers_are_cut_to_what_can_happen(marker: str, expected: str | None) -> None:
    environments = solver.marker_environments(["3.11", "3.13"], ["x86_64"])
    entry = locks.Requirement(name="a", version="1", marker=marker, hashes=(HASH,))
    found = solver.for_these(entry, environments)
    assert (found.marker if found else None) == expected


# Solving, from wheels that are made here.


def make_wheel(
    folder: Path, name: str, version: str, *, requires: tuple[str, ...] = (), tag: str = "py3-none-any"
) -> None:
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{module}-{version}-{tag}.whl", "w") as wheel:
        wheel.writestr(f"{module}.py", "")
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            + "".join(f"Requires-Dist: {r}\n" for r in requires),
        )
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """A catalog of one image, a package index in a folder, and an images/ folder to write to."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    make_wheel(wheels, "torch", "2.6.0", requires=("nvidia-cublas-cu12==12.4.5.8", "sympy"))
    make_wheel(wheels, "nvidia-cublas-cu12", "12.4.5.8")
    make_wheel(wheels, "sympy", "1.0")
    make_wheel(
        wheels,
        "jupyterlab",
        "4.0.0",
        requires=('colorama ; sys_platform == "win32"', 'tomli ; python_version < "3.11"'),
    )
    make_wheel(wheels, "tomli", "2.0")
    make_wheel(wheels, "colorama", "1.0")
    folder = tmp_path / "catalog"
    folder.mkdir()
    source = CATALOG.folder
    for name in ("bases.toml", "cuda.toml", "platforms.toml"):
        (folder / name).write_bytes((source / name).read_bytes())
    (folder / "gpus.toml").write_text("")
    (folder / "frameworks.toml").write_text("""
[[release]]
name = "torch2.6-cu124"
framework = "torch"
version = "2.6.0"
cuda = "12.4"
cuda_provider = "wheels"
requirements = ["torch==2.6.0"]
pythons = ["3.10", "3.11", "3.13"]
platforms = ["linux/amd64"]
distro = "ubuntu22.04"
suites = ["bookworm"]
source = "a page"
verified = "pypi"
""")
    (folder / "packages.toml").write_text("""
[[layer]]
name = "cuda"
patterns = ["nvidia-*"]
reason = "r"
source = "s"
[[layer]]
name = "framework"
patterns = ["torch"]
reason = "r"
source = "s"
[[package]]
name = "jupyterlab"
source = "s"
""")
    # What a user's environment may hold must not change what is solved; where the index is, it may say.
    index = make_index(tmp_path / "index", wheels)
    monkeypatch.setenv("UV_DEFAULT_INDEX", index)
    monkeypatch.setenv("UV_FIND_LINKS", "/nonexistent/place")
    monkeypatch.setenv("UV_PRERELEASE", "allow")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "images_dir", lambda: tmp_path / "images")
    return load_catalog(folder)


def make_index(folder: Path, wheels: Path) -> str:
    """A simple index as files; uv reads file:// addresses."""
    names = {wheel.name.split("-")[0].replace("_", "-") for wheel in wheels.iterdir()}
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        links = [
            f'<a href="{wheel.as_uri()}#sha256={_sha256(wheel)}">{wheel.name}</a>'
            for wheel in sorted(wheels.iterdir())
            if wheel.name.split("-")[0].replace("_", "-") == name
        ]
        (folder / name / "index.html").write_text("<!DOCTYPE html><html><body>" + "\n".join(links) + "</body></html>")
    return folder.as_uri()


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


DAY = datetime.date(2026, 11, 21)


def test_solve_writes_sections_and_is_stable(small: Catalog, tmp_path: Path) -> None:
    image = small.find("torch2.6-cu124")
    assert locks.solve(small, image, today=DAY)
    lock = locks.read_lock(tmp_path / "images" / image.name, image)
    sections = {
        layer: [(r.name, r.version, r.marker) for r in locks.parse_requirements(text)]
        for layer, text in lock.layers.items()
    }
    assert sections == {
        "cuda": [("nvidia-cublas-cu12", "12.4.5.8", "")],
        "framework": [("torch", "2.6.0", "")],
        "apps": [("jupyterlab", "4.0.0", ""), ("sympy", "1.0", ""), ("tomli", "2.0", "python_full_version < '3.11'")],
    }
    assert (lock.snapshot, lock.pythons) == ("2026-11-21", ("3.10", "3.11"))
    locks.check(small, image)
    # A newer version appears: the lock stays, its date too, until --upgrade.
    make_wheel(tmp_path / "wheels", "sympy", "1.1")
    make_index(tmp_path / "index", tmp_path / "wheels")
    later = DAY + datetime.timedelta(days=9)
    assert not locks.solve(small, image, today=later)
    assert locks.resolves_the_same(small, image)
    assert locks.solve(small, image, upgrade=True, today=later)
    lock = locks.read_lock(tmp_path / "images" / image.name, image)
    assert ("sympy", "1.1") in lock.packages
    assert lock.snapshot == "2026-11-30"


def test_an_index_serves_the_packages_it_is_pinned_to_and_no_others(small: Catalog, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    make_wheel(flat, "torch", "2.6.0+cu124", requires=("sympy",))
    make_wheel(flat, "sympy", "9.0")  # newer than the package index has, and not to be taken
    page = tmp_path / "torch_stable.html"
    page.write_text("\n".join(f'<a href="{w.as_uri()}">{w.name}</a>' for w in sorted(flat.iterdir())))
    changed = _with(
        small,
        "torch2.6-cu124",
        index=page.as_uri(),
        index_packages=("torch",),
        requirements=("torch==2.6.0+cu124",),
        cuda_provider="bundled",
    )
    image = changed.find("torch2.6-cu124")
    locks.solve(changed, image, today=DAY)
    lock = locks.read_lock(tmp_path / "images" / image.name, image)
    assert dict(lock.packages)["torch"] == "2.6.0+cu124"
    assert dict(lock.packages)["sympy"] == "1.0"
    assert lock.layers["cuda"] == ""


def test_devel_adds_to_the_plain_lock(small: Catalog, tmp_path: Path) -> None:
    devel = small.find("torch2.6-cu124-devel")
    assert locks.solve(small, devel, today=DAY)
    plain = small.find("torch2.6-cu124")
    locks.check(small, plain)
    locks.check(small, devel)
    found = locks.read_lock(tmp_path / "images" / devel.name, devel)
    assert found.layers["devel"].strip() == ""


def test_nothing_is_written_when_nothing_fits(small: Catalog, tmp_path: Path) -> None:
    image = small.find("torch2.6-cu124")
    locks.solve(small, image, today=DAY)
    before = {p: p.read_bytes() for p in (tmp_path / "images").rglob("*") if p.is_file()}
    broken = _with(small, image.name, requirements=("torch==9.9",))
    with pytest.raises(LockError) as error:
        locks.solve(broken, broken.find(image.name), today=DAY)
    assert "torch2.6-cu124" in error.value.message
    assert any("9.9" in line for line in error.value.details)
    assert {p: p.read_bytes() for p in (tmp_path / "images").rglob("*") if p.is_file()} == before


def test_a_version_without_a_wheel_for_a_base_is_refused(small: Catalog, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    (wheels / "sympy-1.0-py3-none-any.whl").unlink()
    make_wheel(wheels, "sympy", "1.0", tag="cp310-cp310-manylinux_2_17_x86_64")
    make_index(tmp_path / "index", wheels)
    image = small.find("torch2.6-cu124")
    with pytest.raises(LockError) as error:
        locks.solve(small, image, today=DAY)
    assert "sympy" in " ".join(error.value.details)
    assert not (tmp_path / "images" / image.name).exists()


def test_an_interrupted_write_is_found(small: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = small.find("torch2.6-cu124")
    locks.solve(small, image, today=DAY)
    make_wheel(tmp_path / "wheels", "sympy", "1.1")
    make_index(tmp_path / "index", tmp_path / "wheels")
    real = paths.write_text

    def fail_second(path: Path, text: str) -> None:
        if path.name == locks.LOCK_FILE:
            raise KeyboardInterrupt
        real(path, text)

    monkeypatch.setattr(paths, "write_text", fail_second)
    with pytest.raises(KeyboardInterrupt):
        locks.solve(small, image, upgrade=True, today=DAY)
    with pytest.raises(LockError, match="is not what kit wrote"):
        locks.read_lock(tmp_path / "images" / image.name, image)
    monkeypatch.setattr(paths, "write_text", real)
    locks.solve(small, image, today=DAY)
    locks.check(small, image)


def test_a_lock_that_grows_keeps_its_epoch(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more package must not change the bytes of the layers it is not in; `--upgrade` starts anew."""

    def solved(name: str) -> None:
        entry = locks.parse_requirements(f"{name}==1.0 \\\n    --hash=sha256:" + "1" * 64 + "\n")
        monkeypatch.setattr("kit.locks._solve", lambda *_, **__: ("0.0", {"cuda": [], "framework": [], "apps": entry}))

    monkeypatch.setattr(solver, "require_wheels", lambda *_: None)
    epoch = locks.read_lock(project.folder, project.image).source_date_epoch
    solved("one-more")
    assert locks.solve(project.catalog, project.image, today=datetime.date(2027, 5, 1))
    grown = locks.read_lock(project.folder, project.image)
    assert (grown.source_date_epoch, grown.snapshot) == (epoch, "2027-05-01")
    solved("another")
    assert locks.solve(project.catalog, project.image, upgrade=True, today=datetime.date(2027, 5, 2))
    assert locks.read_lock(project.folder, project.image).source_date_epoch > epoch
