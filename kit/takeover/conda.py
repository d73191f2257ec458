"""environment.yml, also as `conda env export` writes it, and the words of `conda install`."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from kit.takeover import names, requirements
from kit.takeover.found import Found
from kit.takeover.marked import Item, Marked

_CHANNEL = "conda's channels are not asked: packages are PyPI's"
_SPEC = re.compile(
    r"(?:(?P<channel>[\w./:-]+?)::?)?(?P<name>[A-Za-z0-9_.-]+)\s*"
    r"(?:\[version=['\"]?(?P<bracket>[^'\"\]]+)['\"]?.*\]|(?P<version>(?:[=<>!~ ]\s*.*)?))$"
)
# A build of a Python package: py310h5eee18b_0, pyhd8ed1ab_0, cuda120py312h…
_BUILD = re.compile(r"(.*_)?(cuda\w*|cpu|gpu|np\d+)?_?py(\d|hd|_).*", re.IGNORECASE)
# Names that PyPI has no package of: those of other languages and of conda's own libraries.
_OTHERS = re.compile(
    r"(r|perl|ruby|rust|go|m2|m2w64|posix|vs\d+|vc)(-.*|_.*)?|lib.*|_.*|.*_(linux|osx|win)-64|.*-cos\d+-.*"
)


def read(text: str, found: Found) -> None:
    """An environment file."""
    document = Marked(text, found.name)
    for key in document.items(document.root):
        if key.name == "dependencies":
            for item in document.entries(key):
                _dependency(document, found, item)
        elif key.name == "channels":
            for item in document.entries(key):
                found.left(item.line, item.text, _CHANNEL)
        elif key.name == "variables":
            for item in document.items(key):
                found.variable(item.line, item.text, item.name, item.value)
        elif key.name == "prefix":
            found.left(key.line, key.text, "a folder of the machine that wrote the file")
        elif key.name == "name":
            found.left(key.line, key.text, "an environment of kit's is its folder's, and has no name")
        else:
            found.left(key.line, key.text, "kit.toml has no key for it")


def _dependency(document: Marked, found: Found, item: Item) -> None:
    if item.is_text:
        read_spec(found, item.line, item.text, item.value)
        return
    for key in document.items(item):
        if key.name == "pip":
            for inner in document.entries(key):
                if inner.is_text:
                    for _, line in requirements.lines(inner.value):
                        requirements.read_line(found, inner.line, line)
                else:
                    found.left(inner.line, inner.text, "not a requirement")
        else:
            found.left(key.line, key.text, "packages for one system, or of another tool, are not taken over")
    if not document.items(item):
        found.left(item.line, item.text, "not a package")


def read_words(found: Found, number: int, text: str, words: list[str]) -> None:
    """The words of `conda install`."""
    waiting = list(words[1:])
    while waiting:
        word = waiting.pop(0)
        if word in ("-c", "--channel"):
            found.left(number, f"-c {waiting.pop(0) if waiting else ''} ({text})", _CHANNEL)
        elif word in ("-n", "--name", "-p", "--prefix", "-f", "--file", "--solver"):
            value = waiting.pop(0) if waiting else ""
            if word in ("-f", "--file"):
                found.left(number, text, f"`kit init --from {Path(value).name}` reads that file")
        elif not word.startswith("-") and word not in ("install", "create"):
            read_spec(found, number, text, word)


def read_spec(found: Found, line: int, text: str, spec: str) -> None:
    """A package as conda writes it: `numpy`, `numpy=1.26`, `numpy=1.26.4=py310h5eee18b_0`, `pytorch::torch >=2`."""
    match = _SPEC.fullmatch(spec.strip()) if len(spec) < 500 else None
    if match is None:
        return found.left(line, text, "not a package, as `numpy=1.26`")
    name, asked = match["name"].lower(), (match["bracket"] or match["version"] or "").strip()
    version, build = _specifier(asked)
    catalog = found.catalog
    chooses, reason = names.conda_of_image(catalog, name)
    if chooses == "python":
        # conda's `3.10.*` and `3.10` are the same release
        return found.wish(line, text, "python", version) if version else found.left(line, text, reason)
    if chooses == "cuda":
        number = re.search(r"\d+(\.\d+)?", asked)
        return found.wish(line, text, "cuda", number[0]) if number else found.left(line, text, reason)
    if chooses == "cpu":
        return found.wish(line, text, "cpu")
    if reason:
        return found.left(line, text, reason)
    if debian := names.conda_to_debian(catalog).get(name):
        before = len(found.systems)
        found.system(line, text, debian)
        if asked and len(found.systems) > before:
            found.left(line, text, f"`{debian}` is taken without its version, which a release of Debian's has")
        return None
    known = names.conda_to_pypi(catalog).get(name)
    if known is None and _OTHERS.fullmatch(name) and not _BUILD.fullmatch(build):
        return found.left(line, text, "no Python package: look for one of Debian's, `kit add --system`")
    if re.search(r"cpu", build) and known in ("torch", "tensorflow"):
        found.wish(line, text, "cpu")
    if (cuda := re.match(r"py\d[\d.]*_cuda(\d+\.\d+)|cuda_?(\d{2})(\d)", build)) and known == "torch":
        found.wish(line, text, "cuda", cuda[1] or f"{cuda[2]}.{cuda[3]}")
    if version is None:
        return found.left(line, text, f"`{asked}` is no version as PyPI has them: `kit add {known or name}`")
    is_sure = known is not None or _BUILD.fullmatch(build) or canonicalize_name(name) in names.known_packages(catalog)
    if not is_sure:
        found.left(
            line, text, f"taken as PyPI's `{name}`: conda's packages are not always called so there, so look at it"
        )
    return found.requirement(line, text, f"{known or name}{version}")


def _specifier(asked: str) -> tuple[str | None, str]:
    """(conda's version as a specifier of PyPI's, None when it is none; the build) of what follows a name."""
    text, build = asked, ""
    if match := re.fullmatch(r"(==?)?\s*([^=<>!~,|\s]+)(?:=|\s+)([^=<>!~,|\s]*)", asked):
        text, build = f"={'=' if match[3] else ''}{match[2]}", match[3]
    text = re.sub(r"\s+", "", text)
    if text in ("", "*", "=*"):
        return "", build
    if "|" in text:
        return None, build
    if match := re.fullmatch(r"(=?)([0-9][^=<>!~,]*)", text):  # fuzzy: 1.26 is 1.26.*; whole releases are themselves
        version = match[2].removesuffix("*").rstrip(".")
        text = f"=={version}" if version.count(".") > 1 and not match[2].endswith("*") else f"=={version}.*"
    text = re.sub(r"(^|,)=(?=[0-9])", r"\1==", text)
    text = re.sub(r"(^|,)(?=[0-9])", r"\1==", text)
    text = re.sub(r"([0-9])\*", r"\1.*", text)
    text = re.sub(r"(>=|<=|>|<)([0-9][^,]*?)\.\*", r"\1\2", text)
    try:
        return str(SpecifierSet(text)), build
    except InvalidSpecifier:
        return None, build
