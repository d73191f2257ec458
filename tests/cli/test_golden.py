"""What users and their scripts rely on, as it was: help texts, exit codes, JSON keys, images and compose files.

A difference is a change that somebody will notice. If it is meant, `make golden` writes the files of `golden/` again,
and the difference is reviewed with the commit that makes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from kit import errors, paths
from kit.bench import saved
from kit.catalog import load_catalog
from kit.cli import group
from kit.environment.declared import Declared
from kit.environment.format import EnvironmentLock, Package, SystemLayer, SystemPackage
from kit.image import environment
from kit.spec.container import project_of
from tests.cli import test_gpus
from tests.conftest import Result
from tests.fake_docker import FakeDocker, container
from tests.unit.test_bench_saved import whole
from tests.unit.test_doctor import UBUNTU

Kit = Callable[..., Result]

FOLDER = Path(__file__).parent / "golden"
LOG = "could not select device driver with capabilities: [[gpu]]\n"
IMAGES = [image.name for image in load_catalog().images()]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Compares data with an entry of a file of `golden/`, or with the file; with --update-golden it writes it."""

    def compare(data: Any, file: str, entry: str = "") -> None:
        path = FOLDER / file
        is_text = path.suffix != ".json"
        known: Any = {} if not path.exists() else path.read_text() if is_text else json.loads(path.read_text())
        if request.config.getoption("--update-golden"):
            new = {**known, entry: data} if entry else data
            path.write_text(new if is_text else json.dumps(new, indent=1, sort_keys=True) + "\n")
        else:
            assert data == (known.get(entry) if entry else known)

    return compare


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command, groups included."""
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*words, name))


def test_help_of_every_command(
    kit: Kit, golden: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    texts = {" ".join(("kit", *words)): kit(*words, "--help").out for words in commands(group)}
    assert len(texts) > 30
    golden("\n".join(f"$ {name} --help\n{text}" for name, text in texts.items()), "help.txt")


def test_exit_code_of_every_error(golden: Callable[..., None]) -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.KitError)]
    golden({kind.__name__: kind.exit_code for kind in kinds}, "exit_codes.json")


def keys(data: Any, path: str = "") -> set[str]:
    """The keys in data with their paths; `[]` stands for each entry of a list."""
    if isinstance(data, dict):
        return {f"{path}.{key}" for key in data}.union(*(keys(value, f"{path}.{key}") for key, value in data.items()))
    if isinstance(data, list):
        return set().union(*(keys(value, f"{path}[]") for value in data))
    return set()


# Commands that print data, and neither ask an engine nor read the machine.
PLAIN = [
    "list --all",
    "show tf-cpu",
    "show torch-cu126",
    "config show",
    "config path",
    "init tf-cpu",
    "matrix --all",
    "explain --list",
    "explain log",
    "lock --check tf-cpu",
    "render --check",
    "resolve torch --driver 550.54.14 --gpu H200",
    "resolve tf --driver 550.54.14 --gpu V100",
    "bench compare a.json b.json",
    "compose torch2.7-cu126 --user 1000:1000",
    "tunnel ls",
]
WITH_ENGINE = ["list", "ps --all", "url tf-cpu-jupyter", "code tf-cpu-jupyter", "build tf-cpu", "compose tf-cpu"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a log, two results of measurements, and a project's settings."""
    made = tmp_path / "project"
    made.mkdir()
    (made / "log").write_text(LOG)
    (made / "kit.toml").write_text("port = 9000\n")
    saved.save(made / "a.json", whole())
    saved.save(made / "b.json", whole(matmul_bf16=394.0))
    monkeypatch.chdir(made)
    return made


def printed(result: Result) -> list[str]:
    assert result.code in (0, 1), result.err
    return sorted(keys(json.loads(result.out)))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("line", PLAIN)
def test_json_keys(kit: Kit, golden: Callable[..., None], line: str) -> None:
    golden(printed(kit("--json", *line.split())), "json_keys.json", line)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("line", WITH_ENGINE)
