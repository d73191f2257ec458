"""Reads the progress of a build, BuildKit's (`--progress=rawjson`) or Podman's: which step runs, which failed, and what
it said last. Pure.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

KEPT_LINES = 40
# templates/environment.Dockerfile.j2 has it so, whatever is in it.
_CHECK = re.compile(r"KIT_CHECK=([A-Za-z0-9+/=]+)")
_HASH = re.compile(r"\s*sha256:[0-9a-f]{64}\s*")
EXPORT = "exporting to image"
# What podman build prints about itself, between what its steps print.
_STEP = re.compile(r"(?:\[(?P<stage>\d+/\d+)\] )?STEP (?P<number>\d+/\d+): (?P<command>.*)")
_COMMIT = re.compile(r"(?:\[\d+/\d+\] )?COMMIT(?: \S+)?")
# A step's output may end without a newline, in front of this.
_DONE = re.compile(r"(?P<output>.*?)--> (?P<cached>Using cache )?[0-9a-f]{11,64}")
_LOG = re.compile(r'time="[^"]*" level=')
_ERROR = "Error: "
_ERROR_OF_STEP = re.compile(r'Error: (?:error )?building at STEP ".*": (?P<cause>.*)')


@dataclass(kw_only=True)
class Step:
    """One step of a build (BuildKit: a vertex)."""

    name: str
    started: datetime | None = None
    completed: datetime | None = None
    cached: bool = False
    error: str = ""
    bytes: dict[str, int] = field(default_factory=dict)  # that it has moved, of each thing it moves
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    def keep(self, line: str) -> None:
        """Take a line of its output. Of hashes one below the other, all those of a package, the last one is enough."""
        if self.lines and _HASH.fullmatch(line) and _HASH.fullmatch(self.lines[-1]):
            self.lines.pop()
        self.lines.append(line)

    @property
    def title(self) -> str:
        return step_title(self.name)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds the step took; 0 while it is not finished."""
        return (self.completed - self.started).total_seconds() if self.started and self.completed else 0.0

    @property
    def is_internal(self) -> bool:
        return self.name.startswith("[internal]")


class Log(ABC):
    """The steps of one build, in order of appearance, and the last lines that are no step's."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        self.other: deque[str] = deque(maxlen=KEPT_LINES)

    @abstractmethod
    def feed(self, line: str) -> list[Step]:
        """Take one line; returns the steps that it finished."""

    @property
    @abstractmethod
    def failed(self) -> Step | None:
        """The step that ended the build."""

    @property
    def moved(self) -> int:
        """The bytes that the running steps have moved so far, of images they pull or write, where the builder says."""
        return sum(sum(step.bytes.values()) for step in self.running)

    @property
    def running(self) -> list[Step]:
        return [s for s in self.steps.values() if s.started and not s.completed and not s.is_internal]


class BuildLog(Log):
    """BuildKit's log; `feed` it every line buildx prints."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: list[str] = []  # of a record that older ones (Debian 13 has 0.13) indent, over several lines

    def feed(self, line: str) -> list[Step]:
        """Take one line; returns the steps that it finished."""
        if line == "{" or (self._begun and line[:1] in (" ", "}")):
            self._begun.append(line)
            if line != "}":
                return []
            line = "".join(self._begun)
            self._begun = []
        elif self._begun:
            self.other.extend(self._begun)
            self._begun = []
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            if line.strip():
                self.other.append(line)
            return []
        finished = [step for raw in _rows(record, "vertexes") if (step := self._vertex(raw))]
        for raw in _rows(record, "statuses"):
            step = self.steps.get(str(raw.get("vertex")))
            if step and type(raw.get("current")) is int and type(raw.get("total")) is int and raw["total"] > 0:
                step.bytes[str(raw.get("id"))] = max(raw["current"], 0)
        for raw in _rows(record, "logs"):
            step = self.steps.get(str(raw.get("vertex")))
            if step:
                for text in _decode(str(raw.get("data", ""))).splitlines():
                    step.keep(text)
        return finished

    def _vertex(self, raw: dict[str, Any]) -> Step | None:
        if not isinstance(raw.get("digest"), str):
            return None
        step = self.steps.setdefault(raw["digest"], Step(name=str(raw.get("name", ""))))
        was_completed = step.completed is not None
        step.started = _time(raw.get("started")) or step.started
        step.completed = _time(raw.get("completed")) or step.completed
        step.cached = bool(raw.get("cached")) or step.cached
        step.error = str(raw.get("error") or step.error)
        return step if step.completed and not was_completed else None

    @property
    def failed(self) -> Step | None:
        """The step that failed; one that was only cancelled because another failed does not count."""
        errors = [s for s in self.steps.values() if s.error]
        return next((s for s in errors if "context canceled" not in s.error), errors[0] if errors else None)


