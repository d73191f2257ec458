"""System packages on a real image: locked by its own apt, installed by the step, the same bytes twice."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from docker import DockerClient

from kit import paths, templates
from kit.catalog import load_catalog
from kit.engine import Engine
from kit.environment import system
from kit.environment.declared import Declared
from kit.environment.format import SystemLayer
from kit.errors import LockError
from kit.image.build.ensure import ImageOptions
from kit.image.build.options import BuildOptions
from kit.labels import BASE_IDENTITY
from kit.network import read_settings
from kit.project.system import lock_system
from tests.engine import witness
from tests.engine.conftest import CA_MARK

pytestmark = pytest.mark.engine
# Small, in every release, and in no image of kit's.
PACKAGE = "tree"
REFERENCE = "kit-test-system"

Lock = Callable[..., tuple[SystemLayer, ...]]


class Said:
    def say(self, text: str) -> None:
        pass


@pytest.fixture(scope="module")
def lock(tf_cpu: str, engine: Engine, ca_bundle: Path) -> Lock:
    options = ImageOptions(build=BuildOptions(base="archive", network=read_settings(ca_cert=ca_bundle)))
    catalog = load_catalog()

    def call(*names: str) -> tuple[SystemLayer, ...]:
        declared = Declared(folder=Path(), image=tf_cpu, system=names)
        return lock_system(catalog, declared, catalog.find(tf_cpu), engine, options, None, Said())  # type: ignore[arg-type]

    return call


@pytest.fixture(scope="module")
def layer(lock: Lock) -> SystemLayer:
    return lock(PACKAGE, "bash")[0]


@pytest.fixture
def build(
    engine: Engine, docker: DockerClient, tf_cpu: str, ca_bundle: Path, tmp_path: Path
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Build an image with the step for a layer, on the small one."""
    context, folder = tmp_path / "kit", tmp_path / "build"
    context.mkdir()
    folder.mkdir()
    for name in ("begin.sh", "end.sh", "system.sh"):
        shutil.copy(paths.templates_dir() / name, context)
    text = "FROM kit/{{ image }}:latest\nARG SOURCE_DATE_EPOCH=1700000000\nUSER 0:0\n{{ system_step(mark) }}\n"
    settings = read_settings(ca_cert=ca_bundle)
    secrets = [f"--secret=id=ca,src={settings.ca_file}"] if settings.ca_file else []
    secrets += ["--secret=id=environment,env=OF_NETWORK"] if settings.shell_script() else []

    def call(layer: SystemLayer) -> subprocess.CompletedProcess[str]:
        listed = system.step_list(load_catalog(), layer)
        (folder / "system.txt").write_text(listed)
        mark = hashlib.sha256(listed.encode()).hexdigest()
        (folder / "Dockerfile").write_text(templates.environment().from_string(text).render(image=tf_cpu, mark=mark))
        command = ["buildx", "build", "--no-cache", "--progress=plain", "--provenance=false", "--network=host"]
        command += [
            "--allow=network.host",
            f"--build-context=kit={context}",
            *secrets,
            f"--tag={REFERENCE}",
            str(folder),
        ]
        with engine.prepared(command) as (words, variables):
            return subprocess.run(
                words,
                capture_output=True,
                text=True,
                check=False,
                timeout=600,
                env={**os.environ, "OF_NETWORK": settings.shell_script(), **variables},
            )

    yield call
    if any(f"{REFERENCE}:latest" in image.tags for image in docker.images.list()):
        docker.images.remove(REFERENCE, force=True)


def test_the_images_own_apt_says_what_is_missing(layer: SystemLayer, engine: Engine, tf_cpu: str) -> None:
    assert [package.name for package in layer.packages] == [PACKAGE]
    assert layer.packages[0].file.startswith("pool/main/t/tree/tree_")
    assert layer.wanted == ("bash", PACKAGE)
    labels = engine.image_labels(f"kit/{tf_cpu}:latest") or {}
    assert layer.suite == system.suite_of(load_catalog(), labels[BASE_IDENTITY])
    assert layer.snapshot


def test_nothing_of_it_is_left(lock: Lock, docker: DockerClient) -> None:
    before = len(docker.containers.list(all=True, ignore_removed=True))
    with pytest.raises(LockError, match="has no package `no-such-thing`"):
        lock("no-such-thing")
    names = [container.name for container in docker.containers.list(all=True, ignore_removed=True)]
    assert not [name for name in names if name.startswith("kit-system-")]
    assert len(names) <= before


def test_what_is_locked_is_installed_and_twice_the_same(
    layer: SystemLayer, build: Callable[..., subprocess.CompletedProcess[str]], docker: DockerClient
) -> None:
    layers = []
    for _ in range(2):
        done = build(layer)
        assert done.returncode == 0, done.stderr
        layers.append(docker.images.get(REFERENCE).attrs["RootFS"]["Layers"])
    # A store without content of its own differs in the folders of what a step mounts.
    assert layers[0][:-1] == layers[1][:-1]
    if "containerd" in str(docker.info().get("DriverStatus")):
        assert layers[0] == layers[1]
    package = layer.packages[0]
    shown = witness.run(docker, REFERENCE, "dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", PACKAGE)
    assert shown == f"installed {package.version}"
    assert witness.run(docker, REFERENCE, PACKAGE, "-L", "1", "/opt")
    left = witness.run(docker, REFERENCE, "sh", "-c", f'grep -rlF "{CA_MARK}" /etc /run /tmp /usr/share /var || true')
    assert left == ""
    folders = "ls /var/cache/apt /tmp /var/lib/apt/lists; test ! -e /usr/sbin/policy-rc.d && echo none"
    assert witness.run(docker, REFERENCE, "sh", "-c", folders).split()[-1] == "none"


def test_a_package_with_another_hash_ends_the_build(
    layer: SystemLayer, build: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    package = replace(layer.packages[0], sha256="0" * 64)
    done = build(replace(layer, packages=(package,)))
    assert done.returncode != 0
    assert f"kit: hash mismatch: {PACKAGE} {package.version} from " in done.stderr
