"""The image of a project's own environment: one more layer on an image of the catalog, of what kit.lock adds to that.

Its name has a hash of the image below and of all that the layer is made of, and nothing of the project's: where two
projects add the same, it is there for both.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from kit import labels, layout
from kit.catalog import Catalog, load_catalog
from kit.engine import Engine, connect
from kit.environment import format
from kit.environment.current import differences
from kit.environment.declared import FILE, Declared
from kit.errors import BadInputError, BuildFailedError, CheckFailedError, LockError, NoSuchImageError
from kit.frozen import dataclass
from kit.image.build.ensure import (
    BuildRequest,
    BuildsDone,
    ImageOptions,
    Reproduced,
    Transferred,
    choose_image,
    ensure_image,
    line_of,
    network_on,
    require_one_way,
    send,
)
from kit.image.build.inputs import STEP_SCRIPTS, Plan, fingerprints, hash_of, step_scripts
from kit.image.build.options import BuildOptions, Built, Progress

if TYPE_CHECKING:
    from kit.catalog.rows import Image
    from kit.environment.format import EnvironmentLock
    from kit.image.buildlog import Log, Step
    from kit.screen import Screen

LOCK_IT = "`kit lock` in the project's folder brings it up to date"
TEMPLATES = ("environment.Dockerfile.j2", "macros.j2")
SCRIPTS = (*STEP_SCRIPTS, "project.py", "guards.py", "system.sh")
SYSTEM_FILE = "system.txt"  # in the build's folder, where the step looks for it
HASH_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A project's own environment, which its kit.lock fits."""

    declared: Declared
    image: Image  # that it stands on
    lock: EnvironmentLock

    @property
    def name(self) -> str:
        return f"env-{self.image.name}"


@dataclass(frozen=True, kw_only=True)
class Parent:
    """The image below, as an engine has it."""

    reference: str = ""
    fingerprint: str  # what stands for all that is in it
    identity: str  # of the base that it stands on


def read_environment(catalog: Catalog, declared: Declared) -> Environment:
    """A project's environment as it is locked.

    Raises LockError when kit.lock is missing, cannot be read, or is not of what kit.toml asks for, and what reading the
    project's pyproject.toml raises.
    """
    lock = format.read(declared.folder)
    if lock is None:
        raise LockError(
            f"{declared.folder / format.LOCK_NAME} is missing: what {FILE} asks for is not locked",
            hint="`kit lock` in the project's folder writes it; commit it",
        )
    file = declared.folder / format.LOCK_NAME
    try:
        image = catalog.find(lock.image)
    except NoSuchImageError:
        raise LockError(f"{file} is of the image `{lock.image}`, which this kit does not have", hint=LOCK_IT) from None
    if found := differences(catalog, declared, lock):
        raise LockError(f"{file} is stale: {found[0]}", details=tuple(found[1:]), hint=LOCK_IT)
    for package in lock.packages:
        if package.index == format.BUILT:
            raise LockError(
                f"{file}: {package.name} {package.version} was built where the lock was made, and kit takes no such "
                "wheel along",
                hint="take a version that an index has a wheel of",
            )
        if package.index not in ("", image.release.index, *declared.indexes):
            raise LockError(
                f"{file} takes {package.name} from {package.index[:200]!a}, which {FILE} does not name", hint=LOCK_IT
            )
    return Environment(declared=declared, image=image, lock=lock)


def current(catalog: Catalog, environment: Environment, engine: Engine, options: BuildOptions) -> Built | None:
    """The environment's image as the engine has it, if kit made it there, on any state of the image below that is up to
    date (and on the base that was asked for). The image below itself need not be there any more.

    Quick, for `kit run`. Raises LockError when the files of the image below cannot be read.
    """
    for identity, mark in fingerprints(catalog, environment.image):
        source = "archive" if identity.startswith("archive:") else "registry"
        if options.base in ("auto", source) and _is_locked_on(catalog, environment, identity):
            built = _there(catalog, environment, Parent(fingerprint=mark, identity=identity), engine)
            if built:
                return built
    return None


def reference_of(catalog: Catalog, environment: Environment, engine: Engine) -> str:
    """The name of the environment's image in an engine: of the one that it has, else of the one that `kit build` would
    make on the image that is there; empty where neither is.
    """
    if built := current(catalog, environment, engine, BuildOptions()):
        return built.reference
    parent = _parent(engine, environment.image.reference)
    return _reference(environment, _fingerprint(catalog, environment, parent, engine)) if parent else ""


