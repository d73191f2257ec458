"""The host's Debian or Ubuntu archive, and packages taken from it without installing anything.

Everything apt writes goes to a folder of kit's own. Of the host's settings it has those that lead to the archive, and
none that could switch off the check of a signature or a certificate.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from email import message_from_string
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kit import process, redact
from kit.errors import BadInputError, CommandError, DiskFullError, NetworkError, UnsupportedHostError
from kit.frozen import dataclass
from kit.paths import write_text

ETC_APT = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")
APT_HELPER = "/usr/lib/apt/apt-helper"
KEYRINGS = Path("/usr/share/keyrings")

# Settings of the host's that kit's apt has as well: proxies, and the certificates of an archive of the company's own.
ROUTES = (
    r"Acquire::(https?::Proxy(::\S+)?|https?::Proxy-?Auto-?Detect|Force-?IPv[46]"
    r'|https::(\S+::)?(CaInfo|CaPath|CrlFile|IssuerCert|SslCert|SslKey)) "[^"]+";'
)
# Whether the age of an archive matters: not where the host was given a frozen one. What it has is signed all the same.
DATE_CHECKS = r'Acquire::Check-(Valid-Until|Date) "(false|no|0)";'

INSTALL_INSTEAD = (
    "install Docker Engine from your distribution's packages (`docker` or `moby-engine`, with buildx), "
    "rootless Docker, or Podman, and run the command again"
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One archive, one suite: what one line of a sources.list says."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: Mapping[str, str]

    @property
    def line(self) -> str:
        options = " ".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        return " ".join(["deb", *([f"[{options}]"] if options else []), self.uri, self.suite, *self.components])


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Which archive a system belongs to: `debian` or `ubuntu`, and the release's code name."""

    family: str
    codename: str

    @property
    def keyring(self) -> Path:
        """The keys its archive is signed with, as its own keyring package installs them."""
        candidates = [KEYRINGS / f"{self.family}-archive-keyring.{ending}" for ending in ("gpg", "pgp")]
        return next((file for file in candidates if file.is_file()), candidates[0])


def parse_one_line(text: str) -> list[Source]:
    """The `deb` lines of a sources.list; source packages, comments and lines apt would refuse are left out."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?([^\s\[]\S*)\s+(\S+)((?:\s+[^\s#]+)*)\s*(?:#.*)?", line)
        if match:
            options = dict(part.split("=", 1) for part in (match[1] or "").split() if "=" in part)
            found.append(
                Source(
                    uri=match[2].rstrip("/"),
                    suite=match[3],
                    components=tuple(match[4].split()),
                    options={key.lower(): value for key, value in options.items()},
                )
            )
    return found


def parse_deb822(text: str) -> list[Source]:
    """The enabled `deb` stanzas of a .sources file, one Source for each URI and suite."""
    found = []
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n[ \t]*\n", text):
        # Its format is that of a mail's head: `Name: value`, and lines that go on with a space.
        fields = {key.lower(): value for key, value in message_from_string(stanza.lstrip("\n")).items()}
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "").strip().lower() in ("no", "false"):
            continue
        # A key written out in the file cannot be said on one line; kit names the distribution's keyring itself.
        options: dict[str, str] = {
            key: fields[key].strip()
            for key in ("signed-by", "check-valid-until", "check-date")
            if key in fields and "\n" not in fields[key].strip()
        }
        found += [
            Source(
                uri=uri.rstrip("/"),
                suite=suite,
                components=tuple(fields.get("components", "").split()),
                options=options,
            )
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return found


def host_sources(etc: Path = ETC_APT) -> list[Source]:
    """Every source the host's apt reads, in its order."""
    found = parse_one_line(_text(etc / "sources.list"))
    for file in sorted((etc / "sources.list.d").glob("*")):
        if file.suffix == ".list":
            found += parse_one_line(_text(file))
        elif file.suffix == ".sources":
            found += parse_deb822(_text(file))
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def host_distribution(os_release: Path = OS_RELEASE) -> Distribution:
    """The host's archive. Raises UnsupportedHostError on a system whose packages are neither Debian's nor Ubuntu's."""
    fields = {
        key: value.strip("\"'") for key, _, value in (line.partition("=") for line in _text(os_release).splitlines())
    }
    name, like = fields.get("ID", ""), fields.get("ID_LIKE", "").split()
    if name == "ubuntu" or fields.get("UBUNTU_CODENAME"):
        codename = fields.get("UBUNTU_CODENAME") or fields.get("VERSION_CODENAME", "")
        if codename:
            return Distribution(family="ubuntu", codename=codename)
    elif name == "debian" or "debian" in like:
        codename = fields.get("DEBIAN_CODENAME") or fields.get("VERSION_CODENAME", "")
        if codename:
            return Distribution(family="debian", codename=codename)
    raise UnsupportedHostError(
        "kit can take programs from the Debian and Ubuntu archives only; this is "
        f"{fields.get('PRETTY_NAME', 'an unknown system')}",
        hint=INSTALL_INSTEAD,
    )


