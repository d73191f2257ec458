"""A small Debian archive of a test's own, served on loopback, and settings for an apt that knows no other."""

from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class DebianArchive:
    """An archive with packages that a test adds. `publish` writes its lists; `url` is where it is served."""

    def __init__(self, folder: Path, suite: str = "bookworm") -> None:
        self.folder, self.suite, self.url = folder / "www", suite, ""
        self.architecture = subprocess.run(
            ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
        ).stdout.strip()
        self._work = folder / "packages"
        self._entries: dict[str, str] = {}

    def add(self, name: str, version: str, *, architecture: str = "", **fields: str) -> Path:
        """Make a package with one file in it; an older one of that name is listed no more, and stays in the pool."""
        architecture = architecture or self.architecture
        tree = self._work / f"{name}-{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr/share" / name).mkdir(parents=True)
        (tree / "usr/share" / name / "version").write_text(f"{version}\n")
        control = {"Package": name, "Version": version, "Architecture": architecture}
        control |= {
            "Maintainer": "kit <kit@example.invalid>",
            **{key.replace("_", "-"): v for key, v in fields.items()},
        }
        text = "".join(f"{key}: {value}\n" for key, value in control.items())
        (tree / "DEBIAN/control").write_text(f"{text}Description: of a test\n")
        path = f"pool/main/{name[0]}/{name}/{name}_{version.partition(':')[2] or version}_{architecture}.deb"
        package = self.folder / path
        package.parent.mkdir(parents=True, exist_ok=True)
        command = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(package)]
        subprocess.run(command, check=True, capture_output=True)
        data = package.read_bytes()
        hashed = f"Filename: {path}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        self._entries[name] = f"{text}{hashed}Description: of a test\n"
        return package

    def publish(self, *, valid_for: timedelta = timedelta(days=7)) -> None:
        """Write the lists: dated an hour ago, and valid for so long."""
        root = self.folder / "dists" / self.suite
        index = "\n".join(self._entries.values()).encode()
        listed = ""
        for architecture in (self.architecture, "all"):
            file = root / f"main/binary-{architecture}/Packages"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(index)
            listed += f" {hashlib.sha256(index).hexdigest()} {len(index)} {file.relative_to(root)}\n"
        now = datetime.now(UTC)
        fields = {
            "Origin": "Debian",
            "Suite": self.suite,
            "Codename": self.suite,
            "Architectures": f"{self.architecture} all",
            "Components": "main",
            "Date": format_datetime(now - timedelta(hours=1), usegmt=True),
            "Valid-Until": format_datetime(now + valid_for, usegmt=True),
        }
        text = "".join(f"{key}: {value}\n" for key, value in fields.items())
        (root / "Release").write_text(f"{text}SHA256:\n{listed}")

    @contextmanager
    def served(self) -> Iterator[None]:
        handler = functools.partial(Quiet, directory=str(self.folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_port}/debian"
            (self.folder / "debian").symlink_to(".")
            try:
                yield
            finally:
                server.shutdown()
                thread.join()

    @property
    def source(self) -> str:
        """The line of a sources.list."""
        return f"deb [trusted=yes] {self.url} {self.suite} main\n"


def apt_settings(folder: Path, archive: DebianArchive, installed: str = "") -> str:
    """An apt.conf for an apt that keeps to `folder`, has the archive and nothing else, believes that `installed` (the
    text of dpkg's status file) is there, and checks dates whatever this machine has been told.
    """
    (folder / "dpkg/updates").mkdir(parents=True, exist_ok=True)
    (folder / "dpkg/info").mkdir(exist_ok=True)
    (folder / "dpkg/status").write_text(installed)
    (folder / "sources.list").write_text(archive.source)
    for name in ("state/lists/partial", "cache/archives/partial", "log"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    settings = {
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "dpkg/status",
        "Dir::Cache": folder / "cache",
        "Dir::Log": folder / "log",
        "Debug::NoLocking": "true",
        "APT::Sandbox::User": "root",
        "APT::Architectures": archive.architecture,
        "Acquire::Check-Date": "true",
        "Acquire::Check-Valid-Until": "true",
        "Acquire::http::Proxy": "DIRECT",
    }
    return "".join(f'{key} "{value}";\n' for key, value in settings.items())


def status(name: str, version: str, architecture: str, **fields: str) -> str:
    """The entry of an installed package in dpkg's status file."""
    lines = {"Package": name, "Status": "install ok installed", "Maintainer": "kit <kit@example.invalid>"}
    lines |= {"Architecture": architecture, "Version": version, **fields, "Description": "of a test"}
    return "".join(f"{key}: {value}\n" for key, value in lines.items()) + "\n"