def ensure_environment(
    catalog: Catalog, environment: Environment, engine: Engine, options: ImageOptions, screen: Screen
) -> tuple[str, bool]:
    """See to it that the engine has the environment's image as kit.lock says: its reference, and whether it had to be
    built first. The image below is built or pulled before, as `ensure_image` does it.

    Raises what `ensure_image`, building and sending raise.
    """
    built = _ensure(catalog, environment, engine, options, screen)
    return built.reference, built.is_new


def build_environment(declared: Declared, request: BuildRequest, screen: Screen) -> BuildsDone:
    """What `kit build` does without a name, in a project with an environment.

    Raises what `read_environment`, `ensure_environment` and pushing raise, and CheckFailedError when two builds differ.
    """
    from kit.host import read_gpus
    from kit.image.build import images, transfer

    catalog = load_catalog()
    environment = read_environment(catalog, declared)
    host = read_gpus(request.target)
    choose_image(catalog, environment.image.name, host, screen, force=request.image.build.force)
    if request.image.transfer and (request.check_repro or request.push):
        raise BadInputError("--transfer sends an image and nothing else", hint="leave out --check-repro and --push")
    engine = connect(request.target)
    name = environment.name
    if request.check_repro:
        images.require_equal_digests(engine)
        parent = _bring_parent(catalog, environment, engine, request.image, screen)
        with screen.building(name) as progress:
            plan = _plan(catalog, environment, parent, engine, _on(engine, request.image.build), progress)
            first, second = (images.digest_of(engine, plan) for _ in range(2))
        if first != second:
            raise CheckFailedError(f"two builds of {name} differ", details=(first, second))
        screen.say(f"{name}: two builds, one digest: {first}")
        return BuildsDone(results=(Reproduced(image=name, digests=(first, second), equal=True),), count=1, failed=0)
    built = _ensure(catalog, environment, engine, request.image, screen)
    if not built.is_new:
        screen.say(f"{name}: up to date")
    if request.image.transfer:
        return BuildsDone(results=(Transferred(image=name, is_new=built.is_new),), count=1, failed=0)
    if request.push:
        with screen.building(name) as progress:
            transfer.push_image(engine, built, request.push, progress)
    return BuildsDone(results=(built,), count=1, failed=0)


def _ensure(catalog: Catalog, environment: Environment, engine: Engine, options: ImageOptions, screen: Screen) -> Built:
    from kit.image.build import images

    require_one_way(engine, options)
    wanted = options.build
    is_new = wanted.force or wanted.no_cache
    if not is_new and not options.pull and (there := current(catalog, environment, engine, wanted)):
        return there
    builder = connect() if options.transfer else engine
    images.require_builder(builder)
    parent = _bring_parent(catalog, environment, builder, options, screen)
    there = None if is_new else _there(catalog, environment, parent, builder)
    if there and not options.transfer:
        return there
    with screen.building(environment.name) as progress:
        if there is None:
            plan = _plan(catalog, environment, parent, builder, _on(builder, wanted), progress)
            progress.message(f"{environment.name}: {_additions(environment)} on {environment.image.name}")
            there = _make(catalog, plan, builder, screen)
            progress.message(line_of(there))
        if options.transfer:
            send(there, builder, engine, progress, screen)
    return replace(there, is_new=True)


def _on(engine: Engine, options: BuildOptions) -> BuildOptions:
    return replace(options, network=network_on(options.network, engine))


def _additions(environment: Environment) -> str:
    """What the layer adds, in a few words."""
    packages = environment.lock.packages
    if 0 < len(packages) <= 3:
        return ", ".join(f"{package.name} {package.version}" for package in packages)
    return f"{len(packages)} packages" if packages else "what kit.toml declares"


def _bring_parent(
    catalog: Catalog, environment: Environment, engine: Engine, options: ImageOptions, screen: Screen
) -> Parent:
    """The image below, in that engine: up to date is enough, however the layer is asked for."""
    build = replace(options.build, force=False, no_cache=False)
    reference, _ = ensure_image(
        catalog, environment.image, engine, replace(options, build=build, transfer=False), screen
    )
    parent = _parent(engine, reference)
    assert parent is not None, reference
    return parent


def _parent(engine: Engine, reference: str) -> Parent | None:
    """What an engine has under that name. Of one that kit has not made there, labels say nothing sure: its content
    stands for itself.
    """
    there = engine.image_labels(reference)
    if there is None:
        return None
    made = engine.made_labels(reference) or {}
    return Parent(
        reference=reference,
        fingerprint=made.get(labels.FINGERPRINT, "") or engine.image_id(reference),
        identity=there.get(labels.BASE_IDENTITY, ""),
    )


