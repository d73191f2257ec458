"""Files that may be a stranger's, as texts."""

from __future__ import annotations

from pathlib import Path

from kit import files
from kit.errors import BadInputError

# Of a file that people or their tools write; a lock of some hundred packages has a few of them.
LIMIT_BYTES = 8 * files.MIB


def read_text(path: Path, limit: int = LIMIT_BYTES) -> str:
    """The text of a file that may be a stranger's. Raises BadInputError when it cannot be read, or is no text."""
    try:
        text = files.read_text(path, limit=limit, encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInputError(f"{path}: there is no such file", hint="name a file that is there") from None
    except UnicodeDecodeError as e:
        raise BadInputError(
            f"{path} is not UTF-8 text (byte {e.start + 1:,})",
            hint="save it as UTF-8; PowerShell's `>` writes UTF-16, `| Out-File -Encoding utf8` does not",
        ) from None
    except (OSError, ValueError) as e:
        what = getattr(e, "strerror", None) or e
        raise BadInputError(f"{path} cannot be read: {what}", hint="is it the file you mean?") from None
    if "\0" in text:
        raise BadInputError(f"{path} is not text: it has NUL bytes", hint="is it the file you mean?")
    return text
