"""Prove an image: run the shipped checks against a container of it, and say of each whether it holds."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

from kit import files, labels, layout, paths, procs
from kit.engine import Engine
from kit.environment import editable
from kit.errors import BadInputError, EngineError
from kit.frozen import dataclass
from kit.locks.format import read_lock
from kit.locks.held import held
from kit.network import NetworkSettings
from kit.render import image_environment, image_labels
from kit.run.containers import close_tunnels, sweep, user_inside, user_of
from kit.run.gpu_check import asked_for, script
from kit.run.lease import no_gpus, reserved
from kit.run.prepare import Ready, Wanted, bring, new_name, place_on, prepare
from kit.run.service import start_service
from kit.screen import Screen
from kit.spec.container import Mount, describe, fresh_volumes
from kit.spec.gpu_grant import GpuGrant
from kit.spec.request import RunRequest, Service, Started
from kit.verify.report import PROJECT, SCRIPTS, Check, Report, Subject

# In the order they run and are shown.
GROUPS = tuple(
    ["packages", "framework", "image", "security", "container", "training", "jupyter", "tensorboard", "devel", "gpu"]
)
# The one of a project that has a check of its own.
OWN_GROUP = "project"
# The container ends and goes by itself then, should this process be killed before it removes it.
LIFE_S = 2 * 60 * 60
SERVICE_PATIENCE_S = 60


@dataclass(frozen=True, kw_only=True)
class VerifyRequest(Wanted):
    """What to prove, where, and with which GPUs."""

    reference: str = ""  # the engine's name for it; empty: what `kit build` gives it


def made_ready(request: VerifyRequest, screen: Screen) -> Ready:
    """The image on its machine. One that is there is proven as it is; one that is not is brought first.

    Raises what `prepare` and `bring` raise.
    """
    ready = prepare(request, screen)
    if request.reference:
        return replace(ready, reference=request.reference)
    # Of an environment, what is there under its name is what its lock says.
    is_plain = not request.image.pull and ready.environment is None
    if is_plain and ready.engine.image_labels(ready.image.reference) is not None:
        return ready
    return bring(ready, screen)


def verify(
    ready: Ready,
    *,
    only: tuple[str, ...] = (),
    on_message: Callable[[str], None] = lambda _: None,
    on_check: Callable[[Check, int], None] = lambda *_: None,
) -> Report:
    """Start a container of the image as `kit run` does, run the checks against it, remove it whatever happens.

    `only` names checks or groups of checks; empty: all. `on_check` gets each check as it ends, and how many there are.
    Raises UnlockedError for an image without a lock, EngineError when the engine does not have it, BadInputError for a
    name in `only` that no check has.
    """
    if only:
        from kit.verify.collector import is_chosen

        there = names(has_check=_has_check(ready))
        unknown = [word for word in only if not any(is_chosen(name, (word,)) for name in there)]
        if unknown:
            raise BadInputError(
                f"no check is named {', '.join(unknown)}",
                hint=f"groups are {', '.join(GROUPS)}; `kit verify --json` names the checks of each",
            )
    with started(ready, ready.reference, on_message) as subject:
        return check(subject, only=only, on_check=on_check)


def _has_check(ready: Ready) -> bool:
    """Whether the project has a check of its own."""
    return bool(ready.environment and ready.environment.declared.check)


@contextlib.contextmanager
def started(ready: Ready, reference: str = "", on_message: Callable[[str], None] = lambda _: None) -> Iterator[Subject]:
    """A container of the image and what is promised of it; it and its services are gone when the block ends."""
    image, engine = ready.image, ready.engine
    lock = read_lock(paths.images_dir() / image.name, image)
    own = ready.environment
    reference = reference or image.reference
    if engine.image_labels(reference) is None:
        raise EngineError(f"the engine has no image {reference}", hint=f"`kit build {image.name}` builds it")
    described = json.loads(engine.call(["image", "inspect", engine.full_name(reference)], timeout_s=30))[0]
    sweep(engine, label=labels.BOUND)
    with contextlib.ExitStack() as stack:
        scripts = engine.provide(_lay_out(stack.enter_context(files.scratch("verify"))))
        workspace = stack.enter_context(engine.scratch(_user(engine)))
        request = RunRequest(
            image=image,
            reference=reference,
            additions=ready.additions,
            command=("sleep", str(LIFE_S)),
            folder=Path(workspace),
            user=_user(engine),
            mounts=(Mount(source=scripts, target=SCRIPTS, read_only=True), *_project(ready)),
            volumes=fresh_volumes(_user(engine).partition(":")[0]),
            network=NetworkSettings(proxies={}),
            logdir="logs",
            has_input=False,
            bound=procs.identity(),
        )
        place = place_on(engine, request)
        with reserved(ready.gpus, engine, on_message) as (granted, release):
            spec = describe(request, place, granted, name=new_name(request, use="verify"))
            if granted.note:
                on_message(granted.note)
            stack.callback(engine.remove, spec.name, force=True)
            engine.run_detached(spec)
            release()
        asked = asked_for(granted.devices)

        def start(service: Service) -> tuple[Started, str]:
            # Without a GPU: what is asked of a service does not need one, and a lease is for one container.
            wanted = replace(request, service=service, command=())
            found = start_service(wanted, no_gpus(image), engine, lambda _: None, timeout_s=SERVICE_PATIENCE_S)
            stack.callback(engine.remove, found.name, force=True)
            stack.callback(close_tunnels, found.name, engine)
            return found, engine.container(found.name).environment.get("JUPYTER_TOKEN", "")

        yield Subject(
            name=ready.name,
            image=image,
            lock=lock,
            engine=engine,
            reference=reference,
            container=spec.name,
            config=described["Config"],
            platform=f"{described['Os']}/{described['Architecture']}",
            labels={
                **image_labels(ready.catalog, image, epoch=lock.source_date_epoch, lock_hash=lock.lock_hash),
                **({labels.ENVIRONMENT: ready.additions} if own else {}),
            },
            environment={**image_environment(image), **(dict(own.declared.env) if own else {})},
            added=tuple(package.requirement for package in own.lock.packages) if own else (),
            own=editable.read(own.declared.folder) if own and own.declared.project else None,
            own_check=own.declared.check if own else "",
            no_project="" if engine.is_here else f"the project's folder is not on {engine.target}",
            held=held(ready.catalog, image),
            privileged={f"{row.path.removeprefix('/usr')} {row.mode}" for row in ready.catalog.privileged},
            scripts=scripts,
            asked=asked,
            no_gpu="" if asked else _no_gpu(ready, granted),
            shm_bytes=spec.shm_bytes,
            start_service=start,
        )


def check(
    subject: Subject, *, only: tuple[str, ...] = (), on_check: Callable[[Check, int], None] = lambda *_: None
) -> Report:
    """Run the checks, all or some, against a container that runs. Raises KeyboardInterrupt when interrupted."""
    from kit.verify.collector import Collector  # not for `kit verify --help`, which must not wait for pytest

    collector = Collector(subject, only, on_check)
    collector.run(_groups(has_check=bool(subject.own_check)))
    return Report(image=subject.name or subject.image.name, reference=subject.reference, checks=tuple(collector.checks))


def _groups(*, has_check: bool) -> tuple[str, ...]:
    return (*GROUPS, *([OWN_GROUP] if has_check else []))


def names(*, has_check: bool = False) -> list[str]:
    """The names of all checks; `has_check`: with the one of a project that has one."""
    from kit.verify.collector import Collector

    collector = Collector(None, ())
    collector.run(_groups(has_check=has_check), "--collect-only")
    return collector.names


def _project(ready: Ready) -> tuple[Mount, ...]:
    """The project's folder for its own check, where the engine has it."""
    if ready.environment is None or not _has_check(ready) or not ready.engine.is_here:
        return ()
    return (Mount(source=str(ready.environment.declared.folder), target=PROJECT, read_only=True),)


