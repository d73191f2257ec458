"""The image of a project's own environment: when it is built, of what, and how it is run."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit import config, labels, paths
from kit.catalog import Catalog
from kit.config import trust
from kit.engine import Engine
from kit.environment import current, editable, format
from kit.environment.declared import Declared, declared
from kit.environment.format import EnvironmentLock, Package, SystemLayer, SystemPackage
from kit.errors import BadInputError, BuildFailedError, IncompatibleError, LockError
from kit.facts.host import Host
from kit.image import environment as image
from kit.image.build import images
from kit.image.build.ensure import ImageOptions
from kit.image.build.images import build_error
from kit.image.build.inputs import kit_context
from kit.image.build.options import SILENT, BuildOptions
from kit.image.build.podman import for_podman
from kit.image.buildlog import BuildLog
from kit.locks.format import sha256
from kit.run.containers import describe, find
from kit.verify import expected
from tests.conftest import REPOSITORY, Project, Result
from tests.fake_docker import FakeDocker, container
from tests.unit.test_build import RECORDED

HASH = "sha256:" + "a" * 64
EINOPS = Package(name="einops", version="0.8.1", hashes=(HASH,))
INDEX = "https://index.example/simple"
PARENT = "kit/tf-cpu:latest"


class Screen:
    """Takes what is said; nothing is asked."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def confirm(self, question: str) -> None:
        pass

    def building(self, _: str) -> Any:
        class Block:
            def __enter__(self) -> Any:
                return SILENT

            def __exit__(self, *_: object) -> None:
                pass

        return Block()


def lock_of(folder: Path, catalog: Catalog, *packages: Package, **changes: Any) -> EnvironmentLock:
    """Lock a project's folder to these packages, as `kit lock` would."""
    found = declared(config.load(folder))
    assert found
    name = changes.pop("image", "tf-cpu")
    there = json.loads((paths.images_dir() / name / "lock.json").read_text())
    lock = EnvironmentLock(
        kit="0",
        uv=catalog.uv_version,
        inputs_hash=current.inputs_hash(found),
        image=name,
        image_lock=there["requirements_hash"],
        pythons=tuple(there["pythons"]),
        source_date_epoch=there["source_date_epoch"],
        requirements_hash="",
        packages=packages,
    )
    lock = replace(lock, **changes)
    lock = replace(lock, requirements_hash=sha256(lock.requirements))
    format.write(folder, lock)
    return lock


def make(folder: Path, catalog: Catalog, *packages: Package, table: str = "", **changes: Any) -> Declared:
    """A project with an environment, locked."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kit.toml").write_text(f'[environment]\nimage = "tf-cpu"\npackages = ["einops>=0.8"]\n{table}')
    lock_of(folder, catalog, *packages, **changes)
    found = declared(config.load(folder))
    assert found
    return found


@pytest.fixture
def own(tmp_path: Path, catalog: Catalog, project: Project) -> Declared:
    return make(tmp_path / "lab", catalog, EINOPS)


@pytest.fixture
def store(engine: Engine, fake_docker: FakeDocker, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the engine has: of each image its ID, its labels, and whether kit made it there. A build adds to it."""
    there: dict[str, Any] = {}
    fake_docker.reply("buildx", "version", stdout="github.com/docker/buildx 0.29.1\n")
    fake_docker.reply("buildx", "imagetools", stdout="Name: x\n")
    fake_docker.reply("buildx", "build", stdout=(RECORDED / "ok.jsonl").read_text())

    def note(_: Engine, reference: str) -> None:
        args = fake_docker.called("buildx", "build")[-1].args
        made = dict(a.removeprefix("--label=").split("=", 1) for a in args if a.startswith("--label="))
        base = next(a.removeprefix("--build-arg=BASE=") for a in args if a.startswith("--build-arg=BASE="))
        below = there[base][1] if base in there else {}
        there[reference] = (f"sha256:{len(there)}", {**below, **made}, True)

    monkeypatch.setattr(Engine, "_image", lambda _, reference: there[reference][:2] if reference in there else None)
    monkeypatch.setattr(
        Engine,
        "_noted",
        lambda _, reference: (
            {labels.IMAGE_ID: there[reference][0]} if reference in there and there[reference][2] else {}
        ),
    )
    monkeypatch.setattr(Engine, "note_made", note)
    return there


