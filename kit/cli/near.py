"""What somebody may have meant by a word that is no command of kit's."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from kit.catalog.names import ImageRequest
from kit.run.prepare import is_command
from kit.spec.request import ABSENT

# What other tools, and people, call what kit has under another name.
WORDS = {
    "images": "kit list",
    "ls": "kit list",
    "containers": "kit ps",
    "status": "kit ps",
    "kill": "kit stop",
    "delete": "kit rm",
    "attach": "kit exec NAME",
    "enter": "kit exec NAME",
    "ssh": "kit --host USER@SERVER run NAME",
    "open": "kit url NAME",
    "up": "kit run NAME jupyter",
    "create": "kit run NAME",
    "prune": "kit clean",
    "system": "kit clean",
    "rmi": "kit clean images",
    "volume": "kit clean volumes",
    "pull": "kit run --pull REPOSITORY NAME",
    "push": "kit build --push REPOSITORY NAME",
    "top": "kit gpus",
    "gpu": "kit gpus",
    "check": "kit doctor",
    "info": "kit doctor",
    "diagnose": "kit doctor",
    "search": "kit resolve",
    "install": "kit add PACKAGE",
    "uninstall": "kit remove PACKAGE",
    "new": "kit init",
    "help": "kit --help",
    "version": "kit --version",
    "vscode": "kit code NAME",
    "test": "kit verify NAME",
    "download": "kit fetch",
    "upload": "kit sync",
}


def suggestion(words: Sequence[str], commands: Iterable[str]) -> str:
    """The command that was meant by words of which the first is none; empty where that is not known."""
    word, rest = words[0], words[1:]
    if word.lower() in WORDS:
        return WORDS[word.lower()]
    if word in ABSENT:
        return "kit run NAME pip install PACKAGE"
    if is_command(word):
        image, rest = (rest[0], rest[1:]) if rest and ImageRequest.parse(rest[0]) else ("torch", rest)
        return " ".join(("kit run", image, word, *rest))
    if ImageRequest.parse(word):
        return " ".join(("kit run", word, *(rest or ["jupyter"])))
    near = difflib.get_close_matches(word.lower(), list(commands), n=1)
    return f"kit {near[0]}" if near else ""
