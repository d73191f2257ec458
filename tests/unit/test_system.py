"""Packages of the distribution: resolved by apt in an image, locked with their hashes, installed from exactly those.

What apt says is from a real run; the archives are made here. apt looks at dates, whatever this machine has been told.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kit import paths, process
from kit.catalog import load_catalog
from kit.environment import system
from kit.environment.declared import Declared
from kit.environment.format import EnvironmentLock, SystemLayer, SystemPackage, read, write
from kit.errors import CommandError, EngineError, LockError, NetworkError
from kit.image.build.ensure import ImageOptions
from kit.image.build.options import BuildOptions
from kit.locks.format import sha256
from kit.network import NetworkSettings
from kit.project import system as action
from kit.spec.container import ContainerSpec
from kit.targets import docker as target
from tests.debian_archive import DebianArchive, apt_settings, status

DATA = Path(__file__).parent / "data/apt"
RESOLVED = (DATA / "resolved.txt").read_text().splitlines()
needs_apt = pytest.mark.skipif(
    not all(map(shutil.which, ("apt-get", "dpkg-deb", "dpkg-query"))), reason="needs apt and dpkg"
)


def layer(*packages: SystemPackage, suite: str = "bookworm", wanted: Sequence[str] = ("tool",)) -> SystemLayer:
    return SystemLayer(
        suite=suite, architecture="amd64", wanted=tuple(wanted), snapshot="20261127T021032Z", packages=packages
    )


def lock(*layers: SystemLayer, image: str = "tf-cpu") -> EnvironmentLock:
    return EnvironmentLock(
        kit="0",
        uv="0",
        inputs_hash=sha256("inputs"),
        image=image,
        image_lock=sha256("image"),
        pythons=("3.11",),
        source_date_epoch=1,
        requirements_hash=sha256(""),
        system=layers,
    )


# What apt says becomes an entry


def test_what_apt_says_becomes_an_entry_of_the_lock() -> None:
    found = system.layer_of("bookworm", "amd64", ("libsecret-1-dev", "sox"), RESOLVED)
    by_name = {package.name: package for package in found.packages}
    assert len(by_name) == sum(line.startswith("package ") for line in RESOLVED)
    assert list(by_name) == sorted(by_name)
    assert by_name["libpcre2-8-0"] == SystemPackage(
        name="libpcre2-8-0",
        version="10.42-1+deb12u2",
        architecture="amd64",
        file="pool/updates/main/p/pcre2/libpcre2-8-0_10.42-1+deb12u2_amd64.deb",
        sha256=next(line for line in RESOLVED if "libpcre2-8-0_" in line)[-64:],
    )
    assert by_name["libglib2.0-data"].architecture == "all"
    # The newest of the three lists' dates.
    assert found.snapshot == "20261127T021032Z"
    assert not {"bash", "libc6"} & set(by_name), "what the image has already"


def test_an_epoch_is_part_of_the_version_and_of_no_file() -> None:
    line = f"package 'http://m.example/debian/pool/x/xz_2%7e1_all.deb' xz_1%3a2~1_all.deb 9 SHA256:{'a' * 64}"
    found = system.layer_of("trixie", "arm64", ("x",), ["repository http://m.example/debian", line])
    assert (found.packages[0].version, found.packages[0].file) == ("1:2~1", "pool/x/xz_2~1_all.deb")
    assert found.snapshot == ""


def test_what_takes_the_place_of_the_images_own_is_named() -> None:
    found = system.replaced(system.layer_of("bookworm", "amd64", ("sox",), RESOLVED), RESOLVED)
    assert [(p.name, p.old, p.new) for p in found] == [
        ("libglib2.0-0", "2.74.6-2+deb12u8", "2.74.6-2+deb12u9"),
        ("libpcre2-8-0", "10.42-1", "10.42-1+deb12u2"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "'http://m.example/debian/pool/x/x_1_all.deb' x_1_all.deb 9 MD5Sum:0123",
        "'http://other.example/x_1_all.deb' x_1_all.deb 9 SHA256:" + "a" * 64,
        "'http://m.example/debian/pool/x/x_1_all.deb' x_1_all.deb 9 SHA256:" + "a" * 63,
        "W: something",
        "",
    ],
)
def test_a_package_without_a_hash_or_from_nowhere_is_not_locked(line: str) -> None:
    with pytest.raises(LockError, match="cannot lock"):
        system.layer_of("bookworm", "amd64", ("x",), ["repository http://m.example/debian/", f"package {line}"])


# The lock and the images


def test_an_entry_without_packages_comes_back_from_the_file(tmp_path: Path) -> None:
    written = lock(layer(), layer(suite="trixie"))
    write(tmp_path, written)
    assert read(tmp_path) == written


def test_a_snapshot_that_is_more_than_a_time_is_refused(tmp_path: Path) -> None:
    write(tmp_path, lock(layer()))
    file = tmp_path / "kit.lock"
    file.write_text(file.read_text().replace("20261127T021032Z", "x$(id)"))
    with pytest.raises(LockError, match="is not a name"):
        read(tmp_path)


def test_each_base_of_the_catalog_has_a_release_that_its_archive_goes_by() -> None:
    catalog = load_catalog()
    for base in catalog.bases:
        assert system.suite_of(catalog, base.reference) in ("focal", "jammy", "noble")
    assert system.suite_of(catalog, "archive:bookworm") == "bookworm"
    with pytest.raises(LockError, match="no base of this kit's catalog"):
        system.suite_of(catalog, "ubuntu:26.04")


def test_a_lock_without_the_images_release_says_where_to_lock() -> None:
    with pytest.raises(
        LockError, match=r"has system packages for trixie amd64, and tf.* stands on bookworm amd64"
    ) as e:
        system.layer_for(lock(layer(suite="trixie")), "bookworm", "amd64")
    assert "`kit lock`" in e.value.hint
    assert system.layer_for(lock(layer()), "bookworm", "amd64").suite == "bookworm"


def test_the_list_of_a_step_names_the_archives_that_keep_old_versions() -> None:
    package = SystemPackage(name="x", version="1", architecture="all", file="pool/x.deb", sha256="a" * 64)
    text = system.step_list(load_catalog(), layer(package)).splitlines()
    assert text[0] == "suite bookworm amd64"
    assert text[-1] == f"package {'a' * 64} x 1 all pool/x.deb"
    assert all("/debian" in line and line.endswith("/20261127T021032Z") for line in text[1:-1])
    assert len(text) == 4
    assert len(system.step_list(load_catalog(), layer(package, suite="noble")).splitlines()) == 3


# Locking: apt in a container


class Container:
    """An engine whose containers are this machine's shell, with an apt that knows one archive alone."""

    def __init__(self, folder: Path, archive: DebianArchive, installed: str = "") -> None:
        self.folder, self.settings = folder, apt_settings(folder, archive, installed)
        self.specs: list[ContainerSpec] = []
        self.inputs: list[str] = []

    def arguments(self, spec: ContainerSpec) -> list[str]:
        self.specs.append(spec)
        return target.arguments(spec)

    def ask(self, args: Sequence[str], *, timeout_s: float, input: str | None = None) -> process.Completed:
        spec = self.specs[-1]
        if input is None:
            return process.Completed(args=tuple(args), returncode=0, stdout="bookworm\namd64\n", stderr="")
        self.inputs.append(input)
        work = self.folder / f"run-{len(self.inputs)}"
        mine = input.replace("/tmp/kit", str(work)).replace('> "$APT_CONFIG" <<END\n', f"{{}}{self.settings}")
        mine = mine.replace("{}", '> "$APT_CONFIG" <<END\n', 1)
        variables = {"DPKG_ADMINDIR": str(self.folder / "dpkg")}
        return process.run(spec.command, input=mine, env=variables, check=False)

    def failure(self, error: CommandError) -> EngineError:
        return EngineError(error.message)

    def remove(self, name: str, *, force: bool = False) -> None:
        raise AssertionError("it has ended")


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[DebianArchive]:
    made = DebianArchive(tmp_path / "archive")
    made.add("libtool-thing", "1:2.0-1")
    made.add("tool", "3.0~rc1-1+b1", Depends="libtool-thing (>= 1:2.0), base-thing", Recommends="extra")
    made.add("extra", "1", architecture="all")
    made.add("base-thing", "1.1", architecture="all")
    made.add("needs-newer", "1", Depends="base-thing (>= 1.1)")
    made.add("refuses", "1", Conflicts="tool")
    made.publish()
    with made.served():
        yield made


