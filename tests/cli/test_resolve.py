"""`kit resolve` as a user sees it, and the names `torch` and `tf` where other commands take an image."""

from __future__ import annotations

import json

import pytest

from kit.facts.host import Host, HostGpu, PciGpu
from tests.fake_docker import info

ADA = HostGpu(name="NVIDIA GeForce RTX 4060 Ti", compute_capability="8.9", uuid="GPU-1")
PASCAL = HostGpu(name="NVIDIA GeForce GTX 1080", compute_capability="6.1", index=1, uuid="GPU-2")


@pytest.fixture
def machine(patch_read_gpus):
    """Says what this machine (and any other) has; `asked` are the targets that were read."""

    def set_to(**facts):
        asked = []

        def read_gpus(target="", **_):
            asked.append(target)
            return Host(target=target, **facts)

        patch_read_gpus(read_gpus)
        return asked

    set_to()
    return set_to


def test_the_image_and_why(kit, machine):
    machine(driver="550.54.14", gpus=(ADA,))
    result = kit("resolve", "torch")
    assert result.code == 0
    assert result.out == (
        "torch2.10-cu128\n"
        "  torch 2.10.0, CUDA 12.8, cuDNN 9.10.2.21, Python 3.12 or 3.11\n"
        "  driver 550.54.14 is 525.60.13 or newer, the oldest for CUDA 12.x (minor-version compatibility; CUDA 12.8 "
        "came with 570.26)\n"
        "  NVIDIA GeForce RTX 4060 Ti (8.9): the wheel has machine code for 8.6, which runs on all later 8.x\n"
    )
    assert result.err == (
        "for driver 550.54.14, NVIDIA GeForce RTX 4060 Ti (8.9); 5 more work too, 6 do not: "
        "--explain says which and why\n"
    )


def test_quiet_prints_the_name_alone(kit, machine):
    machine(driver="550.54.14", gpus=(ADA,))
    result = kit("--quiet", "resolve")
    assert (result.code, result.out, result.err) == (0, "torch2.10-cu128\n", "")


@pytest.mark.parametrize("arguments", [("resolve", "--explain"), ("-v", "resolve")])
def test_explain_prints_each_reason_with_its_images(kit, machine, arguments):
    machine(driver="550.54.14", gpus=(ADA,))
    out = kit(*arguments).out
    assert "works too: torch2.7-cu126, torch2.6-cu124, torch2.4-cu121, torch2.0-cu117, torch1.13-cu117\n" in out
    assert (
        "refused: torch2.15-cu132, torch2.14-cu130: driver 550.54.14 is older than 580, the oldest for CUDA 13.x\n"
        in out
    )


def test_json_has_all_of_it(kit, machine):
    machine(driver="580.65.06", gpus=(PASCAL,))
    data = json.loads(kit("resolve", "torch", "--json").out)
    assert sorted(data) == sorted(
        ["alternatives", "hint", "host", "image", "limits", "newer", "reasons", "refused", "summary", "warnings"]
    )
    assert data["limits"] == ["NVIDIA GeForce GTX 1080 (6.1) has no bf16, FlashAttention, fp8, torch.compile"]
    assert "PyTorch 2.8 to 2.14 for CUDA 12.6" in data["newer"][0]
    assert data["image"] == "torch2.7-cu126"
    assert data["host"] == {
        "driver": "580.65.06",
        "platform": "linux/amd64",
        "declared": False,
        "gpus": [
            {"name": "NVIDIA GeForce GTX 1080", "compute_capability": "6.1", "last_driver": 580, "memory": ""},
        ],
    }
    refused = {row["image"]: row["reasons"] for row in data["refused"]}
    assert refused["torch2.15-cu132"][0].startswith("NVIDIA GeForce GTX 1080 (6.1): CUDA 13.0 dropped Pascal (6.1)")


def test_nothing_fits(kit, machine):
    machine(driver="550.54.14", gpus=(ADA, PASCAL))
    result = kit("resolve", "torch2.15")
    assert (result.code, result.out) == (3, "")
    assert result.err.splitlines()[0] == (
        "error: no image for `torch2.15` works with driver 550.54.14, NVIDIA GeForce RTX 4060 Ti (8.9), "
        "NVIDIA GeForce GTX 1080 (6.1)"
    )
    assert result.err.splitlines()[-1] == "hint: take torch 2.7.1: `torch2.7-cu126` works here"


def test_nothing_fits_as_json(kit, machine):
    machine(driver="580.65.06", gpus=(HostGpu(name="NVIDIA GeForce RTX 5090", compute_capability="12.0"),))
    result = kit("resolve", "tf", "--json")
    data = json.loads(result.out)
    assert (result.code, data["image"], result.err) == (3, None, "")
    assert "NGC" in data["hint"]
    assert all(row["reasons"] for row in data["refused"])


