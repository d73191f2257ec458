"""A Debian root file system from the package archive: its packages are fetched and unpacked here, as any user, and
configured in a container of the engine's. Whoever may use an engine can make one.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

from kit import apt, process, redact
from kit.apt import Apt
from kit.engine import Engine
from kit.errors import CommandError, DiskFullError, EngineError
from kit.image.base import image, root
from kit.image.base.mirror import Mirror, keyring

SCRIPT = "configure.sh"
# What is a base before its packages are configured: an image for as long as that takes.
UNCONFIGURED = "kit/base-unconfigured"


def make_root(engine: Engine, suite: str, where: Mirror, target: Path, on_message: Callable[[str], None]) -> None:
    """Write the root file system of a suite to `target`, in whose folder it works.

    Raises NetworkError when the archive cannot be used, DiskFullError, and EngineError when the packages cannot be
    configured.
    """
    work = target.parent
    layer, exported = work / "layer.tar", work / "exported.tar"
    packages = download(where, work, on_message)
    on_message("unpacking them")
    root.write_layer(layer, packages, lambda package: _unpacked(package, work), _files(where), where.epoch)
    on_message("configuring them in the engine")
    with _unconfigured(engine, suite, layer, where.epoch) as (name, reference):
        arguments = ["--network=none", f"--env=SOURCE_DATE_EPOCH={where.epoch}", engine.full_name(reference)]
        engine.call(["create", "--pull=never", f"--name={name}", *arguments, "/bin/sh", f"/{root.WORK}/{SCRIPT}"])
        lines: list[str] = []
        code = engine.stream(["start", "--attach", name], lines.append)
        if code != 0:
            raise _failure(suite, code, lines)
        engine.export(name, exported)
    root.write_root(target, exported, layer, where.epoch)


def download(where: Mirror, work: Path, on_message: Callable[[str], None]) -> list[Path]:
    """The packages of a base: the essential ones, apt, and what they need."""
    keys = {"signed-by": str(keyring(work, on_message))}
    sources = tuple(replace(source, options={**source.options, **keys}) for source in where.sources)
    on_message("downloading packages")
    lists = Apt(folder=work / "apt", sources=sources, is_bare=True)
    lists.update()
    essential = f"?narrow(?architecture({apt.architecture()}),?essential)"
    certificates = ["ca-certificates"] if any(source.uri.startswith("https:") for source in where.sources) else []
    return lists.download_missing([essential, "apt", *certificates])


def _unpacked(package: Path, work: Path) -> Path:
    files = work / "package.tar"
    try:
        command = ["sh", "-c", 'exec dpkg-deb --fsys-tarfile "$1" > "$2"', "sh", str(package), str(files)]
        process.run(command, timeout_s=300, env={"LC_ALL": "C.UTF-8"})
    except CommandError as e:
        if "No space left" in e.stderr:
            raise DiskFullError(f"no space left for unpacking {package.name}", hint="free some space") from None
        raise
    return files


def _files(where: Mirror) -> dict[str, bytes]:
    """The files of a base that no package brings, and the script that configures the others."""
    plain = [replace(source, uri=redact.without_users(source.uri)) for source in where.sources]
    texts = {
        "etc/apt/sources.list": "".join(f"{source.line}\n" for source in plain),
        f"{root.WORK}/{SCRIPT}": resources.files("kit.image.base").joinpath(SCRIPT).read_text(encoding="utf-8"),
    }
    if where.settings:
        texts["etc/apt/apt.conf.d/99kit"] = "".join(f"{line}\n" for line in where.settings)
    return {name: text.encode() for name, text in texts.items()}


def names(suite: str, folder: Path) -> tuple[str, str]:
    """What the container and the image are called with which a base for this folder is made, one at a time."""
    mark = hashlib.sha256(f"{socket.gethostname()} {folder.absolute()}".encode()).hexdigest()[:12]
    return f"kit-base-{suite}-{mark}", f"{UNCONFIGURED}:{suite}-{mark}"


@contextlib.contextmanager
def _unconfigured(engine: Engine, suite: str, layer: Path, epoch: int) -> Iterator[tuple[str, str]]:
    """A free name for a container, and an image of the layer in the engine; both are gone after the block.

    Those of one that was killed are removed by the next for the same folder.
    """
    name, reference = names(suite, layer.parent.parent)

    def remove() -> None:
        engine.remove(name, force=True)
        engine.untag(reference)

    remove()
    try:
        archive = layer.with_name("unconfigured.tar")
        image.write_image(
            archive,
            layer,
            reference=reference,
            created_by=f"kit base make {suite}: unpacked",
            labels={},
            architecture=apt.architecture(),
            epoch=epoch,
            effort=1,
        )
        engine.load_image(archive)
        archive.unlink()
        yield name, reference
    finally:
        remove()


def _failure(suite: str, code: int, lines: list[str]) -> DiskFullError | EngineError:
    last = tuple(line[-300:] for line in lines if line.strip())[-8:]
    if re.search("No space left on device|failed in write on buffer copy", "\n".join(lines)):
        return DiskFullError(
            "no space left where the container engine keeps its data", details=last, hint="free about 1 GB there"
        )
    return EngineError(
        f"the packages of a {suite} base could not be configured in the engine (exit code {code})",
        details=last,
        hint="run the command again with -vv to see each call",
    )