@pytest.fixture
def locked(tmp_path: Path, archive: DebianArchive, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Lock these packages for the small image, whose release has base-thing 1.0."""
    monkeypatch.setattr(action, "ensure_image", lambda *_: ("kit/tf-cpu:latest", False))
    container = Container(tmp_path / "c", archive, status("base-thing", "1.0", "all"))
    image = load_catalog().find("tf-cpu")

    def call(
        *names: str, present: EnvironmentLock | None = None, network: NetworkSettings | None = None, **more: bool
    ) -> tuple[tuple[SystemLayer, ...], Container, list[str]]:
        said = Said()
        declared = Declared(folder=tmp_path, image="tf-cpu", system=names)
        options = ImageOptions(build=BuildOptions(network=network or NetworkSettings(proxies={})))
        container.engine = container  # type: ignore[attr-defined]
        container.connection = None  # type: ignore[attr-defined]
        catalog = load_catalog()
        found = action.lock_system(
            catalog,
            declared,
            image,
            container,
            options,
            present,
            said,
            **more,  # type: ignore[arg-type]
        )
        return found, container, said.lines

    return call


@needs_apt
def test_what_is_missing_is_locked_and_what_is_there_is_not(locked: Callable[..., Any], archive: DebianArchive) -> None:
    (found,), container, said = locked("tool")
    assert [(p.name, p.version, p.architecture) for p in found.packages] == [
        ("libtool-thing", "1:2.0-1", archive.architecture),
        ("tool", "3.0~rc1-1+b1", archive.architecture),
    ]
    for package in found.packages:
        file = archive.folder / package.file
        assert subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.startswith(
            package.sha256
        )
    assert (found.suite, found.architecture, found.wanted) == ("bookworm", "amd64", ("tool",))
    assert len(found.snapshot) == 16
    assert said == ["asking the distribution (bookworm) for tool"]
    which, asked = container.specs
    assert which.network == "none"
    # Nothing of the user's: no mount, no right, and no variable on a list of processes.
    assert (asked.user, asked.mounts, asked.variables, asked.network) == ("0:0", (), {}, "")


@needs_apt
def test_what_the_image_has_needs_nothing(locked: Callable[..., Any]) -> None:
    (found,), _, said = locked("base-thing")
    assert (found.packages, found.wanted) == ((), ("base-thing",)), "though the archive has a newer one"
    assert len(said) == 1


@needs_apt
def test_what_has_to_be_newer_is_said(locked: Callable[..., Any]) -> None:
    (found,), _, said = locked("needs-newer")
    assert [p.name for p in found.packages] == ["base-thing", "needs-newer"]
    assert said[1] == "base-thing 1.1 takes the place of the image's 1.0"


@needs_apt
@pytest.mark.parametrize("name", ["nothing-like-this", "tool-", "tool+", "to.l"])
def test_a_package_that_does_not_exist_is_named(locked: Callable[..., Any], name: str) -> None:
    with pytest.raises(LockError, match="has no package") as e:
        locked("tool", name)
    assert f"`{name}`" in e.value.message
    assert "`tool`" not in e.value.message


@needs_apt
@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("refuses", "tool"), "refuses : Conflicts: tool"),
        (("tool=9",), "E: Version '9' for 'tool' was not found"),
    ],
)
def test_what_cannot_be_installed_says_why(locked: Callable[..., Any], names: tuple[str, ...], why: str) -> None:
    with pytest.raises(LockError, match=r"cannot be installed beside what tf-cpu holds") as e:
        locked(*names)
    assert any(line.startswith(why) for line in e.value.details), e.value.details


@needs_apt
def test_what_the_image_holds_stays(locked: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "c/dpkg/status"
    file.write_text(file.read_text().replace("install ok installed", "hold ok installed"))
    with pytest.raises(LockError, match="needs-newer cannot be installed beside what tf-cpu holds") as e:
        locked("needs-newer")
    assert e.value.details[0].startswith("needs-newer : Depends: base-thing (>= 1.1)"), e.value.details


def test_apts_own_words_for_a_conflict() -> None:
    assert action._why((DATA / "conflict.txt").read_text()) == (
        "exim4-config : Conflicts: postfix but 3.7.11-0+deb12u1 is to be installed",
        "exim4-daemon-light : Conflicts: mail-transport-agent",
        "postfix : Conflicts: mail-transport-agent",
        "E: Unable to correct problems, you have held broken packages.",
    )


@needs_apt
def test_an_archive_that_is_too_old_is_not_believed(locked: Callable[..., Any], archive: DebianArchive) -> None:
    archive.publish(valid_for=timedelta(minutes=-5))
    with pytest.raises(NetworkError, match="cannot be used") as e:
        locked("tool")
    assert any("is expired" in line for line in e.value.details)


@needs_apt
def test_entries_of_other_releases_stay_while_the_same_is_wanted(locked: Callable[..., Any]) -> None:
    package = SystemPackage(name="tool", version="0", architecture="amd64", file="pool/x.deb", sha256="a" * 64)
    noble, old = layer(package, suite="noble"), layer(package, suite="focal", wanted=("other",))
    found, _, _ = locked("tool", present=lock(noble, old))
    assert [entry.suite for entry in found] == ["bookworm", "noble"]
    assert found[1] == noble


@needs_apt
def test_what_is_locked_stays_until_an_upgrade_or_another_image(locked: Callable[..., Any]) -> None:
    package = SystemPackage(name="tool", version="0", architecture="amd64", file="pool/x.deb", sha256="a" * 64)
    present = lock(layer(package))
    assert locked("tool", present=present)[0] == present.system
    for found, _, _ in (locked("tool", present=present, upgrade=True), locked("tool", present=lock(image="torch"))):
        assert [p.version for p in found[0].packages] == ["1:2.0-1", "3.0~rc1-1+b1"]


@needs_apt
def test_it_reaches_the_network_as_builds_do(locked: Callable[..., Any], tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\nMII'x$(id)\n-----END CERTIFICATE-----\n")
    proxies = {"http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1"}
    _, container, _ = locked("tool", network=NetworkSettings(proxies=proxies, ca_file=bundle))
    assert "export http_proxy=http://127.0.0.1:1\n" in container.inputs[0]
    assert container.specs[-1].network == "host", "where a proxy of this machine's loopback is"
    work = tmp_path / "c/run-1"
    assert (work / "ca").read_text().strip() == bundle.read_text().strip()
    assert f'Acquire::https::CAInfo "{work}/ca";' in (work / "apt.conf").read_text()


# The step that installs


class Step:
    """The script of the step with this machine's apt, an archive, and a dpkg that only notes what it is given."""

    def __init__(self, folder: Path, archive: DebianArchive, installed: str = "") -> None:
        self.folder, self.archive = folder, archive
        folder.mkdir()
        text = (paths.templates_dir() / "system.sh").read_text()
        (folder / "os-release").write_text("VERSION_CODENAME=bookworm\n")
        (folder / "machine-id").write_text("")
        for place in ("/var/cache/apt/kit", "/tmp/kit", "/usr/sbin/policy-rc.d", "/etc/machine-id", "/etc/os-release"):
            assert place in text
            text = text.replace(place, f"{folder}/{Path(place).name}")
        text = text.replace("/var/lib/dbus/", f"{folder}/dbus-").replace("/etc/ssh/", f"{folder}/")
        (folder / "system.sh").write_text(text)
        self.apt = folder / "apt"
        settings = apt_settings(self.apt, archive, installed)
        dpkg = folder / "dpkg"
        dpkg.write_text(DPKG.format(status=self.apt / "dpkg/status", folder=folder))
        dpkg.chmod(0o755)
        (folder / "apt.conf").write_text(f'{settings}Dir::Bin::dpkg "{dpkg}";\nDPkg::Use-Pty "false";\n')

    def run(self, *packages: SystemPackage, more: str = "") -> subprocess.CompletedProcess[str]:
        list_ = self.folder / "list"
        text = system.step_list(load_catalog(), layer(*packages))
        kept = [line for line in text.splitlines() if not line.startswith("snapshot ")]
        list_.write_text("\n".join([*kept, more]).rstrip() + "\n")
        variables = {"APT_CONFIG": str(self.folder / "apt.conf"), "DPKG_ADMINDIR": str(self.apt / "dpkg")}
        return subprocess.run(
            ["sh", self.folder / "system.sh", list_],
            env={**os.environ, **variables, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    @property
    def unpacked(self) -> list[str]:
        file = self.folder / "unpacked"
        return file.read_text().split() if file.exists() else []


DPKG = """#!/bin/sh
case " $* " in
    *' --unpack '*)
        for file; do
            case $file in *.deb)
                dpkg-deb --field "$file" Package >> {folder}/unpacked
                [ -x {folder}/policy-rc.d ] || exit 1
                {{ dpkg-deb --field "$file" | sed '/^Package:/a Status: install ok installed'; echo; }} >> {status} ;;
            esac
        done ;;
    *' --configure '*) ;;
    *) exec dpkg "$@" ;;
esac
"""


def entry(file: Path, archive: DebianArchive) -> SystemPackage:
    """A package of an archive as a lock has it."""
    name, version, architecture = (
        subprocess.run(["dpkg-deb", "--field", file, field], capture_output=True, text=True, check=True).stdout.strip()
        for field in ("Package", "Version", "Architecture")
    )
    digest = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout[:64]
    return SystemPackage(
        name=name,
        version=version,
        architecture=architecture,
        file=str(file.relative_to(archive.folder)),
        sha256=digest,
    )


@pytest.fixture
def old(archive: DebianArchive) -> list[SystemPackage]:
    """What a lock of a week ago has: the archive's lists have newer ones now, its pool has both."""
    files = [archive.add("libthing", "1:1.0-1"), archive.add("thing", "1.0~rc1-1", Depends="libthing (= 1:1.0-1)")]
    packages = [entry(file, archive) for file in files]
    archive.add("libthing", "1:1.1-1")
    archive.add("thing", "1.1-1", Depends="libthing (= 1:1.1-1)")
    archive.publish()
    return packages


@pytest.fixture
def step(tmp_path: Path, archive: DebianArchive) -> Step:
    if archive.architecture != "amd64":
        pytest.skip("the lock of these tests is for amd64")
    return Step(tmp_path / "step", archive, status("base-thing", "1.0", "all"))


@needs_apt
def test_a_step_installs_exactly_what_is_locked(step: Step, old: list[SystemPackage]) -> None:
    done = step.run(*reversed(old))
    assert done.returncode == 0, done.stderr
    assert step.unpacked == ["libthing", "thing"], "in the order that they need, and no newer base-thing"
    assert not (step.folder / "policy-rc.d").exists(), "services are kept from starting for as long as it takes"
    again = step.run(*old)
    assert (again.returncode, step.unpacked) == (0, ["libthing", "thing"]), again.stderr


@needs_apt
def test_what_was_downloaded_before_needs_no_mirror_and_is_checked_all_the_same(
    step: Step, old: list[SystemPackage], archive: DebianArchive
) -> None:
    store = step.folder / "kit"
    store.mkdir()
    for package, text in zip(old, (b"broken", None), strict=True):
        file = archive.folder / package.file
        (store / f"{package.sha256}.deb").write_bytes(text or file.read_bytes())
    (archive.folder / old[1].file).unlink()
    done = step.run(*old)
    assert (done.returncode, step.unpacked) == (0, ["libthing", "thing"]), done.stderr


@needs_apt
def test_a_package_that_was_tampered_with_ends_the_step(
    step: Step, old: list[SystemPackage], archive: DebianArchive
) -> None:
    file = archive.folder / old[1].file
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    done = step.run(*old)
    assert done.returncode == 1
    assert f"kit: hash mismatch: thing 1.0~rc1-1 from {archive.url} has the SHA256 " in done.stderr
    assert old[1].sha256 in done.stderr
    assert step.unpacked == []


@needs_apt
def test_a_version_that_the_mirror_deleted(step: Step, old: list[SystemPackage], archive: DebianArchive) -> None:
    kept = archive.folder / "snapshot" / old[0].file
    kept.parent.mkdir(parents=True)
    (archive.folder / old[0].file).rename(kept)
    done = step.run(*old)
    assert done.returncode == 1
    assert (
        "kit: the mirror has libthing 1:1.1-1 now, and kit.lock 1:1.0-1; `kit lock --upgrade` takes the new one, "
        "a snapshot mirror has the old one\n"
    ) in done.stderr
    assert step.unpacked == []
    from_snapshot = step.run(*old, more=f"snapshot {archive.url}/snapshot")
    assert (from_snapshot.returncode, step.unpacked) == (0, ["libthing", "thing"]), from_snapshot.stderr


@needs_apt
def test_a_package_that_the_mirror_has_no_more(step: Step, archive: DebianArchive) -> None:
    gone = SystemPackage(name="gone", version="1", architecture="all", file="pool/gone.deb", sha256="a" * 64)
    done = step.run(gone)
    assert done.returncode == 1
    assert "kit: the mirror has no gone any more, and kit.lock 1; a snapshot mirror has it\n" in done.stderr


@needs_apt
def test_an_image_that_is_newer_than_the_lock(step: Step, archive: DebianArchive) -> None:
    older = entry(archive.add("base-thing", "0.9", architecture="all"), archive)
    done = step.run(older)
    assert (
        "kit: the image has base-thing 1.0 already, which is newer than the 0.9 of kit.lock; "
        "`kit lock --upgrade` takes it\n"
    ) in done.stderr
    assert (done.returncode, step.unpacked) == (1, [])


@needs_apt
def test_what_lacks_a_package_that_it_needs_is_not_installed(step: Step, old: list[SystemPackage]) -> None:
    done = step.run(old[1])
    assert done.returncode == 1
    assert (
        "kit: the packages of kit.lock cannot be installed in this image; `kit lock --upgrade` asks anew\n"
        in done.stderr
    )
    assert step.unpacked == []


@needs_apt
def test_packages_of_another_release_are_not_installed(step: Step, old: list[SystemPackage]) -> None:
    (step.folder / "os-release").write_text("VERSION_CODENAME=trixie\n")
    done = step.run(*old)
    assert "kit: these are packages for bookworm amd64, and the image is trixie amd64" in done.stderr
    assert (done.returncode, step.unpacked) == (1, [])


@needs_apt
def test_what_is_one_machines_own_stays_out_of_the_image(step: Step, old: list[SystemPackage]) -> None:
    dpkg = step.folder / "dpkg"
    (step.folder / "ssh_host_ed25519_key").write_text("secret")
    dpkg.write_text(dpkg.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\necho 0123 > {step.folder}/machine-id\n"))
    assert step.run(*old).returncode == 0
    assert (step.folder / "machine-id").read_text() == ""
    assert not (step.folder / "ssh_host_ed25519_key").exists()


@needs_apt
def test_nothing_to_install_is_no_error(step: Step) -> None:
    assert step.run().returncode == 0