def _there(catalog: Catalog, environment: Environment, parent: Parent, engine: Engine) -> Built | None:
    """The environment's image on that parent, if the engine has it and kit made it."""
    mark = _fingerprint(catalog, environment, parent, engine)
    reference = _reference(environment, mark)
    made = engine.made_labels(reference) or {}
    if made.get(labels.FINGERPRINT) != mark:
        return None
    return Built(
        image=environment.name,
        reference=reference,
        base=environment.image.reference,
        fingerprint=mark,
        is_new=False,
        seconds=0.0,
    )


def _reference(environment: Environment, mark: str) -> str:
    return f"kit/{environment.name}:{mark[:HASH_DIGITS]}"


def _fingerprint(catalog: Catalog, environment: Environment, parent: Parent, engine: Engine) -> str:
    """A hash of all that decides what is in the environment's image. Not of its Dockerfile's text, which takes longer
    to make than all else here, but of what that is made of.
    """
    system = _system(catalog, environment, parent.identity, engine)
    values, requirements = _values(catalog, environment, system)
    made_of = json.dumps(values, sort_keys=True)
    return hash_of(step_scripts((*TEMPLATES, *SCRIPTS)), made_of, requirements, parent.fingerprint)


def _system(catalog: Catalog, environment: Environment, identity: str, engine: Engine) -> str:
    """The list of the step that installs packages of the distribution on such a base; empty where there is none.

    Raises LockError when kit.lock has none for that release.
    """
    if not environment.declared.system:
        return ""
    from kit.environment.system import layer_for, step_list, suite_of

    suite = suite_of(catalog, identity)
    found = {layer.architecture for layer in environment.lock.system if layer.suite == suite}
    # The step itself sees to it that they are the image's.
    architecture = found.pop() if len(found) == 1 else _architecture(catalog, engine)
    layer = layer_for(environment.lock, suite, architecture)
    return step_list(catalog, layer) if layer.packages else ""


def _is_locked_on(catalog: Catalog, environment: Environment, identity: str) -> bool:
    """Whether kit.lock has what it needs for a base, which only packages of the distribution are different for."""
    if not environment.declared.system:
        return True
    from kit.environment.system import suite_of

    return suite_of(catalog, identity) in {layer.suite for layer in environment.lock.system}


def _architecture(catalog: Catalog, engine: Engine) -> str:
    """What images of the engine's machine are for, in dpkg's and docker's word."""
    machine = engine.connection.run("uname -m").stdout.strip() if engine.connection else os.uname().machine
    names = {row.machine: row.name.partition("/")[2] for row in catalog.platforms}
    return names.get(machine, machine)


def _values(catalog: Catalog, environment: Environment, system: str) -> tuple[dict[str, Any], str]:
    """What the template of the Dockerfile gets but for the name of the image below, and the text of the lock, by
    sections; `system`: the list of the step for packages of the distribution.
    """
    declared, lock = environment.declared, environment.lock
    project = None
    if declared.project:
        from kit.environment.editable import read

        project = asdict(read(declared.folder))
    sections = dict(_sections(environment))
    last = next(reversed(sections), "")
    steps: list[dict[str, Any]] = [
        {
            "section": section,
            "index": index and f" {shlex.quote(index)} {' '.join(names)}",
            "is_framework_index": index in ("", environment.image.release.index),
            "scripts": ["guards.py"] if section == last else [],
        }
        for section, (index, names, _) in sections.items()
    ]
    if project:
        steps = steps or [{"section": "", "index": "", "is_framework_index": True, "scripts": []}]
        steps[-1]["scripts"] = [*steps[-1]["scripts"], "project.py"]
    values = {
        "image": environment.image.name,
        "uv": catalog.uv_version,
        "epoch": lock.source_date_epoch,
        "system": hash_of(system) if system else "",
        "sections": list(sections),
        "steps": steps,
        "project": _encoded(json.dumps(project, sort_keys=True)) if project else "",
        "environment": [[name, _quoted(value)] for name, value in declared.env],
        # What needs the project's own code has it in a container alone: `kit verify` checks that.
        "check": "" if declared.project else _encoded(declared.check),
        "label": labels.ENVIRONMENT,
        "label_value": lock.content_hash,
        "venv": layout.VENV,
        "uid": layout.UID,
        "home": layout.HOME,
        "cjk_font": layout.CJK_FONT,
    }
    return values, "".join(f"# layer: {section}\n{text}" for section, (_, _, text) in sections.items())


