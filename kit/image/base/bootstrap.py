"""A Debian root file system from the package archive, by mmdebstrap; the same packages give the same bytes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path

from kit import apt, process, redact
from kit.apt import Apt, Source
from kit.errors import (
    BadInputError,
    CommandError,
    DiskFullError,
    EngineError,
    NetworkError,
    UnsupportedHostError,
)
from kit.frozen import dataclass
from kit.paths import write_text

APT_HELPER = "/usr/lib/apt/apt-helper"

# Nobody reads manuals in a container; copyright files stay, as licences ask.
EXCLUDED_PATHS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/lintian/*",
    "path-include=/usr/share/doc/*/copyright",
)
# Traces of the making that differ from time to time, or between machines.
TRACES = (
    "etc/resolv.conf",
    "etc/hostname",
    "etc/machine-id",
    "var/lib/dbus/machine-id",
    "run/mount",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/.pwd.lock",
    "var/cache/ldconfig/aux-cache",
    "var/cache/debconf/*-old",
    "var/lib/dpkg/*-old",
    "var/log/apt",
    "var/log/dpkg.log",
    "var/log/alternatives.log",
    "var/log/bootstrap.log",
    "var/lib/apt/lists/*",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb",
)


# What mmdebstrap's apt is told, in a file beside what it makes.
SETTINGS = "mmdebstrap.conf"

# The lines of mmdebstrap that say which step begins; the others are for its developers.
STEPS = ("I: downloading packages", "I: extracting archives", "I: installing", "I: creating tarball")


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """A Debian archive for one suite: its addresses, and the settings of the host's apt it cannot do without."""

    uri: str
    sources: tuple[Source, ...]
    epoch: int
    settings: tuple[str, ...] = ()


def choose_mirror(suite: str, wanted: str, work: Path, program: str = "") -> Mirror:
    """Which addresses the base comes from: `wanted`, else the host's own mirror when it carries the suite, else (on a
    host that is not Debian) the one that `program`, mmdebstrap, takes by itself.

    Raises NetworkError when it does not answer.
    """
    distribution = apt.host_distribution()
    hosts = apt.host_sources()
    settings: tuple[str, ...] = ()
    candidates = [wanted.rstrip("/")]
    security = ""
    if not wanted:
        main = apt.main_archive(hosts, distribution)
        own = apt.resolved_uri(main.uri)
        if distribution.family == "debian":
            candidates = [own]
            security = next(
                (
                    apt.resolved_uri(source.uri)
                    for source in hosts
                    if source.suite == f"{distribution.codename}-security"
                ),
                "",
            )
        else:
            # Mirrors that carry Ubuntu mostly carry Debian beside it.
            beside = [re.sub(r"/ubuntu(-ports)?$", "/debian", own)] if re.search(r"/ubuntu(-ports)?$", own) else []
            candidates = [*beside, *default_mirror(program)]
        settings = apt.host_settings(apt.DATE_CHECKS)  # which a frozen one needs in the base as well
    apt.configure(work, [*candidates, security])
    release, uri = "", ""
    for uri in candidates:
        if release := _fetch(f"{uri}/dists/{suite}/InRelease", work):
            break
    else:
        tried = " and ".join(redact.without_users(candidate) for candidate in candidates)
        raise NetworkError(
            f"the mirror {tried} does not answer, or has no {suite}",
            hint="check the network, or name a Debian mirror: `kit base make --mirror http://…/debian`",
        )
    main_suite = Source(uri=uri, suite=suite, components=("main",), options={})
    sources = [main_suite]
    if _fetch(f"{uri}/dists/{suite}-updates/InRelease", work):
        sources.append(replace(main_suite, suite=f"{suite}-updates"))
    for candidate in dict.fromkeys([security, f"{uri}-security"]):
        if candidate and _fetch(f"{candidate}/dists/{suite}-security/InRelease", work):
            sources.append(replace(main_suite, uri=candidate, suite=f"{suite}-security"))
            break
    return Mirror(uri=uri, sources=tuple(sources), epoch=source_date_epoch(release), settings=settings)


