"""Which GPU a name means: as nvidia-smi prints it, as people write it, as vGPUs, MIG devices and Jetsons are called.

The name is only a label: what counts is the compute capability of the chips that have it. A name that chips of several
capabilities have is not decided.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

from kit.catalog.rows import version_key
from kit.frozen import dataclass

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.catalog.devices import Device

_BRANDS = ("nvidia", "geforce", "quadro", "tesla", "grid", "nvs")
# What people and boards add to a name, and no other GPU is told by.
_ADDED = re.compile(
    r"\b(nvidia|with|design|gpu|graphics card|graphics|card|oem|edition|pcie|sxm\d?|hbm\d?e?|g?ddr\d?x?"
    r"|\d{1,3} ?g(i?b)?|refresh|rev \w+|developer kit)\b"
)
_MOBILE = re.compile(r"\b(laptop|notebook|mobile|max q|maxq)\b")
# `GRID V100DX-32C`, `NVIDIA A100-1-5C`, `NVIDIA L40S-2B4`, `NVIDIA A100X-1-5CME`: the board, then the profile.
_VGPU = re.compile(r"(?:nvidia |grid )*(?P<board>(?=\D*\d).+?)(?:-\d{1,2})?-\d{1,3}[abcqv](?:4|me)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a name may mean; `names` are examples, one or more of each compute capability."""

    capabilities: tuple[str, ...] = ()  # several: it cannot be decided
    names: tuple[tuple[str, str], ...] = ()  # (name, its compute capability)
    is_jetson: bool = False


@dataclass(frozen=True, kw_only=True)
class _Known:
    """All names there are, as `_plain` writes them: one a line, so that a pattern finds all that fit at once."""

    text: str
    entries: tuple[tuple[str, str], ...]  # (name, compute capability), of each line
    starts: tuple[int, ...]  # where each line begins
    whole: dict[str, list[tuple[str, str]]]  # by the name without `nvidia`
    short: dict[str, list[tuple[str, str]]]  # by what people leave of it


def board_of(name: str) -> str:
    """The board in the name of a vGPU; empty for any other name. MIG devices are not vGPUs."""
    found = _VGPU.fullmatch(name.strip())
    return found["board"] if found else ""


def device(catalog: Catalog, device_id: str) -> Device | None:
    """The device with a PCI ID, `2684`."""
    return _devices(catalog).get(device_id.lower())


def capability_of_device(catalog: Catalog, device_id: str) -> str:
    """The compute capability of the device with a PCI ID; empty when it is not known."""
    found = device(catalog, device_id)
    return _chips(catalog).get(found.chip, ("", ""))[0] if found else ""


def memory_of_device(catalog: Catalog, device_id: str) -> str:
    """What the memory of the device with a PCI ID is: HBM, GDDR, shared; empty when it is not known."""
    found = device(catalog, device_id)
    return _chips(catalog).get(found.chip, ("", ""))[1] if found else ""


@cache
def named(catalog: Catalog, name: str) -> Named:
    """What a name means: exactly it, else what contains it, else what is left without words that boards add."""
    text = re.sub(r"\s+mig\s.*", "", name.strip(), flags=re.IGNORECASE)  # `NVIDIA A100-SXM4-40GB MIG 1g.5gb`
    plain = _plain(text)
    if not plain or not re.search(r"[a-z]|\d{3}", plain):
        return Named()
    if board := board_of(text):
        return _vgpu(catalog, board)
    if found := _exact(catalog, plain):
        return found
    if tegra := _tegra(catalog, plain):
        return tegra
    if found := _containing(catalog, plain, ""):
        return found
    # A laptop's card of before 2016 has an M after its number, and may be another chip.
    without = _MOBILE.sub(" ", plain)
    bare = " ".join(_ADDED.sub(" ", without).split())
    mobile = "m?" if without != plain else ""
    for words in dict.fromkeys((" ".join(without.split()), bare)):
        if words and words != plain and re.search(r"[a-z]|\d{3}", words):
            found = _exact(catalog, words) if not mobile else None
            if found := found or _containing(catalog, words, mobile):
                return found
    # The letters at the end of a board's number: `Tesla K40c` is a K40.
    return _containing(catalog, plain, "[a-z]{1,2}") or Named()


def nearest(catalog: Catalog, name: str) -> list[str]:
    """Names of the same family that are like one that nothing has."""
    import difflib

    family = _family(_plain(name))
    if not family:
        return []
    relatives = {entry[0]: None for entry in _known(catalog).entries if _family(_plain(entry[0])) == family}
    plain = {_plain(relative).removeprefix("nvidia ").removeprefix("geforce "): relative for relative in relatives}
    near = difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.4)
    return [plain[one] for one in near]


