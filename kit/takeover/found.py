"""What a reader of a file hands on: each line as what it asks for, or as one that cannot be taken over."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from kit import redact
from kit.catalog import Catalog
from kit.catalog.rows import Framework
from kit.config.keys import wrong_value
from kit.errors import BadInputError
from kit.frozen import dataclass
from kit.takeover import names, project
from kit.takeover.texts import LIMIT_BYTES, read_text

_SHOWN = 200
# Debian policy §5.6.1; the version behind = is of a release that is seldom the image's.
_SYSTEM = re.compile(r"(?P<name>[a-z0-9][a-z0-9+.-]{1,99})(?::[a-z0-9]+)?(?:[=/](?P<version>\S+))?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Left:
    """A line that was not taken over, or not as it stands, and why."""

    line: int  # 0 where it is not to be seen; of a notebook the line in its cell
    text: str  # without passwords
    reason: str


@dataclass(frozen=True, kw_only=True)
class TakenOver:
    """What the table `[environment]` of a kit.toml can say of a file, and all that it cannot."""

    image: str  # a wish: `torch2.7`, `torch>=2.6`, `tf-cpu`; empty where the file asks for no framework
    packages: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    project: bool = False
    env: tuple[tuple[str, str], ...] = ()
    left: tuple[Left, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A line that asks for a package."""

    line: int
    text: str
    order: int  # among all that was read
    requirement: Requirement
    by_project: bool = False  # pyproject.toml says it, and installing the project brings it


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A line that asks for what an image brings: a CUDA, a Python, a framework's release, no GPU."""

    line: int
    text: str
    order: int
    kind: Literal["cuda", "python", "framework", "cpu"]
    value: str = ""  # a version, of a Python a specifier
    framework: Framework | Literal[""] = ""


