"""`kit verify` can fail: each check against an image or a container that is broken in just that way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from docker import DockerClient

from kit import verify
from kit.catalog import Catalog
from kit.engine import Engine
from kit.network import NetworkSettings
from kit.run.containers import answers
from kit.run.lease import decide
from kit.run.prepare import Ready
from kit.spec.gpu_grant import GpuGrant
from kit.spec.gpu_request import NO_GPUS
from kit.spec.request import Service, Started
from kit.verify.report import Report, Subject
from tests.engine import witness
from tests.engine.conftest import KIT, Kit
from tests.engine.remote.client import eventually
from tests.engine.run.test_gpu_injection import cdi
from tests.engine.witness import containers

__all__ = ["cdi"]

pytestmark = pytest.mark.engine

REPOSITORY = "kit-verify-test"
SITE = "/opt/kit/venv/lib/python3.*/site-packages"
# Beside those of the image.
JUPYTER_SETTINGS = "/etc/jupyter/jupyter_server_config.json"
# The checks that take a second or two together; a broken image must fail one of them, and no other.
QUICK = ("packages", "image", "security", "container", "framework.one-copy", "framework.library-path")


@dataclass(frozen=True, kw_only=True)
class Broken:
    """An image that fails one check."""

    check: str
    lines: str  # after its FROM
    says: str  # part of the check's detail
    only: tuple[str, ...] = QUICK


BROKEN = {
    "package-missing": Broken(
        check="packages.locked", lines=f"RUN rm -r {SITE}/tqdm-*.dist-info", says="none is there"
    ),
    "package-other-version": Broken(
        check="packages.locked",
        lines=f"RUN sed -i 's/^Version: .*/Version: 0.1/' {SITE}/tqdm-*/METADATA",
        says="0.1 is",
    ),
    "package-more": Broken(
        check="packages.besides",
        lines=f"RUN cd {SITE} && mkdir more-1.0.dist-info "
        "&& printf 'Name: more\\nVersion: 1.0\\n' > more-1.0.dist-info/METADATA",
        says="more 1.0",
    ),
    "package-twice": Broken(
        check="packages.besides",
        lines=f"RUN cp -r {SITE}/tqdm-*.dist-info /usr/local/lib/python3.*/dist-packages/",
        says="a second time",
    ),
    "pip-not-held": Broken(
        check="packages.constraints", lines="RUN sed -i '/^numpy==/d' /opt/kit/constraints.txt", says="numpy"
    ),
    "stale-byte-code": Broken(
        check="packages.byte-code", lines=f"RUN echo '# changed' >> $(echo {SITE})/tqdm/std.py", says="tqdm"
    ),
    "does-not-import": Broken(
        check="framework.imports",
        lines=f"RUN echo 'raise ImportError(\"broken\")' > $(echo {SITE})/tensorflow/__init__.py",
        says="ImportError: broken",
        only=("framework.imports", "framework.library-path"),
    ),
    "libcudnn": Broken(
        check="framework.one-copy", lines="RUN touch /usr/lib/libcudnn.so.9", says="/usr/lib/libcudnn.so.9"
    ),
    "library-path": Broken(check="framework.library-path", lines="ENV LD_LIBRARY_PATH=/opt/other", says="/opt/other"),
    "label-lies": Broken(check="image.labels", lines='LABEL kit.framework-version="9.9.9"', says="9.9.9"),
    "variable-differs": Broken(check="image.environment", lines="ENV LANG=de_DE.UTF-8", says="LANG=de_DE.UTF-8"),
    "root": Broken(check="security.user", lines="USER root", says="root"),
    "user-by-name": Broken(check="security.user", lines="USER kit", says="not a number"),
    "setuid": Broken(
        check="security.setuid",
        lines="RUN cp /bin/cat /usr/local/bin/gain && chmod u+s /usr/local/bin/gain",
        says="/usr/local/bin/gain",
    ),
    "setuid-on-a-required-program": Broken(
        check="security.setuid", lines="RUN chmod 4755 /bin/cat", says="/usr/bin/cat 4755"
    ),
    "setuid-where-setgid-belongs": Broken(
        check="security.setuid", lines="RUN chmod 6755 /usr/bin/chage", says="/usr/bin/chage 6755"
    ),
    "world-writable": Broken(
        check="security.world-writable",
        lines="RUN touch /opt/kit/open && chmod 666 /opt/kit/open",
        says="/opt/kit/open",
    ),
    "world-writable-folder": Broken(
        check="security.world-writable", lines="RUN mkdir /opt/kit/all && chmod 1777 /opt/kit/all", says="/opt/kit/all"
    ),
    "secret-in-pip-s-settings": Broken(
        check="security.secrets",
        lines="RUN echo 'index-url = https://example.org/' >> /opt/kit/venv/pip.conf",
        says="/opt/kit/venv/pip.conf",
    ),
    "secret-variable": Broken(check="security.secrets", lines="ENV HF_TOKEN=abc", says="HF_TOKEN"),
    "secret-file": Broken(
        check="security.secrets", lines="RUN echo 'machine example.org password x' > /root/.netrc", says="/root/.netrc"
    ),
    "key-of-root": Broken(check="security.secrets", lines="RUN openssl genrsa -out /root/key 2048", says="/root/key"),
    "key-of-a-server": Broken(
        check="security.secrets",
        lines="RUN mkdir /etc/ssh && openssl genrsa -out /etc/ssh/ssh_host_rsa_key 2048",
        says="/etc/ssh/ssh_host_rsa_key",
    ),
    "key-anywhere": Broken(
        check="security.secrets", lines="RUN openssl genrsa -out /usr/share/kept 2048", says="/usr/share/kept"
    ),
    "key-among-packages": Broken(
        check="security.secrets", lines=f"RUN openssl genrsa -out $(echo {SITE})/numpy/kept 2048", says="/numpy/kept"
    ),
    "keystore": Broken(check="security.secrets", lines="RUN touch /var/lib/kept.p12", says="/var/lib/kept.p12"),
    "password-of-an-index": Broken(
        check="security.secrets",
        lines="RUN printf '[global]\\nindex-url = https://u:p@example.org/\\n' > /etc/pip.conf",
        says="/etc/pip.conf",
    ),
    "secret-in-the-home": Broken(
        check="security.secrets",
        lines="RUN openssl genrsa -out /home/kit/.cache/key.pem 2048",
        says="/home/kit/.cache/key.pem",
    ),
    "ca": Broken(
        check="security.ca",
        lines="RUN openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=builder "
        "-out /usr/local/share/ca-certificates/builder.crt && update-ca-certificates",
        says="builder.crt",
    ),
    "ca-in-the-bundle": Broken(
        check="security.ca",
        lines="RUN openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=builder "
        ">> /etc/ssl/certs/ca-certificates.crt",
        says="1 certificates",
    ),
    "ca-variable": Broken(check="security.ca", lines="ENV SSL_CERT_FILE=/tmp/ca.crt", says="SSL_CERT_FILE"),
    "port": Broken(check="security.ports", lines="EXPOSE 22", says="22/tcp"),
    "cache-of-root": Broken(
        check="container.volumes", lines="RUN chmod 755 /home/kit/.cache/pip", says="/home/kit/.cache/pip"
    ),
    "login-shell": Broken(
        check="container.login-shell[bash]",
        lines="RUN echo '[ -z \"$BASH\" ] || PATH=/usr/bin:/bin' > /etc/profile.d/zz.sh",
        says="not found",
    ),
    "no-less": Broken(check="container.programs", lines="RUN rm /usr/bin/less", says="less"),
    "no-locale": Broken(check="container.locales", lines="RUN rm /usr/lib/locale/locale-archive", says="zh_CN.UTF-8"),
    "no-own-environment": Broken(
        check="container.own-environment", lines="RUN rm -r /usr/lib/python3.*/ensurepip", says="ensurepip"
    ),
    "cannot-save": Broken(
        check="training.model",
        lines=f"RUN rm -r {SITE}/h5py",
        says="h5py",
        only=("training.model", "framework.imports"),
    ),
    "token-off": Broken(
        check="jupyter.token",
        lines=f'RUN mkdir -p /etc/jupyter && echo \'{{"IdentityProvider": {{"token": ""}}}}\' > {JUPYTER_SETTINGS}',
        says="without a token",
        only=(*QUICK, "jupyter.token", "jupyter.published"),
    ),
    "no-kernel": Broken(
        check="jupyter.kernel",
        lines='RUN mkdir -p /etc/jupyter && echo \'{"MappingKernelManager": {"default_kernel_name": "none"}}\' '
        f"> {JUPYTER_SETTINGS}",
        says="asked for a kernel",
        only=("jupyter",),
    ),
    "terminal-is-sh": Broken(
        check="jupyter.terminal", lines="ENV SHELL=/bin/sh", says="the shell is /bin/sh", only=("jupyter",)
    ),
    "no-other-port": Broken(
        check="jupyter.ports",
        lines="RUN rm /opt/kit/venv/etc/jupyter/jupyter_*_config.d/jupyter-server-proxy.json",
        says="it answers 404",
        only=("jupyter",),
    ),
    "menu-entries-that-fail": Broken(
        check="jupyter.exports",
        lines="RUN rm /opt/kit/venv/etc/jupyter/jupyter_server_config.json",
        says="pdf",
        only=("jupyter",),
    ),
    "no-chinese": Broken(
        check="jupyter.plot",
        lines="RUN rm -r /usr/share/fonts/truetype/wqy",
        says="Glyph",
        only=("jupyter.cell", "jupyter.progress", "jupyter.plot"),
    ),
    "cells-fail": Broken(
        check="jupyter.cell",
        lines="RUN mkdir /etc/ipython && echo 'get_config().InteractiveShellApp.exec_lines = [\"print = None\"]' "
        "> /etc/ipython/ipython_config.py",
        says="TypeError",
        only=("jupyter.cell", "jupyter.progress", "jupyter.plot"),
    ),
    "widgets-are-not-drawn": Broken(
        check="jupyter.progress",
        lines="RUN rm -r /opt/kit/venv/share/jupyter/labextensions/@jupyter-widgets",
        says="extension",
        only=("jupyter.cell", "jupyter.progress", "jupyter.plot"),
    ),
    "plots-fail": Broken(
        check="jupyter.plot",
        lines=f"RUN cd {SITE}/matplotlib/backends && rm backend_agg.py __pycache__/backend_agg.*",
        says="inline",
        only=("packages", "jupyter.cell", "jupyter.progress", "jupyter.plot"),
    ),
    "no-tensorboard": Broken(
        check="tensorboard.scalar",
        lines="RUN echo 'raise SystemExit(3)' | tee /opt/kit/venv/lib/python3*/site-packages/tensorboard/program.py",
        says="ended with exit code 3",
        only=("tensorboard.scalar", "training.model"),
    ),
}


@pytest.fixture(scope="module")
def broken(
    tf_cpu: str, engine: Engine, docker: DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """All broken images, built in one go."""
    folder = tmp_path_factory.mktemp("empty")
    targets = {
        name: {
            "context": str(folder),
            "dockerfile-inline": f"FROM kit/{tf_cpu}:latest\nUSER 0\n{image.lines}\n"
            + ("" if image.lines.startswith("USER") else "USER 1000:1000\n"),
            "tags": [f"{REPOSITORY}/{name}"],
            "output": ["type=image,unpack=true"],
        }
        for name, image in BROKEN.items()
    }
    file = folder.with_suffix(".json")
    file.write_text(json.dumps({"group": {"default": {"targets": list(targets)}}, "target": targets}))
    engine.call(["buildx", "bake", "--provenance=false", f"--allow=fs.read={folder}", f"--file={file}"], timeout_s=600)
    yield
    for name in BROKEN:
        docker.images.remove(f"{REPOSITORY}/{name}", force=True)


def failed(report: Report) -> dict[str, str]:
    return {check.name: check.detail for check in report.checks if check.outcome == "failed"}


def ready(name: str, engine: Engine, catalog: Catalog) -> Ready:
    """An image that is there, for a container without GPUs."""
    image, network = catalog.find(name), NetworkSettings(proxies={})
    gpus = decide(NO_GPUS, engine, image)
    return Ready(catalog=catalog, image=image, engine=engine, network=network, gpus=gpus)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_image_fails_that_check_alone(
    name: str, broken: None, tf_cpu: str, engine: Engine, catalog: Catalog
) -> None:
    case = BROKEN[name]
    there = replace(ready(tf_cpu, engine, catalog), reference=f"{REPOSITORY}/{name}")
    found = failed(verify.verify(there, only=case.only))
    assert list(found) == [case.check], found
    assert case.says in found[case.check]


@pytest.fixture
def subject(tf_cpu: str, engine: Engine, catalog: Catalog) -> Iterator[Subject]:
    """A sound container of the small image."""
    with verify.started(ready(tf_cpu, engine, catalog)) as found:
        yield found


@pytest.fixture
def careless(subject: Subject, docker: DockerClient) -> Iterator[Subject]:
    """A container as plain `docker run` starts one: 64 MB of shared memory, and all the usual capabilities."""
    name = f"{subject.container}-careless"
    volumes = [f"{subject.scripts}:/run/kit/verify:ro"]
    options = {"name": name, "user": "1000:1000", "volumes": volumes, "detach": True}
    docker.containers.run(subject.reference, ["sleep", "600"], **options)
    yield replace(subject, container=name)
    witness.remove(docker, name)


def test_careless_container_fails_what_kit_run_gives(careless: Subject) -> None:
    report = verify.check(careless, only=("security", "container", "training.workers"))
    assert set(failed(report)) == {"security.privileges", "container.shared-memory", "training.workers"}
    assert "bus error" in failed(report)["training.workers"].lower()


def test_program_that_listens_is_seen(subject: Subject, docker: DockerClient) -> None:
    container = docker.containers.get(subject.container)
    container.exec_run(["python", "-m", "http.server", "9999"], detach=True)
    look = ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 9999))"]
    eventually(lambda: container.exec_run(look).exit_code == 0, "it listens")
    found = failed(verify.check(subject, only=("security",)))
    assert found == {"security.ports": "something listens on 9999"}


def test_notebook_published_to_the_world(subject: Subject, docker: DockerClient) -> None:
    name = f"{subject.container}-open"

    def start(service: Service) -> tuple[Started, str]:
        command = ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser"]
        options = {"name": name, "ports": {"8888/tcp": ("0.0.0.0", None)}, "detach": True}
        environment = {"JUPYTER_TOKEN": "secret-of-a-test"}
        docker.containers.run(subject.reference, command, environment=environment, **options)
        port = int(docker.containers.get(name).ports["8888/tcp"][0]["HostPort"])
        end = time.monotonic() + 60
        while not answers("jupyter", port, "secret-of-a-test"):
            assert time.monotonic() < end
            time.sleep(0.2)
        return Started(name=name, url=f"http://127.0.0.1:{port}/lab", gpus=GpuGrant()), "secret-of-a-test"

    try:
        found = failed(verify.check(replace(subject, start_service=start), only=("jupyter.token", "jupyter.published")))
    finally:
        witness.remove(docker, name)
    assert found == {"jupyter.published": "it is published on 0.0.0.0"}


def test_devel_image_without_a_compiler(subject: Subject, catalog: Catalog) -> None:
    devel = replace(subject, image=catalog.find("torch2.7-cu126-devel"))
    assert failed(verify.check(devel, only=("devel",)))["devel.nvcc"].startswith("nvcc does not run")


@pytest.fixture(scope="module")
def torch_subject(torch_cuda: str, engine: Engine, catalog: Catalog) -> Iterator[Subject]:
    with verify.started(ready(torch_cuda, engine, catalog)) as found:
        yield found


CUDA = ("framework.imports", "framework.cuda", "framework.cudnn", "framework.architectures")


def with_lock(subject: Subject, before: str, after: str) -> Subject:
    """The same container, and a lock in which a text is another."""
    layers = {name: text.replace(before, after) for name, text in subject.lock.layers.items()}
    return replace(subject, lock=replace(subject.lock, layers=layers))


def test_cuda_of_another_lock(torch_subject: Subject) -> None:
    other = with_lock(torch_subject, "runtime-cu12==12.6.77", "runtime-cu12==12.8.90")
    assert failed(verify.check(other, only=CUDA)) == {
        "framework.cuda": "the CUDA runtime says 12060, and CUDA 12.8 is locked"
    }


def test_cudnn_of_another_lock(torch_subject: Subject) -> None:
    other = with_lock(torch_subject, "9.5.1.17", "9.6.0.74")
    assert failed(verify.check(other, only=CUDA)) == {"framework.cudnn": "cuDNN says 90501, and 9.6.0.74 is locked"}


@pytest.mark.parametrize(
    ("capabilities", "says"),
    [
        (("5.0", "6.0", "7.0", "7.5", "8.0", "8.6"), "also compiled for sm_90"),
        (("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0", "12.0"), "not compiled for sm_120"),
    ],
)
def test_architectures_that_the_catalog_does_not_name(
    torch_subject: Subject, capabilities: tuple[str, ...], says: str
) -> None:
    release = replace(torch_subject.image.release, compute_capabilities=capabilities)
    found = failed(verify.check(replace(torch_subject, image=replace(torch_subject.image, release=release)), only=CUDA))
    assert list(found) == ["framework.architectures"]
    assert says in found["framework.architectures"]


def test_torch_broken_while_it_runs(torch_subject: Subject, engine: Engine, docker: DockerClient) -> None:
    """A second libcudnn, no compiler, a cache on no volume: on a container of an image made so."""
    name = f"{REPOSITORY}/torch"
    dockerfile = (
        f"FROM {torch_subject.reference}\nUSER 0\n"
        f"RUN cp {SITE}/nvidia/cudnn/lib/libcudnn.so.9 /usr/lib/ && rm /usr/bin/*g++* /usr/bin/c++\nUSER 1000:1000\n"
    )
    engine.call(["build", "--quiet", "--tag", name, "-"], input=dockerfile, timeout_s=300)
    container = f"{torch_subject.container}-broken"
    volumes = [f"{torch_subject.scripts}:/run/kit/verify:ro"]
    try:
        docker.containers.run(name, ["sleep", "600"], name=container, volumes=volumes, detach=True)
        report = verify.check(
            replace(torch_subject, reference=name, container=container),
            only=("framework", "container.cuda-cache", "training.model"),
        )
    finally:
        witness.remove(docker, container)
        docker.images.remove(name, force=True)
    found = failed(report)
    assert set(found) == {"framework.one-copy", "framework.compiles", "container.cuda-cache"}
    assert "/usr/lib/libcudnn.so.9" in found["framework.one-copy"]
    assert "is no volume" in found["container.cuda-cache"]


def test_command_prints_a_table_json_and_junit(kit: Kit, tf_cpu: str, docker: DockerClient, tmp_path: Path) -> None:
    before = containers(docker)
    junit = tmp_path / "report" / "verify.xml"
    done = kit("verify", tf_cpu, "--only", "packages", "--only", "gpu", "--junit", str(junit))
    assert done.stdout.splitlines()[0].split() == ["check", "result", "detail"]
    assert "packages.locked" in done.stdout
    assert "not run  no GPU" in done.stdout
    suite = ElementTree.parse(junit).getroot()[0]
    assert suite.get("failures") == "0"
    assert {case.get("name") for case in suite} >= {"locked", "besides", "driver"}
    data = json.loads(kit("verify", tf_cpu, "--only", "packages.locked", "--json").stdout)
    assert data["image"] == "tf-cpu"
    assert [(c["name"], c["outcome"]) for c in data["checks"]] == [("packages.locked", "passed")]
    assert containers(docker) == before


def test_command_fails_when_a_check_does(kit: Kit, tf_cpu: str, broken: None) -> None:
    image = f"{REPOSITORY}/label-lies"
    done = kit("verify", tf_cpu, "--image", image, "--only", "image", "--json", code=1)
    outcomes = {c["name"]: c["outcome"] for c in json.loads(done.stdout)["checks"]}
    assert outcomes == {"image.labels": "failed", "image.environment": "passed"}
    assert "kit.framework-version is `9.9.9`" in done.stderr


def own_volumes(docker: DockerClient) -> set[str]:
    """All but those of the accounts that other tests make (tests/engine/remote/accounts.py)."""
    return {name for name in witness.volumes(docker) if not re.match(r"kit-5\d{4}-", name)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_leaves_nothing(tf_cpu: str, docker: DockerClient, number: int) -> None:
    before, volumes = containers(docker), own_volumes(docker)
    process = subprocess.Popen(
        [KIT, "verify", tf_cpu],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while not any("verify" in name for name in containers(docker) - before):
        assert time.monotonic() < end
        time.sleep(0.1)
    name = next(name for name in containers(docker) - before if "verify" in name)
    # A check is in the middle of its command.
    eventually(lambda: len(docker.containers.get(name).top()["Processes"]) > 2, "a command in the container")
    os.killpg(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert containers(docker) == before
    assert own_volumes(docker) == volumes


def test_gpus_that_do_not_answer_inside(kit: Kit, torch_cuda: str, workspace: Path, cdi: None) -> None:
    """The devices of the test's CDI specification are no GPUs, and its libcuda.so.1 is no library."""
    done = kit("verify", torch_cuda, "--only", "gpu", "--json", code=1)
    checks = {c["name"]: c for c in json.loads(done.stdout)["checks"]}
    assert checks["gpu.driver"]["outcome"] == "failed"
    assert "no GPU is usable inside: /" in checks["gpu.driver"]["detail"]
    others = {c["outcome"] for name, c in checks.items() if name != "gpu.driver"}
    assert others == {"not_run"}
    started = kit("--json", "run", "-C", str(workspace), torch_cuda, "jupyter")
    name = json.loads(started.stdout)["name"]
    kit("rm", "--force", name)
    assert "warning: no GPU is usable inside" in started.stderr


def test_services_without_gpus_are_not_asked(kit: Kit, torch_cuda: str, workspace: Path) -> None:
    started = kit("--json", "run", "--gpus", "none", "-C", str(workspace), torch_cuda, "tensorboard")
    kit("rm", "--force", json.loads(started.stdout)["name"])
    assert "GPU" not in started.stderr
