"""Which of kit's images an engine has, with which Python, asked while a command does its own work."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress

from kit import labels
from kit.engine.find import connect
from kit.errors import KitError
from kit.facts.sockets import CANDIDATES, ENGINE_VARIABLE, docker_config

ENGINE_WAIT_S = 1.0
THREAD = "what is built"


def ask_built() -> Callable[[], dict[str, str] | None]:
    """Ask the engine for the names of its images and the Python in each (empty where its labels do not say), meanwhile
    the caller does its own work. What is returned waits for them; None when no engine answers, or not soon.
    """
    found: list[dict[str, str]] = []

    def ask() -> None:
        with suppress(KitError):
            # `kit/NAME:latest`
            own = ((tag, has) for tag, has in connect().own_labels().items() if tag.startswith("kit/"))
            found.append({tag.rpartition("/")[2].partition(":")[0]: has.get(labels.PYTHON, "") for tag, has in own})

    # A daemon: an engine that hangs must not keep the command from ending.
    thread = threading.Thread(target=ask, name=THREAD, daemon=True)
    is_likely = _engine_is_likely()
    if is_likely:
        thread.start()

    def answer() -> dict[str, str] | None:
        if is_likely:
            thread.join(timeout=ENGINE_WAIT_S)
        return found[0] if found else None

    return answer


def _engine_is_likely() -> bool:
    """False where no engine can answer, which takes less to see than to ask."""
    if any(os.environ.get(name) for name in ("DOCKER_HOST", "DOCKER_CONTEXT", ENGINE_VARIABLE)):
        return True
    return any(path.exists() for path in (*(candidate.path() for candidate in CANDIDATES), docker_config()))