def ensured(catalog: Catalog, own: Declared, engine: Engine, **options: Any) -> tuple[str, bool]:
    found = image.read_environment(catalog, own)
    asked = ImageOptions(build=BuildOptions(**options))
    return image.ensure_environment(catalog, found, engine, asked, Screen())  # type: ignore[arg-type]


def dockerfile(catalog: Catalog, own: Declared) -> str:
    found = image.read_environment(catalog, own)
    return image.render(image._values(catalog, found, "")[0], PARENT, guards=image._guards(catalog, found))


def builds(fake_docker: FakeDocker) -> list[str]:
    """What each build stood on."""
    return [
        next(a.removeprefix("--build-arg=BASE=") for a in call.args if a.startswith("--build-arg=BASE="))
        for call in fake_docker.called("buildx", "build")
    ]


# -- the lock must fit


def test_without_a_lock_nothing_is_guessed(own: Declared, catalog: Catalog) -> None:
    (own.folder / "kit.lock").unlink()
    with pytest.raises(LockError, match=r"is missing: what kit\.toml asks for is not locked") as caught:
        image.read_environment(catalog, own)
    assert "`kit lock`" in caught.value.hint


def test_a_stale_lock_is_said_and_not_used(own: Declared, catalog: Catalog) -> None:
    with pytest.raises(LockError, match="is stale") as caught:
        image.read_environment(catalog, replace(own, packages=("einops>=0.8", "jax")))
    assert "`kit lock`" in caught.value.hint


def test_a_lock_of_another_state_of_the_image_is_stale(own: Declared, catalog: Catalog) -> None:
    lock_of(own.folder, catalog, EINOPS, image_lock="sha256:0")
    with pytest.raises(LockError, match="is stale"):
        image.read_environment(catalog, own)


def test_a_lock_of_an_image_that_is_no_more(own: Declared, catalog: Catalog) -> None:
    text = (own.folder / "kit.lock").read_text().replace('"tf-cpu"', '"tf1.15-cu100"')
    (own.folder / "kit.lock").write_text(text)
    with pytest.raises(LockError, match=r"of the image `tf1.15-cu100`, which this kit does not have"):
        image.read_environment(catalog, own)


def test_a_lock_reaches_no_index_that_kit_toml_does_not_name(own: Declared, catalog: Catalog) -> None:
    """The question of trust is about kit.toml; the lock may be as strange."""
    lock_of(own.folder, catalog, replace(EINOPS, index=INDEX))
    with pytest.raises(LockError, match=f"takes einops from '{INDEX}', which kit.toml does not name"):
        image.read_environment(catalog, own)
    named = make(own.folder, catalog, replace(EINOPS, index=INDEX), table=f'indexes = ["{INDEX}"]\n')
    assert image.read_environment(catalog, named).lock.packages[0].index == INDEX


# -- what is built


def test_the_image_below_is_built_first_and_the_layer_once(
    own: Declared, catalog: Catalog, engine: Engine, store: dict[str, Any], fake_docker: FakeDocker, project: Project
) -> None:
    reference, is_new = ensured(catalog, own, engine)
    assert builds(fake_docker) == [catalog.base_for(project.image).reference, PARENT]
    assert is_new
    assert re.fullmatch(r"kit/env-tf-cpu:[0-9a-f]{12}", reference)
    assert store[reference][1][labels.FINGERPRINT].startswith(reference.rpartition(":")[2])
    assert ensured(catalog, own, engine) == (reference, False)
    assert len(builds(fake_docker)) == 2
    del store[PARENT]
    assert ensured(catalog, own, engine) == (reference, False), "the image below is needed for a build alone"


def test_an_image_of_that_name_that_kit_did_not_make_is_not_taken(
    own: Declared, catalog: Catalog, engine: Engine, store: dict[str, Any], fake_docker: FakeDocker
) -> None:
    reference, _ = ensured(catalog, own, engine)
    store[reference] = (*store[reference][:2], False)
    assert ensured(catalog, own, engine) == (reference, True)
    assert len(builds(fake_docker)) == 3


def test_two_projects_that_add_the_same_share_it(
    own: Declared, catalog: Catalog, engine: Engine, store: dict[str, Any], fake_docker: FakeDocker, tmp_path: Path
) -> None:
    reference, _ = ensured(catalog, own, engine)
    other = make(tmp_path / "other", catalog, EINOPS, table="ports = [7860]\n", kit="1")
    assert ensured(catalog, other, engine) == (reference, False)
    assert len(builds(fake_docker)) == 2


