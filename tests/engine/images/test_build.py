"""`kit build` on a real engine: what is in an image, what is not, and what happens when it goes wrong."""

from __future__ import annotations

import datetime
import io
import json
import os
import shutil
import signal
import tarfile
from pathlib import Path

import pytest
import zstandard
from docker import DockerClient

from bench.registry import local_registry
from kit import locks, paths, render
from kit.catalog import load_catalog
from kit.catalog.update import Registry, update
from kit.engine import Engine
from kit.errors import LockError
from kit.image.build.images import build
from kit.image.build.options import BuildOptions
from kit.locks.uv import uv_program
from kit.network import read_settings
from tests.engine import witness
from tests.engine.conftest import CA_MARK, Kit, as_environment
from tests.engine.notebook import execute
from tests.engine.short import NAME, REFERENCE, Short, short, until_it_is_gone, until_it_runs
from tests.fake_wheels import make_index, make_wheel, sha256_of

__all__ = ["short"]

pytestmark = pytest.mark.engine


def labels(docker: DockerClient, name: str) -> dict[str, str]:
    found: dict[str, str] = docker.images.get(load_catalog().find(name).reference).labels
    return found


def test_two_cold_builds_have_one_digest(kit: Kit, began_cold: bool, ca_bundle: Path) -> None:
    """The first test of all on a fresh engine: the image of the others is then made of what these builds cached."""
    done = kit("--json", "build", "tf-cpu", "--base", "archive", "--check-repro", "--ca-cert", str(ca_bundle))
    result = json.loads(done.stdout)[0]
    assert result["equal"]
    assert result["digests"][0].startswith("sha256:")


def test_up_to_date_image_is_not_built_again(kit: Kit, tf_cpu: str) -> None:
    done = kit("--json", "build", tf_cpu)
    assert [built["is_new"] for built in json.loads(done.stdout)] == [False]
    assert "up to date" in done.stderr


def test_labels_say_what_the_image_is(tf_cpu: str, docker: DockerClient) -> None:
    found = labels(docker, tf_cpu)
    image = load_catalog().find(tf_cpu)
    assert found["kit.framework"] == "tensorflow"
    assert found["org.opencontainers.image.version"] == image.release.version
    assert found["kit.base-source"] == "archive"
    assert found["kit.python"] == load_catalog().suites_for(image)[0].python
    assert found["org.opencontainers.image.created"].endswith("T00:00:00Z")


