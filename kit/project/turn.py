"""Whose turn it is: one command at a time changes the files of a project, and the next one sees what it made."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kit import files, paths

# Longer than a solve takes, and the packages of a distribution with it.
WAIT_S = files.WAIT_S
_HELD: set[Path] = set()  # by this process


@contextmanager
def turn(folder: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold a project's lock while the block runs; inside it may be taken again. `say` is told for whom it waits.

    The lock is none of the project's files, which are committed and sent. Raises NotReadyError when another process
    has it for too long.
    """
    real = folder.resolve()
    mark = hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
    file = paths.usable_folder(paths.state_folder, "projects") / f"{mark}.lock"
    if file in _HELD:
        yield
        return
    with files.locked(file, wait_s=WAIT_S, say=say):
        _HELD.add(file)
        try:
            yield
        finally:
            _HELD.discard(file)
