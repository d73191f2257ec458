"""Whether the GPUs a container was given are there inside and compute: what was asked for against what answers."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kit import paths
from kit.engine import Engine
from kit.errors import KitError
from kit.frozen import dataclass
from kit.spec.container import ContainerSpec

# `kit run` waits this long at most for the answer. A driver that does not stay loaded takes seconds to start.
PATIENCE_S = 20
PROVEN_S = 86400.0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The GPUs that a container was given, by their names."""

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


def asked_for(devices: tuple[str, ...]) -> Asked | None:
    """What to look for of the GPUs that a container was given; None for one that was given none."""
    names = [device.rpartition("=")[2] for device in devices]
    if not names:
        return None
    is_countable = not any(name == "all" or name.startswith("MIG-") or ":" in name for name in names)
    uuids = tuple(match[1].lower() for name in names if (match := re.fullmatch(r"GPU-([0-9a-fA-F-]{36})", name)))
    return Asked(count=len(names) if is_countable else None, uuids=uuids)


def script() -> str:
    """The program that asks, to be run by a Python inside the container."""
    from importlib import resources

    return resources.files(__name__).joinpath("driver.py").read_text(encoding="utf-8")


def read_answer(text: str) -> Answer:
    """The answer of the program from what it printed; a text that is none becomes an error in words."""
    try:
        raw = json.loads(text.strip().splitlines()[-1])
        return Answer(devices=tuple(Device(**device) for device in raw["devices"]), error=raw["error"])
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


def check(engine: Engine, container: str, devices: tuple[str, ...]) -> tuple[str, str] | None:
    """Ask inside a running container that was given GPUs: (the GPUs there, what is wrong with them).

    One of the two is empty. None when the container was given no GPU. Takes about a second, and never raises: that the
    question could not be put is what is wrong then.
    """
    asked = asked_for(devices)
    if asked is None:
        return None
    words = ["exec", "--interactive", container, "python", "-"]
    return _judged(asked, lambda: engine.call(words, input=script(), timeout_s=PATIENCE_S))


def check_before(engine: Engine, spec: ContainerSpec) -> tuple[str, str] | None:
    """Ask in a container of its own, which gets what `spec` will get of GPUs, and is gone afterwards; else as `check`.

    Before and not beside a command: a GPU in exclusive mode has room for one program, and the answer would run into
    what the command prints. What was found good is not asked again on the same machine for a day.
    """
    asked = asked_for(spec.gpus.devices)
    if asked is None:
        return None
    proof = _proof_file(engine, spec)
    if proof.is_file() and time.time() - proof.stat().st_mtime < PROVEN_S:
        return None
    wanted = replace(
        spec,
        name=f"{spec.name}-check",
        command=("python", "-"),
        mounts=(),
        ports=(),
        labels={},
        remove=True,
        interactive=True,
        tty=False,
        restart="",
    )

    def ask() -> str:
        words = ["run", "--pull=never", *engine.arguments(wanted)]
        try:
            return engine.call(words, input=script(), environment=spec.secret_environment, timeout_s=PATIENCE_S)
        except BaseException:
            engine.remove(wanted.name, force=True)
            raise

    gpus, wrong = _judged(asked, ask)
    if not wrong:
        paths.write_text(proof, f"{gpus}\n", mode=0o600)
    return gpus, wrong


def _judged(asked: Asked, ask: Callable[[], str]) -> tuple[str, str]:
    try:
        answer = read_answer(ask())
    except KitError as e:
        return "", f"the GPUs inside could not be checked: {'; '.join((e.message, *e.details[-1:]))}"
    wrong = problem(asked, answer)
    return ("", wrong) if wrong else (summary(answer), "")


def _proof_file(engine: Engine, spec: ContainerSpec) -> Path:
    """Where it is noted that these GPUs work in this image, on this boot of this machine."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    where = engine.target or (boot.read_text(encoding="ascii").strip() if boot.is_file() else "")
    mark = "\0".join((where, spec.image, spec.user, *spec.gpus.devices))
    return paths.usable_folder(paths.state_folder, "gpu-proofs") / hashlib.sha256(mark.encode()).hexdigest()[:16]
