"""A base's address, reproducible archive and errors, without making one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from kit import apt
from kit.apt import Source
from kit.engine import Engine
from kit.errors import BadInputError, DiskFullError, EngineError, NetworkError, NoEngineError
from kit.image import base
from kit.image.base import bootstrap, image
from kit.image.base.bootstrap import Mirror
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


def a_command(where: Mirror) -> list[str]:
    return bootstrap.command(
        "mmdebstrap",
        "bookworm",
        where,
        Path("/w/root.tar"),
        keyring=Path("/k.gpg"),
        architecture="amd64",
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
    assert bootstrap.source_date_epoch("Suite: x\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n") == 1789199741
    assert bootstrap.source_date_epoch("nothing") == 0
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "42")
    assert bootstrap.source_date_epoch("Date: Sat, 12 Sep 2026 07:55:41 UTC") == 42
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "tomorrow")
    with pytest.raises(BadInputError, match="tomorrow"):
        bootstrap.source_date_epoch("")


def test_no_password_is_an_argument() -> None:
    made = a_command(a_mirror("https://user:secret@mirror.example/debian"))
    assert not any("secret" in word for word in made)
    hooks = [word for word in made if word.startswith("--customize-hook")]
    assert any("https://mirror.example/debian bookworm main" in hook for hook in hooks)
    assert "deb https://mirror.example/debian bookworm main" in made
    assert "--include=ca-certificates" in made, "an https mirror needs certificates inside"
    assert any(hook.endswith('"$1"/etc/apt/auth.conf.d/99kit.conf') for hook in hooks)


def test_proxies_stay_out_of_the_base_and_date_settings_stay_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, proxy = 'Acquire::Check-Valid-Until "false";', 'Acquire::http::Proxy "http://u:secret@proxy.example";'
    monkeypatch.setattr(apt, "host_settings", lambda pattern: (proxy,) if pattern == apt.ROUTES else ())
    where = a_mirror("http://user:word@mirror.example/debian", setting)
    bootstrap.prepare(tmp_path, where)
    made = " ".join(a_command(where))
    assert "proxy.example" not in made
    assert "99mmdebstrap" in made
    assert setting in made
    assert (tmp_path / bootstrap.SETTINGS).read_text().splitlines()[:2] == [proxy, setting]
    assert (tmp_path / "auth.conf").read_text().startswith("machine http://mirror.example/debian login user password")
    for name in (bootstrap.SETTINGS, "auth.conf", "apt.conf"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def write(folder: Path, content: bytes, name: str) -> Path:
    folder.mkdir()
    root = folder / "root.tar"
    root.write_bytes(content)
    target = folder / name
    image.write_image(
        target,
        root,
        reference="kit/base:bookworm",
        suite="bookworm",
        architecture="amd64",
        content_hash="abc",
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


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["E: Failed to fetch http://m/x"], NetworkError),
        (["tar: write error: No space left on device"], DiskFullError),
        (["E: broken"], EngineError),
    ],
)
def test_what_an_mmdebstrap_failure_means(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: list[str], kind: type[Exception]
) -> None:
    def stream(_: object, on_line: object, **__: object) -> int:
        for line in lines:
            on_line(line)  # type: ignore[operator]
        return 25

    monkeypatch.setattr("kit.process.stream", stream)
    monkeypatch.setattr("kit.apt.architecture", lambda: "amd64")
    with pytest.raises(kind):
        bootstrap.make_root("mmdebstrap", "bookworm", a_mirror(), tmp_path / "root.tar", lambda _: None)


def test_a_failed_make_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_space(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kit.image.base.bootstrap.mmdebstrap", no_space)
    archive = tmp_path / "base/bookworm-amd64.tar"
    with pytest.raises(DiskFullError, match=str(tmp_path)):
        base.make("bookworm", archive)
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
    monkeypatch.setattr(bootstrap, "_fetch", lambda url, _: date if url in carried else "")
    found = bootstrap.choose_mirror("bookworm", "", tmp_path)
    assert [source.suite for source in found.sources] == ["bookworm", "bookworm-security"]
    with pytest.raises(NetworkError, match="has no trixie"):
        bootstrap.choose_mirror("trixie", "", tmp_path)