def main_archive(sources: Iterable[Source], distribution: Distribution) -> Source:
    """The source that is the distribution's main archive, told apart from third-party ones that use its suite names.

    Other projects' archives name their suites `bookworm main` too; only the distribution's own also has `-updates`,
    is signed by its keyring, or has its name as the last part of the path. Signatures are checked by apt afterwards.
    """
    sources = list(sources)
    codename = distribution.codename
    aliases = {codename, "stable", "oldstable", "testing"} if distribution.family == "debian" else {codename}
    with_updates = {source.uri for source in sources if source.suite == f"{codename}-updates"}

    def score(source: Source) -> int:
        signed_by = source.options.get("signed-by", "")
        path = urlsplit(source.uri).path.rstrip("/")
        return (
            4 * (source.uri in with_updates)
            + 3 * (f"{distribution.family}-archive-keyring" in signed_by)
            + 2 * (path.rpartition("/")[2] in (distribution.family, "ubuntu-ports"))
            + (source.suite == codename)
            - 4 * (signed_by != "" and f"{distribution.family}-archive" not in signed_by)
        )

    fitting = [
        source
        for source in sources
        if source.suite in aliases and "main" in source.components and not source.uri.startswith("cdrom:")
    ]
    best = max(fitting, key=score, default=None)
    if best is None or score(best) < 2:
        raise UnsupportedHostError(
            f"no apt source of this machine is {distribution.family.capitalize()}'s main archive ({codename} main)",
            hint="add it to /etc/apt/sources.list (a mirror near you is fine) and run the command again",
        )
    return best


def suite_of(archive: Source, suite: str, components: Sequence[str], distribution: Distribution) -> Source:
    """Another suite of the same archive, signed by the distribution's keyring and by nothing else."""
    kept = {key: value for key, value in archive.options.items() if key in ("check-valid-until", "check-date")}
    return Source(
        uri=archive.uri,
        suite=suite,
        components=tuple(components),
        options={**kept, "signed-by": str(distribution.keyring)},
    )


def host_suite(archive: Source, distribution: Distribution) -> tuple[Source, ...]:
    """The host's own release, as its archive has it now."""
    components = ("main", "universe") if distribution.family == "ubuntu" else ("main",)
    suites = (distribution.codename, f"{distribution.codename}-updates")
    return tuple(suite_of(archive, suite, components, distribution) for suite in suites)