@pytest.mark.parametrize(
    "table", ['env = { A = "b" }\n', 'check = "true"\n', "project = true\n"], ids=["env", "check", "project"]
)
def test_what_is_in_the_image_is_in_its_name(
    own: Declared, catalog: Catalog, engine: Engine, store: dict[str, Any], tmp_path: Path, table: str
) -> None:
    reference, _ = ensured(catalog, own, engine)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/pyproject.toml").write_text('[project]\nname = "lab"\n')
    other = make(tmp_path / "other", catalog, EINOPS, table=table)
    assert ensured(catalog, other, engine)[0] != reference
    assert ensured(catalog, make(own.folder, catalog, replace(EINOPS, version="0.8.0")), engine)[0] != reference


@pytest.mark.parametrize("name", [*image.TEMPLATES, *image.SCRIPTS])
def test_a_changed_step_is_another_image(
    own: Declared, catalog: Catalog, engine: Engine, store: dict[str, Any], name: str
) -> None:
    reference, _ = ensured(catalog, own, engine)
    script = paths.templates_dir() / name
    script.write_text(script.read_text() + "# more\n")
    assert ensured(catalog, own, engine)[0] != reference


def test_a_changed_image_below_is_another_image(
    own: Declared, catalog: Catalog, engine: Engine, store: dict[str, Any], fake_docker: FakeDocker, project: Project
) -> None:
    reference, _ = ensured(catalog, own, engine)
    file = project.folder / "requirements.lock"
    project.lock(file.read_text().replace("2.21.0", "2.20.0"))
    lock_of(own.folder, catalog, EINOPS)
    assert ensured(catalog, own, engine)[0] != reference
    assert builds(fake_docker)[2:] == [catalog.base_for(project.image).reference, PARENT]


