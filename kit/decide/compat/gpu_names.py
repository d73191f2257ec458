"""Which GPU a name means: as nvidia-smi prints it, as people write it, as vGPUs, MIG devices and Jetsons are called.

The name is only a label: what counts is the compute capability of the chips that have it. A name that chips of several
capabilities have is not decided.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

from kit.catalog.rows import version_key
from kit.frozen import dataclass

if TYPE_CHECKING:
    from kit.catalog import Catalog
    from kit.catalog.devices import Device
    from kit.catalog.rows import Tegra

_LONGEST = 100  # of a name; NVIDIA's have up to 60 characters
_BRANDS = ("nvidia", "geforce", "quadro", "tesla", "grid", "nvs")
# What people and boards add to a name, and no other GPU is told by.
_ADDED = re.compile(
    r"\b(nvidia|dgx|hgx|nvl\d*|with|design|gpu|graphics card|graphics|card|oem|edition|pcie|sxm\d?|hbm\d?e?|g?ddr\d?x?"
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
    is_exact: bool = False  # it is the first of the names, written otherwise


@dataclass(frozen=True, kw_only=True)
class _Known:
    """All names there are, as `_plain` writes them: one a line, so that a pattern finds all that fit at once."""

    text: str
    entries: tuple[tuple[str, str], ...]  # (name, compute capability), of each line
    starts: tuple[int, ...]  # where each line begins
    whole: dict[str, list[tuple[str, str]]]  # by the name without `nvidia` and spaces
    short: dict[str, list[tuple[str, str]]]  # by what people leave of it, without spaces


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
    if len(name) > _LONGEST:
        return Named()
    text = re.sub(r"\s+mig\s.*", "", name.strip(), flags=re.IGNORECASE)  # `NVIDIA A100-SXM4-40GB MIG 1g.5gb`
    board = board_of(text)
    return _vgpu(catalog, board) if board else _listed(catalog, text)


def _listed(catalog: Catalog, text: str) -> Named:
    plain = _plain(text)
    if not plain or not re.search(r"[a-z]|\d{3}", plain):
        return Named()
    if found := _exact(catalog, plain):
        return found
    if tegra := _tegra(catalog, plain):
        return tegra
    plain = plain.removeprefix("nvidia ")
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

    family = _family(_plain(name[:_LONGEST]))
    if not any(family):
        return []
    relatives = {entry[0]: None for entry in _known(catalog).entries if _family(_plain(entry[0])) == family}
    plain = {_plain(relative).removeprefix("nvidia ").removeprefix("geforce "): relative for relative in relatives}
    near = difflib.get_close_matches(_plain(name[:_LONGEST]), plain, n=3, cutoff=0.4)
    return [plain[one] for one in near]


def _family(plain: str) -> tuple[str, str]:
    """The letters and the series of the first number with a name before it: (`rtx`, `40`) of `rtx 4090`."""
    text = re.sub(r"\b(nvidia|geforce|quadro|tesla|grid|pro)\b", " ", plain)
    found = re.search(r"([a-z]+) ?(\d{2,4})", text) or re.search(r"()(\d{3,4})", text)
    if not found:
        return ("", "")
    number = found[2]
    # 4060 and 4090 are one series, the professional 4000 and 4500 another.
    series = (
        "00" if number.endswith("00") and len(number) == 4 else number[:2] if len(number) == 4 else str(len(number))
    )
    return found[1], series


def _exact(catalog: Catalog, plain: str) -> Named | None:
    """GPUs of exactly that name, from which `NVIDIA`, `GeForce` and the `GTX` of a TITAN may be left out.

    Not `Quadro` and `Tesla`: a short name such as `RTX 6000` is that of professional cards of several generations.
    """
    known, wanted = _known(catalog), plain.removeprefix("nvidia ").replace(" ", "")
    whole = known.whole.get(wanted, []) if plain.split()[0] in _BRANDS else []
    found = _of(whole or known.short.get(wanted, []))
    return found and replace(found, is_exact=True)


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
    # The letters after a board's number tell its form: `H200X` is an H200 on HGX.
    boards = (board, re.sub(r"[A-Z]{1,2}$", "", board))
    return next((found for one in boards if (found := _listed(catalog, one)).capabilities), Named())


def _tegra(catalog: Catalog, plain: str) -> Named | None:
    row = _tegra_row(catalog, plain)
    if row is None:
        return None
    return Named(capabilities=(row.compute_capability,), names=((plain, row.compute_capability),))


@cache
def is_jetson(catalog: Catalog, name: str) -> bool:
    """True for a name of a GPU that takes NVIDIA's own builds for JetPack."""
    row = _tegra_row(catalog, _plain(name))
    return row is not None and row.is_jetson


def _tegra_row(catalog: Catalog, plain: str) -> Tegra | None:
    found = (row for row in catalog.tegras if any(re.search(rf"\b{word}\b", plain) for word in row.words))
    return next(found, None)


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
    listed = [(name, row.compute_capability) for row in catalog.listed for name in row.names]
    decided = {_plain(name).removeprefix("nvidia ") for name, _ in listed}
    entries = [*listed, *dict.fromkeys(entries)]
    lines, of_line = [], []
    whole: dict[str, list[tuple[str, str]]] = {}
    short: dict[str, list[tuple[str, str]]] = {}
    # All at once: a thousand names one by one take ten times as long.
    for entry, plain in zip(entries, _plain("\n".join(name for name, _ in entries)).split("\n"), strict=True):
        name = plain.removeprefix("nvidia ")
        if name in decided and entry not in listed:
            continue
        whole.setdefault(name.replace(" ", ""), []).append(entry)
        if name.split()[0] not in _BRANDS or name.startswith("geforce "):
            words = name.removeprefix("geforce ").replace("gtx titan", "titan")
            short.setdefault(words.replace(" ", ""), []).append(entry)
        # `RTX 6000` may be an RTX PRO 6000.
        for line in dict.fromkeys((plain, plain.replace("rtx pro ", "rtx "))):
            lines.append(line)
            of_line.append(entry)
    starts = tuple(accumulate((len(line) + 1 for line in lines[:-1]), initial=0))
    return _Known(text="\n".join(lines), entries=tuple(of_line), starts=starts, whole=whole, short=short)


@cache
def _chips(catalog: Catalog) -> dict[str, tuple[str, str]]:
    """(compute capability, memory) of each chip."""
    return {name: (row.compute_capability, row.memory) for row in catalog.chips for name in row.names}


@cache
def _devices(catalog: Catalog) -> dict[str, Device]:
    return {row.id: row for row in catalog.devices}


@cache
def _plain(name: str) -> str:
    """A name (or several, one a line) in lower case, its words apart by spaces; `1660s` and `4070 tis` written out."""
    text = re.sub(r"\((?:r|tm)\)", " ", name.lower())
    text = re.sub("笔记本|移动版", " laptop ", text)  # a laptop's, as shops and users in China write it
    text = re.sub(r"^ | $", "", re.sub(r"[^a-z0-9\n]+", " ", text), flags=re.MULTILINE)
    return re.sub(r"\b(\d{4}) ?(ti)? ?s\b", lambda m: f"{m[1]} {'ti ' if m[2] else ''}super", text)