def _sections(environment: Environment) -> Iterator[tuple[str, tuple[str, list[str], str]]]:
    """The packages in the order they are installed, those of one index together: the name of each section, its index
    and the names of what is from there, and its text. What is from PyPI is installed with what is from the first.
    """
    by_index: dict[str, list[format.Package]] = {}
    for package in environment.lock.packages:
        by_index.setdefault(package.index, []).append(package)
    from_pypi = by_index.pop("", [])
    groups = sorted(by_index.items()) or ([("", [])] if from_pypi else [])
    for number, (index, packages) in enumerate(groups):
        rest, from_pypi = from_pypi, []
        text = "".join(package.requirement.text() for package in (*rest, *packages))
        section = "project" if number == 0 else f"project{number + 1}"
        yield section, (index, [package.name for package in packages], text)


def _encoded(text: str) -> str:
    """A text in which neither a Dockerfile nor a shell sees anything but itself."""
    return base64.b64encode(text.encode()).decode()


def _quoted(value: str) -> str:
    """A value between double quotes in a Dockerfile."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")


def _plan(
    catalog: Catalog,
    environment: Environment,
    parent: Parent,
    engine: Engine,
    options: BuildOptions,
    progress: Progress,
) -> Plan:
    mark = _fingerprint(catalog, environment, parent, engine)
    system = _system(catalog, environment, parent.identity, engine)
    values, requirements = _values(catalog, environment, system)
    return Plan(
        name=environment.name,
        reference=_reference(environment, mark),
        dockerfile=render(values, parent.reference, guards=_guards(catalog, environment)),
        requirements=requirements,
        layers={section: text for section, (_, _, text) in _sections(environment)},
        files={SYSTEM_FILE: system} if system else {},
        netrc=_logins(environment),
        scripts=SCRIPTS,
        uv=catalog.uv_version,
        source_date_epoch=environment.lock.source_date_epoch,
        base=parent.reference,
        is_local=True,
        fingerprint=mark,
        labels={},
        options=options,
        progress=progress,
    )


def _logins(environment: Environment) -> str:
    """What the user's ~/.netrc has for the indexes that packages are from, and for no other machine."""
    import netrc
    from urllib.parse import urlsplit

    hosts = sorted({urlsplit(p.index).hostname or "" for p in environment.lock.packages if p.index})
    if not hosts:
        return ""
    try:
        # As uv finds it when it solves.
        found = netrc.netrc(os.environ.get("NETRC") or os.path.expanduser("~/.netrc"))  # noqa: PTH111
    except (OSError, netrc.NetrcParseError):
        return ""
    logins = {host: found.hosts[host] for host in hosts if host in found.hosts}
    return "".join(f"machine {host} login {login[0]} password {login[2]}\n" for host, login in logins.items())


def _guards(catalog: Catalog, environment: Environment) -> str:
    """The arguments of templates/guards.py. They are no part of what is in the image, and take long to make."""
    from kit.environment.guards import arguments

    return " ".join(map(shlex.quote, arguments(catalog, environment.lock))) if environment.lock.packages else ""


def _make(catalog: Catalog, plan: Plan, engine: Engine, screen: Screen) -> Built:
    """Build what is planned, and say what guards warn of. Raises BuildFailedError with their sentences when they stop
    it, and what `images.make` raises.
    """
    from kit.environment.guards import sentences_of
    from kit.image.build import images

    lines: list[str] = []

    def look(log: Log, finished: list[Step]) -> None:
        lines.extend(line for step in finished for line in step.lines)
        plan.progress.log(log, finished)

    progress = Progress(message=plan.progress.message, log=look)
    try:
        built = images.make(engine, replace(plan, progress=progress), time.monotonic())
    except BuildFailedError as e:
        found = [finding for finding in sentences_of(catalog, [*lines, *e.details]) if finding.stops]
        if not found:
            raise
        raise BuildFailedError(
            f"{plan.name}: {found[0].message}",
            hint=found[0].hint,
            details=tuple(finding.message for finding in found[1:]),
        ) from None
    for finding in sentences_of(catalog, lines):
        screen.say(f"warning: {finding.message}; {finding.hint}")
    return built


def render(values: Mapping[str, Any], parent: str, *, guards: str = "") -> str:
    """The Dockerfile of an environment on the image of that name; `guards`: the arguments of their program."""
    from kit import templates

    return templates.environment().get_template(TEMPLATES[0]).render(parent=parent, guards=guards, **values)