def test_an_image_that_was_pulled_is_stood_on_by_its_content(
    own: Declared,
    catalog: Catalog,
    engine: Engine,
    store: dict[str, Any],
    fake_docker: FakeDocker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its labels are anybody's."""
    pulled = "registry.example/lab/tf-cpu@sha256:" + "1" * 64
    store[pulled] = ("sha256:pulled", {labels.FINGERPRINT: "claimed", labels.BASE_IDENTITY: "archive:bookworm"}, False)
    monkeypatch.setattr(image, "ensure_image", lambda *_: (pulled, False))
    found = image.read_environment(catalog, own)
    asked = ImageOptions(pull="registry.example/lab")
    reference, is_new = image.ensure_environment(catalog, found, engine, asked, Screen())  # type: ignore[arg-type]
    assert (builds(fake_docker), is_new) == ([pulled], True)
    store[pulled] = ("sha256:pulled", {labels.FINGERPRINT: "other"}, False)
    again = image.ensure_environment(catalog, found, engine, asked, Screen())  # type: ignore[arg-type]
    assert again == (reference, False), "what its labels say is not asked"
    store[pulled] = ("sha256:another", {labels.FINGERPRINT: "claimed"}, False)
    assert image.ensure_environment(catalog, found, engine, asked, Screen())[0] != reference  # type: ignore[arg-type]


def test_the_base_that_was_asked_for_counts(
    own: Declared, catalog: Catalog, engine: Engine, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, _ = ensured(catalog, own, engine)
    monkeypatch.setattr("kit.image.base.ensure", lambda suite, *_, **__: SimpleNamespace(reference=f"kit/base:{suite}"))
    other, is_new = ensured(catalog, own, engine, base="archive")
    assert is_new
    assert other != reference
    assert ensured(catalog, own, engine, base="archive") == (other, False)
    assert ensured(catalog, own, engine, base="registry")[0] == reference


def test_a_build_gets_the_lock_in_sections_and_the_scripts(
    own: Declared, catalog: Catalog, engine: Engine, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, str] = {}
    stream = Engine.stream

    def look(self: Engine, args: list[str], *rest: Any) -> int:
        if "build" in args:
            given.update({file.name: file.read_text() for file in Path(args[-1]).iterdir()})
            context = next(a for a in args if a.startswith("--build-context=kit="))
            given["kit"] = " ".join(sorted(f.name for f in Path(context.split("=", 2)[2]).iterdir()))
        return stream(self, args, *rest)

    monkeypatch.setattr(Engine, "stream", look)
    ensured(catalog, own, engine)
    assert given["requirements.lock"] == f"# layer: project\n{EINOPS.requirement.text()}"
    assert given["Dockerfile"] == dockerfile(catalog, own)
    assert given["kit"] == " ".join(sorted(["uv", *image.SCRIPTS]))


def test_a_login_for_an_index_is_a_secret_of_the_build(
    own: Declared,
    catalog: Catalog,
    engine: Engine,
    store: dict[str, Any],
    fake_docker: FakeDocker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = own.folder / "netrc"
    file.write_text(
        "machine index.example login me password word-1\nmachine other.example login me password word-2\n"
        "default login me password word-3\n"
    )
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    named = make(own.folder, catalog, replace(EINOPS, index=INDEX), table=f'indexes = ["{INDEX}"]\n')
    ensured(catalog, named, engine)
    call = fake_docker.called("buildx", "build")[-1]
    assert "--secret=id=netrc,env=KIT_BUILD_NETRC" in call.args
    assert "word-" not in " ".join(call.args)
    assert call.env["KIT_BUILD_NETRC"] == "machine index.example login me password word-1\n"
    assert "--mount=type=secret,id=netrc" in dockerfile(catalog, named)
    plain = make(own.folder, catalog, EINOPS)
    ensured(catalog, plain, engine)
    assert "netrc" not in " ".join(fake_docker.called("buildx", "build")[-1].args)


def guarded(fact: dict[str, Any], code: int) -> str:
    """What a build prints in which the guards found something."""
    vertex = {"digest": "d", "name": "[stage-1 2/2] RUN x", "started": "2026-11-21T00:00:00Z"}
    line = base64.b64encode(f"kit-guard: {json.dumps(fact)}\n".encode()).decode()
    done = {**vertex, "completed": "2026-11-21T00:00:01Z", **({"error": "exit code: 1"} if code else {})}
    records = [{"vertexes": [vertex]}, {"logs": [{"vertex": "d", "data": line}]}, {"vertexes": [done]}]
    return "".join(f"{json.dumps(record)}\n" for record in records)


def test_what_the_guards_find_ends_the_build_or_is_said(
    own: Declared, catalog: Catalog, engine: Engine, store: dict[str, Any], fake_docker: FakeDocker
) -> None:
    fact = {"guard": "libraries", "package": "einops", "libraries": ["libx.so.1"], "file": "einops/x.so", "stops": True}
    ensured(catalog, replace(own), engine)
    fake_docker.reply("buildx", "build", stdout=guarded(fact, 1), code=1)
    named = make(own.folder, catalog, EINOPS, table='env = { A = "b" }\n')
    with pytest.raises(
        BuildFailedError, match=r"env-tf-cpu: einops needs libx\.so\.1, which the image lacks"
    ) as caught:
        ensured(catalog, named, engine)
    assert "kit add --system" in caught.value.hint
    fake_docker.reply("buildx", "build", stdout=guarded({**fact, "stops": False}, 0))
    screen = Screen()
    found = image.read_environment(catalog, named)
    image.ensure_environment(catalog, found, engine, ImageOptions(), screen)  # type: ignore[arg-type]
    assert [line for line in screen.said if line.startswith("warning: einops needs libx.so.1")]


def test_what_is_from_an_index_of_its_own_is_looked_for_there_alone(
    own: Declared, catalog: Catalog, project: Project
) -> None:
    other = "https://b.example/x;reboot"
    packages = (
        EINOPS,
        Package(name="one", version="1", index=INDEX, hashes=(HASH,)),
        Package(name="two", version="2", index=other, hashes=(HASH,)),
    )
    named = make(own.folder, catalog, *packages, table=f'indexes = ["{INDEX}", "{other}"]\n')
    text = dockerfile(catalog, named)
    steps = re.findall(r"&& install_layer (.*) \\\n", text)
    assert steps == ["project /opt/kit/venv 'https://b.example/x;reboot' two", f"project2 /opt/kit/venv {INDEX} one"]
    assert text.count("unset KIT_FRAMEWORK_INDEX") == 2, "a mirror of the framework's index is none of another"
    found = dict(image._sections(image.read_environment(catalog, named)))
    assert {name: re.findall(r"^\w+", text, re.MULTILINE) for name, (_, _, text) in found.items()} == {
        "project": ["einops", "two"],
        "project2": ["one"],
    }
    release = make(
        own.folder,
        catalog,
        replace(EINOPS, index=project.image.release.index or INDEX),
        table=f'indexes = ["{INDEX}"]\n',
    )
    assert "install_layer project" in dockerfile(catalog, release)


def test_no_value_of_kit_toml_is_more_than_itself(own: Declared, catalog: Catalog) -> None:
    check = "python -c \"import x\" <<EOF; echo '$(reboot)' \\\\"
    table = f'env = {{ A = "a \\"b\\" $HOME \\\\\\\\ <<EOF", B = "$(x)" }}\ncheck = {json.dumps(check)}\n'
    text = dockerfile(catalog, make(own.folder, catalog, EINOPS, table=table))
    assert 'ENV A="a \\"b\\" \\$HOME \\\\\\\\ <<EOF"\n' in text
    assert 'ENV B="\\$(x)"\n' in text
    assert "reboot" not in text
    encoded = re.search(r"KIT_CHECK=(\S+)", text)
    assert encoded
    ran = subprocess.run(
        ["sh", "-c", f'KIT_CHECK={encoded[1]} && echo "$KIT_CHECK" | base64 -d'],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout == check


@pytest.mark.parametrize(("name", "value"), [("A-B", "x"), ("A", "a\\nb"), ("A", "\\u001b[31m")])
def test_what_an_image_cannot_have_as_a_variable_is_refused(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / "kit.toml").write_text(f'[environment]\nimage = "tf-cpu"\nenv = {{ "{name}" = "{value}" }}\n')
    with pytest.raises(BadInputError, match=r"kit\.toml:3: `environment\.env`"):
        declared(config.load(tmp_path))


def test_an_environment_without_packages_has_no_step_for_them(own: Declared, catalog: Catalog) -> None:
    text = dockerfile(catalog, make(own.folder, catalog, table='env = { A = "b" }\n'))
    assert "AS lock" not in text
    assert re.findall("^RUN ", text, re.MULTILINE) == []


def system_layer(suite: str, architecture: str = "amd64") -> SystemLayer:
    package = SystemPackage(
        name="ffmpeg", version="7:5.1", architecture=architecture, file="pool/main/f/ffmpeg.deb", sha256="c" * 64
    )
    return SystemLayer(suite=suite, architecture=architecture, wanted=("ffmpeg",), packages=(package,))


def test_packages_of_the_distribution_are_of_the_release_below(
    own: Declared, catalog: Catalog, engine: Engine, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, str] = {}
    stream = Engine.stream

    def look(self: Engine, args: list[str], *rest: Any) -> int:
        if "build" in args:
            given.update({file.name: file.read_text() for file in Path(args[-1]).iterdir()})
        return stream(self, args, *rest)

    monkeypatch.setattr(Engine, "stream", look)
    noble, bookworm = system_layer("noble"), system_layer("bookworm")
    named = make(own.folder, catalog, EINOPS, table='system = ["ffmpeg"]\n', system=(bookworm, noble))
    reference, _ = ensured(catalog, named, engine)
    assert "suite noble amd64\n" in given["system.txt"]
    assert f"package {'c' * 64} ffmpeg 7:5.1 amd64 pool/main/f/ffmpeg.deb\n" in given["system.txt"]
    assert "sh /run/kit/system.sh /run/kit/system.txt" in given["Dockerfile"]
    assert given["Dockerfile"].index("system.sh") < given["Dockerfile"].index("install_layer")
    assert ensured(catalog, named, engine) == (reference, False)
    two = make(
        own.folder, catalog, EINOPS, table='system = ["ffmpeg"]\n', system=(noble, system_layer("noble", "arm64"))
    )
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64", nodename="x"))
    assert ensured(catalog, two, engine)[1]
    assert "suite noble amd64\n" in given["system.txt"]
    other = make(own.folder, catalog, EINOPS, table='system = ["ffmpeg"]\n', system=(bookworm,))
    with pytest.raises(
        LockError, match=r"kit\.lock has system packages for bookworm amd64, and tf-cpu stands on noble"
    ):
        ensured(catalog, other, engine)


def test_hadolint_passes(own: Declared, catalog: Catalog, tmp_path: Path) -> None:
    (own.folder / "pyproject.toml").write_text('[project]\nname = "lab"\n')
    for number, table in enumerate(['check = "true"\nenv = { A = "b" }\n', "project = true\n"]):
        file = tmp_path / f"Dockerfile{number}"
        file.write_text(dockerfile(catalog, make(own.folder, catalog, EINOPS, table=table)))
        program = Path(sys.executable).with_name("hadolint")
        done = subprocess.run(
            [program, "--no-color", "--config", REPOSITORY / ".hadolint.yaml", file],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "")


def test_podman_gets_the_same_steps(own: Declared, catalog: Catalog, tmp_path: Path) -> None:
    context = kit_context(catalog.uv_version, image.SCRIPTS)
    named = make(own.folder, catalog, EINOPS, table='check = "true"\n')
    text = for_podman(dockerfile(catalog, named), context, {"project": EINOPS.requirement.text()})
    assert "AS lock" not in text
    assert "source=project.txt,target=/run/kit/wheels.txt" in text
    assert re.search(r": [0-9a-f]{16} && \. /run/kit/begin", text)
    assert "KIT_CHECK=" in text


def failed_check(output: str) -> BuildFailedError:
    log = BuildLog()
    name = '[stage-1 3/3] RUN --mount=type=tmpfs,target=/tmp     KIT_CHECK=cHl0aG9uIC1jICJpbXBvcnQgeCI= && bash -c "x"'
    vertex = {"digest": "d", "name": name, "started": "2026-11-21T00:00:00Z", "completed": "2026-11-21T00:00:01Z"}
    log.feed(json.dumps({"vertexes": [{**vertex, "error": "exit code: 1"}]}))
    log.feed(json.dumps({"logs": [{"vertex": "d", "data": base64.b64encode(output.encode()).decode()}]}))
    error = build_error("env-tf-cpu", log, 1)
    assert isinstance(error, BuildFailedError)
    return error


def test_a_failed_check_is_named_with_what_it_printed() -> None:
    """Also where it prints what an engine says of itself."""
    for line in ("ModuleNotFoundError: No module named 'x'", "connection refused"):
        error = failed_check(f"{line}\n")
        assert error.message == 'the check of env-tf-cpu failed in the new image: python -c "import x"'
        assert error.details == (line,)
        assert "kit.toml" in error.hint


# -- the project itself


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(text)
    return folder


def test_a_project_is_read_and_not_run(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "x",
        '[project]\nname = "My.Lab"\nversion = "1.2"\nrequires-python = ">=3.10"\ndependencies = ["einops"]\n'
        '[project.scripts]\nlab = "my_lab.main:run"\n[project.entry-points."lab.plugins"]\na = "my_lab.a"\n',
    )
    (folder / "setup.py").write_text("raise SystemExit('it ran')")
    found = editable.read(folder)
    assert (found.name, found.version, found.path) == ("My.Lab", "1.2", "/workspace")
    assert found.entry_points == {"console_scripts": {"lab": "my_lab.main:run"}, "lab.plugins": {"a": "my_lab.a"}}
    (folder / "src/my_lab").mkdir(parents=True)
    assert editable.read(folder).path == "/workspace/src"
    assert editable.read(write(tmp_path / "z", '[project]\nname = "z"\ndynamic = ["version"]\n')).version == "0+unknown"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[project\n",
        "[project]\nname = 3\n",
        '[project]\nname = "a\\nb"\n',
        '[project]\nname = "a"\nversion = "1\\n2"\n',
        '[project]\nname = "a"\ndependencies = ["b\\nName: c"]\n',
        '[project]\nname = "a"\ndependencies = "b"\n',
        '[project]\nname = "a"\nscripts = { "../x" = "a:b" }\n',
        '[project]\nname = "a"\nscripts = { x = "a" }\n',
        '[project]\nname = "a"\nscripts = { x = "a:b; import os" }\n',
        '[project]\nname = "a"\n[project.entry-points."x\\ny"]\na = "b"\n',
    ],
)
def test_a_project_that_is_none_is_said(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInputError, match=r"pyproject\.toml"):
        editable.read(write(tmp_path / "x", text))


def test_a_project_without_a_description_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"there is no .*/pyproject\.toml"):
        editable.read(tmp_path)


def test_a_project_is_a_package_with_its_commands(tmp_path: Path, catalog: Catalog, own: Declared) -> None:
    """As the step makes it, with another Python's folders."""
    made = tmp_path / "venv"
    venv.create(made, with_pip=False, symlinks=True)
    python = made / "bin/python"
    write(own.folder, '[project]\nname = "My.Lab"\nversion = "1.2"\nscripts = { lab = "my_lab.main:run" }\n')
    text = dockerfile(catalog, make(own.folder, catalog, EINOPS, table="project = true\n"))
    encoded = re.search(r"/run/kit/project\.py (\w\S+)", text)
    assert encoded
    words = [python, "-I", paths.templates_dir() / "project.py", encoded[1]]
    subprocess.run(words, check=True)
    site = next((made / "lib").glob("python3*/site-packages"))
    assert (site / "__editable__.my_lab.pth").read_text() == "/workspace\n"
    ask = """from importlib.metadata import entry_points, files, version
print(version('my-lab'), [e.value for e in entry_points(group='console_scripts')], *files('my-lab'))"""
    said = subprocess.run([python, "-I", "-c", ask], capture_output=True, text=True, check=True).stdout
    assert said.startswith("1.2 ['my_lab.main:run']")
    assert "../../../bin/lab" in said
    (tmp_path / "code/my_lab").mkdir(parents=True)
    (tmp_path / "code/my_lab/main.py").write_text("def run():\n    return 7\n")
    done = subprocess.run([made / "bin/lab"], env={**os.environ, "PYTHONPATH": str(tmp_path / "code")}, check=False)
    assert done.returncode == 7
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "as a package of the image (1.2) is" in again.stderr


# -- the commands in the project's folder


@pytest.fixture
def inside(
    own: Declared, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch, fake_docker: FakeDocker
) -> FakeDocker:
    """In the folder of a project."""
    monkeypatch.chdir(own.folder)
    return fake_docker


def started(docker: FakeDocker) -> list[str]:
    return docker.called("run")[-1].args


def test_kit_run_without_a_name_is_the_projects_environment(
    kit: Callable[..., Result], inside: FakeDocker, store: dict[str, Any]
) -> None:
    done = kit("run", "python", "train.py")
    assert done.code == 0, done.err
    (reference,) = (name for name in store if name.startswith("kit/env-"))
    assert "einops 0.8.1 on tf-cpu" in done.err
    assert started(inside)[started(inside).index(reference) + 1 :] == ["python", "train.py"]
    assert f"--label=kit.environment={store[reference][1].get('kit.environment', '')}"[:24] in " ".join(started(inside))
    assert "--label=kit.image=tf-cpu" in started(inside)
    count = len(inside.called("buildx"))
    assert kit("run").code == 0
    assert started(inside)[-2:] == [reference, "bash"]
    assert len(inside.called("buildx")) == count, "up to date"


def test_kit_run_with_a_name_is_that_image(kit: Callable[..., Result], inside: FakeDocker, own: Declared) -> None:
    (own.folder / "kit.lock").unlink()
    done = kit("run", "tf-cpu", "true")
    assert done.code == 0, done.err
    assert PARENT in started(inside)
    assert "kit.environment" not in " ".join(started(inside))


def test_kit_run_says_that_the_lock_is_stale(kit: Callable[..., Result], inside: FakeDocker, own: Declared) -> None:
    text = (own.folder / "kit.toml").read_text()
    (own.folder / "kit.toml").write_text(text.replace("0.8", "0.7"))
    done = kit("run", "true")
    assert done.code == LockError.exit_code
    assert "is stale" in done.err
    assert "`kit lock`" in done.err
    assert inside.called("run") == []


def test_ports_of_the_environment_are_published(
    kit: Callable[..., Result], inside: FakeDocker, own: Declared, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(own.folder, catalog, EINOPS, table='ports = ["7861:7860"]\n')
    monkeypatch.setattr("kit.ports.is_free", lambda port: port != 7861)
    done = kit("run", "-p", "7900", "true")
    assert "port 7861 of the configuration is in use" in done.err
    assert [a for a in started(inside) if a.startswith("--publish")] == ["--publish=127.0.0.1:7900:7900"]
    monkeypatch.setattr("kit.ports.is_free", lambda _: True)
    kit("run", "true")
    assert "--publish=127.0.0.1:7861:7860" in started(inside)
    kit("run", "tf-cpu", "true")
    assert not [a for a in started(inside) if a.startswith("--publish")], "the image has none"


def test_kit_build_without_a_name(kit: Callable[..., Result], inside: FakeDocker, store: dict[str, Any]) -> None:
    done = kit("--json", "build")
    assert done.code == 0, done.err
    (built,) = json.loads(done.out)
    assert (built["image"], built["is_new"], built["base"]) == ("env-tf-cpu", True, PARENT)
    assert "env-tf-cpu: up to date" in kit("build").err
    assert kit("build", "--push", "registry.example/lab").code == 0
    tag = built["reference"].rpartition(":")[2]
    assert inside.called("push")[0].args == ["push", f"registry.example/lab/env-tf-cpu:{tag}"]
    assert kit("build", "--force").code == 0
    assert builds(inside)[2:] == [PARENT], "the image below is up to date"


def test_kit_build_checks_that_two_builds_are_one(
    kit: Callable[..., Result], inside: FakeDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = iter(["sha256:1", "sha256:1", "sha256:1", "sha256:2"])
    monkeypatch.setattr(images, "digest_of", lambda *_: next(digests))
    assert "env-tf-cpu: two builds, one digest: sha256:1" in kit("build", "--check-repro").err
    done = kit("build", "--check-repro")
    assert "two builds of env-tf-cpu differ" in done.err
    assert done.code == 1


def test_kit_compose_without_a_name(kit: Callable[..., Result], inside: FakeDocker, store: dict[str, Any]) -> None:
    done = kit("compose", "-o", "-")
    assert done.code == 2
    assert "`kit build`" in done.err
    kit("build")
    (reference,) = (name for name in store if name.startswith("kit/env-"))
    text = kit("compose", "-o", "-").out
    assert f"image: {reference}" in text.replace('"', "")
    assert "kit.environment" in text
    assert "Generated by `kit compose`" in text


def test_kit_bench_without_a_name(kit: Callable[..., Result], inside: FakeDocker) -> None:
    done = kit("bench")
    assert "tf-cpu is built for the CPU: there is no GPU to measure" in done.err


def test_an_image_that_cannot_work_here_is_refused_before_anything_is_built(
    kit: Callable[..., Result],
    inside: FakeDocker,
    own: Declared,
    patch_read_gpus: Callable[[Callable[..., Host]], None],
) -> None:
    patch_read_gpus(lambda *_, **__: Host(platform="linux/riscv64"))
    for words in (("run", "true"), ("build",), ("verify",)):
        done = kit(*words)
        assert done.code == IncompatibleError.exit_code
        assert "tf-cpu cannot work on this host" in done.err
    assert builds(inside) == []


@pytest.mark.parametrize("command", ["verify", "bench", "compose", "build", "run"])
def test_without_a_name_and_without_an_environment_it_is_said(
    kit: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_docker: FakeDocker, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = kit(*command.split(), *(["--only", "x"] if command == "bench" else []))
    assert done.code == BadInputError.exit_code
    assert "no image named" in done.err


def test_a_strangers_index_is_a_question(
    kit: Callable[..., Result], inside: FakeDocker, own: Declared, catalog: Catalog
) -> None:
    make(own.folder, catalog, replace(EINOPS, index=INDEX), table=f'indexes = ["{INDEX}"]\n')
    done = kit("run", "true")
    assert done.code == BadInputError.exit_code
    assert f"environment.indexes = {INDEX}" in done.err
    assert inside.called("run") == []
    assert kit("run", "tf-cpu", "true").code == 0, "an image by name uses nothing of it"
    trust.remember(config.load(own.folder), trust.asked(config.load(own.folder)))
    assert kit("run", "true").code == 0


# -- what runs


def test_a_container_of_an_environment_is_shown_as_one(engine: Engine, fake_docker: FakeDocker) -> None:
    fake_docker.reply("ps", stdout="a\nb\n")
    rows = [container("a", labels={"kit.environment": "sha256:1"}), container("b")]
    fake_docker.reply("container", "inspect", stdout=json.dumps(rows))
    assert find(engine, "env-tf-cpu").name == "a"
    assert [describe(found, engine).image for found in engine.containers(label=labels.CLIENT)] == [
        "env-tf-cpu",
        "tf-cpu",
    ]


def test_what_is_verified_has_what_was_added_in_the_place_of_the_images(catalog: Catalog) -> None:
    from kit.locks.format import read_lock

    plain = catalog.find("tf-cpu")
    lock = read_lock(REPOSITORY / "images/tf-cpu", plain)
    python = {"python_version": "3.13", "python_full_version": "3.13.5"}
    before = expected.packages(lock, python)
    name = "rich" if "rich" in before else next(iter(before))
    added = (EINOPS.requirement, replace(EINOPS, name=name, version="0.1").requirement)
    itself = editable.Editable(name="My.Lab", version="1.2", path="/workspace", entry_points={})
    after = expected.packages(lock, python, added, itself)
    assert after == {**before, "einops": "0.8.1", name: "0.1", "my-lab": "1.2"}