def default_mirror(program: str) -> list[str]:
    """The mirror that mmdebstrap takes when it is given none, read from its own text; empty when it is not there."""
    try:
        text = Path(program).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return re.findall(r"^\s*my \$mirror\s*=\s*'([^']+)';", text, re.MULTILINE)[:1]


def source_date_epoch(release: str) -> int:
    """SOURCE_DATE_EPOCH, else the date of the suite's release file: it changes only when a point release does."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        if not re.fullmatch("[0-9]{1,12}", given):
            raise BadInputError(f"SOURCE_DATE_EPOCH is `{given}`", hint="it is a number of seconds since 1970")
        return int(given)
    match = re.search(r"^Date: (.*)$", release, re.MULTILINE)
    return int(parsedate_to_datetime(match[1].replace("UTC", "+0000")).timestamp()) if match else 0


def _fetch(url: str, work: Path) -> str:
    """A file from the mirror by apt's own means (its proxy and credentials); empty when it does not come."""
    target = work / "fetched"
    patience = ("-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20")
    try:
        arguments = ["download-file", redact.without_users(url), str(target)]
        process.run([APT_HELPER, *patience, *arguments], timeout_s=120, env=apt.environment(work))
        return target.read_text(errors="replace")
    except (CommandError, OSError):
        return ""
    finally:
        target.unlink(missing_ok=True)


def mmdebstrap(work: Path, on_message: Callable[[str], None]) -> str:
    """A runnable mmdebstrap: the host's, else one unpacked into `work`."""
    if found := shutil.which("mmdebstrap", path=apt.search_path()):
        return found
    if os.geteuid() != 0:
        raise UnsupportedHostError(
            "making a base image needs root, or mmdebstrap and uidmap",
            hint="run `sudo -E kit base make`, or `sudo apt-get install mmdebstrap uidmap`",
        )
    distribution = apt.host_distribution()
    archive = apt.main_archive(apt.host_sources(), distribution)
    components = ("main", "universe") if distribution.family == "ubuntu" else ("main",)
    lists = Apt(folder=work / "apt", sources=(apt.suite_of(archive, distribution.codename, components, distribution),))
    on_message("downloading mmdebstrap, which this machine has not")
    lists.update()
    apt.unpack(lists.download_missing(["mmdebstrap", "debian-archive-keyring"]), work / "tools")
    shutil.rmtree(lists.folder)
    return str(work / "tools/usr/bin/mmdebstrap")


def _keyring(work: Path) -> Path:
    names = [f"usr/share/keyrings/debian-archive-keyring.{ending}" for ending in ("gpg", "pgp")]
    files = [root / name for root in (work / "tools", Path("/")) for name in names]
    return next((file for file in files if file.is_file()), files[-2])


def command(
    program: str,
    suite: str,
    where: Mirror,
    target: Path,
    *,
    keyring: Path,
    architecture: str,
) -> list[str]:
    """The mmdebstrap call that makes the root file system, with what `prepare` wrote beside `target`."""
    include = ["ca-certificates"] if any(source.uri.startswith("https:") for source in where.sources) else []
    traces = " ".join(f'"$1"/{name}' for name in TRACES)
    lines = [replace(source, uri=redact.without_users(source.uri)).line for source in where.sources]
    sources = "".join(line + "\n" for line in lines)
    auth = "/etc/apt/auth.conf.d/99kit.conf"
    settings = "".join(line + "\n" for line in where.settings)
    hooks = [
        f'printf %s {shlex.quote(sources)} > "$1"/etc/apt/sources.list',
        # What mmdebstrap was told about this machine (proxies) is of no use elsewhere.
        f'rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"{auth}',
        *([f'printf %s {shlex.quote(settings)} > "$1"/etc/apt/apt.conf.d/99kit'] if settings else []),
        f"rm -rf {traces}",
        'mkdir -p "$1"/var/log/apt "$1"/var/lib/apt/lists/partial',
        'chown 42:0 "$1"/var/lib/apt/lists/partial && chmod 700 "$1"/var/lib/apt/lists/partial',
    ]
    return [
        program,
        "--variant=apt",
        f"--architectures={architecture}",
        "--format=tar",
        "--skip=output/dev",
        f"--keyring={keyring}",
        # In files, as all users see a program's arguments.
        f"--aptopt={target.with_name(SETTINGS)}",
        f'--setup-hook=mkdir -p "$1"{Path(auth).parent}',
        f"--setup-hook=upload {shlex.quote(str(target.with_name('auth.conf')))} {auth}",
        *(f"--dpkgopt={line}" for line in EXCLUDED_PATHS),
        *([f"--include={','.join(include)}"] if include else []),
        *(f"--customize-hook={hook}" for hook in hooks),
        suite,
        str(target),
        *lines,
    ]


