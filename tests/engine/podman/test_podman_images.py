"""Images on a host with Podman and no Docker: built there, pulled, sent; and what a build leaves there."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import cast

import pytest
from docker import DockerClient

from bench.registry import local_registry
from kit import paths
from kit.catalog import load_catalog
from kit.catalog.rows import Image
from kit.engine import Engine, connect
from kit.errors import BaseNotFoundError, KitError, NetworkError
from kit.image.build import images
from kit.image.build.images import choose_base
from kit.image.build.options import SILENT, BuildOptions, Built
from kit.image.build.transfer import pulled, push_image, transfer_image
from tests.engine.conftest import KIT, Kit, as_environment
from tests.engine.podman_host import BASE, PodmanHost
from tests.engine.remote.test_remote_engine import Named

pytestmark = pytest.mark.engine
SECRET = "sesame-of-the-test"


@pytest.fixture
def there(podman_host: PodmanHost, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("KIT_SSH", podman_host.ssh())
    engine = connect("machine")
    assert engine.kind == "podman"
    return engine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of what images are made of, to be spoilt."""
    for folder in (paths.templates_dir(), paths.images_dir() / "tf-cpu"):
        shutil.copytree(folder, tmp_path / "root" / folder.relative_to(paths.root_dir()))
    return tmp_path / "root"


def spoil(root: Path, line: str) -> None:
    script = root / "templates" / "begin.sh"
    script.write_text(f"{script.read_text()}{line}\n")


def labels(host: PodmanHost, name: str) -> dict[str, str]:
    """Those of an image, asked of Podman itself."""
    found = json.loads(host.run(f"podman image inspect docker.io/{name}:latest").stdout)
    return dict(found[0]["Labels"])


