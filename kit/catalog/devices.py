"""NVIDIA's devices on the PCI bus by their ID: chip and names (`devices.tsv`), and how that file is made.

`make devices` writes it anew from the PCI ID database and the table of the open kernel modules' README, whose names are
those that nvidia-smi prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kit import paths
from kit.errors import CatalogError
from kit.frozen import dataclass

FILE = "devices.tsv"

_HEADER = (
    "# Made by `make devices`; do not edit. PCI device ID of NVIDIA (10de), chip, names. Sources: {sources}.\n"
    "# The chips are of the PCI ID database, those names with `NVIDIA` of the README.\n"
)
# From the first chip with CUDA on; the letters after a chip's number say which boards it is for, and not what it is.
_CHIP = re.compile(r"(G8\d|G9\d|GT2\d\d|G[FKMPVAHBR]\d\d\d|GB\d\d[A-Z]|TU\d\d\d|AD\d\d\d)([A-Za-z]*)$")
# Names that say nothing: of samples, or what a driver calls a card it does not know.
_NO_NAME = re.compile(r"Graphics Device|Desktop Device|Generic|Engineering Sample", re.IGNORECASE)
_NO_GPU = re.compile(r"Audio|USB|UCSI|Switch|Host|FPGA|Bridge|Reserved", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that NVIDIA makes."""

    id: str  # `2684`, of vendor 10de
    chip: str  # `AD102`
    names: tuple[str, ...] = ()


def read_devices(folder: Path) -> tuple[Device, ...]:
    """The table of a folder, none where there is no file. Raises CatalogError when it cannot be read."""
    path = folder / FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as e:
        raise CatalogError(f"{path} cannot be read: {e}") from None
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    if any(len(row) != 3 for row in rows):
        raise CatalogError(f"{path}: a line has not three columns", hint="`make devices` writes the file anew")
    return tuple(Device(id=row[0], chip=row[1], names=tuple(filter(None, row[2].split("|")))) for row in rows)


def parse_pci_ids(text: str) -> Iterator[tuple[str, str, str]]:
    """(device ID, chip, name in brackets) of each GPU with CUDA in a text of the PCI ID database."""
    is_ours = False
    for line in text.splitlines():
        if re.match(r"[0-9a-f]{4} ", line):
            is_ours = line.startswith("10de ")
        elif is_ours and (found := re.match(r"\t([0-9a-f]{4})  (\S+)(.*)", line)) and not _NO_GPU.search(line):
            name = re.search(r"\[(.*)\]", found[3])
            if chip := _CHIP.match(found[2]):
                # `GK208B` and `GK208` are one, `GB20B` and `GB202` are not.
                yield found[1], chip[1], name[1].strip() if name else ""


def parse_readme(text: str) -> Iterator[tuple[str, str]]:
    """(device ID, name) of each line in the README's table of GPUs; a device has several names by its subsystem."""
    for name, numbers in re.findall(
        r"^\| ([^|]*?) +\| ([0-9A-F]{4})(?: [0-9A-F]{4} [0-9A-F]{4})? *\|", text, re.MULTILINE
    ):
        yield numbers.lower(), name


def names_of(text: str) -> list[str]:
    """The names that one entry of the PCI ID database stands for: `GeForce RTX 4060 Max-Q / Mobile` is two."""
    parts = re.split(r" ?/ ?", text)
    whole = re.sub(r" (Max-Q|Mobile)( Refresh)?$", "", parts[0])
    names = [parts[0]]
    for part in parts[1:]:
        before = re.match(r"(.*?)\S*\d", names[-1])  # `Tesla C2050 / C2070`: what stands before the number goes for all
        if re.match(r"(GeForce|Quadro|Tesla|NVS|GRID|RTX|DRIVE|PH402)\b", part):
            names.append(part)
        elif re.match(r"(Max-Q|Mobile)", part):
            names.append(f"{whole} {part}")
        elif re.match(r"(GT|GTS|GTX) ", part):
            names.append(f"{whole.split()[0]} {part}")
        elif not re.match(r"\d+ ?GB", part):
            names.append(f"{before[1] if before else ''}{part}")
    return names


def table(pci_ids: str, readme: str, sources: str) -> str:
    """The text of `devices.tsv`."""
    chips: dict[str, str] = {}
    names: dict[str, dict[str, None]] = {}
    for device, name in parse_readme(readme):
        names.setdefault(device, {})[name] = None
    listed = set(names)
    for device, chip, name in parse_pci_ids(pci_ids):
        chips[device] = chip
        # What NVIDIA names itself needs no second reading of several names in one.
        if name and not _NO_NAME.search(name) and not (device in listed and "/" in name and "Mobile" not in name):
            names.setdefault(device, {}).update(dict.fromkeys(names_of(name)))
    lines = [f"{device}\t{chips[device]}\t{'|'.join(names.get(device, ()))}" for device in sorted(chips)]
    return _HEADER.format(sources=sources) + "\n".join(lines) + "\n"


def write(pci_ids: str, readme: str) -> None:
    """Writes the table from two files."""
    database, modules = (Path(path).read_text(encoding="utf-8") for path in (pci_ids, readme))
    date = re.search(r"^#\s+Version: (\S+)", database, re.MULTILINE)
    version = re.search(r"^version (\d+(?:\.\d+)+)\.", modules, re.MULTILINE)
    if not date or not version:
        raise CatalogError(f"{pci_ids} or {readme} does not say its version", hint="give pci.ids, then README.md")
    sources = (
        f"the PCI ID database (https://pci-ids.ucw.cz/) of {date[1]}; README.md of "
        f"NVIDIA/open-gpu-kernel-modules {version[1]}"
    )
    paths.write_text(paths.catalog_dir() / FILE, table(database, modules, sources))
