"""The host's apt settings lead kit to the archive, and switch off no check; passwords of mirrors are seen by nobody.

The archives are made here. The host's /etc/apt and keys are exchanged in a mount namespace.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import os
import shlex
import shutil
import ssl
import stat
import subprocess
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit import apt, process
from kit.apt import Apt, Source
from kit.catalog.rows import EnginePackage, EngineSuite
from kit.engine import connect
from kit.errors import BadInputError, NetworkError
from kit.image import base
from kit.image.base import bootstrap, mirror
from kit.private_engine import programs

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("apt-get", "dpkg-deb", "gpg"))), reason="needs root, apt and gpg"
)
# What an administrator, or whoever wrote the instructions they followed, may have switched off.
HOSTILE = """
Acquire::AllowInsecureRepositories "true";
Acquire::AllowWeakRepositories "true";
Acquire::AllowDowngradeToInsecureRepositories "true";
APT::Get::AllowUnauthenticated "true";
Acquire::https::Verify-Peer "false";
Acquire::https::Verify-Host "false";
Dir::Cache::archives "{elsewhere}/archives/";
Dir::State::lists "{elsewhere}/lists/";
APT::Update::Pre-Invoke {{ "touch {elsewhere}/ran"; }};
Binary::apt-get::APT::Get::AllowUnauthenticated "true";
"""
PASSWORD = "PW-of-the-mirror"
# As kit reads the host's sources, and asks for a package of them.
FETCH = """
import sys
from pathlib import Path
from kit import apt
host = apt.Distribution(family="debian", codename="bookworm")
source = apt.suite_of(apt.host_sources()[0], "bookworm", ("main",), host)
lists = apt.Apt(folder=Path(sys.argv[1]), sources=(source,))
lists.update()
print(lists.download(["hello-kit"], Path(sys.argv[1]) / "debs")[0].name)
"""


class Archive:
    """A Debian archive with one package, served on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, ""
        self._home = folder / "gnupg"
        self._home.mkdir(parents=True, mode=0o700)
        self._gpg("--quick-generate-key", "--passphrase", "", "kit", "ed25519", "sign", "never")
        self.key = folder / "keys/debian-archive-keyring.gpg"
        self.key.parent.mkdir()
        self.key.write_bytes(self._gpg("--export"))
        tree = folder / "package"
        (tree / "DEBIAN").mkdir(parents=True)
        fields = "Package: hello-kit\nVersion: 1\nArchitecture: all\nMaintainer: kit <kit@example.invalid>\n"
        (tree / "DEBIAN/control").write_text(fields + "Description: x\n")
        (folder / "www/pool").mkdir(parents=True)
        package = folder / "www/pool/hello-kit_1_all.deb"
        subprocess.run(["dpkg-deb", "--build", str(tree), str(package)], check=True, capture_output=True)
        data = package.read_bytes()
        index = f"{fields}Filename: pool/{package.name}\nSize: {len(data)}\nSHA256: {_sha256(data)}\nDescription: x\n"
        self._index = index.encode()

    def _gpg(self, *words: str, data: bytes = b"") -> bytes:
        command = ["gpg", "--batch", "--quiet", "--homedir", str(self._home), *words]
        return subprocess.run(command, input=data, check=True, capture_output=True).stdout

    def release(self, *, signed: bool, date: datetime | None = None, valid_until: datetime | None = None) -> None:
        suite = self.folder / "www/dists/bookworm"
        shutil.rmtree(suite, ignore_errors=True)
        architecture = apt.architecture()
        listed = []
        for name in (f"main/binary-{architecture}/Packages", "main/binary-all/Packages"):
            (suite / name).parent.mkdir(parents=True)
            (suite / name).write_bytes(self._index)
            listed.append(f" {_sha256(self._index)} {len(self._index)} {name}\n")
        fields = {
            "Suite": "bookworm",
            "Codename": "bookworm",
            "Architectures": f"{architecture} all",
            "Components": "main",
            "Date": format_datetime(date or datetime.now(UTC) - timedelta(hours=1), usegmt=True),
            **({"Valid-Until": format_datetime(valid_until, usegmt=True)} if valid_until else {}),
        }
        text = "".join(f"{key}: {value}\n" for key, value in fields.items()) + "SHA256:\n" + "".join(listed)
        (suite / "Release").write_text(text)
        if signed:
            (suite / "InRelease").write_bytes(self._gpg("--clearsign", data=text.encode()))

    def source(self, **options: str) -> Source:
        return Source(uri=self.url, suite="bookworm", components=("main",), options=options)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, or what another server has, to who knows the password if there is one."""

    wanted, upstream = "", ""

    def do_GET(self) -> None:
        if self.wanted and self.headers.get("Authorization") != self.wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif not self.upstream:
            super().do_GET()
        else:
            try:
                with urllib.request.urlopen(self.upstream + self.path, timeout=60) as answer:
                    data = answer.read()
            except OSError:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def serve(folder: Path, *, context: ssl.SSLContext | None = None, **how: str) -> Iterator[int]:
    handler = type("Own", (Handler,), how)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path / "archive")
    for port in serve(made.folder / "www"):
        made.url = f"http://127.0.0.1:{port}"
        yield made


@pytest.fixture
def password_archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path / "archive")
    for port in serve(made.folder / "www", wanted=basic("mu", PASSWORD)):
        made.url = f"http://mu:{PASSWORD}@127.0.0.1:{port}"
        yield made


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def on_host(folder: Path, archive: Archive, settings: str, options: str, *command: str) -> Any:
    """Run a command on a host with these settings of apt, this archive as its only source, and its key."""
    etc, elsewhere = folder / "etc", folder / "elsewhere"
    for name in ("apt.conf.d", "sources.list.d", "preferences.d", "auth.conf.d", "trusted.gpg.d"):
        (etc / name).mkdir(parents=True, exist_ok=True)
    for name in ("archives/partial", "lists/partial"):
        (elsewhere / name).mkdir(parents=True, exist_ok=True)
    (etc / "sources.list").write_text(f"deb [{options}] {archive.url} bookworm main\n" if options else "")
    (etc / "apt.conf.d/99allow").write_text(settings.format(elsewhere=elsewhere))
    binds = {etc: "/etc/apt", archive.key.parent: "/usr/share/keyrings"}
    script = "".join(f"mount --bind {shlex.quote(str(a))} {b} && " for a, b in binds.items())
    words = ["unshare", "--mount", "sh", "-c", f"{script} exec {shlex.join(command)}"]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def kit_fetches(folder: Path, archive: Archive, settings: str = "", options: str = "trusted=yes") -> str:
    """The package that kit's apt gets on such a host; empty when it refuses."""
    mine = folder / "mine"
    done = on_host(folder, archive, settings, options, sys.executable, "-c", FETCH, str(mine))
    assert done.returncode == 0 or "kit.errors.NetworkError" in done.stderr, done.stderr
    elsewhere = [file for file in (folder / "elsewhere").rglob("*") if not file.is_dir()]
    assert not elsewhere, "kit's apt keeps to its folder, and runs nothing of the host's"
    return str(done.stdout.strip())


