"""What `kit reset` does: what `pip install` added to an image's containers in a folder is taken out again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kit import layout
from kit.catalog import load_catalog
from kit.engine import Engine, connect
from kit.errors import BadInputError
from kit.frozen import dataclass
from kit.image.build.ensure import choose_image
from kit.run.containers import user_inside
from kit.run.lease import host_for
from kit.run.prepare import name_and_words
from kit.screen import Screen
from kit.spec.container import project_of, volume_mounts

if TYPE_CHECKING:
    from kit.environment.declared import Declared


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What was added to an image in a folder: the volume that holds it."""

    image: str
    folder: Path  # on the engine's machine
    volume: str
    is_there: bool


def find(
    name: str,
    folder: Path,
    screen: Screen,
    *,
    configured_image: str = "",
    declares: Callable[[], Declared] | None = None,
    target: str = "",
    remote_folder: str = "",
    user: str = "",
) -> tuple[Engine, Layer]:
    """The layer that `kit run` would give a container, and the engine that has it.

    Raises what choosing an image and reaching a machine raise, and BadInputError while a container has the volume.
    """
    is_own = not name and declares is not None
    name, words = name_and_words(name, (), configured_image)
    if words:
        raise BadInputError(f"`{words[0]}` is no image", hint="`kit list` shows them")
    if remote_folder and not target:
        raise BadInputError("--remote-folder is for a machine behind --host", hint="here it is `-C FOLDER`")
    catalog = load_catalog()
    if declares and is_own:
        from kit.image.environment import read_environment

        name = read_environment(catalog, declares()).image.name
    # Whether it works here says nothing of what was added to it.
    image = choose_image(catalog, name, host_for(None, target), screen, force=True)
    engine = connect(target)
    there = folder
    if engine.connection:
        from kit.remote import sync

        there = Path(sync.remote_folder(engine.connection, folder, remote_folder))
    uid = (user or user_inside(engine, folder)).partition(":")[0]
    mounts = volume_mounts(image.name, uid, project_of(there))
    volume = next(mount.source for mount in mounts if mount.target == f"{layout.HOME}/.local")
    users = engine.volume_users(volume)
    if users:
        raise BadInputError(
            f"what was added to {image.name} is in use by {', '.join(users)}",
            hint=f"`kit stop {users[0]}`, then `kit rm {users[0]}`",
        )
    return engine, Layer(image=image.name, folder=there, volume=volume, is_there=engine.has_volume(volume))


def empty(engine: Engine, layer: Layer) -> None:
    """Delete the volume; the next start makes it anew. Raises EngineError, also when a container took it meanwhile."""
    engine.remove_volume(layer.volume)
