"""Inside: the Python packages that are installed, and whether byte code is valid."""
# mypy: disable-error-code="import-not-found"
# Strings and not paths: over fifty thousand files those cost seconds.
# ruff: noqa: PTH111, PTH112, PTH118, PTH119, PTH120, PTH123

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
import sysconfig

from answer import give

CHECKED_HASH = 0b11  # PEP 552: the flags of a .pyc that is compared with a hash of its source
HEADER_BYTES = 16


def folders() -> list[str]:
    """Where packages are looked for, but for what the user added with `pip install`."""
    home = os.path.expanduser("~") + os.sep
    return [p for p in sys.path[1:] if os.path.isdir(p) and not p.startswith(home)]


def environment() -> dict[str, str]:
    """What the markers of requirements are decided by (PEP 508)."""
    return {
        "os_name": os.name,
        "sys_platform": sys.platform,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "python_full_version": platform.python_version(),
        "implementation_name": sys.implementation.name,
        "implementation_version": platform.python_version(),
    }


def installed() -> list[tuple[str, str]]:
    """(name, version) of every distribution, in each of the folders: one that is there twice is listed twice."""
    found = importlib.metadata.distributions(path=folders())
    return sorted((d.metadata["Name"] or "", d.version or "") for d in found)


def byte_code() -> dict[str, object]:
    """The compiled modules whose source is another now: Python would compile those at every start."""
    count, stale = 0, []
    for folder, _, files in os.walk(sysconfig.get_paths()["purelib"]):
        for name in files:
            match = re.match(r"(.+)\.[a-z]+-\d+\.pyc$", name)
            if not match or os.path.basename(folder) != "__pycache__":
                continue
            compiled, source = os.path.join(folder, name), os.path.join(os.path.dirname(folder), match[1] + ".py")
            count += 1
            with open(compiled, "rb") as file:
                header = file.read(HEADER_BYTES)
            try:
                with open(source, "rb") as file:
                    expected = importlib.util.source_hash(file.read())
            except FileNotFoundError:
                stale.append(compiled)
                continue
            if int.from_bytes(header[4:8], "little") != CHECKED_HASH or header[8:] != expected:
                stale.append(compiled)
    return {"count": count, "stale": stale[:20]}


if __name__ == "__main__":
    give({"environment": environment, "installed": installed, "byte_code": byte_code})
