"""What the checks share: the container as testinfra sees it, and the answers of the scripts that run inside."""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from kit import layout
from kit.engine import Engine
from kit.errors import KitError
from kit.spec.container import Mount
from kit.spec.request import Started
from kit.targets.docker import mount_value
from kit.verify.collector import FACT, SUBJECT
from kit.verify.report import SCRIPTS, Subject

__all__ = ["LOGS", "PYTHON", "SCRIPTS", "Answer", "Fact", "Host", "Inside", "require"]

PYTHON = f"{layout.VENV}/bin/python"
LOGS = "logs"
PATIENCE_S = 60 * 60


def require(holds: object, otherwise: str) -> None:
    """Fail the check with these words unless it holds. Never `assert`: an interpreter may leave that out."""
    if not holds:
        raise AssertionError(otherwise)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a script inside answered, part by part."""

    script: str
    parts: dict[str, Any]
    problem: str = ""  # why there are no parts: it crashed, or took too long
    log: str = ""  # what it printed beside the answer

    def value(self, part: str) -> Any:
        """One part; fails the check with the script's error, and skips it when the part cannot be asked here."""
        if self.problem:
            pytest.fail(f"{self.script}: {self.problem}", pytrace=False)
        entry = self.parts[part]
        if entry.get("absent"):
            pytest.skip(entry["absent"])
        if entry["error"]:
            pytest.fail(f"{entry['error']} ({entry['where']})", pytrace=False)
        return entry["value"]


class InContainer(BaseBackend):  # type: ignore[misc]  # testinfra has no types
    """How testinfra runs a command in a container: as kit does, so that every engine kit knows will do."""

    NAME = "kit"

    def __init__(self, container: str, engine: Engine) -> None:
        super().__init__(container)
        self.engine = engine

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        words = self.get_command(command, *args)
        # Whatever may take long has a limit of its own inside.
        done = self.engine.ask(["exec", self.hostname, "/bin/sh", "-c", words], timeout_s=PATIENCE_S)
        return self.result(done.returncode, self.encode(words), done.stdout, done.stderr)


Fact = Callable[[str], None]
Inside = Callable[..., Answer]


@pytest.fixture(scope="session")
def subject(pytestconfig: pytest.Config) -> Subject:
    """The container and what is promised of it."""
    found = pytestconfig.stash[SUBJECT]
    if found is None:
        raise RuntimeError("the names of the checks were asked for, without a container")
    return found


@pytest.fixture
def fact(record_property: Callable[[str, object], None]) -> Fact:
    """Says in a few words what a check found; shown when it passes."""
    return lambda text: record_property(FACT, text)


@pytest.fixture(scope="session")
def host(subject: Subject) -> Host:
    """The container, as the user it runs as."""
    return Host(InContainer(subject.container, subject.engine))


@pytest.fixture(scope="session")
def inside(host: Host) -> Inside:
    """Runs one of the scripts in the container and reads its answer."""

    def run(script: str, *arguments: str, timeout_s: int = 120) -> Answer:
        words = " ".join(["timeout --kill-after=5 %s %s %s", *("%s" for _ in arguments)])
        done = host.run(words, str(timeout_s), PYTHON, f"{SCRIPTS}/{script}", *arguments)
        return read_answer(script, done.rc, done.stdout, done.stderr, timeout_s)

    return run


def read_answer(script: str, code: int, stdout: str, stderr: str, timeout_s: int) -> Answer:
    """The answer in what a script printed: its last line."""
    last = (stderr.strip() or stdout.strip()).splitlines()[-1:]
    if code in (124, 137):
        return Answer(script=script, parts={}, problem=f"no answer after {timeout_s} s", log=stderr)
    if code != 0:
        problem = f"ended with exit code {code}" + (f": {last[0][:300]}" if last else "")
        return Answer(script=script, parts={}, problem=problem, log=stderr)
    return Answer(script=script, parts=json.loads(stdout.strip().splitlines()[-1]), log=stderr)


@pytest.fixture(scope="session")
def packages(inside: Inside) -> Answer:
    return inside("packages.py")


@pytest.fixture(scope="session")
def libraries(inside: Inside, subject: Subject) -> Answer:
    return inside("libraries.py", subject.image.framework)


@pytest.fixture(scope="session")
def model(inside: Inside, subject: Subject) -> Answer:
    # On a GPU that TensorFlow has no machine code for, the driver compiles every kernel first: minutes, once.
    return inside("training.py", subject.image.framework, LOGS, timeout_s=1800 if subject.asked else 300)


@pytest.fixture(scope="session")
def cells(inside: Inside) -> Answer:
    return inside("cells.py", timeout_s=200)


@pytest.fixture(scope="session")
def files(subject: Subject) -> Answer:
    """Of a container that nobody has used, and without its volumes: the image alone, read as root."""
    scripts = Mount(source=subject.scripts, target=SCRIPTS, read_only=True)
    try:
        printed = subject.engine.call(
            [
                "run",
                "--rm",
                "--pull=never",
                "--no-healthcheck",
                "--network=none",
                "--user=0",
                "--cap-drop=ALL",
                "--cap-add=DAC_READ_SEARCH",
                f"--mount={mount_value(scripts)}",
                f"--entrypoint={PYTHON}",
                subject.reference,
                f"{SCRIPTS}/files.py",
                layout.VENV,
            ]
        )
    except KitError as e:
        return Answer(script="files.py", parts={}, problem="; ".join((e.message, *e.details[-1:])))
    return read_answer("files.py", 0, printed, "", 120)


@pytest.fixture(scope="session")
def jupyter(subject: Subject) -> tuple[Started, str]:
    """A JupyterLab of the image that has answered, and its token."""
    return subject.start_service("jupyter")


@pytest.fixture(scope="session")
def tensorboard(subject: Subject, model: Answer) -> Started:
    """A TensorBoard of the image that has answered, after the framework has written a scalar."""
    model.value("scalar")
    return subject.start_service("tensorboard")[0]