def _now() -> datetime:
    return datetime.now(timezone.utc)


class PodmanLog(Log):
    """Podman's log; `feed` it every line `podman build` prints. It tells no times: they are those of the lines."""

    def __init__(self, clock: Callable[[], datetime] = _now) -> None:
        super().__init__()
        self._clock = clock
        self._current: Step | None = None
        self._error = ""  # the last line, if it may be the one that ends the build; a step prints such lines too

    def feed(self, line: str) -> list[Step]:
        if self._error:
            self._keep(self._error)
            self._error = ""
        if match := _STEP.fullmatch(line):
            number = " ".join(filter(None, (match["stage"], match["number"])))
            return self._start(f"[{number}] {match['command']}")
        if _COMMIT.fullmatch(line):
            return self._start(EXPORT)
        if match := _DONE.fullmatch(line):
            if match["output"]:
                self._keep(match["output"])
            if match["cached"]:
                if self._current:
                    self._current.cached = True
                return []
            return self._end()
        if self._current and line.startswith(_ERROR):
            self._error = line
        elif _LOG.match(line):
            self.other.append(line)
        else:
            self._keep(line)
        return []

    def _start(self, name: str) -> list[Step]:
        finished = self._end()
        self._current = self.steps.setdefault(name, Step(name=name, started=self._clock()))
        return finished

    def _end(self) -> list[Step]:
        if self._current is None:
            return []
        step, self._current = self._current, None
        step.completed = self._clock()
        return [step]

    def _keep(self, line: str) -> None:
        if self._current:
            self._current.keep(line)
        elif line.strip():
            self.other.append(line)

    @property
    def failed(self) -> Step | None:
        """The step at which the build ended; None when it ended at none, or was killed."""
        if self._current and self._error:
            found = _ERROR_OF_STEP.fullmatch(self._error)
            self._current.error = found["cause"] if found else self._error.removeprefix(_ERROR)
            return self._current
        return None


def checked(command: str) -> str:
    """The check of a project that a step is, in one line; empty for any other step."""
    found = _CHECK.search(command)
    return " ".join(_decode(found[1]).split()) if found else ""


def step_title(name: str) -> str:
    """A step's name for people: what it does, without its mounts."""
    prefix, _, command = name.partition("RUN ")
    if not command:
        return name
    if check := checked(command):
        action = f"check: {check}"
    elif layer := re.search(r"install_layer (\w+)", command):
        action = f"install the {layer[1]} wheels"
    elif "apt-get install" in command:
        action = "install system packages"
    elif "useradd" in command:
        action = "add the user"
    elif "uv venv" in command:
        action = "make the virtual environment"
    elif "/run/kit/project.py" in command:
        action = "install the project itself"
    else:
        action = re.sub(r"--mount=\S+\s*", "", command)[:80]
    return f"{prefix}{action}"


def _rows(record: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects in a list of a record; a program that prints other JSON must not end the build."""
    rows = record.get(key)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _time(text: object) -> datetime | None:
    if not isinstance(text, str) or not text:
        return None
    # Python's parser before 3.11 takes six digits of a second, no fewer and no more.
    text = re.sub(r"\.(\d+)(?=Z|[+-]|$)", lambda found: f".{found[1][:6]:0<6}", text)
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _decode(data: str) -> str:
    try:
        return base64.b64decode(data).decode(errors="replace")
    except (binascii.Error, ValueError):
        return ""
