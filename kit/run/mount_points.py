"""The places of mounts inside other mounts, made by who the container is for: an engine would make them as root, and
what root made in a project or in the volume of a home its user can neither change nor remove.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from kit import layout, process
from kit.engine import Engine
from kit.errors import BadInputError, CommandError, KitError
from kit.spec.container import ContainerSpec, Mount

# Arguments: who is to own what is made (empty: whoever makes it), then for each place the folder it is below, the path
# from there, and what is mounted: a folder, or a file. No link is followed: it may lead out of the folder.
SCRIPT = """
set -e
owner=$1; shift
made() { [ -z "$owner" ] || chown "$owner" "$1"; }
while [ $# -gt 2 ]; do
    cd "$1"; rest=$2; source=$3; shift 3
    while [ ! -L "./${rest%%/*}" ]; do
        name=${rest%%/*}
        if [ "$name" = "$rest" ]; then
            if [ ! -e "./$name" ]; then
                if [ "$source" = file ] || [ -f "$source" ]; then : > "./$name"; else mkdir "./$name"; fi
                made "./$name"
            fi
            break
        fi
        [ -d "./$name" ] || { mkdir "./$name"; made "./$name"; }
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
    words = [""]
    for mount, around in places:
        words += [around.source, _path(mount, around), "folder" if mount.is_volume else mount.source]
    try:
        if engine.connection:
            engine.connection.run(SCRIPT, arguments=words)
            return
        if os.geteuid() == 0 and not spec.user.startswith("0:"):
            words[0] = spec.user
        process.run(["sh", "-c", SCRIPT, "sh", *words])
    except CommandError as e:
        raise _refused(places, e) from None


def _make_in_volumes(engine: Engine, spec: ContainerSpec, places: list[tuple[Mount, Mount]]) -> None:
    """By a container that has the volumes alone: nothing else gets at them, and the first one fills them."""
    words = [""]
    for mount, around in places:
        words += [around.target, _path(mount, around), "file" if _is_file(engine, mount) else "folder"]
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


def _path(mount: Mount, around: Mount) -> str:
    return mount.target.removeprefix(f"{around.target}/")


def _is_file(engine: Engine, mount: Mount) -> bool:
    if mount.is_volume:
        return False
    if engine.connection:
        return engine.connection.run('test -f "$1"', arguments=[mount.source], check=False).returncode == 0
    return os.path.isfile(mount.source)  # noqa: PTH113 (raises nothing, whatever is written)


def _refused(places: list[tuple[Mount, Mount]], error: KitError) -> BadInputError:
    targets = ", ".join(mount.target for mount, _ in places)
    told = getattr(error, "stderr", "").strip().splitlines() or list(error.details)
    return BadInputError(
        f"--mount: there is no place at {targets}, and none can be made",
        details=tuple(told[-1:]),
        hint="make it first, or choose a TARGET outside of /workspace and of what is mounted itself",
    )