def test_a_declared_host_is_not_read(kit, machine):
    asked = machine(driver="470.82.01", gpus=(PASCAL,))
    result = kit("resolve", "tf", "--driver", "570.124.06", "--gpu", "H200")
    assert (result.out.splitlines()[0], asked) == ("tf2.21-cu125", [])
    assert "compiles it at first use" in result.err


def test_what_is_not_declared_is_this_machines(kit, machine):
    asked = machine(driver="470.82.01", gpus=(PASCAL,))
    assert kit("-q", "resolve", "--driver", "580.65.06").out == "torch2.7-cu126\n"
    assert kit("-q", "resolve", "--gpu", "sm_86").out == "torch2.0-cu117\n"
    assert asked == ["", ""]


def test_several_gpus_and_an_image_that_was_named(kit, machine):
    assert kit("-q", "resolve", "--driver", "580", "--gpu", "GTX 1080", "--gpu", "8.9").out == "torch2.7-cu126\n"
    result = kit("resolve", "torch-cu128", "--driver", "580", "--gpu", "GTX 1080", "--gpu", "8.9")
    assert result.code == 3
    assert "torch2.10-cu128: NVIDIA GeForce GTX 1080 (6.1)" in result.err
    assert "`torch2.7-cu126` works here" in result.err


@pytest.mark.parametrize("where", ["global", "option", "environment"])
def test_another_machine(kit, machine, monkeypatch, where):
    asked = machine(driver="550.54.14", gpus=(ADA,))
    if where == "environment":
        monkeypatch.setenv("KIT_HOST", "ann@lab1")
    arguments = {
        "global": ("--host", "ann@lab1", "-q", "resolve"),
        "option": ("-q", "resolve", "--host", "ann@lab1"),
        "environment": ("-q", "resolve"),
    }[where]
    assert kit(*arguments).out == "torch2.10-cu128\n"
    assert asked == ["ann@lab1"]


@pytest.mark.parametrize("command", ["engine", "base"])
def test_a_command_that_works_here_only_does_not_pretend(kit, machine, command):
    result = kit("--host", "ann@lab1", command, "tf-cpu")
    assert result.code == 2
    assert "works on this machine only, not on --host ann@lab1" in result.err


def test_no_gpu(kit, machine):
    assert kit("-q", "resolve", "tf").out == "tf-cpu\n"
    assert kit("-q", "resolve", "torch").out == "torch-cpu\n"
    result = kit("resolve", "torch2.15")  # of which there is no image for the CPU
    assert result.out.startswith("torch2.15-cu132\n")
    assert "warning: no NVIDIA GPU on this host: it runs on the CPU\n" in result.err


def test_a_gpu_without_a_driver(kit, machine):
    machine(driver="", pci_gpus=(PciGpu(address="0000:01:00.0", device_id="2803"),))
    result = kit("resolve", "tf")
    assert result.code == 3
    assert "no image for `tf` works with no driver, NVIDIA GeForce RTX 4060 Ti (8.9)" in result.err
    assert "install driver 520.61.05 or newer" in result.err


def test_a_driver_that_does_not_know_its_card_any_more(kit, machine):
    machine(driver="595.71.05", pci_gpus=(PciGpu(address="0000:01:00.0", device_id="1c81", driver="nvidia"),))
    result = kit("resolve", "torch")
    assert (result.code, result.out) == (3, "")
    assert "no image for `torch` works with driver 595.71.05, GeForce GTX 1050 (6.1)" in result.err
    assert "R580 is the last driver for this card" in result.err
    assert "hint: go back to driver R580, the last one for this GPU: `torch2.7-cu126` then works\n" in result.err
    data = json.loads(kit("resolve", "torch", "--json").out)
    assert data["image"] is None
    assert data["host"]["gpus"][0] == {
        "name": "GeForce GTX 1050",
        "compute_capability": "6.1",
        "last_driver": 580,
        "memory": "GDDR",
    }


@pytest.mark.parametrize("command", [("build", "torch"), ("run", "torch", "true"), ("run", "torch2.7-cu126", "true")])
def test_a_gpu_that_the_driver_does_not_show_is_not_taken_for_none(kit, docker, machine, command):
    machine(driver="595.71.05", pci_gpus=(PciGpu(address="0000:01:00.0", device_id="1c81", driver="nvidia"),))
    result = kit(*command)
    assert result.code == 3
    assert "R580 is the last driver for this card" in result.err
    assert not docker.called("buildx", "build")


