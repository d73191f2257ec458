"""What uv is asked, and what is made of its answer; the only code that runs it for a lock."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from kit import files, process
from kit.catalog import Catalog
from kit.catalog.rows import Image, Wheel, WheelMetadata
from kit.errors import CommandError, KitError, LockError, NetworkError
from kit.frozen import dataclass
from kit.locks.format import REQUIREMENTS_FILE, Requirement, parse_requirements
from kit.locks.uv import uv_program
from kit.network import FRAMEWORK_INDEX, NetworkSettings, read_settings

# uv knows no `--python-platform` for a newer glibc; a wheel that needs one would be reported here as missing.
_UV_NEWEST_GLIBC = 40
# What uv writes when an index does not answer, refuses to, or breaks off in a file.
_NO_ANSWER = re.compile(
    r"failed to (?:fetch|download)|dns error|timed out|error sending request|could not connect|invalid package format"
    r"|connection (?:refused|reset|closed|aborted)|valid authentication credentials|\b403 Forbidden"
    r"|network was disabled",
    re.IGNORECASE,
)
_SETTINGS = "uv.toml"
_PATIENCE_S = 900.0
# uv wants an interpreter of its own even for another version's packages; without a name it looks for that version.
_INTERPRETER = ("--python", sys.executable, "--no-python-downloads")


def compile_requirements(
    catalog: Catalog,
    image: Image,
    requirements: tuple[str, ...],
    present: str,
    more_constraints: tuple[str, ...] = (),
    wheels: tuple[Wheel, ...] = (),
) -> list[Requirement]:
    """uv's solution of the requirements for an image, within what the catalog holds that to.

    For `present` and `wheels` see `solution`. Raises LockError when nothing fits, NetworkError when an index does not
    answer, MissingProgramError when uv is of another version.
    """
    constraints = catalog.constraints_for(image) + more_constraints
    try:
        return solution(catalog, image, requirements, present, constraints=constraints, wheels=wheels)
    except CommandError as e:
        raise _solve_error(image, e) from None


def solution(
    catalog: Catalog,
    image: Image,
    requirements: tuple[str, ...],
    present: str,
    *,
    constraints: tuple[str, ...],
    wheels: tuple[Wheel, ...] = (),
    elsewhere: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    network: NetworkSettings | None = None,
    timeout_s: float = _PATIENCE_S,
) -> list[Requirement]:
    """uv's solution of the requirements for each Python and machine of an image.

    Entries of the text `present` keep their versions where they fit. With `wheels`, these are what the release's own
    index has, and it is not asked. `elsewhere` has other indexes, each with the packages that are from there and from
    nowhere else. Raises CommandError with what uv says when nothing fits or an index does not answer
    (`is_unreachable`), MissingProgramError when uv is of another version.
    """
    pythons = catalog.pythons_for(image)
    machines = catalog.machines_for(image)
    inputs = {
        "constraints.txt": _lines(constraints),
        "overrides.txt": _lines(image.release.overrides),
        # uv takes the versions of an output file that is already there as its preferences.
        "solved.txt": present,
    }
    arguments = ["pyproject.toml", "--universal", "--python-version", pythons[0], "--generate-hashes"]
    arguments += ["--constraint", "constraints.txt", "--override", "overrides.txt", "--output-file", "solved.txt"]
    arguments += ["--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"]
    uv = uv_program(catalog.uv_version)
    network = network or read_settings()
    with files.scratch("lock") as folder:
        own = _index(catalog, image, wheels, folder, network)
        indexes = {**({own: image.release.index_packages} if own else {}), **elsewhere}
        inputs["pyproject.toml"] = _pyproject(indexes, requirements, pythons, machines)
        _run(uv, "compile", arguments, inputs, folder, network, timeout_s)
        text = (folder / "solved.txt").read_text(encoding="utf-8")
    environments = marker_environments(pythons, machines)
    entries = [for_these(entry, environments) for entry in parse_requirements(text, f"uv's answer for {image.name}")]
    return [entry for entry in entries if entry is not None]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A Python and a platform that packages are for."""

    python: str
    glibc: str
    machine: str

    @property
    def arguments(self) -> list[str]:
        """As uv takes them."""
        platform = f"{self.machine}-manylinux_2_{min(int(self.glibc.split('.')[1]), _UV_NEWEST_GLIBC)}"
        return ["--python-version", self.python, "--python-platform", platform]


