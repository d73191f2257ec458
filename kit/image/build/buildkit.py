"""Building with BuildKit, by buildx."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kit import files, paths
from kit.engine import Engine
from kit.image.build.inputs import Plan, kit_context
from kit.image.buildlog import BuildLog, Log

# The variable of buildx with the proxies and the index, whose passwords would stay in a file when kit is killed.
SECRETS = "KIT_BUILD_SECRETS"
NETRC = "KIT_BUILD_NETRC"


def run(engine: Engine, plan: Plan, output: list[str] | None = None) -> tuple[int, Log]:
    """Build into the engine's store, or where `output` (arguments of buildx) says; the exit code, and the log."""
    if output is None:
        output = ["--tag", plan.reference]
        if engine.info.is_containerd_store:
            output = ["--output", f"type=image,name={plan.reference},unpack=true,compression=zstd,oci-mediatypes=true"]
    log = BuildLog()
    script = plan.options.network.shell_script()
    with _contexts(plan) as arguments:
        code = engine.stream(
            [
                "buildx",
                "build",
                "--progress=rawjson",
                "--provenance=false",
                "--sbom=false",
                f"--build-arg=BASE={plan.base}",
                *plan.arguments,
                *output,
                *arguments,
            ],
            lambda line: plan.progress.log(log, log.feed(line)),
            # Else buildx runs git where the folder for temporary files is, in whatever repository is around it.
            {
                "BUILDX_GIT_INFO": "false",
                **({SECRETS: script} if script else {}),
                **({NETRC: plan.netrc} if plan.netrc else {}),
            },
        )
    return code, log


@contextlib.contextmanager
def _contexts(plan: Plan) -> Iterator[list[str]]:
    """The arguments for what a build gets: its folder, uv, and as secrets the CA, proxies and index."""
    network = plan.options.network
    arguments = [f"--build-context=kit={kit_context(plan.uv, plan.scripts)}"]
    if network.ca_file:
        arguments.append(f"--secret=id=ca,src={network.ca_file}")
    if network.needs_host_network:
        arguments.append("--allow=network.host")
    if network.shell_script():
        arguments.append(f"--secret=id=environment,env={SECRETS}")
    if plan.netrc:
        arguments.append(f"--secret=id=netrc,env={NETRC}")
    with files.scratch("build") as folder:
        # The image's own folder has its Dockerfile, but of a lock with a parent only what that adds.
        context = folder / plan.name
        paths.write_text(context / "Dockerfile", plan.dockerfile)
        paths.write_text(context / "requirements.lock", plan.requirements)
        for name, text in plan.files.items():
            paths.write_text(context / name, text)
        yield [*arguments, str(context)]
