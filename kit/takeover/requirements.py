"""requirements.txt: the lines that pip takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from kit.takeover import names
from kit.takeover.found import Found

# Options of one package, behind its requirement.
_OF_PACKAGE = re.compile(r"\s+--(?:hash|config-settings?|global-option|install-option)\b")
# These say how a package is fetched and shown, and change nothing of what is installed.
_OF_THE_WAY = frozenset(
    (
        *("--no-cache-dir", "--quiet", "-q", "-qq", "-qqq", "--upgrade", "-U", "--user", "--break-system-packages"),
        *("--verbose", "-v", "--yes", "-y", "--disable-pip-version-check", "--no-input"),
        *("--no-python-version-warning", "--no-warn-script-location", "--force-reinstall", "--require-hashes"),
        *("--prefer-binary", "--ignore-installed", "-I", "--no-warn-conflicts", "--system", "--no-color"),
        *("--exists-action", "--upgrade-strategy", "--progress-bar", "--timeout", "--default-timeout", "--retries"),
        *("--root-user-action", "--log", "--cache-dir"),
    )
)  # fmt: skip
_WITH_VALUE = frozenset(
    (
        *("-r", "--requirement", "-c", "--constraint", "-e", "--editable", "-i", "--index-url", "--extra-index-url"),
        *("--index", "--default-index", "-f", "--find-links", "--trusted-host", "--no-binary", "--only-binary"),
        *("--use-feature", "--target", "-t", "--prefix", "--root", "--python", "--upgrade-strategy", "--progress-bar"),
        *("--timeout", "--default-timeout", "--retries", "--root-user-action", "--log", "--cache-dir", "--platform"),
        *("--python-version", "--abi", "--implementation", "--proxy", "--cert", "--exists-action"),
        *("--config-settings", "--torch-backend"),
    )
)  # fmt: skip


def read(text: str, found: Found) -> None:
    """Every line of a requirements file."""
    for number, line in lines(text):
        read_line(found, number, line)


def lines(text: str) -> Iterator[tuple[int, str]]:
    """(number of the first, text) of the lines that say something, those that go on in the next joined."""
    pending, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        first = first or number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            pending += line[:-1] + " "
            continue
        whole = re.sub(r"(^|\s)#.*$", "", pending + line).strip()
        if whole:
            yield first, whole
        pending, first = "", 0
    if whole := re.sub(r"(^|\s)#.*$", "", pending).strip():
        yield first, whole


def read_line(found: Found, number: int, line: str, *, limit: bool = False) -> None:
    """One line: a requirement, or options."""
    if len(line) > 100_000:
        return found.left(number, line, "longer than a requirement is")
    if line.startswith("-"):
        try:
            words = shlex.split(line)
        except ValueError:
            return found.left(number, line, "a quote that does not end")
        return read_words(found, number, line, words, limit=limit)
    if match := _OF_PACKAGE.search(line):
        options, line_of_package = line[match.start() :], line[: match.start()]
        if re.search(r"--(?!hash\b)[a-z]", options):
            found.left(number, line, "its options of a build are not taken over: wheels alone are installed")
            return found.requirement(number, line, line_of_package, limit=limit)
        return found.requirement(number, line_of_package, line_of_package, limit=limit)
    return found.requirement(number, line, line, limit=limit)


def read_words(found: Found, number: int, text: str, words: list[str], *, limit: bool = False) -> None:
    """The words of `pip install`: options with their values, and requirements."""
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-") or word == "-":
            if word.startswith((".", "/", "~")) and not word.endswith((".whl", ".gz", ".zip")):
                found.is_project(number, text, word)
            else:
                found.requirement(number, text if word in text else f"{word} ({text})", word, limit=limit)
            continue
        option, sign, value = word.partition("=")
        if not option.startswith("--") and len(option) > 2 and option[:2] in _WITH_VALUE:  # -rFILE
            option, sign, value = word[:2], "=", word[2:].removeprefix("=")
        if not sign and option in _WITH_VALUE:
            value = waiting.pop(0) if waiting else ""
        _option(found, number, text, option, value, limit=limit)


def _option(found: Found, number: int, text: str, option: str, value: str, *, limit: bool) -> None:
    if option in ("-r", "--requirement", "-c", "--constraint"):
        read_file(found, number, text, value, limit=limit or option in ("-c", "--constraint"))
    elif option in ("-e", "--editable"):
        if value.startswith((".", "/", "file:")) and "://" not in value:
            found.is_project(number, text, value)
        else:
            found.requirement(number, text, value)
    elif option in ("-i", "--index-url", "--extra-index-url", "--index", "--default-index"):
        found.index(number, text, value)
    elif option in ("-f", "--find-links"):
        if names.framework_index(found.catalog, value):
            found.index(number, text, value)
        else:
            found.left(number, text, "a page of files: kit.toml takes indexes, as PyPI is one")
    elif option in _OF_THE_WAY:
        return
    elif option == "--trusted-host":
        found.left(number, text, "kit asks every index for a certificate; `ca_cert` names an authority of your own")
    else:
        found.left(
            number, f"{option} ({text})" if text != option else text, "an option of pip's that kit.toml has no key for"
        )


def read_file(found: Found, number: int, text: str, name: str, *, limit: bool = False) -> None:
    """A file that a line names, when it is in the project's folder."""
    read = found.read_named(number, text, name)
    if read is None:
        return
    content, path = read
    before = found.prefix
    found.reading.append(path)
    found.prefix = f"{path.name}: "
    try:
        for inner, line in lines(content):
            read_line(found, inner, line, limit=limit)
    finally:
        found.reading.pop()
        found.prefix = before
