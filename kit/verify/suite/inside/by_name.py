"""Inside: the CUDA libraries of NVIDIA's wheels, loaded as a program does that knows their names alone."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import ctypes
import multiprocessing
import sysconfig
from pathlib import Path

from answer import Absent, give
from libraries import LIBRARY


def load(name: str) -> str:
    """Why a library cannot be loaded; empty when it can."""
    try:
        ctypes.CDLL(name)
    except OSError as e:
        return str(e)
    return ""


def by_name() -> dict[str, str]:
    """What `load` says of each, in a process of its own: none is there because another brought it along."""
    folder = Path(sysconfig.get_paths()["purelib"], "nvidia")
    names = sorted({path.name for path in folder.glob("*/lib/lib*.so.*") if LIBRARY.match(path.name)})
    if not names:
        raise Absent("no CUDA library is from a wheel of NVIDIA's")
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as one:
        return dict(zip(names, one.map(load, names, chunksize=1)))  # noqa: B905 - `strict` is Python 3.10's


if __name__ == "__main__":
    give({"by_name": by_name})