def test_image_carries_every_promised_package(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    modules = [
        "tensorflow",
        "keras",
        "keras_tuner",
        "jupyterlab",
        "ipywidgets",
        "tensorboard",
        "numpy",
        "pandas",
        "scipy",
        "matplotlib",
        "sklearn",
        "PIL",
        "cv2",
        "tqdm",
    ]
    kit("-q", "run", "-C", str(workspace), tf_cpu, "python", "-c", f"import {', '.join(modules)}")


def test_default_user_is_not_root_and_byte_code_is_checked_hash(docker: DockerClient, tf_cpu: str) -> None:
    reference = load_catalog().find(tf_cpu).reference
    script = (
        "import os, importlib.util, pathlib, jupyterlab; "
        "p = importlib.util.cache_from_source(jupyterlab.__file__); "
        "print(os.getuid(), pathlib.Path(p).read_bytes()[4])"
    )
    assert witness.run(docker, reference, "python", "-c", script).split() == ["1000", "3"]


def test_no_file_is_newer_than_the_epoch_in_what_wheels_brought(docker: DockerClient, tf_cpu: str) -> None:
    reference = load_catalog().find(tf_cpu).reference
    assert witness.run(docker, reference, "find", "/opt", "-newermt", "1 hour ago") == ""


def test_ca_is_in_no_layer_and_no_history(
    kit: Kit, docker: DockerClient, began_cold: bool, tf_cpu: str, ca_bundle: Path, tmp_path: Path
) -> None:
    if not began_cold:  # a step that was in the cache had no CA
        kit("build", tf_cpu, "--base", "archive", "--no-cache", "--ca-cert", str(ca_bundle))
    image = docker.images.get(load_catalog().find(tf_cpu).reference)
    assert CA_MARK not in json.dumps(image.history())
    assert str(ca_bundle) not in json.dumps([image.attrs, image.history()])
    archive = tmp_path / "image.tar"
    with archive.open("wb") as file:
        file.writelines(image.save())
    mark, seen = CA_MARK.encode(), 0
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.isfile():
                continue
            stream = tar.extractfile(member)
            assert stream is not None
            head = stream.read(4)
            stream.seek(0)
            plain: io.IOBase = (
                zstandard.ZstdDecompressor().stream_reader(stream) if head == b"\x28\xb5\x2f\xfd" else stream
            )  # type: ignore[assignment]
            tail = b""
            while chunk := plain.read(1 << 22):
                assert mark not in tail + chunk, f"the CA is in {member.name}"
                tail = chunk[-len(mark) :]
            seen += 1
    assert seen > 5


def test_failed_step_is_named_with_its_last_lines(kit: Kit, tmp_path: Path) -> None:
    # A proxy that does not answer is a common way for a step to fail.
    done = kit(
        "build",
        "tf-cpu",
        "--base",
        "archive",
        "--no-cache",
        code=1,
        env=as_environment(http_proxy="http://127.0.0.1:9", no_proxy="", NO_PROXY=""),
    )
    assert "install system packages" in done.stderr
    assert "127.0.0.1" in done.stderr
    assert len(done.stderr.splitlines()) < 40
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("code", [0, 3])
def test_a_layer_that_cannot_be_installed_ends_its_step(
    docker: DockerClient, tf_cpu: str, tmp_path: Path, code: int
) -> None:
    (tmp_path / "uv").write_text(f"#!/bin/sh\nexit {code}\n")
    (tmp_path / "uv").chmod(0o755)
    shutil.copy(paths.templates_dir() / "begin.sh", tmp_path / "begin")
    step = ". /run/kit/begin && install_layer framework /opt/kit/venv && echo done"
    container = docker.containers.run(
        f"kit/{tf_cpu}:latest",
        ["sh", "-c", step],
        user="0",
        entrypoint="",
        environment={"SOURCE_DATE_EPOCH": "0"},
        volumes=[f"{tmp_path}:/run/kit:ro"],
        detach=True,
    )
    try:
        ended, printed = container.wait()["StatusCode"], container.logs(stderr=False).decode()
        assert (ended, printed) == (code, "" if code else "done\n"), container.logs().decode()
    finally:
        container.remove(force=True)


@pytest.mark.parametrize("good", [True, False])
def test_a_wheel_with_another_hash_than_is_locked_is_refused(
    docker: DockerClient, tf_cpu: str, tmp_path: Path, good: bool
) -> None:
    wheels = tmp_path / "wheels"
    (tmp_path / "cache").mkdir()
    wheels.mkdir()
    wheel = make_wheel(wheels, "made-up", "1.0+cpu")
    index = make_index(tmp_path / "index", wheels)
    digest = sha256_of(wheel) if good else "0" * 64
    (tmp_path / "wheels.txt").write_text(f"# layer: framework\nmade-up==1.0+cpu \\\n    --hash=sha256:{digest}\n")
    shutil.copy(uv_program(load_catalog().uv_version), tmp_path / "uv")
    shutil.copy(paths.templates_dir() / "begin.sh", tmp_path / "begin")
    step = f". /run/kit/begin && install_layer framework /opt/kit/venv {index} made-up && python -c 'import made_up'"
    container = docker.containers.run(
        f"kit/{tf_cpu}:latest",
        ["sh", "-c", step],
        user="0",
        entrypoint="",
        environment={"SOURCE_DATE_EPOCH": "0"},
        volumes=[f"{tmp_path}:/run/kit:ro", f"{tmp_path}:{tmp_path}:ro"],
        tmpfs={"/run/kit/cache": "", "/dev/shm": ""},
        detach=True,
    )
    try:
        ended, printed = container.wait()["StatusCode"], container.logs().decode()
        assert (ended == 0) == good, printed
        assert good or "Hash mismatch for `made-up==1.0+cpu`" in printed
    finally:
        container.remove(force=True)


def test_killed_build_then_the_same_command_succeeds(short: Short, docker: DockerClient) -> None:
    step = "sleep 2.71"
    short.write(step)
    process = short.start()
    until_it_runs(step)
    process.kill()
    process.communicate()
    short.build()
    assert docker.images.get(REFERENCE).labels["kit.base-source"] == "archive"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_build_ends_with_its_own_exit_code(short: Short, docker: DockerClient, number: int) -> None:
    step = "sleep 314.15"
    short.write(step)
    process = short.start()
    until_it_runs(step)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    until_it_is_gone(step)
    assert not any(REFERENCE in image.tags for image in docker.images.list())


def test_without_the_cache_every_step_runs_again(short: Short, docker: DockerClient) -> None:
    short.write("cat /proc/sys/kernel/random/uuid > /made")

    def drawn(*options: str) -> str:
        short.build(*options)
        return witness.run(docker, REFERENCE, "cat", "/made")

    first = drawn()
    assert drawn("--force") == first
    assert drawn("--no-cache") != first


def test_base_that_the_registry_does_not_have(kit: Kit, tmp_path: Path) -> None:
    with local_registry(tmp_path) as registry:
        done = kit("build", "torch-cu126", "--base", "registry", "--registry-mirror", registry, "--force", code=15)
    assert "kit update" in done.stderr
    assert "nvidia/cuda" in done.stderr


def test_registry_that_does_not_answer(kit: Kit) -> None:
    done = kit("build", "torch-cu126", "--base", "registry", "--registry-mirror", "127.0.0.1:9", "--force", code=19)
    assert "--base archive" in done.stderr


def test_devel_and_base_provided_images_refuse_the_archive(kit: Kit) -> None:
    assert "registry" in kit("build", "tf2.10-cu112", "--base", "archive", code=3).stderr
    assert "nvcc" in kit("build", "torch-cu126-devel", "--base", "archive", code=3).stderr


def test_unlocked_image_says_why_and_how(kit: Kit) -> None:
    done = kit("build", "torch-cu118", code=7)
    assert "kit lock torch-cu118" in done.stderr


def test_torch_cuda_image_runs_in_a_notebook(kit: Kit, docker: DockerClient, torch_cuda: str, workspace: Path) -> None:
    started = json.loads(kit("--json", "run", "-C", str(workspace), torch_cuda, "jupyter").stdout)
    try:
        code = (
            "import torch, torchvision, torchaudio, torch_geometric\n"
            "print(torch.version.cuda, torch.cuda.get_arch_list(), torch.ones(2, 3).sum().item())"
        )
        release = load_catalog().find(torch_cuda).release
        printed = execute(started["url"], code)
        assert printed.startswith(release.cuda)
        assert printed.rstrip().endswith("6.0")
    finally:
        kit("rm", "--force", started["name"])
    found = labels(docker, torch_cuda)
    assert found["kit.cuda"] == release.cuda
    assert found["kit.compute-capabilities"].split() == list(release.compute_capabilities)


def test_torch_compile_works_with_the_image_s_compiler(kit: Kit, torch_cuda: str, workspace: Path) -> None:
    code = "import torch; print(torch.compile(lambda x: (x * 2 + 1).sum())(torch.ones(8)).item())"
    assert kit("-q", "run", "-C", str(workspace), torch_cuda, "python", "-c", code).stdout == "24.0\n"


def test_no_environment_sets_a_library_path(docker: DockerClient, torch_cuda: str) -> None:
    environment = docker.images.get(load_catalog().find(torch_cuda).reference).attrs["Config"]["Env"]
    variables = dict(entry.partition("=")[::2] for entry in environment)
    assert variables["LD_LIBRARY_PATH"] == "", "set, and empty: the bases of nvidia/cuda have folders of theirs in it"
    assert {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "CUDA_CACHE_PATH"} <= set(variables)


def test_engine_without_buildx_is_refused(kit: Kit, engine: Engine, tmp_path: Path) -> None:
    done = kit(
        "build",
        "tf-cpu",
        "--force",
        code=11,
        env=as_environment(
            KIT_ENGINE="",
            DOCKER_HOST=f"unix://{engine.socket_path}",
            DOCKER_CONFIG=str(tmp_path),
            PATH=f"{_docker_without_plugins(engine, tmp_path)}:{os.environ['PATH']}",
        ),
    )
    assert "buildx" in done.stderr


def _docker_without_plugins(engine: Engine, folder: Path) -> Path:
    """The engine's docker with no plug-in: the old builder, as a bare `docker` package has it."""
    program = folder / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\n[ "$1" != buildx ] || { echo "docker: unknown command: docker buildx" >&2; exit 1; }\n'
        f'exec {engine.program} "$@"\n'
    )
    program.chmod(0o755)
    return program.parent