def test_an_archive_that_is_signed_is_used(tmp_path: Path, archive: Archive) -> None:
    archive.release(signed=True)
    assert kit_fetches(tmp_path, archive, HOSTILE) == "hello-kit_1_all.deb"


def test_no_setting_of_the_host_makes_kit_take_an_unsigned_archive(tmp_path: Path, archive: Archive) -> None:
    archive.release(signed=False)
    state = ("-o", f"Dir::State={tmp_path}", "-o", f"Dir::Cache={tmp_path}")
    done = on_host(tmp_path, archive, HOSTILE, "trusted=yes", "apt-get", *state, "update")
    assert done.returncode == 0, "the host's own apt does"
    shutil.rmtree(tmp_path / "elsewhere")
    for options in ("trusted=yes", "allow-insecure=yes allow-weak=yes allow-downgrade-to-insecure=yes trusted=yes"):
        assert kit_fetches(tmp_path, archive, HOSTILE, options) == ""


def test_a_key_of_somebody_else_is_no_key(tmp_path: Path, archive: Archive) -> None:
    archive.release(signed=True)
    other = Archive(tmp_path / "other")
    other.url = archive.url
    assert kit_fetches(tmp_path, other, HOSTILE) == ""


@pytest.mark.parametrize(
    ("settings", "date", "valid_until", "is_used"),
    [
        ("", -1, 1, True),
        ("", -9, -1, False),
        ('Acquire::Check-Valid-Until "false";', -9, -1, True),
        ("", 9, None, False),
        ('Acquire::Check-Date "false";', 9, None, True),
    ],
)
def test_the_age_of_an_archive_matters_unless_the_host_says_not(
    tmp_path: Path, archive: Archive, settings: str, date: int, valid_until: int | None, is_used: bool
) -> None:
    """In days from now. A frozen mirror is an administrator's choice; what it has is signed all the same."""
    now = datetime.now(UTC)
    until = None if valid_until is None else now + timedelta(days=valid_until)
    archive.release(signed=True, date=now + timedelta(days=date), valid_until=until)
    assert bool(kit_fetches(tmp_path, archive, settings)) == is_used


