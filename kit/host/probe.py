"""Runs the probe script, here or over SSH, and turns ssh's failures into errors with their cause."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence
from importlib.resources import files
from typing import Literal

from kit import process
from kit.engine import Engine, find
from kit.host.sections import Sections, split
from kit.remote import ssh

Group = Literal["gpu", "use", "engine", "machine", "network"]

# The script gives up after 12 seconds; connecting has 10.
TIMEOUT_S = 40


def run_probe(
    target: str,
    groups: Sequence[Group],
    *,
    engine: Engine | None = None,
    urls: Sequence[str] = (),
    pids: Sequence[int] = (),
) -> Sections:
    """The sections of these groups of facts; `target` empty: of this machine, by the command line of `engine`.

    Raises NetworkError when the target cannot be reached by ssh, BadInputError when it is no target,
    MissingProgramError when there is no ssh (or, here, no sh).
    """
    connection = ssh.connect(target) if target else None
    account = connection.account if connection else None
    program = engine.program if engine else "podman" if account and find.takes_podman(account) else ""
    mark = f"@@{secrets.token_hex(8)}"
    variables = {
        "KIT_MARK": mark,
        "KIT_GROUPS": " ".join(groups),
        "KIT_DOCKER": program,
        "KIT_SOCKET": find.likely_socket(account) if not program else "",
        "KIT_ENDPOINTS": " ".join(urls),
        "KIT_PIDS": " ".join(map(str, pids)),
    }
    # On the input, not on the command line: that would go through the login shell there, whichever it is.
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in variables.items()]
    script = "".join(lines) + (files("kit.host") / "probe.sh").read_text(encoding="utf-8")
    if connection is None:
        environment = engine.environment if engine else None
        done = process.run(["sh", "-s"], input=script, env=environment, timeout_s=TIMEOUT_S, check=False)
    else:
        done = connection.run(script, timeout_s=TIMEOUT_S, check=False)
    sections = split(done.stdout, mark)
    if target and not sections.found:
        raise ssh.failure(target, done.returncode, f"{done.stderr}\n{done.stdout}", doing="examined")
    return sections
