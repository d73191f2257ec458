"""The container engine: the only package that talks to one, by its own command line.

`docker` drives Docker, `podman` and `remote` say what is different with Podman and on another machine, and `find` which
of them answers.

The command line rather than the Python SDK: the SDK has no BuildKit, does not read docker contexts, and its import
alone takes longer than `kit run` may add to `docker run` (`make bench-cli` measures it).
"""

from __future__ import annotations

from kit.engine.container import Container
from kit.engine.docker import Engine
from kit.engine.find import connect

__all__ = ["Container", "Engine", "connect"]
