"""What is said and proved of a host with Podman: `kit verify`, `bench`, `doctor`, GPUs by CDI, `compose`, `code`."""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kit import paths
from kit.catalog import load_catalog
from kit.image.build.inputs import fingerprint
from kit.remote import ssh
from tests.engine.conftest import Kit
from tests.engine.podman_host import BASE, PodmanHost
from tests.engine.sshd import needs_sshd

pytestmark = [pytest.mark.engine, needs_sshd]
SPECIFICATION = Path("/etc/cdi/kit-podman-test.json")
# Device files under names of their own: rootless Podman mounts a device from the host, and can make none.
DEVICES = {"0": Path("/dev/kit-podman-0"), "1": Path("/dev/kit-podman-1")}
GPU_IMAGE = "torch2.7-cu126"


@pytest.fixture
def there(kit: Kit, podman_host: PodmanHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kit]:
    """`kit` with the host with Podman as its machine."""
    monkeypatch.delenv("KIT_ENGINE", raising=False)
    monkeypatch.setenv("KIT_SSH", podman_host.ssh())
    yield lambda *args, **options: kit("--host", "machine", *args, **options)
    podman_host.account.remove_containers()
    ssh.close("machine")


def build_there(host: PodmanHost, reference: str, *lines: str) -> None:
    text = shlex.quote("\n".join(lines))
    host.run(f"printf '%s\\n' {text} | podman build --quiet --format docker --tag {reference} -f - .")


def left_in_scratch(host: PodmanHost) -> list[str]:
    return host.run('ls "$HOME/.cache/kit" | grep scratch', check=False).stdout.split()


def test_verify(there: Kit, podman_host: PodmanHost, podman_tf_cpu: str) -> None:
    done = there("--json", "verify", podman_tf_cpu)
    outcomes = {check["name"]: check["outcome"] for check in json.loads(done.stdout)["checks"]}
    assert {name for name, outcome in outcomes.items() if outcome == "failed"} == set()
    assert [*outcomes.values()].count("passed") == 38
    assert podman_host.account.containers() == []
    assert left_in_scratch(podman_host) == []


def test_a_check_can_fail_there(there: Kit, podman_host: PodmanHost, podman_tf_cpu: str) -> None:
    reference = f"docker.io/kit/{podman_tf_cpu}"
    version = "sed -i 's/^Version: .*/Version: 0.1/' /opt/kit/venv/lib/python3.*/site-packages/tqdm-*/METADATA"
    build_there(podman_host, f"{reference}:broken", f"FROM {reference}:latest", "USER 0", f"RUN {version}", "USER 1000")
    try:
        done = there(
            *("--json", "verify", podman_tf_cpu, "--image", f"kit/{podman_tf_cpu}:broken", "--only", "packages"), code=1
        )
    finally:
        podman_host.run(f"podman rmi --force {reference}:broken")
    failed = [check for check in json.loads(done.stdout)["checks"] if check["outcome"] == "failed"]
    assert [check["name"] for check in failed] == ["packages.locked"]
    assert "0.1 is" in failed[0]["detail"]


def test_bench_on_the_cpu(there: Kit, podman_host: PodmanHost, podman_tf_cpu: str, tmp_path: Path) -> None:
    there("bench", podman_tf_cpu, "--device", "cpu", "--only", "memory_copy", "--save", str(tmp_path / "result.json"))
    (test,) = json.loads((tmp_path / "result.json").read_text())["tests"]
    assert (test["name"], test["outcome"]) == ("memory_copy", "measured")
    assert left_in_scratch(podman_host) == []


def test_the_doctor_finds_nothing_wrong_with_rootless_podman(there: Kit, gpus_alone: None) -> None:
    done = there("--json", "doctor")
    report = json.loads(done.stdout)
    engine = report["host"]["engine"]
    assert (engine["program"], engine["problem"], engine["is_rootless"]) == ("podman", "", True)
    assert engine["uids"] > 65536
    checks = {finding["check"] for finding in report["findings"]}
    assert {check for check in checks if check.startswith(("engine", "podman", "buildx", "proxy"))} == set()


def test_vs_code_is_refused(there: Kit) -> None:
    done = there("code", "tf-cpu", code=20)
    assert done.stdout == ""
    assert "VS Code cannot attach to containers of Podman on another machine (machine)" in done.stderr


