"""apt's sources, read in both formats, and the distribution's own archive found among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit import apt, redact
from kit.apt import Distribution, Source
from kit.errors import CommandError, DiskFullError, NetworkError, UnsupportedHostError

BOOKWORM = Distribution(family="debian", codename="bookworm")
JAMMY = Distribution(family="ubuntu", codename="jammy")

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Check-Valid-Until: no

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://inline.example/debian
Suites: stable
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----
"""

ONE_LINE = """\
# deb http://commented.example/ubuntu jammy main
deb http://mirror.example/ubuntu/ jammy main restricted # the main archive
deb   [arch=amd64 signed-by=/usr/share/keyrings/x.gpg]  https://third.example/repo jammy main
deb-src http://mirror.example/ubuntu jammy main
deb http://mirror.example/ubuntu jammy-updates main universe
deb http://flat.example/repo ./
"""


def source(uri: str, suite: str, *components: str, **options: str) -> Source:
    return Source(
        uri=uri,
        suite=suite,
        components=components or ("main",),
        options={key.replace("_", "-"): value for key, value in options.items()},
    )


def test_deb822() -> None:
    found = apt.parse_deb822(DEB822)
    assert [(s.uri, s.suite, s.components) for s in found] == [
        ("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        ("http://mirror.example/debian", "bookworm-updates", ("main", "contrib")),
        ("http://mirror.example/debian-security", "bookworm-security", ("main",)),
        ("https://inline.example/debian", "stable", ("main",)),
    ]
    assert found[0].options == {"signed-by": "/usr/share/keyrings/debian-archive-keyring.gpg"}
    assert found[2].options == {"check-valid-until": "no"}
    assert found[3].options == {}, "a key inside the file cannot be written on one line"


def test_one_line() -> None:
    found = apt.parse_one_line(ONE_LINE)
    assert [(s.uri, s.suite, s.components) for s in found] == [
        ("http://mirror.example/ubuntu", "jammy", ("main", "restricted")),
        ("https://third.example/repo", "jammy", ("main",)),
        ("http://mirror.example/ubuntu", "jammy-updates", ("main", "universe")),
        ("http://flat.example/repo", "./", ()),
    ]
    assert found[1].options["signed-by"] == "/usr/share/keyrings/x.gpg"


@pytest.mark.parametrize(
    "text", ["", "\n\n", "deb", "deb http://only-uri", "Types: deb\n", "\0\x7f", "deb [ unclosed uri suite"]
)
def test_nonsense_gives_no_source(text: str) -> None:
    assert apt.parse_one_line(text) == []
    assert apt.parse_deb822(text) == []


def test_host_sources_reads_every_file_but_the_disabled(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example/debian bookworm main\n")
    (tmp_path / "sources.list.d/b.sources").write_text(DEB822)
    (tmp_path / "sources.list.d/c.list").write_text("deb http://c.example/x stable main\n")
    (tmp_path / "sources.list.d/d.list.disabled").write_text("deb http://d.example/x stable main\n")
    assert [s.uri for s in apt.host_sources(tmp_path)] == [
        "http://a.example/debian",
        "http://mirror.example/debian",
        "http://mirror.example/debian",
        "http://mirror.example/debian-security",
        "https://inline.example/debian",
        "http://c.example/x",
    ]
    assert apt.host_sources(tmp_path / "absent") == []


def test_main_archive_is_told_from_third_parties() -> None:
    third = [
        source("https://packages.third.example/debian/12/prod", "bookworm", signed_by="/usr/share/keyrings/third.gpg"),
        source("https://charts.third.example", "stable"),
        source("http://mirror.example/debian-security", "bookworm-security"),
    ]
    main = [source("http://mirror.example/debian", suite) for suite in ("bookworm", "bookworm-updates")]
    assert apt.main_archive([*third, *main], BOOKWORM) == main[0]
    assert apt.main_archive([*main, *third], BOOKWORM) == main[0]


def test_main_archive_by_its_keyring_alone() -> None:
    frozen = source(
        "http://snapshot.example/archive/20250101T000000Z",
        "stable",
        signed_by="/usr/share/keyrings/debian-archive-keyring.gpg",
    )
    assert apt.main_archive([source("https://charts.third.example", "stable"), frozen], BOOKWORM) == frozen


@pytest.mark.parametrize(
    "sources",
    [
        [],
        [source("https://charts.third.example", "stable")],
        [source("cdrom:[Debian]/debian", "bookworm")],
        [source("http://mirror.example/debian", "bookworm", "contrib")],
    ],
)
def test_no_main_archive(sources: list[Source]) -> None:
    with pytest.raises(UnsupportedHostError, match="main archive"):
        apt.main_archive(sources, BOOKWORM)


def test_ubuntu_ports() -> None:
    main = source("http://ports.example/ubuntu-ports", "jammy")
    assert apt.main_archive([main], JAMMY) == main


def test_testing_line() -> None:
    main = source("http://mirror.example/debian", "bookworm", "main", "contrib", trusted="yes", check_valid_until="no")
    line = apt.suite_of(main, "testing", ("main",), BOOKWORM).line
    assert line == f"deb [check-valid-until=no signed-by={BOOKWORM.keyring}] http://mirror.example/debian testing main"
    assert "trusted" not in line, "what comes from elsewhere in the archive is always verified"


@pytest.mark.parametrize(
    ("text", "family", "codename"),
    [
        ("ID=debian\nVERSION_CODENAME=bookworm\n", "debian", "bookworm"),
        ('ID=ubuntu\nVERSION_CODENAME="noble"\nUBUNTU_CODENAME=noble\n', "ubuntu", "noble"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\n', "ubuntu", "noble"),
        ("ID=raspbian\nID_LIKE=debian\nVERSION_CODENAME=bookworm\n", "debian", "bookworm"),
    ],
)
def test_distribution(tmp_path: Path, text: str, family: str, codename: str) -> None:
    (tmp_path / "os-release").write_text(text)
    assert apt.host_distribution(tmp_path / "os-release") == Distribution(family=family, codename=codename)


@pytest.mark.parametrize("text", ['ID=fedora\nPRETTY_NAME="Fedora Linux"\n', "", "ID=debian\n"])
def test_other_systems_are_told_what_to_install(tmp_path: Path, text: str) -> None:
    (tmp_path / "os-release").write_text(text)
    with pytest.raises(UnsupportedHostError) as caught:
        apt.host_distribution(tmp_path / "os-release")
    assert "Podman" in caught.value.hint


def test_credentials_and_mirror_lists(tmp_path: Path) -> None:
    assert redact.without_users("https://user:secret@mirror.example:80/x") == "https://mirror.example:80/x"
    assert redact.without_users("http://mirror.example/debian") == "http://mirror.example/debian"
    (tmp_path / "list").write_text("# near\nhttps://first.example/debian/\tpriority:1\nhttps://second.example/debian\n")
    assert apt.resolved_uri(f"mirror+file:{tmp_path}/list") == "https://first.example/debian"
    assert apt.resolved_uri("http://mirror.example/debian") == "http://mirror.example/debian"


def test_configuration_keeps_to_its_folder(tmp_path: Path) -> None:
    text = apt.apt_configuration(tmp_path)
    for key in ("Dir::Etc::sourcelist", "Dir::State::lists", "Dir::Cache"):
        assert f'{key} "{tmp_path}' in text
    assert 'Dir::Etc::sourceparts "/dev/null";' in text


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("E: Failed to fetch http://m/x  Could not connect", NetworkError),
        ("E: Unable to locate package docker-cli", UnsupportedHostError),
        ("E: Write error - write (28: No space left on device)", DiskFullError),
        ("E: You don't have enough free space in /x/.", DiskFullError),
    ],
)
def test_what_an_apt_failure_means(stderr: str, kind: type[Exception]) -> None:
    error = apt.apt_error(
        CommandError(("apt-get", "update"), 100, "", stderr), [source("http://user:secret@m.example/debian", "testing")]
    )
    assert type(error) is kind
    assert error.details == (stderr,)
    assert "secret" not in error.message
