"""The programs of a Docker Engine, unpacked from the distribution's packages and installed nowhere."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from kit import apt
from kit.apt import Apt, Distribution, Source
from kit.catalog import load_catalog
from kit.errors import KitError, NetworkError, UnsupportedHostError
from kit.paths import write_text
from kit.private_engine.settings import Programs

# By name, where no version is pinned (kit/catalog/engine.toml).
DOCKER_PACKAGES = {
    "debian": ("docker.io", "docker-cli", "containerd", "docker-buildx", "docker-compose"),
    "ubuntu": ("docker.io", "containerd", "docker-buildx", "docker-compose-v2"),
}
# `docker run --init` mounts this into containers, so it must be the static one; older suites have it in `tini`.
INIT_PACKAGES: dict[str, tuple[str, ...]] = {"debian": ("tini-static", "tini"), "ubuntu": ()}
# Program -> package; from the host's own suite, so that they fit its libraries and kernel.
HOST_PROGRAMS = {"runc": "runc", "iptables": "iptables", "mount": "mount"}


def ensure(folder: Path, *, say: Callable[[str], None], update: bool = False) -> Programs:
    """The programs in `folder`, downloaded first if they are not there or `update` asks for the newest.

    Raises UnsupportedHostError where Debian's packages cannot run, NetworkError when the archive does not answer.
    An interrupted download leaves no folder that looks ready.
    """
    programs = Programs(folder=folder)
    if programs.is_ready and not update:
        return programs
    check_host()
    distribution = apt.host_distribution()
    archive = apt.main_archive(apt.host_sources(), distribution)
    beside = folder.with_name(folder.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    say(f"downloading Docker Engine's programs from the {distribution.family.capitalize()} archive")
    try:
        packages = docker_packages(archive, distribution, beside, say=say)
        apt.unpack(packages, beside / "root")
        missing = [name for program, name in HOST_PROGRAMS.items() if not shutil.which(program, path=apt.search_path())]
        if missing:
            say(f"and {' and '.join(missing)}, which this machine has not")
            lists = _lists(beside / "apt-host", apt.host_suite(archive, distribution), say)
            missing_packages = lists.download_missing(missing)
            apt.unpack(missing_packages, beside / "host")
            packages += missing_packages
        _link(beside, folder)
        write_text(beside / "ready.json", json.dumps({"packages": sorted(file.stem for file in packages)}))
        for name in ("apt-docker", "apt-host", "debs"):
            shutil.rmtree(beside / name, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return programs


def check_host() -> None:
    """Raise UnsupportedHostError where the archive's programs cannot run."""
    if platform.system() != "Linux":
        raise UnsupportedHostError(
            f"the private engine runs on Linux, this is {platform.system()}", hint="install Docker Desktop or Podman"
        )
    for program in ("apt-get", "dpkg"):
        if not shutil.which(program):
            raise UnsupportedHostError(f"this system has no `{program}`", hint=apt.INSTALL_INSTEAD)
    needed = {row.debian: row.engine_glibc for row in load_catalog().platforms if row.engine_glibc}
    machine, found = apt.architecture(), glibc_version()
    if machine not in needed:
        raise UnsupportedHostError(
            f"the private engine is for {' and '.join(needed)}, this is {machine}", hint=apt.INSTALL_INSTEAD
        )
    if found < tuple(int(part) for part in needed[machine].split(".")):
        raise UnsupportedHostError(
            f"Docker Engine's packages need glibc {needed[machine]} or newer, "
            f"this system has {'.'.join(map(str, found)) or 'another C library'}",
            hint=apt.INSTALL_INSTEAD,
        )