def test_a_compose_file(there: Kit, podman_host: PodmanHost, tmp_path: Path) -> None:
    done = there("compose", "tf-cpu", cwd=tmp_path)
    (service,) = yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"].values()
    assert (service["user"], service["labels"]["kit.owner"]) == ("0:0", str(podman_host.account.uid))
    assert "start it" not in done.stderr
    assert "note: it is for Docker Compose with Docker" in done.stderr
    made = podman_host.run("podman volume ls --quiet").stdout.split()
    assert any(name.startswith("kit-0-") and name.endswith("-tf-cpu-local") for name in made)
    # Podman refuses to make them again.
    there("compose", "tf-cpu", "--port", "9000", cwd=tmp_path)


@pytest.fixture
def cdi(gpus_alone: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two GPUs that are what /dev/null and /dev/zero are."""
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)
    if SPECIFICATION.parent.is_dir() and any(SPECIFICATION.parent.iterdir()):
        pytest.skip("this machine has a CDI specification of its own")
    devices = [
        {"name": name, "containerEdits": {"deviceNodes": [{"path": str(DEVICES[n])} for n in numbers]}}
        for name, numbers in (("0", "0"), ("1", "1"), ("all", "01"))
    ]
    made = not SPECIFICATION.parent.is_dir()
    SPECIFICATION.parent.mkdir(parents=True, exist_ok=True)
    for path, like in zip(DEVICES.values(), ("/dev/null", "/dev/zero"), strict=True):
        os.mknod(path, stat.S_IFCHR | 0o666, Path(like).stat().st_rdev)
        path.chmod(0o666)
    SPECIFICATION.write_text(json.dumps({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}))
    yield
    SPECIFICATION.unlink()
    for path in DEVICES.values():
        path.unlink()
    if made:
        SPECIFICATION.parent.rmdir()


@pytest.fixture
def gpu_image(podman_host: PodmanHost) -> Iterator[str]:
    """An image that kit takes for a CUDA image it built: kit's base with the labels of one."""
    catalog = load_catalog()
    image = catalog.find(GPU_IMAGE)
    folder = paths.images_dir() / image.name
    identity = catalog.base_for(image).reference
    labels = {
        "kit.fingerprint": fingerprint(
            (folder / "Dockerfile").read_text(), (folder / "requirements.lock").read_text(), identity
        ),
        "kit.base-identity": identity,
        "kit.base-source": "registry",
    }
    lines = [f"FROM {BASE}", "WORKDIR /workspace", *(f"LABEL {name}={value}" for name, value in labels.items())]
    build_there(podman_host, f"docker.io/{image.reference}", *lines)
    identity = f"$(podman image inspect --format '{{{{.Id}}}}' docker.io/{image.reference})"
    record = f"kit-made-kit-{image.name}-latest"
    podman_host.run(f"podman volume create --label kit.image-id={identity} {record}")
    yield image.name
    podman_host.run(f"podman rmi --force docker.io/{image.reference}; podman volume rm {record}")


def test_gpus_get_into_a_container(
    there: Kit, podman_host: PodmanHost, gpu_image: str, workspace: Path, cdi: None
) -> None:
    look = ("sh", "-c", "cd /dev; ls -d kit-podman*; head -c 2 /dev/kit-podman-1 | wc -c")
    done = there("run", "-C", str(workspace), "--gpus", "all", gpu_image, "--", *look)
    assert done.stdout == "kit-podman-0\nkit-podman-1\n2\n"
    there("run", "-C", str(workspace), "--gpus", "device=1", "--detach", gpu_image, "--", "sleep", "100")
    (name,) = podman_host.account.containers()
    labels = podman_host.run(f"podman inspect --format '{{{{json .Config.Labels}}}}' {name}").stdout
    assert json.loads(labels)["kit.gpus"] == "nvidia.com/gpu=1"
    assert podman_host.run(f"podman exec {name} sh -c 'ls -d /dev/kit-podman*'").stdout == "/dev/kit-podman-1\n"


def test_gpus_that_are_not_there_are_refused(there: Kit, gpu_image: str, workspace: Path, cdi: None) -> None:
    done = there("run", "-C", str(workspace), "--gpus", "device=7", gpu_image, "--", "true", code=17)
    assert "the engine knows no nvidia.com/gpu=7" in done.stderr
    # Nothing there says which GPUs are free.
    done = there("run", "-C", str(workspace), "--gpus", "free", gpu_image, "--", "true", code=17)
    assert "--gpus free was asked for, but there is no NVIDIA GPU" in done.stderr
    SPECIFICATION.write_text("{}")
    done = there("run", "-C", str(workspace), "--gpus", "all", gpu_image, "--", "true", code=17)
    assert "cannot pass one through" in done.stderr
