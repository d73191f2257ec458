"""The places of mounts inside other mounts, made by who the container is for: an engine would make them as root, and
what root made in a project or in the volume of a home its user can neither change nor remove.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence

from kit import layout
from kit.engine import Engine
from kit.errors import BadInputError, CommandError, KitError
from kit.spec.container import ContainerSpec, Mount

# How a folder is opened: not one that a link leads to.
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# On another machine and in volumes, as the user. Arguments: for each place the folder it is below, the path from there,
# and what is mounted, a `folder` or a `file`. No link is followed: it may lead out of the folder.
SCRIPT = """
set -e
while [ $# -gt 2 ]; do
    cd "$1"; rest=$2; kind=$3; shift 3
    while [ ! -L "./${rest%%/*}" ]; do
        name=${rest%%/*}
        if [ "$name" = "$rest" ]; then
            if [ ! -e "./$name" ]; then
                if [ "$kind" = file ]; then : > "./$name"; else mkdir "./$name"; fi
            fi
            break
        fi
        [ -d "./$name" ] || mkdir "./$name"
        cd -P "./$name"
        rest=${rest#*/}
    done
done
"""


def nested(mounts: Sequence[Mount]) -> list[tuple[Mount, Mount]]:
    """The mounts that are inside another one, each with the nearest it is in; not those whose place every image has."""
    found = []
    for mount in mounts:
        around = [other for other in mounts if mount.target.startswith(f"{other.target}/")]
        nearest = max(around, key=lambda other: len(other.target), default=None)
        if nearest and not (nearest.is_volume and mount.target in layout.HOME_DIRS):
            found.append((mount, nearest))
    return found


def make(engine: Engine, spec: ContainerSpec) -> None:
    """Make the places of a container's mounts in its folder, its volumes and its other mounts.

    Raises BadInputError where its user may make none.
    """
    found = nested(spec.mounts)
    in_folders = [(mount, around) for mount, around in found if not around.is_volume]
    in_volumes = [(mount, around) for mount, around in found if around.is_volume]
    if in_folders:
        _make_in_folders(engine, spec, in_folders)
    if in_volumes:
        _make_in_volumes(engine, spec, in_volumes)


def _make_in_folders(engine: Engine, spec: ContainerSpec, places: list[tuple[Mount, Mount]]) -> None:
    try:
        if engine.connection:
            words = [word for mount, around in places for word in (around.source, *_place(engine, mount, around))]
            engine.connection.run(SCRIPT, arguments=words)
            return
        owner = tuple(map(int, spec.user.split(":"))) if os.geteuid() == 0 else None
        for mount, around in places:
            _make_here(around.source, *_place(engine, mount, around), owner)
    except (CommandError, OSError) as e:
        raise _refused(places, e) from None


def _make_here(folder: str, path: str, kind: str, owner: tuple[int, ...] | None) -> None:
    """The same on this machine, where root may be making it for somebody whose job is in that folder meanwhile: each
    name is looked up in the folder that was opened before, and `owner` is given nothing but what was made.
    """
    handle = os.open(os.path.realpath(folder), FOLDER)
    try:
        *above, last = path.split("/")
        for name in above:
            try:
                below = _made(name, "folder", handle, owner)
            except FileExistsError:
                if stat.S_ISLNK(os.lstat(name, dir_fd=handle).st_mode):
                    return
                below = os.open(name, FOLDER, dir_fd=handle)
            os.close(handle)
            handle = below
        with contextlib.suppress(FileExistsError):
            os.close(_made(last, kind, handle, owner))
    finally:
        os.close(handle)


def _made(name: str, kind: str, above: int, owner: tuple[int, ...] | None) -> int:
    """A new folder or file in an open folder, opened. Raises FileExistsError, and for anything else OSError."""
    if kind == "file":
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=above)
    else:
        os.mkdir(name, dir_fd=above)
        handle = os.open(name, FOLDER, dir_fd=above)
    if owner:
        os.fchown(handle, *owner)
    return handle


def _make_in_volumes(engine: Engine, spec: ContainerSpec, places: list[tuple[Mount, Mount]]) -> None:
    """By a container that has the volumes alone: nothing else gets at them, and the first one fills them."""
    words = [word for mount, around in places for word in (around.target, *_place(engine, mount, around))]
    maker = ContainerSpec(
        image=spec.image,
        name=f"{spec.name}-mounts" if spec.name else "",
        command=("sh", "-c", SCRIPT, "sh", *words),
        user=spec.user,
        mounts=tuple(mount for mount in spec.mounts if mount.is_volume),
        labels=spec.labels,
        network=layout.NO_NETWORK,
        remove=True,
    )
    try:
        engine.call(["run", "--pull=never", *engine.arguments(maker)])
    except KitError as e:
        if any("ermission denied" in line for line in e.details):
            raise _refused(places, e) from None
        raise


def _place(engine: Engine, mount: Mount, around: Mount) -> tuple[str, str]:
    """Where in another mount it is, and what it is."""
    return mount.target.removeprefix(f"{around.target}/"), "file" if _is_file(engine, mount) else "folder"


def _is_file(engine: Engine, mount: Mount) -> bool:
    if mount.is_volume:
        return False
    if engine.connection:
        return engine.connection.run('test -f "$1"', arguments=[mount.source], check=False).returncode == 0
    return os.path.isfile(mount.source)  # noqa: PTH113 (raises nothing, whatever is written)


def _refused(places: list[tuple[Mount, Mount]], error: KitError | OSError) -> BadInputError:
    targets = ", ".join(mount.target for mount, _ in places)
    if isinstance(error, OSError):
        told = [f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)]
    else:
        told = getattr(error, "stderr", "").strip().splitlines() or list(error.details)
    return BadInputError(
        f"--mount: there is no place at {targets}, and none can be made",
        details=tuple(told[-1:]),
        hint="make it first, or choose a TARGET outside of /workspace and of what is mounted itself",
    )
