"""What a project's file changes beyond its project, and whether the user has said that it may.

What is remembered is the path of the file and a hash of what in it reaches out, with links resolved: another such line
is asked about again, as is a link that leads elsewhere; what stays in the project may change.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from kit import files, layout, paths
from kit.config import env_file
from kit.config.keys import KEYS, LOCAL, FolderMount
from kit.config.settings import Config, Setting, escaped
from kit.errors import BadInputError
from kit.frozen import dataclass


def reaching(config: Config) -> tuple[Setting, ...]:
    """What the project's file says that reaches out of the project. All of it does when somebody else may write it."""
    return tuple(setting for setting in config.project if config.others or _reaches(setting))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked for: looked up once, so that what is remembered is what was shown."""

    lines: tuple[str, ...]  # for people, without passwords
    hash: str


def asked(config: Config) -> Asked:
    """What trusting the project's file means now."""
    found = [(setting, _beside(setting)) for setting in reaching(config)]
    said = [[s.key, s.part, str(s.value), beside, _authority(s)] for s, beside in found]
    return Asked(
        lines=tuple(f"{setting.name} = {setting.shown}{beside}" for setting, beside in found),
        hash=hashlib.sha256(json.dumps([config.others, said]).encode()).hexdigest(),
    )


def is_needed(config: Config, key: str) -> bool:
    """Whether trust is needed to use the value of a key."""
    used = [setting for setting in config.of(key) if setting.source == "project"]
    return any(config.others or _reaches(setting) for setting in used)


def is_trusted(config: Config, asked: Asked) -> bool:
    """Whether the user has trusted the project's file with that."""
    return _remembered(_record(_file(config))).get("hash") == asked.hash


def remember(config: Config, asked: Asked) -> None:
    """Trust the project's file with that."""
    file = _file(config)
    paths.state_folder("trust")
    paths.write_text(_record(file), json.dumps({"file": str(file), "hash": asked.hash}) + "\n", mode=0o600)


def trusted() -> list[str]:
    """The files that are trusted with something."""
    found = [_remembered(record).get("file", "") for record in _folder().glob("*.json")]
    return sorted(filter(None, found))


def revoke(file: Path) -> bool:
    """Forget about a file, which need not be there any more; False when nothing was known of it."""
    record = _record(file)
    is_known = record.exists()
    record.unlink(missing_ok=True)
    return is_known


def _file(config: Config) -> Path:
    assert config.project_file is not None
    return config.project_file


def _folder() -> Path:
    return paths.state_dir() / "trust"


def _record(file: Path) -> Path:
    return _folder() / f"{hashlib.sha256(os.fsencode(file)).hexdigest()[:32]}.json"


def _remembered(record: Path) -> dict[str, str]:
    try:
        found = json.loads(files.read_bytes(record))
    except (OSError, ValueError):  # not there, or not as kit writes it: nothing is trusted
        return {}
    return found if isinstance(found, dict) else {}


def _authority(setting: Setting) -> str:
    """What stands for a file of certificates, which a container may change where it is in the project."""
    if setting.key != "ca_cert":
        return ""
    try:
        return hashlib.sha256(files.read_bytes(setting.value)).hexdigest()
    except OSError:
        return ""


def _reaches(setting: Setting) -> bool:
    """Whether a value reaches out of the folder of its file; a path or mount also by a link in it."""
    value = setting.value
    if KEYS[setting.key].reaches_out:
        return value not in (LOCAL, ())
    if isinstance(value, FolderMount):
        # On a host it is a path there, of which nothing can be seen from here.
        return value.source.startswith(("/", "~")) or _leaves(value.path, setting)
    if setting.part == layout.TOKEN:  # whoever has chosen it gets into a notebook
        return True
    return isinstance(value, Path) and (_leaves(value, setting) or bool(_taken(setting)) or _has_token(setting))


def _leaves(path: Path, setting: Setting) -> bool:
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(Path(setting.where).parent))


def _taken(setting: Setting) -> tuple[str, ...]:
    """The variables of the caller's that a file of variables in the project takes."""
    if setting.key != "env_file" or _leaves(setting.value, setting):
        return ()
    try:
        return env_file.taken_from_here(setting.value)
    except BadInputError:  # whoever uses the file says so
        return ()


def _has_token(setting: Setting) -> bool:
    """Whether a file of variables in the project chooses the token of notebooks."""
    if setting.key != "env_file" or _leaves(setting.value, setting):
        return False
    try:
        return layout.TOKEN in env_file.names(setting.value)
    except BadInputError:  # whoever uses the file says so
        return False


def _beside(setting: Setting) -> str:
    """What is not to be seen in a value: where a link in it leads, and the variables that a file takes from here."""
    path = setting.value.path if isinstance(setting.value, FolderMount) else setting.value
    if not isinstance(path, Path):
        return ""
    real = os.path.realpath(path)
    taken = f" (takes {', '.join(names)} from here)" if (names := _taken(setting)) else ""
    token = f" (sets {layout.TOKEN})" if _has_token(setting) else ""
    return f"{f' (leads to {escaped(real)})' if real != str(path) else ''}{taken}{token}"
