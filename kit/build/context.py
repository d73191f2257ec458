"""What the steps of a build mount beside the image's own folder: uv, and the scripts that open and close a step."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kit import paths

STEP_SCRIPTS = ("begin.sh", "end.sh")


def kit_context() -> Path:
    """A folder with the uv program, and the scripts that open and close a step."""
    import shutil
    import tempfile

    import uv

    program = Path(uv.find_uv_bin())
    stat = program.stat()
    mark = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns} {step_scripts()}".encode()).hexdigest()[:16]
    folder = paths.cache_dir() / "build-context" / mark
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder.parent))
        shutil.copy(program, beside / "uv")
        for name in STEP_SCRIPTS:
            shutil.copy(paths.templates_dir() / name, beside / name)
        # Another kit process may have been faster: then its folder is as good as this one.
        try:
            beside.rename(folder)
        except OSError:
            shutil.rmtree(beside)
    return folder


def step_scripts() -> str:
    """The text of the scripts that every step sources: what they do is part of what an image is."""
    return "".join((paths.templates_dir() / name).read_text(encoding="utf-8") for name in STEP_SCRIPTS)
