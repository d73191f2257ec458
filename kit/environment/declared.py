"""What the table `[environment]` of a project's kit.toml says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from kit import redact
from kit.errors import BadInputError
from kit.frozen import dataclass

if TYPE_CHECKING:
    from kit.config.settings import Config

# A Debian package's name (Debian policy §5.6.7), with a version or without.
_SYSTEM = re.compile(r"[a-z0-9][a-z0-9+.-]{1,99}(=[A-Za-z0-9.+~:-]{1,99})?")
_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")
# A name, extras, and versions of plain numbers: `einops`, `jax[cpu]>=0.4,<1`.
_PLAIN = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[A-Za-z0-9_-]+(,[A-Za-z0-9_-]+)*\])?"
    r"( ?((==|>=|<=|!=|<|>) ?[0-9]+(\.[0-9]+)*|~= ?[0-9]+(\.[0-9]+)+)(, ?(?=[=<>!~])|$))*"
)
_INDEX = re.compile(r"(https?|file)://\S+", re.IGNORECASE)
FILE = "kit.toml"


@dataclass(frozen=True, kw_only=True)
class Declared:
    """The environment of a project, as its kit.toml declares it."""

    folder: Path  # of kit.toml
    image: str  # a wish: `torch-cu126`, `torch`, `torch>=2.6`
    packages: tuple[str, ...] = ()  # requirements, as they are written
    system: tuple[str, ...] = ()  # packages of the distribution
    indexes: tuple[str, ...] = ()  # package indexes besides PyPI, never with a password
    project: bool = False  # pyproject.toml of the folder is installed too, editable
    env: tuple[tuple[str, str], ...] = ()
    ports: tuple[str, ...] = ()
    check: str = ""  # a command that must end well in the image


def declared(config: Config) -> Declared | None:
    """The environment of the project that a configuration is of; None where its kit.toml has no such table.

    Raises BadInputError for a value that cannot be one, with the file's line.
    """
    if config.project_file is None or not any(s.key.startswith("environment.") for s in config.project):
        return None
    place = {setting.key: setting.place for setting in config.project}

    def wrong(key: str, what: str, hint: str = "") -> BadInputError:
        return BadInputError(f"{place.get(key, config.project_file)}: `{key}`: {what}", hint=hint)

    image = config.value("environment.image") or config.value("image")
    if not image:
        raise BadInputError(
            f"{config.project_file}: `[environment]` names no image",
            hint='write `image = "torch"` into it, or the name of one: `kit list` shows them',
        )
    for text in config.value("environment.packages"):
        # What most lines are is read without a library that takes longer to import than all else here.
        if not _PLAIN.fullmatch(text) and (problem := wrong_package(text)):
            raise wrong("environment.packages", problem)
    for text in config.value("environment.system"):
        if problem := wrong_system(text):
            raise wrong("environment.system", problem)
    for text in config.value("environment.indexes"):
        if not _INDEX.fullmatch(text):
            raise wrong("environment.indexes", "an index is a URL that begins with https://")
        if redact.text(text) != text or "@" in text.partition("//")[2].partition("/")[0]:
            raise wrong(
                "environment.indexes",
                "the address has a password in it",
                "write the address alone; a login for it belongs in ~/.netrc",
            )
    for name, value in config.value("environment.env").items():
        if not _VARIABLE.fullmatch(name):
            raise wrong("environment.env", f"`{name}`: an image takes names of letters, digits and `_`")
        if not value.isprintable():
            raise wrong("environment.env", f"`{name}`: an image takes values of one line, without controls")
    return Declared(
        folder=config.project_file.parent,
        image=image,
        packages=tuple(config.value("environment.packages")),
        system=tuple(config.value("environment.system")),
        indexes=tuple(config.value("environment.indexes")),
        project=config.value("environment.project"),
        env=tuple(config.value("environment.env").items()),
        ports=tuple(config.value("environment.ports")),
        check=config.value("environment.check") or "",
    )


def wrong_package(text: str) -> str:
    """What is wrong with a requirement as the table takes it; empty when nothing is."""
    from packaging.requirements import InvalidRequirement, Requirement

    if text.lstrip().startswith("-") or "\\" in text:
        return f"`{text}` is an option of pip's; the table takes packages, as `einops>=0.8`"
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return f"`{text}` is not a requirement, as `einops>=0.8`"
    if requirement.url and (redact.text(requirement.url) != requirement.url):
        return "an address with a password in it"
    return ""


def wrong_system(text: str) -> str:
    """What is wrong with the name of a package of the distribution; empty when nothing is."""
    return "" if _SYSTEM.fullmatch(text) else f"`{text}` is not the name of a package of Debian or Ubuntu"