def _family(plain: str) -> tuple[str, str]:
    """The letters and the series of the first number with a name before it: (`rtx`, `40`) of `rtx 4090`."""
    text = re.sub(r"\b(nvidia|geforce|quadro|tesla|grid|pro)\b", " ", plain)
    found = re.search(r"([a-z]+) ?(\d{2,4})", text) or re.search(r"()(\d{3,4})", text)
    if not found:
        return ("", "")
    number = found[2]
    # 4060 and 4090 are one series, 4000 and 6000 another.
    series = "000" if number.endswith("000") else number[:2] if len(number) == 4 else str(len(number))
    return found[1], series


def _exact(catalog: Catalog, plain: str) -> Named | None:
    """GPUs of exactly that name, from which `NVIDIA`, `GeForce` and the `GTX` of a TITAN may be left out.

    Not `Quadro` and `Tesla`: a short name such as `RTX 6000` is that of professional cards of several generations.
    """
    known, wanted = _known(catalog), plain.removeprefix("nvidia ")
    whole = known.whole.get(wanted, []) if plain.split()[0] in _BRANDS else []
    return _of(whole or known.short.get(wanted, []))


def _containing(catalog: Catalog, plain: str, after: str) -> Named | None:
    """GPUs that have these words in their name, side by side if there are such; `after`: what may follow them."""
    words = [" ?".join(re.findall(r"[a-z]+|\d+", word)) for word in plain.split()]
    for between in (" ?", "(?: [^\n]*)? "):
        pattern = re.compile(rf"(?<![a-z0-9]){between.join(words)}{after}(?![a-z0-9])")
        if found := _of(_matches(_known(catalog), pattern)):
            return found
    return None


def _matches(known: _Known, pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    for match in pattern.finditer(known.text):
        yield known.entries[bisect_right(known.starts, match.start()) - 1]


def _vgpu(catalog: Catalog, board: str) -> Named:
    for row in catalog.vgpus:
        for name in row.boards:
            if _plain(name) == _plain(board):
                return Named(capabilities=(row.compute_capability,), names=((board, row.compute_capability),))
    return named(catalog, board)


def _tegra(catalog: Catalog, plain: str) -> Named | None:
    for row in catalog.tegras:
        if any(re.search(rf"\b{word}\b", plain) for word in row.words):
            capability = row.compute_capability
            return Named(capabilities=(capability,), names=((plain, capability),), is_jetson=row.is_jetson)
    return None


def _of(entries: Iterable[tuple[str, str]]) -> Named | None:
    found: dict[str, dict[str, None]] = {}
    for name, capability in entries:
        found.setdefault(capability, {})[name] = None
    if not found:
        return None
    capabilities = tuple(sorted(found, key=version_key))
    return Named(capabilities=capabilities, names=tuple((next(iter(found[c])), c) for c in capabilities))


@cache
def _known(catalog: Catalog) -> _Known:
    chips = _chips(catalog)
    entries = [(name, gpu.compute_capability) for gpu in catalog.gpus for name in gpu.names]
    entries += [(name, chips[d.chip][0]) for d in catalog.devices if d.chip in chips for name in d.names]
    decided = {_plain(name).removeprefix("nvidia ") for row in catalog.listed for name in row.names}
    entries = [(name, row.compute_capability) for row in catalog.listed for name in row.names] + [
        entry for entry in dict.fromkeys(entries) if _plain(entry[0]).removeprefix("nvidia ") not in decided
    ]
    lines, listed = [], []
    whole: dict[str, list[tuple[str, str]]] = {}
    short: dict[str, list[tuple[str, str]]] = {}
    for entry in entries:
        plain = _plain(entry[0])
        name = plain.removeprefix("nvidia ")
        whole.setdefault(name, []).append(entry)
        if name.split()[0] not in _BRANDS or name.startswith("geforce "):
            short.setdefault(name.removeprefix("geforce ").replace("gtx titan", "titan"), []).append(entry)
        # `RTX 6000` may be an RTX PRO 6000.
        for line in dict.fromkeys((plain, plain.replace("rtx pro ", "rtx "))):
            lines.append(line)
            listed.append(entry)
    starts = tuple(accumulate((len(line) + 1 for line in lines[:-1]), initial=0))
    return _Known(text="\n".join(lines), entries=tuple(listed), starts=starts, whole=whole, short=short)


@cache
def _chips(catalog: Catalog) -> dict[str, tuple[str, str]]:
    """(compute capability, memory) of each chip."""
    return {name: (row.compute_capability, row.memory) for row in catalog.chips for name in row.names}


@cache
def _devices(catalog: Catalog) -> dict[str, Device]:
    return {row.id: row for row in catalog.devices}


@cache
def _plain(name: str) -> str:
    """A name in lower case, its words apart by single spaces; `1660s` and `4070 tis` written out."""
    text = re.sub(r"\((?:r|tm)\)|[™®]", " ", name.lower())
    text = " ".join(re.findall(r"[a-z0-9]+", text))
    return re.sub(r"\b(\d{4}) ?(ti)? ?s\b", lambda m: f"{m[1]} {'ti ' if m[2] else ''}super", text)
