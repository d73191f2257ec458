"""Whether much used packages can be installed beside what an image holds; asks a package index."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase

from packaging.markers import Marker

from kit import process
from kit.catalog import Catalog
from kit.catalog.rows import Image, KnownPackage
from kit.frozen import dataclass
from kit.locks.format import Lock, parse_requirements
from kit.locks.held import bounds, held
from kit.locks.solver import Target, marker_environments, newest
from kit.locks.uv import uv_program


@dataclass(frozen=True, kw_only=True)
class Found:
    """What pip would install of a package: by itself, and beside what an image holds."""

    package: str
    alone: str  # its version; empty: nothing fits
    beside: str
    known: KnownPackage | None  # why the two differ

    @property
    def problem(self) -> str:
        """What is wrong and not known, in words; empty when nothing is."""
        if self.known or (self.beside and self.beside == self.alone):
            return ""
        if not self.alone:
            return f"{self.package} cannot be installed at all"
        return f"{self.package}: {self.beside or 'none'} beside what the image holds, {self.alone} by itself"


class Popular:
    """The much used packages of the catalog, each asked for by itself once for a Python and a platform."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.packages = tuple(dict.fromkeys(name for row in catalog.popular for name in row.packages))
        self._uv = uv_program(catalog.uv_version)
        self._alone: dict[tuple[Target, str], str] = {}

    def check(self, image: Image, lock: Lock) -> Iterator[Found]:
        """Every package, in the order of the table. Raises NetworkError when an index does not answer.

        The framework is asked for beside the package, so that what it needs of others counts; what is locked stays
        where it fits, as it does with pip, which has it installed.
        """
        base = self.catalog.base_for(image)
        target = Target(python=base.python, glibc=base.glibc, machine=self.catalog.machines_for(image)[0])
        environment = marker_environments([target.python], [target.machine])[0]
        entries = [
            entry
            for text in lock.layers.values()
            for entry in parse_requirements(text)
            if not entry.marker or Marker(entry.marker).evaluate(environment)
        ]
        patterns = held(self.catalog, image)
        pins = tuple(
            f"{entry.name}=={entry.version}"
            for entry in entries
            if any(fnmatchcase(entry.name, pattern) for pattern in patterns)
        )
        locked = "".join(f"{entry.name}=={entry.version}\n" for entry in entries)
        limits = bounds(self.catalog, lock)

        def look(package: str) -> Found:
            key = (target, package)
            if key not in self._alone:
                self._alone[key] = newest(self._uv, self.catalog, image, package, target)
            beside = newest(self._uv, self.catalog, image, package, target, pins=pins, limits=limits, present=locked)
            known = next((row for row in self.catalog.known_packages if _is_for(row, package, image)), None)
            return Found(package=package, alone=self._alone[key], beside=beside, known=known)

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            try:
                yield from pool.map(look, self.packages)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                process.end_running()
                raise


def _is_for(row: KnownPackage, package: str, image: Image) -> bool:
    return package in row.packages and any(fnmatchcase(image.release.name, pattern) for pattern in row.images)
