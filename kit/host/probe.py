"""Runs the probe script, here or over SSH, and turns ssh's failures into errors with their cause."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Literal

from kit import process
from kit.errors import BadInputError, CommandError, MissingProgramError, NetworkError
from kit.host.sections import Sections, split

Group = Literal["gpu", "use", "engine", "machine", "network"]

# The script gives up after 12 seconds; connecting has 10.
TIMEOUT_S = 40
# Like Git's GIT_SSH_COMMAND: the ssh program to use, with options (`ssh -F other_config`).
SSH_VARIABLE = "KIT_SSH"
_SSH_OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-T")

# (part of ssh's text in lower case, what happened, what to do); the first that matches wins.
_FAILURES: tuple[tuple[str, str, str], ...] = (
    (
        "remote host identification has changed",
        "its host key is not the one known here",
        "if it was set up anew, `ssh-keygen -R {host}` and log in once with ssh; if not, ask its administrator",
    ),
    (
        "host key verification failed",
        "its host key is not known here",
        "log in once with `ssh {target}` and compare the fingerprint it shows",
    ),
    (
        "could not resolve hostname",
        "there is no machine of that name",
        "check the name; `ssh {target}` must work; ~/.ssh/config may give it an address",
    ),
    ("connection refused", "it refuses the connection", "is sshd running there, and is the port right? `ssh {target}`"),
    (
        "permission denied",
        "it does not let you in",
        "log in without a password first: `ssh-copy-id {target}`, or `ssh-add` for a key with a passphrase",
    ),
    (
        "too many authentication failures",
        "it does not let you in",
        "name the key in ~/.ssh/config (IdentityFile, IdentitiesOnly yes)",
    ),
    ("timed out", "it does not answer", "is it switched on, and is a VPN or a jump host needed? `ssh {target}`"),
    ("no route to host", "there is no way to it", "is it switched on, and is a VPN or a jump host needed?"),
    ("network is unreachable", "there is no way to it", "is this machine online, and is a VPN needed?"),
    ("bad configuration option", "ssh does not take its configuration", "correct ~/.ssh/config: `ssh {target}`"),
    ("bad owner or permissions", "ssh does not take its configuration", "`chmod 600 ~/.ssh/config`"),
    ("connection closed", "it closed the connection", "`ssh -v {target}` says why"),
    ("connection reset", "it closed the connection", "`ssh -v {target}` says why"),
)
_NO_SHELL = "the machine must give a login a POSIX shell: `ssh {target} sh -c true` must work"


def run_probe(
    target: str,
    groups: Sequence[Group],
    *,
    program: str = "",
    environment: Mapping[str, str] | None = None,
    urls: Sequence[str] = (),
    pids: Sequence[int] = (),
) -> Sections:
    """The sections of these groups of facts; `target` empty: of this machine, with `program` as its docker.

    Raises NetworkError when the target cannot be reached by ssh, BadInputError when it is no target,
    MissingProgramError when there is no ssh (or, here, no sh).
    """
    import secrets

    mark = f"@@{secrets.token_hex(8)}"
    variables = {
        "KIT_MARK": mark,
        "KIT_GROUPS": " ".join(groups),
        "KIT_DOCKER": program,
        "KIT_ENDPOINTS": " ".join(urls),
        "KIT_PIDS": " ".join(map(str, pids)),
    }
    # On the input, not on the command line: that would go through the login shell there, whichever it is.
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in variables.items()]
    script = "".join(lines) + _script()
    if not target:
        done = process.run(["sh", "-s"], input=script, env=environment, timeout_s=TIMEOUT_S, check=False)
    else:
        done = _run_ssh(target, script)
    sections = split(done.stdout, mark)
    if target and not sections.found:
        raise _failure(target, done.returncode, f"{done.stderr}\n{done.stdout}")
    return sections


def _script() -> str:
    from importlib.resources import files

    return (files("kit.host") / "probe.sh").read_text(encoding="utf-8")


def _run_ssh(target: str, script: str) -> process.Completed:
    address = resolve_target(target)
    ssh = shlex.split(os.environ.get(SSH_VARIABLE, "")) or ["ssh"]
    try:
        return process.run(
            [*ssh, *_SSH_OPTIONS, address, "sh -s"],
            input=script,
            # ssh's own words are read below.
            env={"LC_ALL": "C"},
            timeout_s=TIMEOUT_S,
            check=False,
        )
    except CommandError as e:
        raise _failure(target, e.returncode, "the command timed out" if e.returncode == 124 else e.stderr) from None
    except MissingProgramError:
        raise MissingProgramError(
            f"--host {target} needs the program `{ssh[0]}`, which is not installed",
            hint="install the OpenSSH client (package openssh-client or openssh-clients)",
        ) from None


def resolve_target(target: str) -> str:
    """What ssh is given: the target as it is, or the address of the docker context of that name.

    Raises BadInputError when ssh could take it for an option.
    """
    if target.startswith("-") or not target.strip() or re.search(r"[\s\x00-\x1f]", target):
        raise BadInputError(
            f"--host {target!r} is no machine", hint="give user@server, a name of ~/.ssh/config, or a docker context"
        )
    if re.search(r"[@:/]", target):
        return target
    try:
        done = process.run(["docker", "context", "inspect", target], timeout_s=10, check=False)
    except (MissingProgramError, CommandError):
        return target
    try:
        endpoint = json.loads(done.stdout)[0]["Endpoints"]["docker"]["Host"] if done.returncode == 0 else ""
    except (ValueError, LookupError, TypeError):
        return target
    if not isinstance(endpoint, str) or not endpoint.startswith("ssh://"):
        return target
    # ssh takes no path behind the machine, docker does (the socket there).
    return "ssh://" + endpoint.removeprefix("ssh://").partition("/")[0]


def _failure(target: str, code: int, text: str) -> NetworkError:
    host = target.removeprefix("ssh://").rpartition("@")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    what, hint = "it ran no shell for us", _NO_SHELL
    # ssh's own failure; any other code is that of what ran there.
    if code in (124, 255):
        known = ((what, hint) for part, what, hint in _FAILURES if part in text.lower())
        what, hint = next(known, ("ssh failed", "`ssh -v {target}` says why"))
    return NetworkError(
        f"{target} cannot be examined over SSH: {what}",
        hint=hint.format(target=target, host=host),
        details=tuple(line for line in lines if not line.startswith("@@@"))[-4:],
    )