def resolved_uri(uri: str) -> str:
    """An address other machines can use: a `mirror+file:` list gives its first mirror."""
    if not uri.startswith("mirror+file:"):
        return uri
    lines = _text(Path(urlsplit(uri).path)).splitlines()
    first = next((line.split()[0] for line in lines if line.strip() and not line.startswith("#")), uri)
    return first.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class Apt:
    """An apt that reads the given sources and writes below `folder` only; nothing is ever installed.

    `is_bare`: it is to know of no package that the host has, as for a root file system from nothing.
    """

    folder: Path
    sources: tuple[Source, ...]
    is_bare: bool = False

    def update(self) -> None:
        """Fetch the package lists. Raises NetworkError when the archive does not answer."""
        for name in ("lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        plain = (replace(source, uri=redact.without_users(source.uri)) for source in self.sources)
        write_text(self.folder / "sources.list", "".join(source.line + "\n" for source in plain))
        configure(self.folder, [source.uri for source in self.sources])
        if self.is_bare:
            write_text(self.folder / "status", "")
        self._apt("apt-get", "-o", "APT::Update::Error-Mode=any", "update")

    def download(self, names: Sequence[str], folder: Path) -> list[Path]:
        """Download exactly these packages into `folder`, whatever they depend on."""
        folder.mkdir(parents=True, exist_ok=True)
        self._apt("apt-get", "download", *names, cwd=folder)
        return sorted(folder.glob("*.deb"))

    def download_missing(self, names: Sequence[str]) -> list[Path]:
        """Download these packages and those of their dependencies which the host has not installed (`is_bare`: all)."""
        self._apt("apt-get", "install", "--download-only", "--no-install-recommends", "-y", *names)
        return sorted((self.folder / "cache/archives").glob("*.deb"))

    def has(self, name: str) -> bool:
        """True when the archive has a package of that name."""
        return bool(self._apt("apt-cache", "show", name, check=False).stdout.strip())

    def _apt(self, *args: str, cwd: Path | None = None, check: bool = True) -> process.Completed:
        if self.is_bare:
            known = (f"Dir::State::status={self.folder / 'status'}", f"APT::Architectures={architecture()}")
            args = (args[0], *(word for option in known for word in ("-o", option)), *args[1:])
        try:
            return process.run(
                args,
                timeout_s=900,
                cwd=cwd,
                check=check,
                env={**environment(self.folder), "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            )
        except CommandError as e:
            raise apt_error(e, self.sources) from None


def configure(folder: Path, uris: Iterable[str]) -> None:
    """Write the settings of an apt that keeps to `folder`, and the passwords in `uris`, which no URL need then have."""
    write_text(folder / "auth.conf", netrc(uris), mode=0o600)
    write_text(folder / "apt.conf", apt_configuration(folder, host_settings(f"{ROUTES}|{DATE_CHECKS}")), mode=0o600)


def environment(folder: Path) -> dict[str, str]:
    """The variables of an apt that was configured for `folder`."""
    return {"APT_CONFIG": str(folder / "apt.conf")}


def host_settings(pattern: str) -> tuple[str, ...]:
    """The lines of the host's apt configuration for downloads that are as the pattern says."""
    found = process.run(["apt-config", "dump", "Acquire"], check=False).stdout
    return tuple(line for line in found.splitlines() if re.fullmatch(pattern, line, re.IGNORECASE))


def netrc(uris: Iterable[str], etc: Path = ETC_APT) -> str:
    """The user names and passwords in these URLs, and what the host's apt has beside its sources, as apt reads them."""
    lines = []
    for uri in dict.fromkeys(uris):
        parts = urlsplit(uri)
        users, _, host = parts.netloc.rpartition("@")
        user, _, password = (unquote(part) for part in users.partition(":"))
        if user:
            if re.search(r"\s", user + password):
                raise BadInputError(f"the password for {host} has a space in it, which apt cannot use")
            lines.append(f"machine {parts.scheme}://{host}{parts.path} login {user} password {password}\n")
    files = (etc / "auth.conf", *sorted((etc / "auth.conf.d").glob("*.conf")))
    return "".join([*lines, *(f"{_text(file)}\n" for file in files if file.is_file())])


def apt_configuration(folder: Path, host: Sequence[str] = ()) -> str:
    """The apt.conf of an apt that keeps to `folder`, with these lines of the host's.

    It is all that apt reads: the files in /etc/apt would come after it, and win.
    """
    return "".join(f"{line}\n" for line in host) + "".join(
        f'{key} "{value}";\n'
        for key, value in {
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "Dir::Etc::netrc": folder / "auth.conf",
            "Dir::Etc::netrcparts": "/dev/null",
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            # The host's pins are about what is installed on it; here they could only hide a version.
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Sandbox::User": "root",
            "APT::Keep-Downloaded-Packages": "true",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::http::Timeout": "30",
            "Debug::NoLocking": "true",
        }.items()
    )


def apt_error(error: CommandError, sources: Sequence[Source]) -> DiskFullError | NetworkError | UnsupportedHostError:
    """What an apt failure means, with the lines of its output that say why."""
    text = error.stdout + error.stderr
    why = tuple(line for line in text.splitlines() if line.startswith(("E:", "W:", "Err:")))[-6:]
    where = ", ".join(sorted({f"{redact.without_users(source.uri)} {source.suite}" for source in sources}))
    if "No space left" in text or "don't have enough free space" in text:
        return DiskFullError("no space left for downloading packages", hint="free some space", details=why)
    if "Unable to locate package" in text or "has no installation candidate" in text or "unmet dependencies" in text:
        return UnsupportedHostError(
            f"the package archive ({where}) has not what kit needs", details=why, hint=INSTALL_INSTEAD
        )
    return NetworkError(
        f"the package archive ({where}) cannot be used",
        details=why,
        hint="check the network, the proxy and the mirror in /etc/apt, with `apt-get update`",
    )


def unpack(packages: Iterable[Path], root: Path) -> None:
    """Unpack packages below `root`, as dpkg would lay them out, running none of their scripts."""
    root.mkdir(parents=True, exist_ok=True)
    for package in packages:
        try:
            process.run(["dpkg", "-x", str(package), str(root)], timeout_s=300, env={"LC_ALL": "C.UTF-8"})
        except CommandError as e:
            if "No space left" in e.stderr:
                raise DiskFullError(f"no space left for unpacking {package.name}", hint="free some space") from None
            raise


def fetch(url: str, target: Path, folder: Path, *, sha256: str = "") -> bool:
    """Download one file by the means of an apt that was configured for `folder` (its proxy and passwords), without any
    index; False when it does not come, or is another than the hash says.
    """
    patience = ("-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20")
    expected = [f"SHA256:{sha256}"] if sha256 else []
    command = [APT_HELPER, *patience, "download-file", redact.without_users(url), str(target), *expected]
    try:
        process.run(command, timeout_s=900, env=environment(folder))
    except CommandError:
        target.unlink(missing_ok=True)
        return False
    return target.is_file()


def architecture() -> str:
    """The machine's architecture in Debian's words (`amd64`, `arm64`)."""
    return process.run(["dpkg", "--print-architecture"]).stdout.strip()


def search_path() -> str:
    """PATH with the folders of system programs, which a plain user's PATH may lack."""
    return os.pathsep.join(
        dict.fromkeys(
            [*os.environ.get("PATH", "/usr/bin:/bin").split(os.pathsep), "/usr/local/sbin", "/usr/sbin", "/sbin"]
        )
    )