def nothing_is_left(host: PodmanHost) -> None:
    """No container, process, secret or temporary folder of a build, which may take a moment to go."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        containers = host.run("podman ps --all --external --quiet")
        folders = host.run('ls -d "$XDG_RUNTIME_DIR"/kit-podman.* ~/.cache/kit/podman/buildah*[0-9]', check=False)
        processes = host.run("ps -u $(id -u) -o args= | grep -E '^(podman build|buildah-)'", check=False)
        if not (containers.stdout or folders.stdout or processes.stdout):
            break
        time.sleep(0.5)
    else:
        pytest.fail(f"left behind: {containers.stdout} {folders.stdout} {processes.stdout}")


def test_an_image_is_built_on_a_podman_host_and_is_up_to_date_then(
    kit: Kit, podman_host: PodmanHost, podman_tf_cpu: str, workspace: Path
) -> None:
    variables = as_environment(KIT_SSH=podman_host.ssh())
    again = kit("--host", "machine", "--json", "build", "tf-cpu", env=variables)
    assert [built["is_new"] for built in json.loads(again.stdout)] == [False]
    found = json.loads(podman_host.run("podman image inspect docker.io/kit/tf-cpu:latest").stdout)[0]
    assert found["Labels"]["kit.base-source"] == "archive"
    assert found["Healthcheck"], "which an image of the OCI's format does not have"
    assert str(paths.cache_dir()) not in json.dumps(found)
    code = "import tensorflow, jupyterlab; print(tensorflow.__version__)"
    ran = kit("--host", "machine", "run", "-C", str(workspace), "tf-cpu", "--", "python", "-c", code, env=variables)
    assert ran.stdout.strip() == load_catalog().find("tf-cpu").release.version
    refused = kit("--host", "machine", "build", "tf-cpu", "--check-repro", code=11, env=variables)
    assert "Podman does not promise the same digest twice" in refused.stderr
    nothing_is_left(podman_host)


def test_a_step_that_fails_there_is_named_and_what_was_a_secret_is_gone(
    kit: Kit, podman_host: PodmanHost, root: Path
) -> None:
    spoil(
        root, 'if [ -f /run/kit/uv ]; then seq 60 | sed "s/^/broken /"; grep -c . /run/secrets/environment; exit 7; fi'
    )
    variables = as_environment(
        KIT_SSH=podman_host.ssh(), KIT_ROOT=str(root), UV_DEFAULT_INDEX=f"https://me:{SECRET}@index.invalid/simple"
    )
    failed = kit("--host", "machine", "build", "tf-cpu", "--base", "archive", code=1, env=variables)
    assert "make the virtual environment" in failed.stderr
    assert "broken 60" in failed.stderr
    assert "broken 40" not in failed.stderr
    nothing_is_left(podman_host)
    found = podman_host.run(
        f"grep -rls {SECRET} ~/.cache/kit ~/.local/share/containers/storage/*-containers $XDG_RUNTIME_DIR", check=False
    )
    assert found.stdout == ""


def test_a_step_is_not_taken_from_the_cache_when_what_it_mounts_has_changed(
    kit: Kit, podman_host: PodmanHost, root: Path
) -> None:
    variables = as_environment(KIT_SSH=podman_host.ssh(), KIT_ROOT=str(root))
    spoil(root, "if [ ! -f /run/kit/uv ]; then echo number 1 > /number; exit 0; fi; cat /number; exit 7")
    for number in (1, 2):
        failed = kit("--host", "machine", "build", "tf-cpu", "--base", "archive", code=1, env=variables)
        assert f"number {number}" in failed.stderr
        script = root / "templates" / "begin.sh"
        script.write_text(script.read_text().replace("number 1", "number 2"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_leaves_nothing_there(podman_host: PodmanHost, root: Path, number: signal.Signals) -> None:
    spoil(root, "echo waiting; sleep 300")
    process = subprocess.Popen(
        [KIT, "--host", "machine", "build", "tf-cpu", "--base", "archive"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=as_environment(
            KIT_SSH=podman_host.ssh(), KIT_ROOT=str(root), UV_DEFAULT_INDEX=f"https://me:{SECRET}@index.invalid/simple"
        ),
    )
    deadline = time.monotonic() + 120
    while podman_host.run("ps -u $(id -u) -o args= | grep -c '^sleep 300'", check=False).stdout.strip() == "0":
        assert time.monotonic() < deadline, "the step does not start"
        time.sleep(0.2)
    folder = podman_host.run('ls -ld "$XDG_RUNTIME_DIR"/kit-podman.*').stdout
    assert folder.startswith("drwx------")
    secret = podman_host.run('ls -l "$XDG_RUNTIME_DIR"/kit-podman.*/environment').stdout
    assert secret.startswith("-rw-------")
    assert SECRET not in podman_host.run("ps -u $(id -u) -o args=").stdout
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130, err
        assert "Traceback" not in err
    nothing_is_left(podman_host)


def test_the_registry_is_asked_by_podman(there: Engine, podman_host: PodmanHost, tmp_path: Path) -> None:
    catalog = load_catalog()
    image = catalog.find("tf-cpu")
    row = catalog.base_for(image)
    with local_registry(tmp_path) as registry:
        insecure(podman_host, registry)
        options = BuildOptions(base="registry", registry_mirror=registry)
        with pytest.raises(BaseNotFoundError, match="does not have the base"):
            choose_base(catalog, image, there, options, SILENT)
        name = f"{registry}/library/{row.repository}"
        podman_host.run(f"podman push --quiet --digestfile ~/digest {BASE} {name}:x")
        digest = podman_host.run("cat ~/digest").stdout.strip()
        assert images._registry_problem(there, f"{name}:x@{digest}", "confirmed") is None
    with pytest.raises(NetworkError, match="does not answer"):
        choose_base(catalog, image, there, options, SILENT)


def insecure(host: PodmanHost, registry: str) -> None:
    """Let the account use a registry that speaks plain HTTP."""
    host.account.configure("registries.conf", f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')


def test_an_image_is_pushed_from_a_podman_host_and_pulled_there(
    there: Engine, podman_host: PodmanHost, tmp_path: Path
) -> None:
    podman_host.run(f"podman tag {BASE} docker.io/kit/test-pushed:latest")
    built = Built(image="x", reference="kit/test-pushed:latest", base="", fingerprint="", is_new=True, seconds=0.0)
    wanted = cast("Image", Named("x", "kit/test-pulled:latest"))
    with local_registry(tmp_path) as registry:
        insecure(podman_host, registry)
        assert push_image(there, built, f"{registry}/lab/") == f"{registry}/lab/x:latest"
        podman_host.run(f"podman rmi docker.io/kit/test-pushed:latest {registry}/lab/x:latest")
        try:
            name = pulled(there, wanted, f"{registry}/lab", lambda _: False, SILENT)
            assert there.image_labels(name)["kit.base.suite"] == "bookworm"
        finally:
            podman_host.run(f"podman rmi --force {registry}/lab/x:latest")
    with pytest.raises(KitError, match=r"cannot be reached|could not be pulled"):
        pulled(there, wanted, f"{registry}/lab", lambda _: False, SILENT)


def test_an_image_is_sent_from_docker_to_podman(
    there: Engine, engine: Engine, docker: DockerClient, podman_host: PodmanHost, tmp_path: Path
) -> None:
    """With the layers as the engine here keeps them, which may be zstd."""
    small = "kit/test-transfer:latest"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\nLABEL kit.test=yes\n")
    compression = ",compression=zstd,oci-mediatypes=true" if engine.info.is_containerd_store else ""
    engine.call(["buildx", "build", "--quiet", f"--output=type=image,name={small}{compression}", str(tmp_path)])
    try:
        assert transfer_image(engine, there, small) > 1000
        assert labels(podman_host, "kit/test-transfer")["kit.test"] == "yes"
        with pytest.raises(KitError, match=r"failed|No such image|does not exist"):
            transfer_image(engine, there, "kit/test-none:latest")
    finally:
        docker.images.remove(small, force=True)
        podman_host.run(f"podman rmi --force docker.io/{small}")
