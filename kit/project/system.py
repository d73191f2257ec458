"""Locking packages of the distribution: apt in a container of the image says what they need beside what is there."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from kit import layout
from kit.environment.system import layer_of, missing, replaced
from kit.errors import CommandError, LockError, NetworkError
from kit.image.build.ensure import ensure_image, network_on
from kit.spec.container import ContainerSpec

if TYPE_CHECKING:
    from kit import process
    from kit.catalog import Catalog
    from kit.catalog.rows import Image
    from kit.engine import Engine
    from kit.environment.declared import Declared
    from kit.environment.format import EnvironmentLock, SystemLayer
    from kit.image.build.ensure import ImageOptions
    from kit.network import NetworkSettings
    from kit.screen import Screen

SCRIPT = "system.sh"
WHICH = '. /etc/os-release && echo "$VERSION_CODENAME" && dpkg --print-architecture'
# Exit codes of the script.
NO_LISTS, NO_SUCH, NO_WAY = 3, 4, 5
TIMED_OUT = 124  # of `ask`
# The lists of a distribution, over a slow line.
PATIENCE_S = 900
_CA_END = "KIT-END-OF-CA"


def lock_system(
    catalog: Catalog,
    declared: Declared,
    image: Image,
    engine: Engine,
    options: ImageOptions,
    present: EnvironmentLock | None,
    screen: Screen,
    *,
    upgrade: bool = False,
) -> tuple[SystemLayer, ...]:
    """The entries of kit.lock for a project's system packages: that of the release on which the image stands in this
    engine, and those of other releases that `present` has for the same packages.

    What `present` has for this release and image stays as it is, unless `upgrade`. The image is brought first where the
    engine lacks it. Raises LockError for a package that does not exist or cannot be installed, NetworkError when the
    image's mirrors do not answer, and what bringing the image raises.
    """
    wanted = tuple(sorted(set(declared.system)))
    reference, _ = ensure_image(catalog, image, engine, options, screen)
    suite, architecture = _which(engine, reference)
    kept = {}
    for layer in present.system if present else ():
        if layer.wanted == wanted:
            kept[layer.suite, layer.architecture] = layer
    is_same = present is not None and present.image == image.name
    if not is_same or upgrade or (suite, architecture) not in kept:
        screen.say(f"asking the distribution ({suite}) for {', '.join(wanted)}")
        lines = _resolve(engine, reference, image.name, wanted, network_on(options.build.network, engine))
        layer = layer_of(suite, architecture, wanted, lines)
        for package in replaced(layer, lines):
            screen.say(f"{package.name} {package.new} takes the place of the image's {package.old}")
        kept[suite, architecture] = layer
    return tuple(kept[key] for key in sorted(kept))


def _which(engine: Engine, reference: str) -> tuple[str, str]:
    """The release of the distribution that an image has, and dpkg's word for its architecture."""
    done = _run(engine, reference, ("sh", "-c", WHICH))
    words = done.stdout.split()
    if done.returncode != 0 or len(words) != 2 or not all(re.fullmatch("[a-z0-9][a-z0-9.-]{0,40}", w) for w in words):
        raise LockError(
            f"{reference} does not say which release of Debian or Ubuntu it has",
            details=tuple(done.stderr.splitlines()[-3:]),
            hint="system packages need an image of kit's; build it again",
        )
    return words[0], words[1]


def _resolve(engine: Engine, reference: str, name: str, wanted: Sequence[str], network: NetworkSettings) -> list[str]:
    done = _run(
        engine, reference, ("sh", "-s", "--", *wanted), input=script(network), has_host=network.needs_host_network
    )
    lines = done.stdout.splitlines()
    details = _why(done.stderr)
    if done.returncode == NO_LISTS:
        raise NetworkError(
            f"the package archive of {name}'s distribution cannot be used",
            details=details,
            hint="check the network and the proxy; the addresses are those of the base that the image was built on",
        )
    if done.returncode == NO_SUCH:
        names = ", ".join(f"`{package}`" for package in missing(lines))
        raise LockError(
            f"the distribution of {name} has no package {names}",
            hint="correct `system` in kit.toml; on such a system `apt-cache search WORD` finds names",
        )
    if done.returncode == NO_WAY:
        raise LockError(
            f"the system packages {', '.join(wanted)} cannot be installed beside what {name} holds",
            details=details,
            hint="leave out what conflicts, or a version that the distribution does not have",
        )
    if done.returncode != 0:
        raise engine.failure(CommandError(done.args, done.returncode, done.stdout, done.stderr))
    return lines


def _why(text: str) -> tuple[str, ...]:
    """The lines in which apt says why not."""
    lines = [line.rstrip() for line in text.splitlines()]
    said = "The following packages have unmet dependencies:"
    first = lines.index(said) + 1 if said in lines else 0
    found = [line.strip() for line in lines[first:] if line.startswith((" ", "E:", "W:", "Err:")) and line.strip()]
    return tuple(dict.fromkeys(found))[-8:]


def script(network: NetworkSettings) -> str:
    """What the container's shell reads: how to reach the network, as builds have it, and what to do.

    On its standard input, so that an address with a password is in no list of processes, and nothing is mounted.
    """
    ca = ""
    if network.ca_file:
        text = network.ca_file.read_text(encoding="utf-8", errors="replace")
        ca = f"cat > /tmp/kit/ca <<'{_CA_END}'\n{text}\n{_CA_END}\n"
    resolve = resources.files("kit.project").joinpath(SCRIPT).read_text(encoding="utf-8")
    # The whole is read before any of it runs: what it starts has the rest of the input else.
    return f'{{\nmkdir -p /tmp/kit\n{network.shell_script()}{ca}{resolve}resolve "$@" </dev/null; exit\n}}\n'


def _run(
    engine: Engine, reference: str, command: tuple[str, ...], *, input: str = "", has_host: bool = False
) -> process.Completed:
    """Run a command in a container that is gone afterwards: as root, with nothing of the user's in it."""
    spec = ContainerSpec(
        image=reference,
        name=f"kit-system-{os.getpid()}-{os.urandom(3).hex()}",
        command=command,
        user="0:0",
        network=layout.HOST_NETWORK if has_host else "" if input else layout.NO_NETWORK,
        interactive=bool(input),
        remove=True,
    )
    is_over = False
    try:
        done = engine.ask(
            ["run", "--pull=never", *engine.arguments(spec)], timeout_s=PATIENCE_S, input=input if input else None
        )
        is_over = done.returncode != TIMED_OUT
    finally:
        if not is_over:
            engine.remove(spec.name, force=True)
    return done
