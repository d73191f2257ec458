"""What `kit keep` does: what was tried by `pip install` becomes a part of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kit import layout
from kit.environment import manifest
from kit.frozen import dataclass
from kit.project.add import change

if TYPE_CHECKING:
    from kit.environment.manifest import Edited
    from kit.project.add import Changed, Read, Solve
    from kit.project.diff import Added, Difference
    from kit.screen import Screen


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would be kept, and what not."""

    taken: tuple[Added, ...] = ()
    follows: tuple[Added, ...] = ()  # came along with what was asked for: the solve brings it, or what fits instead
    left: tuple[tuple[Added, str], ...] = ()  # with the reason


def plan(found: Difference) -> Plan:
    """What of a difference can be kept: what was asked for by name, and is from a package index."""
    left = [(package, reason) for package in found.packages if (reason := _not_kept(package))]
    others = [package for package in found.packages if not _not_kept(package)]
    return Plan(
        taken=tuple(package for package in others if package.is_requested),
        follows=tuple(package for package in others if not package.is_requested),
        left=tuple(left),
    )


def keep(read: Read, wanted: Plan, solve: Solve, screen: Screen) -> Changed:
    """Write what is to be kept into kit.toml and lock it, in the versions that were tried. Raises as `add`."""

    def edit(text: str) -> Edited:
        known = read().packages
        return manifest.add(text, [_entry(package, known) for package in wanted.taken])

    exact: dict[str, str] = {canonicalize_name(package.name): package.version for package in wanted.taken}
    return change(read, edit, solve, screen, exact=exact)


def _entry(package: Added, known: tuple[str, ...]) -> str:
    """What is added for a package: its name where it stands there already and admits the version."""
    same = [text for text in known if canonicalize_name(Requirement(text).name) == canonicalize_name(package.name)]
    if same and all(manifest.admits(text, package.version) for text in same):
        return package.name
    return manifest.bounded(package.name, package.version)


def _not_kept(package: Added) -> str:
    if package.origin == layout.WORKSPACE or package.origin.startswith(f"{layout.WORKSPACE}/"):
        return "from the project's own folder: `project = true` in kit.toml installs what is in it"
    if package.origin:
        return f"from {package.origin}, which is no package index: nobody else has it"
    if canonicalize_name(package.name) == "pip":
        return "it is what installs, and is in the image"
    return ""