class Found:
    """What is in a file and those that it names, collected. `inner` is of a file that another one names."""

    def __init__(self, path: Path, catalog: Catalog, home: Path) -> None:
        self.folder = path.parent
        self.home = home  # of kit.toml
        self.name = path.name
        self.catalog = catalog
        self.asked: list[Asked] = []
        self.limits: list[Asked] = []
        self.wishes: list[Wish] = []
        self.systems: list[str] = []
        self.indexes: list[str] = []
        self.env: dict[str, str] = {}
        self.project = False
        self.lefts: list[tuple[int, Left]] = []
        self._count = 0
        self.reading: list[Path] = []  # the files that are open now, each named by the one before
        self.copies: dict[str, str] = {}  # where a Dockerfile copies a file to, and its own path
        self.prefix = ""  # before the text of a line of another file, or of a cell

    def left(self, line: int, text: str, reason: str) -> None:
        """A line that cannot be taken over."""
        self.lefts.append((self._next(), Left(line=line, text=self.shown(text), reason=reason)))

    def leave(self, line: Asked | Wish, reason: str) -> None:
        """A line that was handed on before, in the place that it has among the others."""
        self.lefts.append((line.order, Left(line=line.line, text=line.text, reason=reason)))

    def _next(self) -> int:
        self._count += 1
        return self._count

    def shown(self, text: str) -> str:
        """A line as people may see it."""
        # Patterns for secrets take time with the text: a line of a megabyte is cut before, with room for what they see.
        short = " ".join(redact.text(text[: 10 * _SHOWN]).split())
        return self.prefix + (short if len(short) <= _SHOWN else f"{short[:_SHOWN]}…")

    def requirement(self, line: int, text: str, spec: str, *, by_project: bool = False, limit: bool = False) -> None:
        """A requirement as `pip install` takes it, without options; `limit`: a constraint, which asks for nothing."""
        if len(spec) > 10 * _SHOWN:
            return self.left(line, text, "longer than a requirement is")
        if not spec.isascii() or "\n" in spec:
            return self.left(line, text, "not a requirement, as `einops>=0.8`")
        if "$" in spec:
            return self.left(line, text, "reads a variable, which kit.toml does not: write what it stands for")
        if re.search(r"[0-9]+\*$|[^.]\*$", spec.partition(";")[0].strip()) and "==" in spec:
            spec = re.sub(r"(\d)\*", r"\1.*", spec)
        try:
            found = Requirement(spec)
            canonicalize_name(found.name)
        except (InvalidRequirement, ValueError, RecursionError):
            return self.left(line, text, _why_no_requirement(spec))
        if found.url:
            return self.left(line, text, _of_address(found.url))
        asked = Asked(line=line, text=self.shown(text), order=self._next(), requirement=found, by_project=by_project)
        (self.limits if limit else self.asked).append(asked)
        return None

    def system(self, line: int, text: str, word: str) -> None:
        """A package of the distribution: the image's release of it has versions of its own."""
        match = _SYSTEM.fullmatch(word)
        if match is None:
            return self.left(line, text, f"`{word[:_SHOWN]}` is not the name of a package of Debian or Ubuntu")
        name, reason = names.debian(self.catalog, match["name"])
        if reason:
            self.left(line, f"{word} ({text})" if word != text else text, reason)
        if not name:
            return None
        if match["version"]:
            self.left(line, f"{word} ({text})", f"`{name}` is taken without its version, which another release has")
        self.systems.append(name)
        return None

    def index(self, line: int, text: str, url: str) -> None:
        """An index of packages beside PyPI."""
        if "$" in url:
            return self.left(line, text, "reads a variable, which kit.toml does not: write what it stands for")
        if not re.match(r"https?://[^\s/]", url, re.IGNORECASE) or re.search(r"\s", url) or not url.isascii():
            return self.left(line, text, "an index is an address that begins with https://")
        if redact.without_users(url) != url or redact.text(url) != url or "@" in url.partition("//")[2].split("/")[0]:
            return self.left(
                line, text, "the address has a login in it: `indexes` takes it without, and ~/.netrc has the login"
            )
        if names.is_pypi(self.catalog, url):
            return None  # where kit looks anyhow
        if tag := names.framework_index(self.catalog, url):
            if tag == "cpu":
                return self.wish(line, text, "cpu")
            if match := re.fullmatch(r"cu(\d+)(\d)", tag):
                return self.wish(line, text, "cuda", f"{match[1]}.{match[2]}")
            return self.left(line, text, "the framework is the image's: its index is not asked")
        self.indexes.append(url)
        return None

    def wish(
        self,
        line: int,
        text: str,
        kind: Literal["cuda", "python", "framework", "cpu"],
        value: str = "",
        framework: Framework | Literal[""] = "",
    ) -> None:
        """What the choice of the image follows."""
        if kind == "python":
            try:
                SpecifierSet(value)
            except InvalidSpecifier:
                return self.left(line, text, f"`{value[:_SHOWN]}` is no version of Python")
        elif kind in ("cuda", "framework") and not re.fullmatch(r"\d{1,4}(\.\d{1,9}){0,3}", value, re.ASCII):
            if kind == "framework" and not value:
                pass
            else:
                return self.left(line, text, f"`{value[:_SHOWN]}` is no version")
        self.wishes.append(
            Wish(line=line, text=self.shown(text), order=self._next(), kind=kind, value=value, framework=framework)
        )
        return None

    def variable(self, line: int, text: str, name: str, value: str) -> None:
        """A variable of the environment."""
        if not _VARIABLE.fullmatch(name):
            return self.left(line, text, f"`{name[:_SHOWN]}` is no name of a variable")
        if (
            redact.is_secret_name(name)
            or redact.text(value) != value
            or redact.text(f"{name}={value}") != (f"{name}={value}")
        ):
            shown = text if value and value not in text else f"{name}={redact.HIDDEN}"
            return self.left(line, shown, "a secret belongs in no file of a project: give it with `--env-file`")
        if "$" in value:
            return self.left(line, text, "made of other variables, which kit.toml does not read")
        if "\n" in value or (problem := wrong_value(value)):
            return self.left(line, text, "a value of more than one line" if "\n" in value else problem)
        if reason := names.variable(self.catalog, name):
            return self.left(line, text, reason)
        self.env[name] = value
        return None

    def is_project(self, line: int, text: str, place: str) -> None:
        """The project itself is installed: what `-e .` says."""
        path, _, extras = place.partition("[")
        folder = Path(self.folder, path.removeprefix("file:") or ".")
        if folder.resolve() != self.home.resolve():
            return self.left(line, text, "another folder than the project's: an image has no file of it")
        if reason := project.why_not(folder):
            return self.left(line, text, f"the project is not installed: {reason}")
        if extras:
            self.left(line, text, f"the project is installed without its extras ({extras.rstrip(']')}): `kit add` them")
        self.project = True
        return None

    def read_named(self, line: int, text: str, name: str, limit: int = LIMIT_BYTES) -> tuple[str, Path] | None:
        """The text of a file that this one names, when it is in the project's folder; else the line is left.

        While it is read, its path stands in `reading`; the caller takes it out.
        """
        name = self.copies.get(posixpath.normpath(name), name)
        path = (self.reading[-1].parent if self.reading else self.folder) / name
        reason = self._refusal(path, name)
        if not reason:
            try:
                return read_text(path, limit), path
            except BadInputError as e:
                reason = e.message
        self.left(line, text, reason)
        return None

    def _refusal(self, path: Path, name: str) -> str:
        """Why a file that another one names is not read; empty for one that is."""
        if re.match(r"[a-z]+://", name, re.IGNORECASE):
            return "a file at an address: kit reads files of the project's folder alone"
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to(self.folder.resolve()):
                return "the file is not in the project's folder, which alone kit reads"
            if real in [other.resolve() for other in self.reading]:
                return "the file names itself: it is read once"
        except (OSError, RuntimeError, ValueError):
            return "no file of that name is in the project's folder"
        return "more than 20 files name each other" if len(self.reading) > 20 else ""


def _why_no_requirement(spec: str) -> str:
    if re.match(r"[A-Za-z][A-Za-z+.-]*://|git\+|hg\+|svn\+|bzr\+", spec):
        return _of_address(spec)
    if re.match(r"[./~]|[A-Za-z]:\\", spec) or spec.endswith((".whl", ".tar.gz", ".zip")):
        return "a file of one machine: kit.toml takes packages of an index"
    return "not a requirement, as `einops>=0.8`"


def _of_address(url: str) -> str:
    if re.match(r"(git|hg|svn|bzr)\+", url, re.IGNORECASE):
        return "from a repository: kit.lock names wheels, and a repository has none"
    if url.lower().startswith("file:"):
        return "a file of one machine: kit.toml takes packages of an index"
    return "a file at an address: kit.lock names wheels of an index"
