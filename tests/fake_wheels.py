"""Small wheels that are installed like real ones, and an index of them."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path


def make_wheel(
    folder: Path, name: str, version: str, *, requires: tuple[str, ...] = (), tag: str = "py3-none-any"
) -> Path:
    """A wheel of one empty module, in the folder."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{module}.py", "")
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            + "".join(f"Requires-Dist: {r}\n" for r in requires),
        )
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def make_index(folder: Path, wheels: Path) -> str:
    """A simple index as files; uv reads file:// addresses."""
    names = {wheel.name.split("-")[0].replace("_", "-") for wheel in wheels.iterdir()}
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        links = [
            f'<a href="{wheel.as_uri()}#sha256={sha256_of(wheel)}">{wheel.name}</a>'
            for wheel in sorted(wheels.iterdir())
            if wheel.name.split("-")[0].replace("_", "-") == name
        ]
        (folder / name / "index.html").write_text("<!DOCTYPE html><html><body>" + "\n".join(links) + "</body></html>")
    return folder.as_uri()


def make_sdist(index: Path, name: str, version: str) -> None:
    """A page in an index that has the source of a package alone."""
    folder = index / name
    folder.mkdir(parents=True)
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as source:
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
        member = tarfile.TarInfo(f"{name}-{version}/PKG-INFO")
        member.size = len(text)
        source.addfile(member, io.BytesIO(text))
    (folder / "index.html").write_text(
        f'<!DOCTYPE html><a href="{path.as_uri()}#sha256={sha256_of(path)}">{path.name}</a>'
    )


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
