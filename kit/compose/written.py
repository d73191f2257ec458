"""Writing a compose file and its token without ever destroying what somebody wrote."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal

from kit import files, paths
from kit.errors import BadInputError

STAMP = "# sha256:"
ENVIRONMENT_FILE = ".env"


def stamped(text: str) -> str:
    """The text with a second line that tells whether it is changed afterwards."""
    first, _, rest = text.partition("\n")
    return f"{first}\n{STAMP}{_digest(first, rest)}\n{rest}"


def is_untouched(text: str) -> bool:
    """True for a text that is what `stamped` made of it."""
    first, _, rest = text.partition("\n")
    second, _, rest = rest.partition("\n")
    return second == f"{STAMP}{_digest(first, rest)}"


def _digest(first: str, rest: str) -> str:
    return hashlib.sha256(f"{first}\n{rest}".encode()).hexdigest()[:32]


def write(file: Path, text: str, *, force: bool = False) -> bool:
    """Write a compose file; False when it is there already, word for word.

    Raises BadInputError when a file is there that kit did not write, or that was changed since; not with `force`.
    """
    try:
        there = files.read_text(file, errors="replace")
    except FileNotFoundError:
        there = None
    if there == text:
        return False
    if there is not None and not force and not is_untouched(there):
        raise BadInputError(
            f"{file} was not written by kit, or was changed since",
            hint="--force replaces it, --output FILE writes another one, --output - prints",
        )
    paths.write_text(file, text)
    return True


def write_token(folder: Path) -> Literal["written", "there", "missing"]:
    """See to the notebook's token, in `.env` beside a compose file, where Compose looks for it.

    `written`: a new file with a random token, for its owner's eyes only. A file that is there is never changed:
    `there` when it has a token, `missing` when it has none. Raises BadInputError when it cannot be read.
    """
    file = folder / ENVIRONMENT_FILE
    if file.exists() or file.is_symlink():
        try:
            text = files.read_text(file, errors="replace")
        except FileNotFoundError:  # a link that leads nowhere
            return "missing"
        except OSError as e:
            raise BadInputError(f"{file} cannot be read: {e.strerror}", hint="move it away, or correct it") from None
        return "there" if re.search(r"^\s*(export\s+)?JUPYTER_TOKEN\s*=\s*\S", text, re.MULTILINE) else "missing"
    import secrets

    text = "# Written by `kit compose`. Whoever has the token has a shell: keep this file out of version control.\n"
    paths.write_text(file, f"{text}JUPYTER_TOKEN={secrets.token_urlsafe(24)}\n", mode=0o600)
    return "written"
