"""What of a folder a container will not have, told before it starts: engines say it late, in other words, or never."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from kit import layout, mounts
from kit.engine import Engine
from kit.errors import BadInputError, KitError
from kit.spec.container import ContainerSpec, Mount

# Of a folder's own entries as many are looked at, and of its links as many are named.
MAX_ENTRIES, MAX_LINKS = 2000, 3


# On which the root of this machine may be nobody (`root_squash`), whatever its own rights are.
OF_SERVERS = ("nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "beegfs", "gpfs", "afs")


def require_visible(engine: Engine, sources: Sequence[str], image: str) -> None:
    """Raise BadInputError for a folder or file of this machine that its user sees and its engine does not."""
    for source in sources:
        # Engines are asked in JSON and lines of CSV, which have no other bytes.
        if not source.isprintable() and (not _is_text(source) or "\r\n" in source):
            raise BadInputError(
                f"no engine takes the name {source!a}: it is not UTF-8 text, or has a line's end of Windows in it",
                hint="rename it, or a folder above it",
            )
    if not engine.is_here or engine.is_rootless:
        return
    table = mounts.read_table()
    for source in sources:
        found = mounts.at(table, source)
        if found and found.is_of_its_user_alone and os.geteuid() != 0:
            raise BadInputError(
                f"the engine cannot see {source}: it is on {found.kind}, which lets nobody in but you, not even root",
                hint="mount that with `-o allow_other` (`user_allow_other` in /etc/fuse.conf allows it), or copy it",
            )
        if found and engine.is_private and not mounts.is_shared(table, found) and not _is_same(engine, source, image):
            raise BadInputError(
                f"the engine cannot see {found.target}: it was mounted after the engine had started",
                hint="`kit engine down` and `kit engine up` start it anew; then it sees what is mounted now",
            )

        closed = _closed(source, found.target) if found and found.kind in OF_SERVERS and os.geteuid() != 0 else ""
        if closed and not _is_same(engine, source, image):
            raise BadInputError(
                f"the engine cannot see {source}: its root may not enter {closed}, which is a server's",
                hint=f"`chmod o+x {closed}` lets it in, as does `no_root_squash` on the server; or copy it",
            )


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _closed(source: str, top: str) -> str:
    """The first folder on the way from `top` to a path that only its user and group may enter; empty for none."""
    way = [folder for folder in reversed(Path(source).parents) if folder.is_relative_to(top)]
    try:
        return next((str(folder) for folder in way if not folder.stat().st_mode & 1), "")
    except OSError:
        return ""


def _is_same(engine: Engine, source: str, image: str) -> bool:
    """Whether a container has at a path what is there for this process."""
    # On the same device as what this process sees there, a root folder has the same number of its own.
    here = os.stat(source)  # noqa: PTH116 (a text that `stat` of the container is compared with)
    spec = ContainerSpec(
        image=image,
        name=f"kit-look-{os.getpid()}-{os.urandom(3).hex()}",
        command=("stat", "-c", "%d %i", "/seen"),
        mounts=(Mount(source=source, target="/seen", read_only=True),),
        network=layout.NO_NETWORK,
        remove=True,
    )
    try:
        return engine.call(["run", "--pull=never", *engine.arguments(spec)]).split() == [
            str(here.st_dev),
            str(here.st_ino),
        ]
    except KitError:
        return False


def notes(engine: Engine, folder: Path, user: str, groups: Sequence[int], others: Sequence[Mount]) -> list[str]:
    """Lines on what a container of this user (UID:GID) cannot do in a folder of this machine, or not find in it."""
    if engine.is_rootless and user != "0:0":
        return []  # whom a number is outside only the engine knows
    if engine.connection:
        return _rights_there(engine, folder, user)
    return [*_rights(folder, user, groups, is_caller=engine.is_rootless), *_links(folder, others)]


def _rights_there(engine: Engine, folder: Path, user: str) -> list[str]:
    """The same of a folder behind SSH, where it is the user's own account that can be asked."""
    connection = engine.connection
    is_caller = connection is not None and (engine.is_rootless or user.startswith(f"{connection.account.uid}:"))
    if connection is None or not is_caller:
        return []
    if connection.run('test -w "$1"', arguments=[str(folder)], check=False).returncode == 0:
        return []
    return [f"warning: {folder} on {engine.target} is read-only for you: nothing can be saved in /workspace"]


def _rights(folder: Path, user: str, groups: Sequence[int], *, is_caller: bool) -> list[str]:
    """What a user may not do in a folder. Access lists may allow more than the mode, but nobody asks for others."""
    uid, gid = map(int, user.split(":"))
    if is_caller or uid == os.geteuid():
        may_read, may_write = os.access(folder, os.R_OK | os.X_OK), os.access(folder, os.W_OK)
    else:
        found = folder.stat()
        shift = 6 if found.st_uid == uid else 3 if found.st_gid in (gid, *groups) else 0
        rights = 7 if uid == 0 else found.st_mode >> shift
        may_read, may_write = rights & 5 == 5, bool(rights & 2)
    if not may_read:
        return [f"warning: {folder} may not be read by {user}, as whom the container runs: /workspace is closed to it"]
    if not may_write:
        return [f"warning: {folder} is read-only for {user}: nothing can be saved in /workspace"]
    return []


def _links(folder: Path, others: Sequence[Mount]) -> list[str]:
    """The links in a folder that lead somewhere here and nowhere in the container."""
    lost = []
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(MAX_ENTRIES), entries, strict=False):
                if entry.is_symlink() and (line := _lost(folder, entry.path, others)):
                    lost.append(line)
    except OSError:
        return []
    more = len(lost) - MAX_LINKS
    further = [f"warning: {more} more links of this folder lead nowhere there"] if more > 0 else []
    return [*sorted(lost)[:MAX_LINKS], *further]


def _lost(folder: Path, path: str, others: Sequence[Mount]) -> str:
    said, real = str(Path(path).readlink()), os.path.realpath(path)
    inside = posixpath.normpath(posixpath.join(layout.WORKSPACE, said))
    if not os.path.exists(real) or _is_below(inside, layout.WORKSPACE):  # noqa: PTH110
        return ""
    if any(_is_below(inside, mount.target) for mount in others):
        return ""
    name = os.path.basename(path)  # noqa: PTH119
    if _is_below(real, str(folder)):
        return f"warning: the link {name} leads nowhere in the container: make it relative (`ln -sr`)"
    return f"warning: the link {name} leads nowhere in the container: `--mount {real}:{inside}` brings {real} there"


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")
