"""Prints the constraints of `pip install` in an image; its own Python runs this when all that is locked is installed.

`hold.py WORD...`: a word is the name of a package, or a shell pattern for names, that stays at the version that is
installed; or a requirement (`pandas>=2.2.2`), which is printed as it is. Beside them stands what the held packages
themselves ask of others: pip would only warn that it breaks what is installed.
"""

import fnmatch
import re
import sys

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints(installed, words):
    """The lines, by name, for (name, version, requirements) of each installed package."""
    patterns = [word for word in words if not re.search("[<>=~!]", word)]
    versions = {normal(name): version for name, version, _ in installed}
    held = {name for name in versions if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
    ranges = {}
    for word in [word for word in words if word not in patterns]:
        add(ranges, Requirement(word))
    for name, _, requirements in installed:
        for requirement in map(Requirement, requirements if normal(name) in held else ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                add(ranges, requirement)
    lines = {name: f"{name}=={versions[name]}" for name in held}
    for name, specifier in ranges.items():
        # A lock may override what a package asks for; then that is no longer true of it.
        fits = name not in versions or specifier.contains(versions[name], prereleases=True)
        if name not in held and str(specifier) and fits:
            lines[name] = f"{name}{specifier}"
    return [lines[name] for name in sorted(lines)]


def add(ranges, requirement):
    name = normal(requirement.name)
    ranges[name] = ranges.get(name, SpecifierSet()) & requirement.specifier


def main():
    import importlib.metadata

    found = [(d.metadata["Name"], d.version, d.requires or ()) for d in importlib.metadata.distributions()]
    print("\n".join(constraints(found, sys.argv[1:])))


if __name__ == "__main__":
    main()
