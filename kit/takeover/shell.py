"""The commands of a shell that install something, in a Dockerfile's RUN, a notebook or cog's `run`. None is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from kit.takeover import conda, requirements
from kit.takeover.found import Found

_ENDS = ("&&", "||", ";", "|", "&", "\n", "(", ")", ";;", "|&", "{", "}")
# What prepares or tidies up around an installation, and leaves nothing in an image.
_HOUSEKEEPING = re.compile(
    r"(apt|apt-get)( -\S+)* (update|clean|autoremove|autoclean|purge|upgrade|dist-upgrade)\b"
    r"|rm( -\S+)* \S*(/var/lib/apt|/var/cache/apt|/root/\.cache|~/\.cache|/tmp|/var/tmp)"
    r"|(conda|mamba|micromamba) clean\b|pip3? cache\b|(pip|pip3|conda) (list|freeze|show|--version)\b"
    r"|(fi|done|else|esac)$|set( -|$)|true$|:$|echo\b"
    r"|nvidia-smi\b|python3? (-V|--version)|ls\b|pwd$|which\b|df\b|free\b"
)
_PIP = re.compile(r"(\S*/)?pip(3(\.\d+)?)?")
_PYTHON = re.compile(r"(\S*/)?python(3(\.\d+)?)?|\{sys\.executable\}|\$\{?PYTHON\w*\}?")
LIMIT = 100_000


def read(found: Found, number: int, text: str, *, others: str) -> None:
    """The commands of a line; `others` says why those that install nothing that kit knows are not taken over."""
    if len(text) > LIMIT:
        return found.left(number, text, "longer than a command is")
    try:
        commands = list(_commands(text))
    except ValueError:
        return found.left(number, text, "a quote that does not end")
    for words in commands:
        _command(found, number, words, others)
    return None


def _commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command."""
    # What another command prints is not known. It may have such in it, too.
    for _ in range(3):
        text = re.sub(r"\$\([^()]{0,2000}\)|`[^`]{0,2000}`", "$...", text)
    # shlex would join `{sys.executable}` and take `#` inside words for a comment's begin.
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();|&")
    lexer.whitespace_split, lexer.commenters, lexer.whitespace = True, "", " \t\r"
    words: list[str] = []
    for word in _split_ends(lexer):
        if word in _ENDS:
            if words:
                yield words
            words = []
        else:
            words.append(word)
    if words:
        yield words


def _split_ends(lexer: shlex.shlex) -> Iterator[str]:
    for word in lexer:
        # The end of a line is no blank here: it ends a command. Inside quotes it is a part of the word.
        if "\n" in word and not word.strip("\n"):
            yield "\n"
        elif "\n" in word:
            parts = word.split("\n")
            for place, part in enumerate(parts):
                if place:
                    yield "\n"
                if part:
                    yield part
        else:
            yield word


def _command(found: Found, number: int, words: list[str], others: str) -> None:
    text = " ".join(words)
    while words and (
        re.fullmatch(r"[A-Za-z_]\w*=.*", words[0], re.DOTALL)
        or words[0] in ("sudo", "-E", "time", "exec", "then", "do", "eval")
    ):
        words = words[1:]
    if not words or words[0].startswith("#") or _HOUSEKEEPING.match(" ".join(words)):
        return
    rest = _pip_words(words)
    if rest is not None:
        requirements.read_words(found, number, text, [word for word in rest if word != "install"])
    elif words[0] in ("apt", "apt-get", "aptitude") and "install" in words:
        _apt(found, number, text, words[words.index("install") + 1 :])
    elif words[0].rpartition("/")[2] in ("conda", "mamba", "micromamba") and ("install" in words or "create" in words):
        conda.read_words(found, number, text, words)
    elif words[0] in ("bash", "sh") and len(words) == 3 and words[1] in ("-c", "-lc", "-ec"):
        read(found, number, words[2], others=others)
    else:
        found.left(number, text, others)


def _pip_words(words: list[str]) -> list[str] | None:
    """What follows `pip install`, `python -m pip install` or `uv pip install`; None for another command."""
    if len(words) > 2 and _PYTHON.fullmatch(words[0]) and words[1:3] == ["-m", "pip"]:
        words = words[2:]
    elif words[0].rpartition("/")[2] == "uv" and words[1:2] == ["pip"]:
        words = words[1:]
    if _PIP.fullmatch(words[0]) and "install" in words[1:]:
        place = words.index("install")
        return [*words[1:place], *words[place + 1 :]]
    return None


def _apt(found: Found, number: int, text: str, words: list[str]) -> None:
    options = iter(words)
    for word in options:
        if word in ("-t", "-o", "-c", "--target-release", "--option"):
            value = next(options, "")
            if word in ("-t", "--target-release"):
                found.left(number, f"{word} {value} ({text})", "packages are of the image's own release")
        elif not word.startswith("-"):
            if "$" in word or word.startswith((".", "/")):
                found.left(number, f"{word} ({text})", "not the name of a package of Debian or Ubuntu")
            else:
                found.system(number, text, word)