def test_json_keys_with_an_engine(kit: Kit, golden: Callable[..., None], fake_docker: FakeDocker, line: str) -> None:
    fake_docker.reply("ps", stdout="a\n")
    fake_docker.reply("container", "inspect", stdout=json.dumps([container()]))
    fake_docker.reply("image", "inspect", code=1, stderr="Error response from daemon: No such image: x\n")
    fake_docker.reply("compose", "version", stdout="2.40.3\n")
    golden(printed(kit("--json", *line.split())), "json_keys.json", f"{line} (engine)")


@pytest.mark.parametrize("line", ["doctor", "gpus"])
def test_json_keys_of_a_machine(
    kit: Kit, golden: Callable[..., None], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    gpus = (*test_gpus.HOST.gpus, replace(test_gpus.MIG, index=3))
    host = replace(UBUNTU, containers=test_gpus.HOST.containers, gpus=gpus, memory_bytes=2**30)
    monkeypatch.setattr("kit.cli.doctor.read_host", lambda *_, **__: host)
    monkeypatch.setattr("kit.cli.gpus.read_gpus", lambda *_, **__: host)
    golden(printed(kit("--json", line)), "json_keys.json", line)


@pytest.mark.parametrize("name", IMAGES)
def test_image_and_compose_file(
    kit: Kit,
    golden: Callable[..., None],
    fake_docker: FakeDocker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """`kit.fingerprint` decides whether an image that somebody has is up to date."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    fake_docker.reply("image", "inspect", code=1, stderr="Error response from daemon: No such image: x\n")
    found = {"Dockerfile": sha256((paths.images_dir() / name / "Dockerfile").read_text())}
    result = kit("--quiet", "build", name, "--base", "registry")
    if result.code != errors.UnlockedError.exit_code:
        assert result.code == 0, result.err
        arguments = fake_docker.called("buildx", "build")[0].args
        found |= dict(a.removeprefix("--label=").split("=", 1) for a in arguments if a.startswith("--label="))
    gpu_forms = () if name.endswith("-devel") else ("cdi", "nvidia") if load_catalog().find(name).is_gpu else ("",)
    for form in gpu_forms:
        words = ("--gpu-form", form) if form else ()
        written = kit("compose", name, "-o", "-", "--user", "1000:1000", "--with", "tensorboard", *words)
        assert written.code == 0, written.err
        text = re.sub(r"(?m)^# sha256:.*$", "", written.out.replace(project_of(tmp_path / "project"), "PROJECT"))
        found[f"compose {form}".strip()] = sha256(re.sub(rf"-{os.getuid()}\b", "-UID", text))
    golden(found, "images.json", name)


def test_dockerfile_of_an_environment(golden: Callable[..., None], tmp_path: Path) -> None:
    """With all that a project can have."""
    package = SystemPackage(name="ffmpeg", version="7:5.1", architecture="amd64", file="pool/f.deb", sha256="c" * 64)
    own = Declared(
        folder=tmp_path,
        image="tf-cpu",
        packages=("einops", "other"),
        system=("ffmpeg",),
        indexes=("https://index.example/simple",),
        env=(("GREETING", 'a "b" $HOME'),),
        check="python -c 'import einops'",
    )
    lock = EnvironmentLock(
        kit="0",
        uv="0",
        inputs_hash="",
        image="tf-cpu",
        image_lock="sha256:0",
        pythons=("3.12",),
        source_date_epoch=1795219200,
        requirements_hash="",
        packages=(
            Package(name="einops", version="0.8.1", hashes=("sha256:" + "a" * 64,)),
            Package(name="other", version="1", index=own.indexes[0], hashes=("sha256:" + "b" * 64,)),
        ),
        system=(SystemLayer(suite="noble", architecture="amd64", wanted=own.system, packages=(package,)),),
    )
    catalog = load_catalog()
    of = environment.Environment(declared=own, image=catalog.find("tf-cpu"), lock=lock)
    values, _ = environment._values(catalog, of, "x")
    text = environment.render(values, "kit/tf-cpu:latest", guards=environment._guards(catalog, of))
    golden(text, "environment.Dockerfile")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