def test_base_confirmed_by_a_registry_and_built_from_it(
    kit: Kit, engine: Engine, docker: DockerClient, short: Short, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kit update` against a registry, lock, render, and a build on the digest it confirmed."""
    short.write("true")
    short.build()
    before = labels(docker, NAME)
    image = load_catalog().find(NAME)
    row = load_catalog().base_for(image)
    shutil.copytree(
        paths.catalog_dir(), tmp_path / "catalog", ignore=shutil.ignore_patterns("*.py", "__pycache__", "pins.json")
    )
    monkeypatch.setenv("KIT_ROOT", str(short.root))
    paths.root_dir.cache_clear()
    (tmp_path / "registry").mkdir()
    with local_registry(tmp_path / "registry") as registry:
        pushed = f"{registry}/{row.repository}:{row.tag}"
        docker.images.get("kit/base:bookworm").tag(pushed)
        docker.images.push(pushed)
        docker.images.remove(pushed)
        update(load_catalog(tmp_path / "catalog"), [row], Registry(registry), today=datetime.date(2026, 11, 21))
        catalog = load_catalog(tmp_path / "catalog")
        confirmed = catalog.base_for(image)
        assert confirmed.digest_status == "confirmed"
        assert confirmed.digest not in ("", row.digest)
        options = BuildOptions(base="registry", registry_mirror=registry, network=read_settings())
        with pytest.raises(LockError, match="stale"):
            build(catalog, image, engine, options)
        locks.solve(catalog, image)
        render.render(catalog, [image])
        built = build(catalog, image, engine, options)
    paths.root_dir.cache_clear()
    assert built.is_new
    assert built.base == f"{pushed}@{confirmed.digest}"
    after = labels(docker, NAME)
    assert after["kit.base-source"] == "registry"
    assert before["kit.base-source"] == "archive"