def glibc_version() -> tuple[int, ...]:
    """The C library's version; empty when it is not glibc."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return ()
    return tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else ()


def docker_packages(
    archive: Source, distribution: Distribution, folder: Path, *, say: Callable[[str], None]
) -> list[Path]:
    """Download Docker's packages into `folder`: on Debian those that are pinned, where the mirror has them, else by
    name those of a release that stays; on Ubuntu those of its own. What `testing` is at the moment nobody asks.

    Raises NetworkError, or UnsupportedHostError when the archive has none of them.
    """
    if distribution.family != "debian":
        return _by_name(_lists(folder / "apt-docker", apt.host_suite(archive, distribution), say), distribution, folder)
    if pinned := _pinned(apt.resolved_uri(archive.uri), folder, say):
        return pinned
    problem: KitError | None = None
    for row in load_catalog().engine_suites:
        # Only the Go programs come from there; they need nothing of that release's libraries.
        source = apt.suite_of(archive, row.name, ("main",), distribution)
        shutil.rmtree(folder / "apt-docker", ignore_errors=True)
        try:
            return _by_name(_lists(folder / "apt-docker", (source,), say), distribution, folder)
        except (NetworkError, UnsupportedHostError) as e:
            problem = problem or e
    raise problem or UnsupportedHostError("no release with Docker Engine is known", hint=apt.INSTALL_INSTEAD)


def _pinned(uri: str, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """The pinned packages; none when the mirror at `uri` lacks one of them."""
    settings, debs = folder / "apt-docker", folder / "debs"
    apt.configure(settings, [uri])
    debs.mkdir(parents=True, exist_ok=True)
    found = []
    for row in load_catalog().engine_packages:
        if row.architecture == apt.architecture():
            target = debs / row.path.rpartition("/")[2]
            if not apt.fetch(f"{uri}/{row.path}", target, settings, sha256=row.sha256):
                say(f"the mirror does not give {row.name} {row.version}: taking what a release of Debian's has")
                shutil.rmtree(debs)
                return []
            found.append(target)
    return found


def _by_name(lists: Apt, distribution: Distribution, folder: Path) -> list[Path]:
    init = [name for name in INIT_PACKAGES[distribution.family] if lists.has(name)][:1]
    return lists.download([*DOCKER_PACKAGES[distribution.family], *init], folder / "debs")


def _lists(folder: Path, sources: tuple[Source, ...], say: Callable[[str], None]) -> Apt:
    """The package lists of a release; without its updates where a mirror has no good ones, as when it is late.

    Raises NetworkError.
    """
    lists = Apt(folder=folder, sources=sources)
    try:
        lists.update()
    except NetworkError as e:
        if len(sources) == 1:
            raise
        lists = Apt(folder=folder, sources=sources[:1])
        lists.update()
        say(f"going on without {', '.join(source.suite for source in sources[1:])}: {'; '.join(e.details[-1:])}")
    return lists


def _link(folder: Path, final: Path) -> None:
    """Fill `bin` and `plugins`; the paths are those after the folder has been renamed to `final`."""
    (folder / "bin").mkdir()
    (folder / "plugins").mkdir()
    for place in ("usr/bin", "usr/sbin", "bin", "sbin"):
        for program in sorted((folder / "root" / place).glob("*")):
            _symlink(folder / "bin" / program.name, final / "root" / place / program.name)
        for program in sorted((folder / "host" / place).glob("*")):
            # Beside the program lie libraries the host has not: it is told where, and nothing else is.
            write_text(folder / "bin" / program.name, wrapper(final / "host", place, program.name), mode=0o755)
    for plugin in sorted((folder / "root").glob("usr/lib*/docker/cli-plugins/docker-*")):
        _symlink(folder / "plugins" / plugin.name, final / "root" / plugin.relative_to(folder / "root"))
    if (folder / "bin/iptables-nft").exists():
        # `iptables` is an alternative that a package script would have made.
        for name in ("iptables", "ip6tables"):
            _symlink(folder / "bin" / name, final / "bin" / f"{name}-nft")


def _symlink(link: Path, target: Path) -> None:
    if not link.is_symlink():
        link.symlink_to(target)


def wrapper(root: Path, place: str, name: str) -> str:
    """A script that starts an unpacked program with the libraries unpacked beside it."""
    return (
        "#!/bin/sh\n"
        f"root={shlex.quote(str(root))}\n"
        'for lib in "$root"/usr/lib/*-linux-gnu* "$root"/lib/*-linux-gnu*; do\n'
        '  [ -d "$lib" ] && LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"\n'
        '  [ -d "$lib/xtables" ] && export XTABLES_LIBDIR="$lib/xtables"\n'
        "done\n"
        "export LD_LIBRARY_PATH\n"
        f'exec "$root/{place}/{name}" "$@"\n'
    )
