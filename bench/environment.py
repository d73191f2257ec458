"""One more package in a project of kit's, beside how else people add one: `make bench-environment`.

On an image that is built, in one run: kit's `add`, until the next `run` has ended; the same change in a Dockerfile as
people write it (`pip install -r requirements.txt` in one layer, with all that is above that layer cached); and `uv add`
with `uv sync` in a plain folder that has the image's packages, with uv's cache warm. `--skip-naive` leaves out the
Dockerfile, which downloads and unpacks a framework.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import uv

from bench.build import build_naive, docker, pins, push_sizes, say
from bench.cli import KIT, compare
from bench.registry import local_registry
from kit.catalog import load_catalog
from kit.engine import Engine, connect
from kit.image import base
from kit.image.build.inputs import read_inputs
from kit.locks.format import Lock
from kit.network import NetworkSettings, read_settings

# Two small packages that are Python alone and in no image: one that the project has, and the one that is added.
FIRST, ONE_MORE = "pyfiglet", "cowsay"
NAIVE = "kit-bench/naive:latest"
# For this machine alone: uv would solve for every other one, too.
PLAIN = """[project]
name = "plain"
version = "0"
requires-python = "=={0}.{1}.*"
dependencies = []
[tool.uv]
environments = ["sys_platform == 'linux' and platform_machine == '{machine}'"]
"""
PUSHED_BESIDE = 10**6  # bytes that may come beside the package itself

# (what is compared, unit, limit of the ratio or of the value itself)
LIMITS: dict[str, tuple[str, str, float]] = {
    "add": ("kit add, and the next kit run NAME true", "s", 15),
    "solve": ("kit lock --upgrade, with a warm cache", "s", 3),
    "dockerfile": ("the same / one line more in a Dockerfile's requirements.txt", "ratio", 0.1),
    "uv": ("the same / uv add and uv sync in a plain folder", "ratio", 3),
    "push": ("bytes to push after it, beyond its own size", "bytes", PUSHED_BESIDE),
    "run": ("kit run true in a project / kit run NAME true", "ratio", 1.05),
}


def judged(part: str, value: float, **more: float) -> dict[str, Any]:
    """A row of the result: whether a value keeps its limit."""
    what, unit, limit = LIMITS[part]
    row = {"what": what, "unit": unit, "value": round(value, 3), "limit": limit, "met": value <= limit}
    return {**row, **{name: round(number, 3) for name, number in more.items()}}


def call(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> float:
    """Seconds of one command in a folder; the benchmark ends, with what it said, if it fails."""
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began


def new_project(folder: Path, image: str) -> Path:
    """A project with one package, locked, built and run once."""
    folder.mkdir()
    (folder / "kit.toml").write_text(f'[environment]\nimage = "{image}"\npackages = ["{FIRST}"]\n')
    call([KIT, "--yes", "lock"], folder)
    call([KIT, "--yes", "run", "true"], folder)
    return folder


def own_size(folder: Path, environment: dict[str, str]) -> int:
    """What the added package takes, compressed, when nothing else is counted."""
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "files"), ONE_MORE]
    call(command, folder, environment)
    with tarfile.open(folder / "files.tar.gz", "w:gz") as archive:
        archive.add(folder / "files", "files")
    return (folder / "files.tar.gz").stat().st_size


def project_image(engine: Engine, before: set[str]) -> str:
    """The image of a project that was not there before."""
    (found,) = {tag for tag in engine.tags() if tag.startswith("kit/env-")} - before
    return found


def uv_seconds(folder: Path, lock: Lock, environment: dict[str, str]) -> float:
    """`uv add` and `uv sync` of one package in a folder that has the image's packages."""
    folder.mkdir()
    program = uv.find_uv_bin()
    (folder / "pyproject.toml").write_text(PLAIN.format(*sys.version_info, machine=platform.machine()))
    (folder / "pins.txt").write_text(pins(lock))
    call([program, "add", "--quiet", "--requirements", "pins.txt", FIRST], folder, environment)
    call([program, "sync", "--quiet"], folder, environment)
    # Its files are in the cache, as they are in kit's.
    call([program, "pip", "install", "--quiet", "--target", str(folder / "warm"), ONE_MORE], folder, environment)
    added = call([program, "add", "--quiet", ONE_MORE], folder, environment)
    return added + call([program, "sync", "--quiet"], folder, environment)


