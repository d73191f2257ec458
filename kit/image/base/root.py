"""The files of a base: what its packages bring, before they are configured, and what is left of them afterwards.

Pure but for the files that it reads and writes: the same packages give the same bytes.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO

# Nobody reads manuals in a container; copyright files stay, as licences ask. dpkg takes the last line that fits.
PATHS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/lintian/*",
    "path-include=/usr/share/doc/*/copyright",
)
# Folders that are links into /usr where one of these packages is: others still have their files below the old names.
MERGED, MERGED_IF_USED = ("bin", "lib", "sbin"), ("lib32", "lib64", "libo32", "libx32")
MERGING = ("usr-is-merged", "usrmerge")
# What packages are configured with: it lies beside them, and is gone afterwards.
WORK = "kit-base"
# Here an engine has its own: of what comes out of a container only what packages brought is kept.
ENGINES = ("dev", "proc", "sys", "tmp")
# Traces of the making that differ from time to time, or between machines, and what engines put into every container.
TRACES = (
    WORK,
    WORK + "/*",
    "etc/resolv.conf",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/machine-id",
    ".dockerenv",
    "run/.containerenv",
    "run/mount*",
    "run/utmp",
    "run/secrets*",
    "var/lib/dbus/machine-id",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
    "etc/.pwd.lock",
    "var/cache/ldconfig/aux-cache",
    "var/cache/debconf/*-old",
    "var/lib/dpkg/*-old",
    "var/log/apt/*",
    "var/log/dpkg.log",
    "var/log/alternatives.log",
)


class _Layer:
    """A tar file of what packages bring, in which each name is once, after the folders above it."""

    def __init__(self, tar: tarfile.TarFile, epoch: int, *, is_merged: bool) -> None:
        self._tar, self._epoch, self._names = tar, epoch, set[str]()
        self._merged = (*MERGED, *MERGED_IF_USED) if is_merged else ()

    def folder(self, name: str) -> None:
        for path in (*reversed(PurePosixPath(name).parents), PurePosixPath(name)):
            if path.name:
                self._add(_member(str(path), self._epoch, tarfile.DIRTYPE, 0o755))

    def file(self, name: str, content: IO[bytes], size: int) -> None:
        self.folder(str(PurePosixPath(name).parent))
        member = _member(name, self._epoch, tarfile.REGTYPE, 0o644)
        member.size = size
        self._add(member, content)

    def link(self, name: str) -> None:
        """A folder as a link into /usr."""
        self.folder(f"usr/{name}")
        member = _member(name, self._epoch, tarfile.SYMTYPE, 0o777)
        member.linkname = f"usr/{name}"
        self._add(member)

    def package(self, files: tarfile.TarFile) -> None:
        for member in files:
            if not (name := _name(member)) or _is_excluded(f"/{name}"):
                continue
            if name in self._merged:
                self.link(name)
                continue
            member.name = self._place(name)
            self.folder(str(PurePosixPath(member.name).parent))
            if member.islnk():
                member.linkname = self._place(_name_of_origin(member))
            self._add(member, files.extractfile(member) if member.isreg() else None)

    def _place(self, name: str) -> str:
        top = name.partition("/")[0]
        if top not in self._merged:
            return name
        self.link(top)
        return f"usr/{name}"

    def _add(self, member: tarfile.TarInfo, content: IO[bytes] | None = None) -> None:
        if member.name not in self._names:
            self._names.add(member.name)
            self._tar.addfile(member, content)


def write_layer(
    target: Path, packages: Sequence[Path], unpacked: Callable[[Path], Path], extra: Mapping[str, bytes], epoch: int
) -> None:
    """Write what these packages bring as a tar file, and the packages themselves, to be configured.

    `unpacked` gives the tar file of a package's files; `extra` are further files.
    """
    is_merged = any(package.name.partition("_")[0] in MERGING for package in packages)
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        layer = _Layer(tar, epoch, is_merged=is_merged)
        for name in MERGED if is_merged else ():
            layer.link(name)
        for package in packages:
            with tarfile.open(unpacked(package)) as files:
                layer.package(files)
        for name in ("info", "updates", "triggers", "parts"):
            layer.folder(f"var/lib/dpkg/{name}")
        for name, content in {
            "etc/dpkg/dpkg.cfg.d/99kit": "".join(f"{line}\n" for line in PATHS).encode(),
            "var/lib/dpkg/status": b"",
            "var/lib/dpkg/available": b"",
            **extra,
        }.items():
            layer.file(name, io.BytesIO(content), len(content))
        for package in packages:
            with package.open("rb") as opened:
                layer.file(f"{WORK}/packages/{package.name}", opened, package.stat().st_size)


def _member(name: str, epoch: int, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, epoch
    return member


def _is_excluded(path: str) -> bool:
    excluded = False
    for line in PATHS:
        action, _, pattern = line.partition("=")
        if fnmatch(path, pattern):
            excluded = action == "path-exclude"
    return excluded


def write_root(target: Path, exported: Path, layer: Path, epoch: int) -> None:
    """Write the root file system of a base: of the file system of a container that configured the packages of `layer`,
    what is the same whenever and wherever it was made, sorted by name, and nothing newer than `epoch`.
    """
    with tarfile.open(layer) as tar:
        brought = {_name(member) for member in tar}
    with tarfile.open(exported) as source, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        kept = {name: member for member in source if (name := _name(member)) and _is_kept(name, brought)}
        first = dict[str, str]()  # of the names of one file: the original's name, and that under which it is written
        for name, member in sorted(kept.items()):
            content = None
            origin = _name_of_origin(member)
            if member.isreg() or member.islnk():
                if origin in first:
                    member.type, member.linkname, member.size = tarfile.LNKTYPE, f"./{first[origin]}", 0
                else:
                    first[origin] = name
                    data = kept[origin]
                    content = source.extractfile(data)
                    member.type, member.linkname, member.size = tarfile.REGTYPE, "", data.size
            tar.addfile(_plain(member, name, epoch), content)


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./").strip("/")


def _name_of_origin(member: tarfile.TarInfo) -> str:
    return member.linkname.removeprefix("./").strip("/") if member.islnk() else _name(member)


def _is_kept(name: str, brought: set[str]) -> bool:
    top, _, below = name.partition("/")
    if top == "dev" or (top in ENGINES and below and name not in brought):
        return False
    return not any(fnmatch(name, pattern) for pattern in TRACES)


def _plain(member: tarfile.TarInfo, name: str, epoch: int) -> tarfile.TarInfo:
    plain = _member(f"./{name}", min(int(member.mtime), epoch), member.type, member.mode & 0o7777)
    plain.uid, plain.gid, plain.size, plain.linkname = member.uid, member.gid, member.size, member.linkname
    plain.pax_headers = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}
    return plain


def dpkg_status(root: Path) -> str:
    """What dpkg says is installed in a root file system."""
    with tarfile.open(root) as tar:
        member = next((m for m in tar if _name(m) == "var/lib/dpkg/status"), None)
        content = tar.extractfile(member) if member else None
        return content.read().decode() if content else ""
