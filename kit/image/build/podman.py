"""Building with `podman build`, here or on a machine behind SSH."""

from __future__ import annotations

import hashlib
import re
import shlex
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from kit import files, paths, process
from kit.engine import Engine
from kit.errors import EngineError, EngineFeatureError, KitError
from kit.image.build.inputs import Plan, kit_context
from kit.image.buildlog import Log, PodmanLog
from kit.network import NetworkSettings
from kit.remote import ssh

# How long to wait for a line before looking again whether there can be one.
QUIET_S = 60.0
OPENING = ". /run/kit/begin"
LACKS_CONTEXTS = "unknown flag: --build-context"

# The script comes on the standard input, in front of the files: the login shell there may be one that takes no argument
# of several lines.
END = "# end"
READ_SCRIPT = (
    'eval "$(while IFS= read -r line; do if [ "$line" = "# end" ]; then break; fi; printf "%s\\n" "$line"; done)"'
)


def run(engine: Engine, plan: Plan) -> tuple[int, Log]:
    """Build into the engine's store; the exit code, and the log. Raises EngineFeatureError when Podman is too old."""
    network = plan.options.network
    with files.scratch("build") as scratch:
        context = kit_context(plan.uv, plan.scripts)
        folder = scratch / plan.name
        folder.mkdir()
        paths.write_text(folder / "Dockerfile", for_podman(plan.dockerfile, context, plan.layers))
        for layer, text in plan.layers.items():
            paths.write_text(folder / f"{layer}.txt", text)
        for name, text in plan.files.items():
            paths.write_text(folder / name, text)
        arguments = [
            "--format=docker",  # OCI's has no health check
            "--layers",
            "--security-opt=label=disable",  # SELinux would keep the steps from the folders that they mount
            f"--build-context=kit={engine.provide(context)}",
            f"--build-arg=BASE={engine.full_name(plan.base)}",
            f"--timestamp={plan.source_date_epoch}",
            *plan.arguments,
            *(["--pull=never"] if plan.is_local else []),
            f"--tag={engine.full_name(plan.reference)}",
            engine.provide(folder),
        ]
        log = PodmanLog()
        secrets = {**_secrets(network), **({"netrc": plan.netrc} if plan.netrc else {})}
        code = _run(engine, arguments, secrets, log, plan)
    if code != 0 and any(LACKS_CONTEXTS in line for line in log.other):
        raise EngineFeatureError(
            f"Podman {engine.info.version} cannot build kit's images: its `podman build` has no --build-context",
            hint="use a newer one; or build elsewhere: --transfer builds here and sends it, --pull REPOSITORY takes it "
            "from a registry",
        )
    return code, log


def for_podman(dockerfile: str, context: Path, layers: Mapping[str, str]) -> str:
    """The Dockerfile as Podman needs it, with the same image as its result.

    A hash of what a step mounts stands in the step itself: without it Podman takes a step from its cache when what it
    mounts has changed (https://github.com/containers/buildah/issues/5400). The parts of the lock are files of the
    build's folder: mounted from a stage that is in the cache, they can be missing
    (https://github.com/containers/buildah/issues/4375; seen with Podman 4.3.1).
    """
    steps, is_lock = [], False
    for step in re.split(r"(?m)^(?=[A-Z]+ )", dockerfile):
        if step.startswith("FROM "):
            is_lock = step.splitlines()[0].endswith(" AS lock")
        if not is_lock:
            steps.append(_marked(step, context, layers) if step.startswith("RUN ") else step)
    return "".join(steps)


def _marked(step: str, context: Path, layers: Mapping[str, str]) -> str:
    contents = [(context / name).read_bytes() for name in re.findall(r"from=kit,source=([^,\s]+)", step)]
    wheels = re.findall(r"from=lock,source=/lock/(\w+)\.txt", step)
    contents += [text.encode() for layer, text in layers.items() if layer in wheels]
    if not contents:
        return step
    mark = hashlib.sha256("".join(hashlib.sha256(content).hexdigest() for content in contents).encode()).hexdigest()
    assert OPENING in step, step
    step = step.replace(OPENING, f": {mark[:16]} && {OPENING}", 1)
    return re.sub(r"from=lock,source=/lock/", "source=", step)


def _secrets(network: NetworkSettings) -> dict[str, str]:
    """The certificates and the settings that a build needs and no image may have, by their names in the Dockerfile."""
    found = {}
    if network.ca_file:
        found["ca"] = network.ca_file.read_text(encoding="utf-8", errors="replace")
    if script := network.shell_script():
        found["environment"] = script
    return found


def _run(engine: Engine, arguments: list[str], secrets: dict[str, str], log: PodmanLog, plan: Plan) -> int:
    """Run `podman build` on the engine's machine to its end; its exit code. Interrupted, it ends there too."""
    given_files = {name: text.splitlines() for name, text in secrets.items()}
    announced = " ".join(f"{name}:{len(lines)}" for name, lines in given_files.items())
    script = resources.files("kit.image.build").joinpath("podman.sh").read_text(encoding="utf-8")
    given = [*script.splitlines(), END, *(line for lines in given_files.values() for line in lines)]
    command = ["sh", "-c", READ_SCRIPT, "sh", engine.program, announced, *arguments]
    if engine.connection:
        command = engine.connection.command(shlex.join(command), "-T")
    code = None
    input = "".join(f"{line}\n" for line in given)
    with process.coprocess(command, input=input, env={**engine.environment, "LC_ALL": "C"}) as (next_line, end):
        while code is None:
            asked = time.monotonic()
            line = next_line(QUIET_S)
            if line is None and time.monotonic() - asked < QUIET_S:
                break
            if line and line.startswith("."):
                code = int(line[1:])
            elif line is not None:
                # A carriage return ends a line too, as a progress bar's does.
                for part in re.split(r"\r+(?=[^\r])", line[1:].rstrip("\r")):
                    plan.progress.log(log, log.feed(part))
        said = end()
    if code is None:
        raise _ended(engine, said)
    return code


def _ended(engine: Engine, said: str) -> KitError:
    """Podman's end, or the connection's, without an exit code."""
    if engine.connection:
        return ssh.failure(engine.target, 255, said, doing="used")
    return EngineError("podman build ended without an exit code", details=tuple(said.splitlines()[-5:]))