def test_a_cuda_version_given_as_driver_is_said(kit, machine):
    result = kit("resolve", "torch", "--driver", "12.4", "--gpu", "RTX4090")
    assert result.out.startswith("torch2.10-cu128\n")
    assert "warning: --driver 12.4: taken as the CUDA version that nvidia-smi shows" in result.err
    (warning,) = json.loads(kit("resolve", "--driver", "12.4", "--gpu", "4090", "--json").out)["warnings"]
    assert "at least 550.54.14" in warning


def test_what_a_card_cannot_do_and_what_is_not_in_the_catalog_are_a_line_each(kit, machine):
    lines = kit("resolve", "--driver", "580.65.06", "--gpu", "gtx 1080 ti").out.splitlines()
    assert lines[4:] == [
        "  NVIDIA GeForce GTX 1080 Ti (6.1) has no bf16, FlashAttention, fp8, torch.compile",
        "  not in the catalog: PyTorch 2.8 to 2.14 for CUDA 12.6 have code for this GPU too, on "
        "https://download.pytorch.org/whl/cu126",
    ]
    shown = " ".join(kit("show", "torch2.7-cu126").out.split())
    assert "no torch.compile below 7.0 (Triton's own message" in shown
    assert "no bf16 below 8.0 (https://nvidia.github.io/TransformerEngine/" in shown
    assert "below" not in json.dumps(json.loads(kit("show", "tf-cpu", "--json").out)["limits"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--driver", "9.0"), 2, "not a driver version"),
        (("--gpu", "RTX 6000"), 2, "several GPUs are called that"),
        (("--gpu", "RTX 99"), 2, "no GPU of the catalog is called that"),
        (("--gpu", "RTX 3080", "--gpu", "quadro"), 2, "quadro"),
        (("--platform", "windows"), 2, "not a platform"),
        (("--python", "twelve"), 2, "not a Python version"),
        (("torhc",), 4, "there is no image `torhc`"),
    ],
)
def test_bad_input(kit, machine, arguments, code, words):
    result = kit("resolve", *arguments)
    assert result.code == code
    assert words in result.err
    assert "Traceback" not in result.err


@pytest.fixture
def docker(fake_docker, project):
    fake_docker.reply("image", "inspect", code=1, stderr="Error response from daemon: No such image: x\n")
    return fake_docker


def test_build_resolves_and_says_so(kit, docker, machine):
    result = kit("build", "tf")
    assert result.code == 0
    assert result.err.splitlines()[0] == "tf: tf-cpu (no NVIDIA GPU, linux/amd64)"
    assert docker.called("buildx", "build")


def test_run_resolves_and_says_so(kit, docker, machine):
    result = kit("run", "tf", "true")
    assert result.code == 0
    assert result.err.splitlines()[0] == "tf: tf-cpu (no NVIDIA GPU, linux/amd64)"


@pytest.mark.parametrize("command", [("build", "torch2.10-cu128"), ("run", "torch2.10-cu128", "true")])
def test_an_image_that_cannot_work_stops_before_anything_is_asked_of_the_engine(kit, docker, machine, command):
    machine(driver="580.65.06", gpus=(PASCAL,))
    result = kit(*command)
    assert result.code == 3
    assert (
        "torch2.10-cu128 cannot work on this host: NVIDIA GeForce GTX 1080 (6.1): the wheel has dropped it"
        in result.err
    )
    assert "hint: `torch2.7-cu126` works here; or go on with --force" in result.err
    assert docker.calls == []


def test_force_goes_on(kit, docker, machine):
    machine(driver="580.65.06", gpus=(PASCAL,))
    docker.reply("info", stdout=info(DiscoveredDevices=[{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]))
    result = kit("run", "--force", "torch2.10-cu128", "true")
    assert "going on because of --force" in result.err
    assert result.code != 3


def test_without_the_gpus_it_can_work(kit, docker, machine):
    machine(driver="580.65.06", gpus=(PASCAL,))
    assert "cannot work" not in kit("run", "--gpus", "none", "torch2.10-cu128", "true").err
    assert kit("run", "--gpus", "none", "tf", "true").err.splitlines()[0] == "tf: tf-cpu (no NVIDIA GPU, linux/amd64)"


def test_only_the_gpus_that_are_given_count(kit, docker, machine):
    machine(driver="580.65.06", gpus=(ADA, PASCAL))
    assert "cannot work" in kit("run", "torch2.10-cu128", "true").err
    assert "cannot work" not in kit("run", "--gpus", "device=0", "torch2.10-cu128", "true").err
    assert "cannot work" not in kit("run", "--gpus", "GPU-1", "torch2.10-cu128", "true").err
    assert "cannot work" in kit("run", "--gpus", "0,1", "torch2.10-cu128", "true").err