def dockerfile_seconds(engine: Engine, base_reference: str, lock: Lock, network: NetworkSettings) -> float:
    """The layer of a requirements file that has one more line, and a command in the image; what is above is cached."""
    build_naive(engine, base_reference, "pip\n", network, NAIVE)
    began = time.perf_counter()
    build_naive(engine, base_reference, f"{pins(lock)}{FIRST}\n{ONE_MORE}\n", network, NAIVE)
    docker(engine, "run", "--rm", NAIVE, "true")
    taken = time.perf_counter() - began
    docker(engine, "rmi", NAIVE)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default="torch-cu126", help="an image that is built, or is then built first")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--skip-naive", action="store_true", help="not the Dockerfile, which takes minutes")
    arguments = parser.parse_args()
    catalog, engine, network = load_catalog(), connect(), read_settings()
    image = catalog.find(arguments.image)
    lock = read_inputs(catalog, image).lock
    variables = {"UV_DEFAULT_INDEX": network.index_url} if network.index_url else {}
    rows: dict[str, dict[str, Any]] = {}

    with tempfile.TemporaryDirectory(prefix="kit-bench-") as name:
        root = Path(name)
        say(f"{image.name}: built, and a project on it")
        call([KIT, "--yes", "build", image.name], root)
        had = set(engine.tags())
        project = new_project(root / "project", image.name)
        first = project_image(engine, had)
        taken = call([KIT, "--yes", "add", ONE_MORE], project) + call([KIT, "--yes", "run", "true"], project)
        second = project_image(engine, had | {first})
        rows["add"] = judged("add", taken)
        call([KIT, "--yes", "lock", "--upgrade"], project)
        rows["solve"] = judged("solve", call([KIT, "--yes", "lock", "--upgrade"], project))
        say(f"kit add: {taken:.1f} s; solve: {rows['solve']['value']:.1f} s")

        plain, size = uv_seconds(root / "plain", lock, variables), own_size(root, variables)
        rows["uv"] = judged("uv", taken / plain, kit_s=taken, uv_s=plain)
        say(f"uv add and uv sync: {plain:.1f} s")

        with tempfile.TemporaryDirectory() as data, local_registry(Path(data)) as registry:
            before = push_sizes(engine, registry, first, "project")
            after = push_sizes(engine, registry, second, "project")
        pushed = sum(size for digest, size in after.items() if digest not in before)
        rows["push"] = judged("push", pushed - size, pushed=pushed, package=size)
        say(f"to push: {pushed} bytes, {size} of them the package's own")

        in_project = ["env", "-C", str(project), KIT, "-q", "run", "true"]
        by_name = ["env", "-C", str(root), KIT, "-q", "run", image.name, "true"]
        ours, rival = compare(in_project, by_name, {**os.environ, **engine.environment}, arguments.rounds)
        rows["run"] = judged("run", ours / rival, project_s=ours, name_s=rival)

        if not arguments.skip_naive:
            say("the Dockerfile")
            made = base.ensure(catalog.suites_for(image)[0].name, engine, on_message=say)
            naive = dockerfile_seconds(engine, made.reference, lock, network)
            rows["dockerfile"] = judged("dockerfile", taken / naive, kit_s=taken, dockerfile_s=naive)
        for reference in (first, second):
            engine.remove_image(reference)
    for row in rows.values():
        met = "" if row["met"] else "NOT MET"
        say(f"{row['what']:62} {row['value']:10} {row['unit']:6} (limit {row['limit']}) {met}")
    print(
        json.dumps(
            {"image": image.name, "engine": engine.info.version, "cpus": engine.info.cpus, "rows": rows}, indent=2
        )
    )
    sys.exit(not all(row["met"] for row in rows.values()))


if __name__ == "__main__":
    main()
