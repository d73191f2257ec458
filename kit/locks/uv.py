"""The uv program, which solves locks and makes environments of them."""

from __future__ import annotations

from pathlib import Path

from kit import process
from kit.errors import MissingProgramError


def uv_program(version: str) -> Path:
    """The uv that kit is installed with. Raises MissingProgramError when it is of another version."""
    import uv

    try:
        program = Path(uv.find_uv_bin())
        found = process.run([str(program), "--version"]).stdout.split()[1]
    except FileNotFoundError:
        found = "none"
    if found != version:
        raise MissingProgramError(
            f"kit makes locks and images with uv {version} alone, and {found} is installed with it",
            hint=f"another uv would make others: install uv=={version} where kit is (in a checkout: make setup)",
        )
    return program
