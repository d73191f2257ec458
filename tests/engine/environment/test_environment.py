"""A project's own environment on a real engine: built of its lock, shared, run, verified, pushed, twice the same."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from bench.registry import local_registry
from kit.catalog import load_catalog
from kit.environment.format import Package
from tests.engine import witness
from tests.engine.conftest import Kit
from tests.unit.test_environment_image import make

pytestmark = pytest.mark.engine
# Pure Python, of a few kilobytes; the second is in the image, in a newer version.
EINOPS = Package(
    name="einops",
    version="0.8.1",
    hashes=("sha256:919387eb55330f5757c6bea9165c5ff5cfe63a642682ea788a6d472576d81737",),
)
MDURL = Package(
    name="mdurl",
    version="0.1.1",
    replaces="0.1.2",
    hashes=("sha256:6a8f6804087b7128040b2fb2ebe242bdc2affaeaa034d5fc9feeed30b443651b",),
)
PYPROJECT = '[project]\nname = "My.Lab"\nversion = "1.2"\nscripts = { my-lab = "my_lab:main" }\n'
CODE = "def main():\n    import einops\n    print('the code of the project with', einops.__version__)\n"

New = Callable[..., Path]


def tags(docker: DockerClient) -> set[str]:
    return {tag for image in docker.images.list("kit/env-tf-cpu") for tag in image.tags}


@pytest.fixture(scope="module", autouse=True)
def tidy(docker: DockerClient) -> Iterator[None]:
    """What is there afterwards was there before."""
    before = tags(docker)
    yield
    for tag in tags(docker) - before:
        docker.images.remove(tag, force=True)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory, tf_cpu: str) -> New:
    """A folder with an environment on the small image."""

    def call(*packages: Package, table: str = "", code: bool = False) -> Path:
        folder = tmp_path_factory.mktemp("lab")
        folder.chmod(0o755)
        if code:
            (folder / "pyproject.toml").write_text(PYPROJECT)
            (folder / "my_lab.py").write_text(CODE)
        make(folder, load_catalog(), *packages, table=table)
        return folder

    return call


@pytest.fixture(scope="module")
def lab(new: New) -> Path:
    """With all that needs no network but PyPI's."""
    table = (
        'env = { GREETING = "a \\"b\\" $HOME" }\ncheck = "python -c \'import einops; open(\\"/tmp/x\\", \\"w\\")\'"\n'
    )
    return new(EINOPS, MDURL, table=table)


@pytest.fixture(scope="module")
def built(kit: Kit, lab: Path) -> dict[str, str]:
    """The environment's image, as `kit build` reports it."""
    done = kit("--json", "build", "--base", "archive", cwd=lab)
    (found,) = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def layers(docker: DockerClient, reference: str) -> list[str]:
    found: list[str] = docker.images.get(reference).attrs["RootFS"]["Layers"]
    return found


def test_what_is_locked_is_one_layer_on_the_image(
    built: dict[str, str], docker: DockerClient, tf_cpu: str, lab: Path
) -> None:
    assert built["image"] == "env-tf-cpu"
    below, ours = layers(docker, f"kit/{tf_cpu}:latest"), layers(docker, built["reference"])
    assert ours[: len(below)] == below
    assert len(ours) <= len(below) + 2, "that of the wheels, and the empty one of the check"
    look = "import einops, mdurl, os; from importlib.metadata import version; " + (
        "print(einops.__version__, version('mdurl'), os.environ['GREETING'], os.path.exists('/tmp/x'))"
    )
    said = witness.run(docker, built["reference"], "python", "-c", look)
    assert said == '0.8.1 0.1.1 a "b" $HOME False\n'
    config = docker.images.get(built["reference"]).attrs["Config"]
    plain = docker.images.get(f"kit/{tf_cpu}:latest").attrs["Config"]
    assert config["User"] == "1000:1000"
    assert {key: config[key] for key in ("Entrypoint", "Cmd", "Healthcheck", "WorkingDir")} == {
        key: plain[key] for key in ("Entrypoint", "Cmd", "Healthcheck", "WorkingDir")
    }
    own = {name: value for name, value in config["Labels"].items() if plain["Labels"].get(name) != value}
    assert sorted(own) == ["kit.environment", "kit.fingerprint"]


def test_it_is_built_once_for_all_that_add_the_same(kit: Kit, built: dict[str, str], lab: Path, new: New) -> None:
    assert "env-tf-cpu: up to date" in kit("build", cwd=lab).stderr
    other = new(EINOPS, MDURL, table="ports = [7860]\n" + (lab / "kit.toml").read_text().split("\n", 3)[3])
    started = time.monotonic()
    (found,) = json.loads(kit("--json", "build", cwd=other).stdout)
    assert (found["is_new"], found["reference"]) == (False, built["reference"])
    assert time.monotonic() - started < 10


