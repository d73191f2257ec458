"""GPU injection through a real engine. No GPU is needed: a CDI specification can name any device."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import Kit, as_environment

pytestmark = pytest.mark.engine
SPECIFICATION = Path("/etc/cdi/kit-test.json")


@pytest.fixture
def cdi(gpus_alone: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two GPUs that are /dev/null and /dev/zero, and a library mount, as nvidia-ctk writes them."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if any(SPECIFICATION.parent.glob("nvidia*")):
        pytest.skip("this machine has a CDI specification of its own")
    SPECIFICATION.parent.mkdir(parents=True, exist_ok=True)
    device = {
        name: {"containerEdits": {"deviceNodes": [{"path": f"/dev/nvidia{name}", "hostPath": path, "type": "c"}]}}
        for name, path in (("0", "/dev/null"), ("1", "/dev/zero"))
    }
    device["all"] = {
        "containerEdits": {"deviceNodes": [n for d in ("0", "1") for n in device[d]["containerEdits"]["deviceNodes"]]}
    }
    SPECIFICATION.write_text(
        json.dumps(
            {
                "cdiVersion": "0.6.0",
                "kind": "nvidia.com/gpu",
                "containerEdits": {
                    "env": ["KIT_TEST_CDI=injected"],
                    "mounts": [
                        {
                            "hostPath": "/etc/hostname",
                            "containerPath": "/usr/lib/libcuda.so.1",
                            "options": ["ro", "nosuid", "nodev", "bind"],
                        }
                    ],
                },
                "devices": [{"name": name, **edits} for name, edits in device.items()],
            }
        )
    )
    yield
    SPECIFICATION.unlink()


LOOK = "ls /dev | grep nvidia | tr '\\n' ' '; echo ${KIT_TEST_CDI:-none}; test -e /usr/lib/libcuda.so.1 && echo library"


def test_all_gpus_by_default(kit: Kit, torch_cuda: str, workspace: Path, cdi: None) -> None:
    done = kit("run", "-C", str(workspace), torch_cuda, "sh", "-c", LOOK)
    assert done.stdout == "nvidia0 nvidia1 injected\nlibrary\n"
    assert "CPU" not in done.stderr


def test_one_gpu_by_index(kit: Kit, torch_cuda: str, workspace: Path, cdi: None) -> None:
    assert (
        kit("-q", "run", "-C", str(workspace), "--gpus", "device=1", torch_cuda, "sh", "-c", LOOK).stdout
        == "nvidia1 injected\nlibrary\n"
    )


def test_what_a_scheduler_left_visible(kit: Kit, torch_cuda: str, workspace: Path, cdi: None) -> None:
    job = as_environment(CUDA_VISIBLE_DEVICES="1")
    done = kit("run", "-C", str(workspace), torch_cuda, "sh", "-c", LOOK, env=job)
    assert done.stdout == "nvidia1 injected\nlibrary\n"
    assert "CUDA_VISIBLE_DEVICES=1" in done.stderr
    done = kit(
        "run", "-C", str(workspace), torch_cuda, "sh", "-c", LOOK, env=as_environment(CUDA_VISIBLE_DEVICES=""), code=1
    )
    assert done.stdout == "none\n"
    assert "leaves no GPU: running on the CPU" in done.stderr


def test_gpu_that_is_not_there(kit: Kit, torch_cuda: str, workspace: Path, cdi: None) -> None:
    done = kit("run", "-C", str(workspace), "--gpus", "device=7", torch_cuda, "true", code=17)
    assert "nvidia.com/gpu=7" in done.stderr


def test_none_asks_for_the_cpu(kit: Kit, torch_cuda: str, workspace: Path, cdi: None) -> None:
    done = kit(
        "-q",
        "run",
        "-C",
        str(workspace),
        "--gpus",
        "none",
        torch_cuda,
        "sh",
        "-c",
        "echo $NVIDIA_VISIBLE_DEVICES ${KIT_TEST_CDI:-none}",
    )
    assert done.stdout == "void none\n"


def test_gpus_without_a_way_to_inject_them(kit: Kit, torch_cuda: str, workspace: Path, gpus_alone: None) -> None:
    done = kit("run", "-C", str(workspace), "--gpus", "all", torch_cuda, "true", code=17)
    assert "nvidia-ctk" in done.stderr


def test_host_without_a_gpu_runs_on_the_cpu_and_says_so(
    kit: Kit, torch_cuda: str, workspace: Path, gpus_alone: None
) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this host has an NVIDIA GPU")
    done = kit(
        "run", "-C", str(workspace), torch_cuda, "python", "-c", "import torch; print(torch.cuda.is_available())"
    )
    assert done.stdout == "False\n"
    assert "running on the CPU" in done.stderr


def test_cpu_image_refuses_gpus(kit: Kit, tf_cpu: str, workspace: Path) -> None:
    assert "built for the CPU" in kit("run", "-C", str(workspace), "--gpus", "all", tf_cpu, "true", code=17).stderr
