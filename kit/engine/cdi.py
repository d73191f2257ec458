"""CDI specifications: the one reader of which devices they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from kit.facts.engine import CDI_KIND

if TYPE_CHECKING:
    from kit.remote.ssh import Connection

# Prints the specifications of the folders it is given, for machines behind SSH.
_READ_SCRIPT = r"""
for folder; do
    for file in "$folder"/*.yaml "$folder"/*.yml "$folder"/*.json; do cat "$file" 2>/dev/null; printf '\036'; done
done
"""


def is_of_gpus(text: str) -> bool:
    """True for the text of a specification of NVIDIA GPUs.

    Both here and below: YAML as nvidia-ctk writes it and JSON, by their lines. A YAML parser would be one more
    dependency.
    """
    return bool(re.search(rf"""["']?kind["']?\s*:\s*["']?{re.escape(CDI_KIND)}(?![\w./-])""", text))


def devices_in(text: str) -> tuple[str, ...]:
    """The CDI devices that a specification names, if it is one of NVIDIA GPUs."""
    if not is_of_gpus(text):
        return ()
    names = re.findall(r"""(?:^|[\s{,-])["']?name["']?\s*:\s*["']?([A-Za-z0-9:._-]+)["']?""", text)
    return tuple(f"{CDI_KIND}={name}" for name in dict.fromkeys(names))


def devices_of(folders: tuple[str, ...], connection: Connection | None = None) -> tuple[str, ...]:
    """The CDI devices of the specifications in these folders, here or over there; other files count for nothing."""
    if connection:
        texts = connection.run(_READ_SCRIPT, arguments=folders, check=False).stdout.split("\036")
        return tuple(device for text in texts for device in devices_in(text))
    found: list[str] = []
    for folder in folders:
        for file in sorted(Path(folder).glob("*")) if Path(folder).is_dir() else []:
            if file.suffix in (".yaml", ".yml", ".json"):
                try:
                    found += devices_in(file.read_text(encoding="utf-8", errors="replace"))
                except OSError:
                    continue
    return tuple(found)
