"""An image is kit's because kit made it here, or by its digest; never because of what it says of itself."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from bench.registry import local_registry
from kit.engine import Engine, connect
from kit.errors import BadInputError
from kit.image.build.inputs import current
from kit.image.build.options import SILENT, BuildOptions
from kit.image.build.transfer import pulled
from tests.conftest import Project, Result
from tests.fake_docker import FakeDocker

Kit = Callable[..., Result]
DIGEST = f"sha256:{'5' * 64}"
MARK = "I AM THE ATTACKERS IMAGE"


@pytest.fixture
def labels(project: Project, engine: Engine, fake_docker: FakeDocker) -> dict[str, str]:
    """The labels of an image of `project` that is up to date; anybody can read them."""
    from tests.cli.test_run import fingerprint

    reference = project.catalog.base_for(project.image).reference
    texts = ((project.folder / name).read_text() for name in ("Dockerfile", "requirements.lock"))
    mark = fingerprint(*texts, reference)
    return {"kit.fingerprint": mark, "kit.base-identity": reference, "kit.base-source": "registry"}


def test_labels_and_a_name_are_no_proof(
    project: Project, engine: Engine, fake_docker: FakeDocker, labels: dict[str, str]
) -> None:
    fake_docker.has_image(labels, is_kits=False)
    assert current(project.catalog, project.image, engine, BuildOptions()) is None
    fake_docker.has_image(labels)
    assert current(project.catalog, project.image, engine, BuildOptions()) is not None


def test_what_is_made_is_noted_where_no_image_can_write(
    project: Project, kit: Kit, fake_docker: FakeDocker, labels: dict[str, str]
) -> None:
    fake_docker.has_image(labels, is_kits=False)
    assert "tf-cpu: built in" in kit("build", "tf-cpu", "--base", "registry").err
    (noted,) = fake_docker.called("volume", "create")
    assert noted.args[2:] == [
        "--label=kit.image-id=sha256:1",
        f"--label=kit.owner={os.getuid()}",
        "kit-made-kit-tf-cpu-latest",
    ]


def test_a_digest_names_one_image_which_keeps_its_name(
    project: Project, kit: Kit, fake_docker: FakeDocker, labels: dict[str, str]
) -> None:
    fake_docker.has_image(labels)
    fake_docker.reply("image", "inspect", "--format={{json .RepoDigests}}", stdout=f'["r.test/lab/tf-cpu@{DIGEST}"]')
    result = kit("run", "--pull", f"r.test/lab@{DIGEST}", "tf-cpu", "true")
    assert (result.code, result.err) == (0, f"tf-cpu: r.test/lab/tf-cpu@{DIGEST}, which kit has not built\n")
    assert fake_docker.called("pull") == fake_docker.called("tag") == [], "it is there"
    assert fake_docker.called("run")[0].args[-2:] == [f"r.test/lab/tf-cpu@{DIGEST}", "true"]


@pytest.mark.parametrize("text", ["--all-tags", "-q", "r.test/x y", "r.test/x;id", "r.test/x@sha256:1", "x@md5:0", ""])
def test_what_is_no_repository_reaches_no_engine(
    project: Project, engine: Engine, fake_docker: FakeDocker, text: str
) -> None:
    with pytest.raises(BadInputError, match="not a repository"):
        pulled(engine, project.image, text, lambda _: False, SILENT)
    assert fake_docker.calls == []


@pytest.fixture
def attackers(tf_cpu: str, docker: DockerClient, tmp_path: Path) -> Iterator[tuple[str, Any]]:
    """A registry with an image of somebody else's, which has every label of kit's own; and that image."""
    own = docker.images.get(f"kit/{tf_cpu}:latest")
    lines = [f"LABEL {name}={json.dumps(value)}" for name, value in own.labels.items()]
    program = f"RUN printf '#!/bin/sh\\necho {MARK}\\n' > /evil && chmod 755 /evil"
    text = "\n".join(["FROM kit/base:bookworm", program, *lines, 'ENTRYPOINT ["/evil"]'])
    with local_registry(tmp_path) as registry:
        name = f"{registry}/evil/{tf_cpu}"
        made, _ = docker.images.build(fileobj=io.BytesIO(text.encode()), tag=f"{name}:latest", rm=True, forcerm=True)
        docker.images.push(f"{name}:latest")
        docker.images.remove(f"{name}:latest", force=True)
        yield f"{registry}/evil", made
        for image in docker.images.list(name):
            docker.images.remove(image.id, force=True)


@pytest.mark.engine
def test_a_pulled_image_is_no_other_projects(
    engine_kit: Any, tf_cpu: str, attackers: tuple[str, Any], docker: DockerClient, workspace: Path
) -> None:
    own = docker.images.get(f"kit/{tf_cpu}:latest").id
    docker.images.remove(f"kit/{tf_cpu}:latest", force=True)  # the tag; its layers stay in the cache
    try:
        asked = ("run", "--pull", attackers[0], "-C", str(workspace), tf_cpu, "true")
        done = engine_kit(*asked)
        assert done.stdout == f"{MARK}\n"
        assert f"{attackers[0]}/{tf_cpu}@sha256:" in done.stderr
        assert "which kit has not built" in done.stderr
        assert not docker.images.list(f"kit/{tf_cpu}")
        other = engine_kit("run", "-C", str(workspace), tf_cpu, "echo", "ours")
        assert other.stdout == "ours\n"
        assert "built in" in other.stderr
    finally:
        engine_kit("build", tf_cpu, "--base", "archive")
    assert docker.images.get(f"kit/{tf_cpu}:latest").id == own, "the same content"


@pytest.mark.engine
@pytest.mark.alone  # others need the image of that name meanwhile
def test_an_image_under_kits_name_is_not_taken_for_kits(
    engine_kit: Any, tf_cpu: str, attackers: tuple[str, Any], docker: DockerClient, workspace: Path
) -> None:
    registry = attackers[0]
    own = docker.images.get(f"kit/{tf_cpu}:latest").id
    docker.images.pull(f"{registry}/{tf_cpu}", tag="latest").tag(f"kit/{tf_cpu}", tag="latest")
    assert docker.images.get(f"kit/{tf_cpu}:latest").id != own
    assert connect().made_labels(f"kit/{tf_cpu}:latest") is None
    done = engine_kit("build", tf_cpu, "--base", "archive")
    assert "up to date" not in done.stderr
    assert docker.images.get(f"kit/{tf_cpu}:latest").id == own
    assert "up to date" in engine_kit("build", tf_cpu, "--base", "archive").stderr
