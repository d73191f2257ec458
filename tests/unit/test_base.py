"""A base's address, reproducible archive and errors, without making one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kit import apt, paths
from kit.apt import Source
from kit.engine import Engine
from kit.errors import BadInputError, DiskFullError, EngineError, NetworkError, NoEngineError
from kit.image import base
from kit.image.base import bootstrap, image, mirror, root
from kit.image.base.mirror import Mirror
from kit.process import Completed

STATUS = """\
Package: zlib1g
Status: install ok installed
Version: 1:1.2.13

Package: apt
Description: a manager
 Version: of a continuation line
Version: 2.6.1
"""


def a_mirror(uri: str = "http://mirror.example/debian", *settings: str) -> Mirror:
    suites = ("bookworm", "bookworm-updates")
    return Mirror(
        uri=uri,
        epoch=1,
        settings=settings,
        sources=tuple(Source(uri=uri, suite=suite, components=("main",), options={}) for suite in suites),
    )


def test_unknown_suite_is_refused_before_anything_else() -> None:
    with pytest.raises(BadInputError, match="sid") as caught:
        base.ensure("sid", Engine())
    assert "bookworm" in caught.value.hint


def test_packages_hash_is_about_packages_and_architecture_only() -> None:
    one = image.packages_hash(STATUS, "amd64")
    assert one == image.packages_hash("\n\n".join(reversed(STATUS.strip().split("\n\n"))), "amd64")
    assert one != image.packages_hash(STATUS, "arm64")
    assert one != image.packages_hash(STATUS.replace("2.6.1", "2.6.2"), "amd64")
    expected = "amd64\napt=2.6.1\nzlib1g=1:1.2.13"
    assert one == hashlib.sha256(expected.encode()).hexdigest()


def test_epoch_is_the_release_date_or_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert mirror.source_date_epoch("Suite: x\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n") == 1789199741
    assert mirror.source_date_epoch("nothing") == 0
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "42")
    assert mirror.source_date_epoch("Date: Sat, 12 Sep 2026 07:55:41 UTC") == 42
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "tomorrow")
    with pytest.raises(BadInputError, match="tomorrow"):
        mirror.source_date_epoch("")


def test_what_a_base_says_of_its_mirror_has_no_password_and_no_proxy() -> None:
    setting = 'Acquire::Check-Valid-Until "false";'
    files = bootstrap._files(a_mirror("https://user:secret@mirror.example/debian", setting))
    assert files["etc/apt/sources.list"].decode() == (
        "deb https://mirror.example/debian bookworm main\ndeb https://mirror.example/debian bookworm-updates main\n"
    )
    assert files["etc/apt/apt.conf.d/99kit"].decode() == f"{setting}\n"
    assert "etc/apt/apt.conf.d/99kit" not in bootstrap._files(a_mirror())


def a_package(folder: Path, name: str, **files: str | None) -> Path:
    """The tar file of a package; a name with None is a folder, a text that begins with -> a link, with = a second
    name."""
    package = folder / f"{name}_1_amd64.deb"
    with tarfile.open(package, "w") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(f"./{path}")
            member.mtime = 5
            if text is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            elif text.startswith(("->", "=")):
                member.type = tarfile.SYMTYPE if text[0] == "-" else tarfile.LNKTYPE
                member.linkname = text.lstrip("->=")
            else:
                member.size = len(text)
            tar.addfile(member, io.BytesIO((text or "").encode()) if member.isreg() else None)
    return package


def contents(tar_file: Path) -> dict[str, str | None]:
    with tarfile.open(tar_file) as tar:
        found: dict[str, str | None] = {}
        for member in tar:
            assert member.name not in found, "each name once"
            opened = tar.extractfile(member) if member.isreg() else None
            link = {tarfile.SYMTYPE: "->", tarfile.LNKTYPE: "="}.get(member.type)
            found[member.name] = opened.read().decode() if opened else f"{link}{member.linkname}" if link else None
        return found


def test_packages_are_laid_out_without_manuals_and_their_old_folders_are_links(tmp_path: Path) -> None:
    old = a_package(
        tmp_path,
        "old",
        **{
            "bin": None,
            "bin/sh": "shell",
            "bin/also": "=./bin/sh",
            "lib64/ld.so": "->/lib/ld.so",
            "usr/share/man/man1/sh.1": "manual",
            "usr/share/doc/old/copyright": "free",
            "usr/share/doc/old/README": "text",
        },
    )
    merging = a_package(tmp_path, "usr-is-merged", **{"usr": None, "usr/bin": None})
    layer = tmp_path / "layer.tar"
    for packages, prefix in (([old, merging], "usr/"), ([old], "")):
        root.write_layer(layer, packages, lambda package: package, {"etc/x/y": b"more"}, 9)
        found = contents(layer)
        assert found[f"{prefix}bin/sh"] == "shell"
        assert found[f"{prefix}bin/also"] == f"={prefix}bin/sh"
        assert found[f"{prefix}lib64/ld.so"] == "->/lib/ld.so"
        assert [found.get(name) for name in ("bin", "lib64")] == (
            ["->usr/bin", "->usr/lib64"] if prefix else [None] * 2
        )
        assert "usr/share/doc/old/copyright" in found
        assert not {"usr/share/man/man1/sh.1", "usr/share/doc/old/README"} & set(found)
        assert (found["etc/x"], found["etc/x/y"], found["var/lib/dpkg/status"]) == (None, "more", "")
        assert {f"kit-base/packages/{package.name}" for package in packages} <= set(found)
        names = list(found)
        for name in names:
            parents = [str(parent) for parent in Path(name).parents][:-1]
            assert all(names.index(parent) < names.index(name) for parent in parents), f"{name} after its folders"


def test_what_comes_out_of_a_container_is_the_same_wherever_it_ran(tmp_path: Path) -> None:
    """Whatever order the engine has, and whatever it adds; names of one file stay that."""
    layer = a_package(tmp_path, "layer", **{"run": None, "tmp": None, "bin/a": "x", "sys": None})
    common: dict[str, str | None] = {
        "bin/a": "x",
        "bin/b": "=./bin/a",
        "etc": None,
        "etc/passwd": "root",
        "run": None,
        "tmp": None,
        "sys": None,
    }
    docker = {**common, ".dockerenv": "", "dev": None, "dev/console": "", "etc/hosts": "", "etc/mtab": "->/proc/mounts"}
    # The other of two names of a file comes first there.
    podman = {"run/.containerenv": "", "sys/fs": None, "bin/b": "x", **docker, "tmp/left": "", "var/log/dpkg.log": ""}
    podman |= {"bin/a": "=./bin/b", "bin/b": "x", "kit-base": None, "kit-base/configure.sh": ""}
    made = []
    for name, exported in (("docker", docker), ("podman", podman)):
        made.append(tmp_path / f"{name}-root.tar")
        root.write_root(made[-1], a_package(tmp_path, name, **exported), layer, 3)
    assert contents(made[0]) == {f"./{name}": text for name, text in sorted(common.items())} | {"./bin/b": "=./bin/a"}
    assert made[0].read_bytes() == made[1].read_bytes()
    with tarfile.open(made[0]) as tar:
        assert {member.mtime for member in tar} == {3}, "nothing is newer than the archive"


class Recorder(Engine):
    """An engine that notes what it is asked, and configures nothing."""

    def __init__(self, lines: tuple[str, ...] = (), code: int = 0) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.lines, self.code = lines, code

    def call(self, args: Sequence[str], **_: Any) -> str:
        self.asked.append(" ".join(args[:1]))
        return ""

    def ask(self, args: Sequence[str], **_: Any) -> Completed:
        self.asked.append(f"{args[0]} {args[-1]}")
        return Completed(args=tuple(args), returncode=1, stdout="", stderr="No such thing")

    def stream(self, args: Sequence[str], on_line: Callable[[str], None], *_: Any) -> int:
        for line in self.lines:
            on_line(line)
        self.asked.append(args[0])
        return self.code

    def export(self, name: str, target: Path) -> None:
        self.asked.append("export")
        target.write_bytes((target.parent / "layer.tar").read_bytes())


@pytest.fixture
def one_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = a_package(tmp_path, "base-files", **{"etc/debian_version": "12"})
    monkeypatch.setattr(bootstrap, "download", lambda *_: [package])
    monkeypatch.setattr(bootstrap, "_unpacked", lambda package, _: package)
    monkeypatch.setattr("kit.apt.architecture", lambda: "amd64")
    return package


def test_whoever_may_use_an_engine_makes_a_base_and_leaves_nothing_in_it(tmp_path: Path, one_package: Path) -> None:
    (tmp_path / "work").mkdir()
    engine = Recorder()
    bootstrap.make_root(engine, "bookworm", a_mirror(), tmp_path / "work/root.tar", lambda _: None)
    found = contents(tmp_path / "work/root.tar")
    assert found["./etc/debian_version"] == "12"
    assert not any("kit-base" in name for name in found)
    _, container = engine.asked[0].split()
    _, unconfigured = engine.asked[1].split()
    ends = [f"rm {container}", f"image {unconfigured}"]
    assert engine.asked == [*ends, "image", "create", "start", "export", *ends]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("dpkg: error processing archive x (--unpack): No space left on device", DiskFullError),
        ("dpkg: error processing package x", EngineError),
    ],
)
def test_packages_that_cannot_be_configured(
    tmp_path: Path, one_package: Path, line: str, kind: type[Exception]
) -> None:
    engine = Recorder((line,), 1)
    (tmp_path / "work").mkdir()
    with pytest.raises(kind) as caught:
        bootstrap.make_root(engine, "bookworm", a_mirror(), tmp_path / "work/root.tar", lambda _: None)
    assert line in caught.value.details  # type: ignore[attr-defined]
    assert engine.asked[-2].startswith("rm kit-base-bookworm-")


def write(folder: Path, content: bytes, name: str) -> Path:
    folder.mkdir()
    root = folder / "root.tar"
    root.write_bytes(content)
    target = folder / name
    image.write_image(
        target,
        root,
        reference="kit/base:bookworm",
        created_by="kit base make bookworm",
        labels=image.base_labels("bookworm", "abc", 1789199741),
        architecture="amd64",
        epoch=1789199741,
    )
    return target


def test_the_same_root_gives_the_same_archive(tmp_path: Path) -> None:
    content = b"root file system" * 1000
    one, two = write(tmp_path / "1", content, "x.tar"), write(tmp_path / "2", content, "other.tar")
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes() != write(tmp_path / "3", content + b"!", "x.tar").read_bytes()


def test_every_digest_in_the_archive_is_true(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as root:
        folder = tarfile.TarInfo("./etc")
        folder.type = tarfile.DIRTYPE
        root.addfile(folder)
    content = buffer.getvalue()
    with tarfile.open(write(tmp_path / "1", content, "x.tar")) as tar:
        files = {
            member.name: io.BytesIO(tar.extractfile(member).read()).getvalue()  # type: ignore[union-attr]
            for member in tar
        }
    for name, data in files.items():
        if name.startswith("blobs/sha256/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    manifest = json.loads(files["blobs/sha256/" + json.loads(files["index.json"])["manifests"][0]["digest"][7:]])
    config = json.loads(files["blobs/sha256/" + manifest["config"]["digest"][7:]])
    layer = files["blobs/sha256/" + manifest["layers"][0]["digest"][7:]]
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer))) as packed:
        assert [(member.name, member.isdir()) for member in packed] == [("./dev", True), ("./etc", True)]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(gzip.decompress(layer)).hexdigest()}"]
    assert config["created"] == "2026-09-12T07:55:41Z"
    assert config["config"]["Labels"] == {
        "kit.base.suite": "bookworm",
        "kit.base.packages": "abc",
        "kit.base.epoch": "1789199741",
    }
    older = json.loads(files["manifest.json"])[0]
    assert older["RepoTags"] == ["kit/base:bookworm"]
    assert set(older["Layers"]) | {older["Config"]} <= set(files)


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", NoEngineError),
        ("write /x: no space left on device", DiskFullError),
        ("something else", EngineError),
    ],
)
def test_what_an_engine_failure_means(monkeypatch: pytest.MonkeyPatch, stderr: str, kind: type[Exception]) -> None:
    def fail(args: list[str], **_: object) -> Completed:
        from kit.errors import CommandError

        raise CommandError(tuple(args), 1, "", stderr)

    monkeypatch.setattr("kit.process.run", fail)
    with pytest.raises(kind):
        base.find("bookworm", Engine())


def test_an_image_of_that_name_that_is_no_base_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for labels in ("null", "{}", '{"kit.base.suite": "trixie", "kit.base.packages": "x"}'):
        monkeypatch.setattr(
            "kit.process.run",
            lambda args, labels=labels, **_: Completed(args=tuple(args), returncode=0, stdout=labels, stderr=""),
        )
        assert base.find("bookworm", Engine()) is None


def test_a_failed_make_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_space(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kit.image.base.choose_mirror", no_space)
    archive = tmp_path / "base/bookworm-amd64.tar"
    with pytest.raises(DiskFullError, match=str(tmp_path)):
        base.make("bookworm", archive, Engine())
    assert list(archive.parent.iterdir()) == []


def test_mirror_of_an_ubuntu_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ubuntu = Source(uri="http://mirror.example/ubuntu", suite="jammy", components=("main",), options={})
    monkeypatch.setattr(apt, "host_distribution", lambda: apt.Distribution(family="ubuntu", codename="jammy"))
    monkeypatch.setattr(apt, "host_sources", lambda: [ubuntu])
    monkeypatch.setattr(apt, "host_settings", lambda _: ())
    carried = {
        "http://mirror.example/debian/dists/bookworm/InRelease",
        "http://mirror.example/debian-security/dists/bookworm-security/InRelease",
    }
    date = "Date: Sat, 12 Sep 2026 07:55:41 UTC"
    monkeypatch.setattr(mirror, "tools", lambda *_: tmp_path)
    monkeypatch.setattr(mirror, "_fetch", lambda url, _: date if url in carried else "")
    found = mirror.choose_mirror("bookworm", "", tmp_path)
    assert [source.suite for source in found.sources] == ["bookworm", "bookworm-security"]
    with pytest.raises(NetworkError, match="has no trixie"):
        mirror.choose_mirror("trixie", "", tmp_path)


def test_a_base_that_another_version_of_kit_made_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    archive = base.archive_of("bookworm")
    loaded: list[Path] = []
    older = archive.with_name(f"bookworm-{apt.architecture()}.tar")
    older.write_bytes(b"of another maker")

    def load(suite: str, archive: Path, _: Engine) -> base.BaseImage:
        loaded.append(archive)
        return base.BaseImage(reference=base.reference(suite), content_hash="0" * 64, suite=suite)

    monkeypatch.setattr(base, "find", lambda *_: None)
    monkeypatch.setattr(base, "_load", load)
    monkeypatch.setattr(base, "make", lambda _, archive, *__, **___: archive.write_bytes(b"made"))
    base.ensure("bookworm", Engine())
    base.ensure("bookworm", Engine())
    assert loaded == [archive, archive]
    assert archive.read_bytes() == b"made"
    assert not older.exists()
    monkeypatch.setattr(paths, "base_dir", lambda: tmp_path)
    assert base.archive_of("bookworm") != archive, "what makes a base is part of its name"