def newest(
    uv: Path,
    catalog: Catalog,
    image: Image,
    package: str,
    target: Target,
    *,
    pins: tuple[str, ...] = (),
    limits: tuple[str, ...] = (),
    present: str = "",
) -> str:
    """The version of a package that uv takes beside these pins and within these limits; empty when nothing fits.

    Versions of the text `present` stay where they fit. Raises NetworkError when an index does not answer.
    """
    inputs = {
        "wanted.txt": _lines((package, *pins)),
        "limits.txt": _lines(limits),
        "overrides.txt": _lines(image.release.overrides if pins else ()),
        "solved.txt": present,
    }
    arguments = ["wanted.txt", "--constraint", "limits.txt", "--override", "overrides.txt"]
    arguments += ["--output-file", "solved.txt", *target.arguments]
    arguments += ["--no-annotate", "--no-header"]
    network = read_settings()
    with files.scratch("popular") as folder:
        arguments += _index_arguments(_index(catalog, image, catalog.wheels_for(image.release), folder, network))
        try:
            _run(uv, "compile", arguments, inputs, folder, network)
        except CommandError as e:
            error = _solve_error(image, e)
            if isinstance(error, NetworkError):
                raise error from None
            return ""
        found = re.search(rf"(?m)^{re.escape(package)}==(\S+)", (folder / "solved.txt").read_text(encoding="utf-8"))
    return found[1] if found else ""


def addresses(
    catalog: Catalog, image: Image, requirements: str, indexes: tuple[str, ...], network: NetworkSettings
) -> str:
    """A pylock.toml (PEP 751) of packages that are all pinned: uv's, with the address of each wheel.

    Beside PyPI and the release's own index these `indexes` are asked. Raises NetworkError when an index does not
    answer, LockError when a package is not there.
    """
    arguments = ["wanted.txt", "--no-deps", "--universal", "--python-version", catalog.pythons_for(image)[0]]
    arguments += ["--format", "pylock.toml", "--output-file", "pylock.toml", "--no-annotate", "--no-header"]
    # Of several indexes any may have the one release that a pin names; the caller compares its hashes.
    arguments += ["--index-strategy", "unsafe-best-match"]
    uv = uv_program(catalog.uv_version)
    with files.scratch("export") as folder:
        for index in (_index(catalog, image, (), folder, network), *indexes):
            arguments += _index_arguments(index)
        try:
            _run(uv, "compile", arguments, {"wanted.txt": requirements}, folder, network)
        except CommandError as e:
            raise _solve_error(image, e) from None
        return (folder / "pylock.toml").read_text(encoding="utf-8")


def newest_alone(uv: Path, wanted: Iterable[str], target: Target, network: NetworkSettings) -> dict[str, str]:
    """The version of each package that uv takes for a Python and a platform, whatever it needs and beside nothing else.

    Empty when one of them is not to be had, or the index does not answer: it is for what is said beside an answer.
    """
    arguments = ["wanted.txt", "--no-deps", "--output-file", "solved.txt", *target.arguments]
    arguments += ["--no-annotate", "--no-header"]
    with files.scratch("lock") as folder:
        try:
            _run(uv, "compile", arguments, {"wanted.txt": _lines(wanted)}, folder, network)
        except CommandError:
            return {}
        text = (folder / "solved.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"(?m)^([a-z0-9-]+)(?:\[[^\]]*\])?==([^\s;]+)", text))


def _index(catalog: Catalog, image: Image, wheels: tuple[Wheel, ...], folder: Path, network: NetworkSettings) -> str:
    """The address of the release's own index; with `wheels`, of one in the folder that lists these alone.

    uv then takes their hashes from there and what they ask for from its settings, and opens none of them.
    """
    if not wheels:
        return network.framework_index or image.release.index
    described = {(wheel.package, wheel.version) for wheel in wheels}
    rows = [row for row in catalog.wheel_metadata if (row.package, row.version) in described]
    (folder / _SETTINGS).write_text("".join(map(_static_metadata, rows)), encoding="utf-8")
    # No address that could be fetched: should uv ever want to open one, the solve ends. (Of a page that lists the
    # wheels of all packages at once, uv takes no hashes.)
    links: dict[str, str] = {}
    for w in wheels:
        link = f'<a href="https://wheels.invalid/{w.file}#sha256={w.sha256}">{w.file}</a>\n'
        links[w.package] = links.get(w.package, "") + link
    for package, text in links.items():
        page = folder / "index" / package / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text(f"<!DOCTYPE html><html><body>\n{text}</body></html>\n", encoding="utf-8")
    return (folder / "index").as_uri()


