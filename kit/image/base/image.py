"""An image archive made from one root file system, byte for byte the same for the same input."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from kit.labels import BASE_EPOCH, BASE_PACKAGES, BASE_SUITE


def packages_hash(dpkg_status: str, architecture: str) -> str:
    """One hash for what is installed: over the sorted `name=version` lines and the architecture."""
    packages = []
    for stanza in dpkg_status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if re.match(r"(Package|Version): ", line))
        if len(fields) == 2:
            packages.append(f"{fields['Package']}={fields['Version']}")
    return hashlib.sha256("\n".join([architecture, *sorted(packages)]).encode()).hexdigest()


def base_labels(suite: str, content_hash: str, epoch: int) -> dict[str, str]:
    return {BASE_SUITE: suite, BASE_PACKAGES: content_hash, BASE_EPOCH: str(epoch)}


def write_image(
    target: Path,
    root: Path,
    *,
    reference: str,
    created_by: str,
    labels: Mapping[str, str],
    architecture: str,
    epoch: int,
    effort: int = 5,
) -> None:
    """Write an archive that both the OCI layout's and the older `docker save` layout's readers understand; `effort`:
    how much to spend on making it small, 1 to 9.
    """
    layer = root.with_name("layer.tar.gz")
    diff_id, compressed = hashlib.sha256(), hashlib.sha256()
    # No name and no time in the gzip header: the same root file system is the same layer.
    with (
        root.open("rb") as source,
        layer.open("wb") as out,
        gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=effort, mtime=0) as packed,
    ):
        # The root file system comes without /dev (an engine has its own there), but making the folder for that would
        # change the layer of every later build step.
        chunk = _folder("./dev", epoch)
        while chunk:
            diff_id.update(chunk)
            packed.write(chunk)
            chunk = source.read(1 << 20)
    with layer.open("rb") as packed_file:
        while chunk := packed_file.read(1 << 20):
            compressed.update(chunk)
    layer_name = compressed.hexdigest()
    created = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": created,
            "config": {
                "Cmd": ["/bin/bash"],
                "Labels": dict(labels),
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id.hexdigest()}"]},
            "history": [{"created": created, "created_by": created_by}],
        }
    )
    config_name = hashlib.sha256(config).hexdigest()
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("config.v1+json", config_name, len(config)),
            "layers": [_descriptor("layer.v1.tar+gzip", layer_name, layer.stat().st_size)],
        }
    )
    manifest_name = hashlib.sha256(manifest).hexdigest()
    annotations = {
        "io.containerd.image.name": f"docker.io/{reference}",
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    index = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {**_descriptor("manifest.v1+json", manifest_name, len(manifest)), "annotations": annotations}
            ],
        }
    )
    blobs = "blobs/sha256"
    older = [{"Config": f"{blobs}/{config_name}", "RepoTags": [reference], "Layers": [f"{blobs}/{layer_name}"]}]
    with target.open("wb") as out, tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in {
            "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
            "index.json": index,
            "manifest.json": _json(older),
            f"{blobs}/{config_name}": config,
            f"{blobs}/{manifest_name}": manifest,
        }.items():
            _add(tar, name, io.BytesIO(content), len(content))
        with layer.open("rb") as packed_file:
            _add(tar, f"{blobs}/{layer_name}", packed_file, layer.stat().st_size)
    layer.unlink()


def _folder(name: str, epoch: int) -> bytes:
    """The entry of an empty folder, to stand before the other entries of a tar file."""
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, epoch
    return member.tobuf(tarfile.USTAR_FORMAT)


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o644, 0
    tar.addfile(member, content)


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": size}


def _json(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
