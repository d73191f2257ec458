"""Whether the GPUs a container was given are there inside and compute: what was asked for against what answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib import resources

from kit.engine import Engine
from kit.errors import KitError
from kit.gpu import CDI_KIND

# `kit run` waits this long at most for the answer. A driver that does not stay loaded takes seconds to start.
PATIENCE_S = 20


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The GPUs that a container's arguments name."""

    count: int | None = None  # None: all there are, or slices (MIG), of which a program sees but the first
    uuids: tuple[str, ...] = ()  # those that were named by UUID, without `GPU-` or `MIG-`


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU as the driver shows it inside a container."""

    name: str
    uuid: str  # without `GPU-` or `MIG-`
    computes: bool = False  # a kernel ran on it, and its result was right


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the driver inside a container said."""

    devices: tuple[Device, ...] = ()
    error: str = ""


def asked_for(arguments: tuple[str, ...]) -> Asked | None:
    """The GPUs that the engine's arguments ask for; None when they ask for none."""
    names: list[str] = []
    for argument in arguments:
        if argument.startswith(f"--device={CDI_KIND}="):
            names.append(argument.rpartition("=")[2])
        elif argument.startswith("--gpus="):
            names += argument.removeprefix("--gpus=").strip('"').removeprefix("device=").split(",")
    if not names:
        return None
    is_countable = not any(name == "all" or name.startswith("MIG-") or ":" in name for name in names)
    uuids = tuple(match[1].lower() for name in names if (match := re.fullmatch(r"GPU-([0-9a-fA-F-]{36})", name)))
    return Asked(count=len(names) if is_countable else None, uuids=uuids)


def script() -> str:
    """The program that asks, to be run by a Python inside the container."""
    return resources.files(__name__).joinpath("driver.py").read_text(encoding="utf-8")


def read_answer(text: str) -> Answer:
    """The answer of the program from what it printed; a text that is none becomes an error in words."""
    try:
        raw = json.loads(text.strip().splitlines()[-1])
        devices = tuple(
            Device(name=d["name"], uuid=d["uuid"], computes=bool(d.get("computes"))) for d in raw["devices"]
        )
        return Answer(devices=devices, error=raw["error"])
    except (IndexError, KeyError, TypeError, ValueError):
        return Answer(error=f"the check printed no answer: {text.strip()[-200:] or 'nothing'}")


def problem(asked: Asked, answer: Answer) -> str:
    """What is wrong with the GPUs inside, in one line; empty when those that were asked for are there and compute."""
    if not answer.devices:
        return f"no GPU is usable inside: {answer.error or 'the driver shows none'}"
    there = {device.uuid for device in answer.devices}
    missing = [f"GPU-{uuid}" for uuid in asked.uuids if uuid not in there]
    if missing:
        return f"{', '.join(missing)} was asked for and is not there: " + ", ".join(f"GPU-{u}" for u in sorted(there))
    if asked.count is not None and asked.count != len(answer.devices):
        return f"{asked.count} GPUs were asked for, and {len(answer.devices)} are there"
    if answer.error:
        return f"the GPU computes nothing: {answer.error}"
    return ""


def summary(answer: Answer) -> str:
    """The GPUs inside, in a few words: `2 x NVIDIA H200`."""
    names = [device.name for device in answer.devices]
    return ", ".join(f"{names.count(n)} x {n}" if names.count(n) > 1 else n for n in dict.fromkeys(names))


def check(engine: Engine, container: str) -> tuple[str, str] | None:
    """Ask inside a running container that was given GPUs: (the GPUs there, what is wrong with them).

    One of the two is empty. None when the container was given no GPU. Takes about a second, and never raises: that the
    question could not be put is what is wrong then.
    """
    try:
        asked = asked_for(tuple(engine.container(container).labels.get("kit.gpus", "").split()))
        if asked is None:
            return None
        text = engine.call(["exec", "--interactive", container, "python", "-"], input=script(), timeout_s=PATIENCE_S)
    except KitError as e:
        return "", f"the GPUs inside could not be checked: {'; '.join((e.message, *e.details[-1:]))}"
    answer = read_answer(text)
    wrong = problem(asked, answer)
    return ("", wrong) if wrong else (summary(answer), "")