def _index_arguments(index: str) -> list[str]:
    return ["--find-links" if index.endswith(".html") else "--index", index] if index else []


def _static_metadata(row: WheelMetadata) -> str:
    values = {"name": row.package, "version": row.version, "requires-dist": list(row.requires)}
    return "[[dependency-metadata]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _run(
    uv: Path,
    command: str,
    arguments: list[str],
    files: Mapping[str, str],
    folder: Path,
    network: NetworkSettings,
    timeout_s: float = _PATIENCE_S,
) -> None:
    """Run `uv pip COMMAND` for wheels alone in a folder with these files. Raises CommandError."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    # With settings of kit's own uv reads no others, as with none.
    settings = ["--config-file", _SETTINGS] if (folder / _SETTINGS).exists() else ["--no-config"]
    always = [*settings, "pip", command, *_INTERPRETER, "--quiet", "--only-binary", ":all:"]
    process.run([*_clean_environment(network), str(uv), *always, *arguments], cwd=folder, timeout_s=timeout_s)


def for_these(entry: Requirement, environments: list[dict[str, str]]) -> Requirement | None:
    """The entry with the shortest marker that says the same in these environments; None when it is for none of them."""
    if not entry.marker:
        return entry
    wanted = evaluate(entry.marker, environments)
    if not any(wanted):
        return None
    if all(wanted):
        return dataclasses.replace(entry, marker="")
    # uv repeats the environment a requirement was solved for in every marker (`… and sys_platform == 'linux'`).
    clauses = entry.marker.split(" and ")
    if "(" not in entry.marker and " or " not in entry.marker:
        for clause in list(clauses):
            fewer = [c for c in clauses if c != clause]
            if fewer and evaluate(" and ".join(fewer), environments) == wanted:
                clauses = fewer
    return dataclasses.replace(entry, marker=" and ".join(clauses))


def evaluate(marker: str, environments: list[dict[str, str]]) -> list[bool]:
    """In which of these environments a marker holds; an empty one does in all."""
    from packaging.markers import Marker

    if not marker:
        return [True] * len(environments)
    parsed = Marker(marker)
    return [parsed.evaluate(environment) for environment in environments]


def targets(catalog: Catalog, image: Image) -> list[Target]:
    """Every base that an image can stand on, on each of its machines."""
    base = catalog.base_for(image)
    bases = {(base.python, base.glibc), *((suite.python, suite.glibc) for suite in catalog.suites_for(image))}
    return [
        Target(python=python, glibc=glibc, machine=machine)
        for (python, glibc), machine in itertools.product(sorted(bases), catalog.machines_for(image))
    ]


def require_wheels(catalog: Catalog, image: Image, requirements: str, wheels: tuple[Wheel, ...] = ()) -> None:
    """Ask uv whether every base the image can stand on finds a wheel for every entry.

    A universal solution promises versions that fit together, not that each has a wheel for each Python and glibc.
    `wheels`: as for compile_requirements.
    """
    uv, network = uv_program(catalog.uv_version), read_settings()
    for target in targets(catalog, image):
        with files.scratch("lock") as folder:
            index = _index_arguments(_index(catalog, image, wheels, folder, network))
            try:
                _find_wheels(uv, target, requirements, index, folder, network)
            except CommandError as e:
                error = _solve_error(image, e)
                error.message += f" (wheels for Python {target.python}, {target.arguments[-1]})"
                raise error from None


def find_wheels(uv: Path, target: Target, requirements: str, *, index: str, network: NetworkSettings) -> None:
    """Ask uv whether an index (empty: the usual one) has a wheel of every entry for a Python and a platform.

    Raises CommandError with what uv says when it has not, or does not answer.
    """
    arguments = ["--default-index", index] if index else []
    with files.scratch("lock") as folder:
        _find_wheels(uv, target, requirements, arguments, folder, network)


def _find_wheels(
    uv: Path, target: Target, requirements: str, index: list[str], folder: Path, network: NetworkSettings
) -> None:
    arguments = ["--requirements", REQUIREMENTS_FILE, "--require-hashes", "--no-deps", "--dry-run"]
    arguments += ["--target", "target", *target.arguments, *index]
    _run(uv, "install", arguments, {REQUIREMENTS_FILE: requirements}, folder, network)


def is_unreachable(error: CommandError) -> bool:
    """Whether uv ended because an index does not answer."""
    return _NO_ANSWER.search(error.stderr) is not None


def _solve_error(image: Image, error: CommandError) -> KitError:
    last = error.details
    if is_unreachable(error):
        hint = "set UV_DEFAULT_INDEX to a PyPI mirror that can be reached from here"
        if image.release.index:
            hint = (
                f"run it where {image.release.index} can be reached, set {FRAMEWORK_INDEX} to a mirror of it, or {hint}"
            )
        return NetworkError(
            f"the package index does not answer, so `{image.name}` cannot be locked", details=last, hint=hint
        )
    return LockError(
        f"no set of packages fits the rows of `{image.name}`",
        details=last,
        hint="loosen a requirement or add a constraint in kit/catalog; nothing was written",
    )


def marker_environments(pythons: Iterable[str], machines: Iterable[str]) -> list[dict[str, str]]:
    """The environments a lock must serve, as markers see them: each Python at its first and at a late patch release."""
    return [
        {
            "python_version": python,
            "python_full_version": f"{python}.{patch}",
            "implementation_name": "cpython",
            "implementation_version": f"{python}.{patch}",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": machine,
            "platform_release": "",
            "platform_version": "",
            "extra": "",
        }
        for python, patch, machine in itertools.product(pythons, ("0", "99"), machines)
    ]


def _pyproject(
    indexes: Mapping[str, tuple[str, ...]], requirements: tuple[str, ...], pythons: list[str], machines: list[str]
) -> str:
    lines = ["[project]", 'name = "kit-lock"', 'version = "0"', f'requires-python = ">={pythons[0]}"']
    lines += ["dependencies = ["]
    lines += [f"  {json.dumps(_for_environments(r, pythons, machines))}," for r in requirements]
    lines += ["]"]
    for number, index in enumerate(indexes):
        # `explicit`: nothing but the packages named may come from this index, whatever else it carries.
        lines += ["[[tool.uv.index]]", f'name = "index-{number}"', f"url = {json.dumps(index)}", "explicit = true"]
        lines += ['format = "flat"'] if index.endswith(".html") else []
    lines += ["[tool.uv.sources]"]
    lines += [f'{p} = {{ index = "index-{number}" }}' for number, of in enumerate(indexes.values()) for p in of]
    return "\n".join(lines) + "\n"


def _for_environments(requirement: str, pythons: list[str], machines: list[str]) -> str:
    """The requirement for Linux on the image's machines, up to its highest Python.

    What hangs on it inherits the marker, so nothing is solved that could never be installed. (uv's `environments`
    setting would do the same, but uv reads it together with the user's own configuration, which must have no say.)
    """
    head, _, own = requirement.partition(" ; ")
    major, minor = pythons[-1].split(".")
    machine = " or ".join(f"platform_machine == '{m}'" for m in machines)
    marker = f"sys_platform == 'linux' and ({machine}) and python_full_version < '{major}.{int(minor) + 1}'"
    return f"{head} ; {marker}" + (f" and ({own})" if own else "")


def _clean_environment(network: NetworkSettings) -> list[str]:
    """`env` without the UV_ variables that would change what is solved; those that say how to reach PyPI stay.

    Beside them what this machine is set to: uv by itself reads neither pip's index nor the system's certificates.
    """
    stay = {
        "UV_DEFAULT_INDEX",
        "UV_INDEX_URL",
        "UV_INSECURE_HOST",
        "UV_NATIVE_TLS",
        "UV_SYSTEM_CERTS",
        "UV_HTTP_TIMEOUT",
        "UV_HTTP_RETRIES",
        "UV_CACHE_DIR",
        "UV_CONCURRENT_DOWNLOADS",
        "UV_OFFLINE",
    }
    drop = sorted(name for name in os.environ if name.startswith("UV_") and name not in stay)
    add = [f"UV_DEFAULT_INDEX={network.index_url}"] if network.index_url else []
    if network.ca_file:
        add.append(f"SSL_CERT_FILE={network.ca_file}")
    return ["env", *itertools.chain.from_iterable(("-u", name) for name in drop), *add]


def _lines(items: Iterable[str]) -> str:
    return "".join(f"{item}\n" for item in items)
