"""Writing a compose file and its token without ever destroying what somebody wrote."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal

from kit import files, layout, paths
from kit.errors import BadInputError

STAMP = "# sha256:"
ENVIRONMENT_FILE = ".env"
# The name that `docker compose` looks for first, and what it then reads besides.
USUAL_NAME = "compose.yaml"
OVERRIDES = (
    *("compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"),
)
# Variables of a file of kit's that say which folder whose container may write to, and all those of Compose itself.
REACHING = r"FOLDER|USER_ID|GROUP_ID|COMPOSE_\w+"


def read(file: Path) -> str | None:
    """The text of a file, None when there is none. Raises BadInputError when it cannot be read."""
    try:
        return files.read_text(file, errors="replace")
    except FileNotFoundError:
        return "" if file.is_symlink() else None  # one that leads nowhere
    except OSError as e:
        raise BadInputError(f"{file} cannot be read: {e.strerror}", hint="move it away, or give --output") from None


def notes_on(file: Path, text: str, *, force: bool) -> list[str]:
    """What lies beside a compose file and changes what `docker compose` starts with it, in lines.

    Raises BadInputError when the folder or the user would be another than kit wrote; not with `force`.
    """
    variables = file.parent / ENVIRONMENT_FILE
    found = read(variables) or ""
    names = {*re.findall(r"\$\{(\w+)", text), *re.findall(r"COMPOSE_\w+", found)}
    # In a comment or a value of several lines too: Compose's parser takes nothing else for an assignment.
    set_there = [name for name in sorted(names) if re.search(rf"(?<![\w.-]){name}\s*[=:]", found)]
    reaching = [name for name in set_there if re.fullmatch(REACHING, name)]
    others = [name for name in set_there if name not in reaching]
    lines = [f"{variables} sets {', '.join(reaching)}, which `docker compose` obeys"] if reaching else []
    if file.name == USUAL_NAME:
        lines += [f"`docker compose` reads {name} too" for name in OVERRIDES if (file.parent / name).exists()]
    if lines and not force:
        raise BadInputError(
            lines[0],
            details=tuple(lines[1:]),
            hint="look at it; --force writes the file all the same, --output writes it elsewhere",
        )
    kept = [f"{variables} was there: its {', '.join(others)} counts"] if others else []
    return [*(f"warning: {line}" for line in lines), *kept]


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
        there = read(file)
        if there == text:
            return False
        if there is not None and not force and not is_untouched(there):
            raise BadInputError(
                f"{file} was not written by kit, or was changed since",
                hint="--force replaces it, --output FILE writes another one, --output - prints",
            )
        paths.write_text(file, text)
    except OSError as e:
        if e.errno in paths.FULL:
            raise
        raise BadInputError(f"{file} cannot be written: {e.strerror}", hint="--output FILE names another one") from None
    return True


def write_token(folder: Path, token: str = "") -> Literal["written", "there", "missing"]:
    """See to the notebook's token, in `.env` beside a compose file, where Compose looks for it.

    `written`: a new file with this token or a random one, for its owner's eyes only. A file that is there is never
    changed: `there` when it has a token, `missing` when it has none. Raises BadInputError when it cannot be read.
    """
    file = folder / ENVIRONMENT_FILE
    if (text := read(file)) is not None:
        return "there" if re.search(rf"^\s*(export\s+)?{layout.TOKEN}\s*=\s*\S", text, re.MULTILINE) else "missing"
    import secrets

    head = "# Written by `kit compose`. Whoever has the token has a shell: keep this file out of version control.\n"
    paths.write_text(file, f"{head}{layout.TOKEN}={token or secrets.token_urlsafe(24)}\n", mode=0o600)
    return "written"