@pytest.fixture
def strict_host(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Have kit fetch an engine's programs on a Debian whose apt looks at dates; the names of what it got.

    Pinned is this archive's one package, by this hash.
    """
    monkeypatch.setattr(apt, "host_settings", lambda _: ())
    monkeypatch.setattr(apt, "KEYRINGS", archive.key.parent)
    monkeypatch.setattr(programs, "DOCKER_PACKAGES", {"debian": ("hello-kit",)})
    monkeypatch.setattr(programs, "INIT_PACKAGES", {"debian": ()})

    def fetch(folder: Path, sha256: str, say: Callable[[str], None]) -> list[str]:
        row = EnginePackage(
            name="hello-kit",
            version="1",
            architecture=apt.architecture(),
            path="pool/hello-kit_1_all.deb",
            sha256=sha256,
            source="",
        )
        rows = SimpleNamespace(engine_packages=(row,), engine_suites=(EngineSuite(name="bookworm", source=""),))
        monkeypatch.setattr(programs, "load_catalog", lambda: rows)
        host = apt.Distribution(family="debian", codename="bookworm")
        return [file.name for file in programs.docker_packages(archive.source(), host, folder, say=say)]

    return fetch


def test_an_index_past_its_date_does_not_end_the_first_command(
    tmp_path: Path, archive: Archive, strict_host: Callable[..., list[str]]
) -> None:
    """What is pinned needs no index. Where it is gone, or another file is there, one that is good is taken by name."""
    now, said = datetime.now(UTC), list[str]()
    past = {"date": now - timedelta(days=20), "valid_until": now - timedelta(days=10)}
    right = _sha256((archive.folder / "www/pool/hello-kit_1_all.deb").read_bytes())
    archive.release(signed=True, **past)
    assert strict_host(tmp_path / "1", right, said.append) == ["hello-kit_1_all.deb"]
    assert said == []
    with pytest.raises(NetworkError) as caught:
        strict_host(tmp_path / "2", "0" * 64, said.append)
    assert "expired" in "\n".join(caught.value.details), "dates are looked at"
    archive.release(signed=True)
    assert strict_host(tmp_path / "3", "0" * 64, said.append) == ["hello-kit_1_all.deb"]
    assert said == ["the mirror does not give hello-kit 1: taking what a release of Debian's has"] * 2


def test_updates_that_a_late_mirror_lacks_are_left_out_and_said(tmp_path: Path, archive: Archive) -> None:
    archive.release(signed=True)
    said: list[str] = []
    main = archive.source(**{"signed-by": str(archive.key)})
    lists = programs._lists(tmp_path / "lists", (main, replace(main, suite="bookworm-updates")), said.append)
    assert lists.has("hello-kit")
    assert "going on without bookworm-updates" in said[0]
    archive.release(signed=False)
    with pytest.raises(NetworkError):
        programs._lists(tmp_path / "none", (main, replace(main, suite="bookworm-updates")), said.append)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_the_hosts_certificates_count_and_its_refusal_to_look_at_them_does_not(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kit-test"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    archive = Archive(tmp_path / "archive")
    archive.release(signed=True)
    for port in serve(archive.folder / "www", context=context):
        archive.url = f"https://127.0.0.1:{port}"
        assert kit_fetches(tmp_path, archive, HOSTILE) == ""
        trusted = f'{HOSTILE}Acquire::https::127.0.0.1::CaInfo "{certificate}";\n'
        assert kit_fetches(tmp_path, archive, trusted) == "hello-kit_1_all.deb"


def test_only_settings_that_lead_to_the_archive_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = (
        'Acquire::http::Proxy "http://u:p@proxy:3128/";',
        'Acquire::http::Proxy::mirror.example "DIRECT";',
        'Acquire::https::Proxy-Auto-Detect "/usr/bin/detect";',
        'Acquire::http::ProxyAutoDetect "/usr/bin/detect";',
        'Acquire::https::CaInfo "/etc/ca.pem";',
        'Acquire::https::mirror.example::SslCert "/etc/c.pem";',
        'Acquire::ForceIPv4 "true";',
        'Acquire::Check-Valid-Until "0";',
    )
    others = (
        *(line for line in HOSTILE.splitlines() if line),
        'Acquire::https::mirror.example::Verify-Peer "false";',
        'Acquire::gpgv::Options:: "--ignore-time-conflict";',
        'Acquire::Check-Valid-Until "true";',
        'Acquire::http::Proxy "a"; APT::Get::AllowUnauthenticated "1";',
        'xAcquire::http::Proxy "a";',
    )
    said = process.Completed(args=(), returncode=0, stdout="\n".join((*kept, *others)), stderr="")
    monkeypatch.setattr(process, "run", lambda *_, **__: said)
    assert apt.host_settings(f"{apt.ROUTES}|{apt.DATE_CHECKS}") == kept


def test_passwords_of_a_mirror_are_in_one_file_for_root_alone(
    tmp_path: Path, password_archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    password_archive.release(signed=True)
    called: list[str] = []
    run = process.run

    def recorded(args: Any, **how: Any) -> process.Completed:
        called.extend([*args, *(how.get("env") or {}).values()])
        return run(args, **how)

    monkeypatch.setattr(process, "run", recorded)
    lists = Apt(
        folder=tmp_path / "lists", sources=(password_archive.source(**{"signed-by": str(password_archive.key)}),)
    )
    lists.update()
    assert lists.download(["hello-kit"], tmp_path / "debs")
    assert mirror._fetch(f"{password_archive.url}/dists/bookworm/InRelease", tmp_path / "lists")
    assert not any(PASSWORD in word for word in called)
    with_it = [file for file in tmp_path.rglob("*") if file.is_file() and PASSWORD.encode() in file.read_bytes()]
    assert with_it == [tmp_path / "lists/auth.conf"]
    assert stat.S_IMODE(with_it[0].stat().st_mode) == 0o600


def test_a_mirror_that_refuses_says_no_password(tmp_path: Path, password_archive: Archive) -> None:
    password_archive.release(signed=True)
    source = password_archive.source(**{"signed-by": str(password_archive.key)})
    wrong = replace(source, uri=source.uri.replace(PASSWORD, "WRONG-one"))
    with pytest.raises(NetworkError) as caught:
        Apt(folder=tmp_path / "lists", sources=(wrong,)).update()
    assert "WRONG-one" not in "\n".join((caught.value.message, caught.value.hint, *caught.value.details))


def test_what_apt_reads_of_passwords(tmp_path: Path) -> None:
    (tmp_path / "auth.conf.d").mkdir()
    (tmp_path / "auth.conf").write_text("machine a login b password c")
    (tmp_path / "auth.conf.d/x.conf").write_text("machine d login e password f\n")
    (tmp_path / "auth.conf.d/x.bak").write_text("machine g login h password i\n")
    uris = ["http://h/debian", "http://u%40x:p%2Fw@h:81/debian", "https://[::1]/d", "http://u%40x:p%2Fw@h:81/debian"]
    assert apt.netrc(uris, tmp_path).split("\n") == [
        "machine http://h:81/debian login u@x password p/w",
        "machine a login b password c",
        "machine d login e password f",
        "",
        "",
    ]
    with pytest.raises(BadInputError, match="space"):
        apt.netrc(["http://u:a%20b@h/debian"], tmp_path)


def test_a_base_takes_no_unsigned_archive(tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.release(signed=False)
    monkeypatch.setattr(bootstrap, "keyring", lambda *_: archive.key)
    where = mirror.Mirror(uri=archive.url, sources=(archive.source(),), epoch=1)
    with pytest.raises(NetworkError) as caught:
        bootstrap.download(where, tmp_path, lambda _: None)
    assert "is not signed" in "\n".join(caught.value.details)


def _shown_to_all(text: bytes, folder: Path) -> list[str]:
    """Where others could read a text now: the arguments of a process, or a file that they could get to."""
    found = []
    for process_ in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in (arguments := process_.read_bytes()):
                found.append(arguments.decode(errors="replace"))
        except OSError:
            continue
    # A folder that they may not list hides the names of those below it that are not always the same.
    for name in folder.glob("*/*"):
        if (
            name.is_file()
            and name.stat().st_mode & 0o044
            and name.stat().st_size < 1_000_000
            and text in name.read_bytes()
        ):
            found.append(str(name))
    return found


@pytest.mark.engine
def test_a_base_is_made_from_a_mirror_with_a_password_that_nobody_sees(tmp_path: Path) -> None:
    """The mirror is this machine's own, behind a password; its certificate authority and it are in no image."""
    real = apt.resolved_uri(apt.main_archive(apt.host_sources(), apt.host_distribution()).uri)
    folder, seen, is_done = tmp_path / "base", [], threading.Event()
    folder.mkdir(mode=0o755)

    def watch() -> None:
        while not is_done.wait(0.05):
            seen.extend(_shown_to_all(PASSWORD.encode(), folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for port in serve(tmp_path, wanted=basic("mu", PASSWORD), upstream=real.rpartition("/debian")[0]):
            said: list[str] = []
            base.make(
                "bookworm",
                folder / "made.tar",
                connect(),
                mirror=f"http://mu:{PASSWORD}@127.0.0.1:{port}/debian",
                on_message=said.append,
            )
    finally:
        is_done.set()
        watcher.join()
    assert seen == []
    assert PASSWORD not in "\n".join(said)
    assert [file.name for file in folder.iterdir()] == ["made.tar"]
    with tarfile.open(folder / "made.tar") as image:
        for member in image:
            content = image.extractfile(member)
            assert content is None or PASSWORD.encode() not in content.read(), member.name
    layers = subprocess.run(["tar", "-xOf", str(folder / "made.tar")], check=True, capture_output=True).stdout
    assert b"99kit.conf" not in layers