def prepare(work: Path, where: Mirror) -> None:
    """Write what mmdebstrap's apt is to have of the host's settings."""
    settings = (*apt.host_settings(apt.ROUTES), *where.settings, 'Acquire::Retries "3";')
    write_text(work / SETTINGS, "".join(line + "\n" for line in settings), mode=0o600)
    apt.configure(work, [source.uri for source in where.sources])


def make_root(program: str, suite: str, where: Mirror, target: Path, on_message: Callable[[str], None]) -> None:
    work = target.parent
    prepare(work, where)
    arguments = command(program, suite, where, target, keyring=_keyring(work), architecture=apt.architecture())
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line.startswith(STEPS):
            on_message(line.removeprefix("I: ").rstrip("."))

    code = process.stream(
        arguments,
        on_line,
        timeout_s=3600,
        env={
            **_tool_environment(work),
            **dict([mark(work).split("=", 1)]),
            **{"SOURCE_DATE_EPOCH": str(where.epoch), "TMPDIR": str(work), "LC_ALL": "C.UTF-8"},
        },
    )
    if code == 0:
        return
    text = "\n".join(lines)
    last = tuple(line[-300:] for line in lines if line.strip())[-8:]
    if "No space left on device" in text or "don't have enough free space" in text:
        raise DiskFullError(
            f"no space left in {work.parent} for making a base image",
            details=last,
            hint="free about 1 GB, or set XDG_CACHE_HOME to a folder on a larger disk",
        )
    if re.search(r"Failed to fetch|Could not resolve|Unable to connect|Temporary failure|Connection failed", text):
        raise NetworkError(
            f"the mirror {redact.without_users(where.uri)} stopped answering",
            details=last,
            hint="run the command again, or name another mirror with --mirror",
        )
    raise EngineError(
        f"mmdebstrap could not make a {suite} base (exit code {code})",
        details=last,
        hint="run the command again with -vv to see its call",
    )


def mark(work: Path) -> str:
    """In the environment of mmdebstrap and of all that it starts for this folder, by which they are found again."""
    return f"KIT_BASE={work}"


def _tool_environment(work: Path) -> dict[str, str]:
    """What an unpacked mmdebstrap needs to find its parts, and Perl's when the host has only the core of it."""
    tools = work / "tools"
    if not tools.is_dir():
        return {"PATH": apt.search_path()}
    perl = [
        str(folder)
        for pattern in ("usr/share/perl5", "usr/share/perl/*", "usr/lib/*/perl/*", "usr/lib/*/perl5/*")
        for folder in sorted(tools.glob(pattern))
        if folder.is_dir() and not folder.is_symlink()
    ]
    libraries = [str(folder) for folder in sorted(tools.glob("usr/lib/*-linux-gnu*"))]
    env = {"PATH": os.pathsep.join([str(tools / "usr/bin"), apt.search_path()])}
    if perl:
        env["PERL5LIB"] = os.pathsep.join(perl)
    if libraries:
        env["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    return env


def dpkg_status(root: Path) -> str:
    with tarfile.open(root) as tar:
        member = next((m for m in tar if m.name.removeprefix("./") == "var/lib/dpkg/status"), None)
        content = tar.extractfile(member) if member else None
        return content.read().decode() if content else ""