def test_kit_run_in_the_folder_is_in_it_and_ps_shows_that(kit: Kit, built: dict[str, str], lab: Path) -> None:
    words = ("python", "-c", "import einops; print(einops.__version__)")
    assert kit("run", *words, cwd=lab).stdout == "0.8.1\n"
    assert "No module named 'einops'" in kit("run", "tf-cpu", *words, cwd=lab, code=1).stderr, "the plain image"
    name = kit("run", "-d", "sleep", "600", cwd=lab).stdout.strip()
    try:
        (row,) = [row for row in json.loads(kit("--json", "ps").stdout) if row["name"] == name]
        assert (row["image"], row["folder"]) == ("env-tf-cpu", str(lab))
        assert "a container uses it" in kit("--yes", "clean", "images", built["reference"]).stdout
    finally:
        kit("rm", "--force", name)


def test_the_project_itself_is_a_package_of_it(kit: Kit, built: dict[str, str], new: New, docker: DockerClient) -> None:
    folder = new(EINOPS, table='project = true\ncheck = "my-lab"\n', code=True)
    assert kit("run", "my-lab", cwd=folder).stdout == "the code of the project with 0.8.1\n"
    (folder / "my_lab.py").write_text("def main():\n    print('changed')\n")
    assert kit("run", "my-lab", cwd=folder).stdout == "changed\n", "editable"
    checked = kit("verify", "--only", "project", "--only", "packages", cwd=folder)
    assert "project.check" in checked.stdout
    (folder / "my_lab.py").write_text("def main():\n    raise SystemExit('it is broken')\n")
    failed = kit("verify", "--only", "project", cwd=folder, code=1)
    assert "it is broken" in failed.stderr


def test_what_the_image_promises_still_holds(kit: Kit, built: dict[str, str], lab: Path) -> None:
    groups = [word for name in ("packages", "image", "security", "project") for word in ("--only", name)]
    done = kit("verify", "--gpus", "none", *groups, cwd=lab)
    assert "FAILED" not in done.stdout
    assert f"{built['reference']}: " in done.stderr


def test_two_builds_are_one(kit: Kit, built: dict[str, str], lab: Path) -> None:
    """Also where a package takes the place of the image's, whose files go."""
    done = kit("build", "--check-repro", "--base", "archive", cwd=lab)
    assert "env-tf-cpu: two builds, one digest: sha256:" in done.stderr


def test_another_file_than_the_locked_one_ends_the_build(
    kit: Kit, built: dict[str, str], new: New, docker: DockerClient
) -> None:
    before = tags(docker)
    wrong = Package(name="einops", version="0.8.1", hashes=("sha256:" + "0" * 64,))
    done = kit("build", cwd=new(wrong), code=1)
    assert "hash mismatch" in done.stderr
    assert "einops" in done.stderr
    assert tags(docker) == before


def test_a_check_that_fails_is_named_and_leaves_no_image(
    kit: Kit, built: dict[str, str], new: New, docker: DockerClient
) -> None:
    before = tags(docker)
    done = kit("run", "true", cwd=new(EINOPS, table="check = \"python -c 'import nothing_like_it'\"\n"), code=1)
    assert "the check of env-tf-cpu failed in the new image: python -c 'import nothing_like_it'" in done.stderr
    assert "No module named 'nothing_like_it'" in done.stderr
    assert tags(docker) == before


def test_it_is_pushed_under_its_own_name(
    kit: Kit, built: dict[str, str], lab: Path, tmp_path: Path, docker: DockerClient
) -> None:
    with local_registry(tmp_path) as registry:
        tag = built["reference"].rpartition(":")[2]
        reference = f"{registry}/lab/env-tf-cpu:{tag}"
        try:
            assert f"pushed {reference}" in kit("build", "--push", f"{registry}/lab", cwd=lab).stderr
            assert docker.images.get_registry_data(reference).id.startswith("sha256:")
        finally:
            docker.images.remove(reference)


def test_a_compose_file_names_it(kit: Kit, built: dict[str, str], lab: Path) -> None:
    text = kit("compose", "-o", "-", cwd=lab).stdout
    assert built["reference"] in text


def test_it_is_removed_as_an_image_of_kits(kit: Kit, new: New, docker: DockerClient) -> None:
    folder = new(EINOPS, table='env = { ONLY_FOR = "this" }\n')
    (found,) = json.loads(kit("--json", "build", "--base", "archive", cwd=folder).stdout)
    assert found["reference"] in tags(docker)
    rows = json.loads(kit("--json", "clean", "images").stdout)
    assert [row["stays"] for row in rows if row["name"] == found["reference"]] == [""]
    kit("--yes", "clean", found["reference"])
    assert found["reference"] not in tags(docker)