def _lay_out(folder: Path) -> Path:
    """A copy of the scripts that every user may read."""
    folder.chmod(0o755)
    scripts = folder / "scripts"
    scripts.mkdir()
    for file in Path(str(resources.files("kit.verify.suite"))).joinpath("inside").iterdir():
        if file.suffix in (".py", ".cu"):
            shutil.copyfile(file, scripts / file.name)
    (scripts / "driver.py").write_text(script(), encoding="utf-8")
    scripts.chmod(0o755)
    for file in scripts.iterdir():
        file.chmod(0o644)
    return scripts


def _user(engine: Engine) -> str:
    """The caller; for root the image's own user, since what root may do proves nothing about others.

    With a rootless engine it is root inside, whom nothing there lets do more than the caller outside may: what another
    user leaves behind the caller could not remove.
    """
    if engine.is_rootless:
        return user_inside(engine)
    caller = user_of(engine)
    return f"{layout.UID}:{layout.UID}" if caller.startswith("0:") else caller


def _no_gpu(ready: Ready, granted: GpuGrant) -> str:
    if not ready.image.is_gpu:
        return "no GPU: the image is built for the CPU"
    if ready.gpus.request and ready.gpus.request.is_none:
        return "no GPU: --gpus none"
    return f"no GPU: {granted.note.partition(':')[0] or 'none was given'}"
