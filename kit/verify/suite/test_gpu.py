"""The GPU: there, as asked for, and computing correctly. Without one nothing here passes: it is not run."""

from __future__ import annotations

import json
import re

import pytest

from kit.run import gpu_check
from kit.verify import expected
from kit.verify.report import Subject
from kit.verify.suite.conftest import PYTHON, SCRIPTS, Answer, Fact, Host, Inside, require

# The largest relative error (Frobenius norm) of a matrix product, by how many digits the format has.
LIMITS = {
    "float64": 1e-12,
    "float32": 1e-5,
    "tf32": 2e-3,
    "float16": 2e-2,
    "bfloat16": 2e-2,
    "float8_e4m3fn": 1e-1,
}
# What TensorFlow logs when it gives up on GPUs for want of a library: gpu_device.cc, cudart_stub.cc, dso_loader.cc. Not
# TensorRT's libraries: it looks for those too, and no image promises them.
LOADING_FAILED = re.compile(
    r"Could not load dynamic library '(?!libnvinfer)|Cannot dlopen some GPU libraries|Could not find cuda drivers"
)


@pytest.fixture(scope="session")
def driver(subject: Subject, host: Host) -> gpu_check.Answer:
    """What the NVIDIA driver says inside."""
    if subject.no_gpu:
        pytest.skip(subject.no_gpu)
    return gpu_check.read_answer(host.run("timeout 60 %s %s --all", PYTHON, f"{SCRIPTS}/driver.py").stdout)


@pytest.fixture(scope="session")
def answer(subject: Subject, driver: gpu_check.Answer, inside: Inside) -> Answer:
    """The framework's answers. Where the driver shows no GPU, that is what fails, and these are not run."""
    if not driver.devices:
        pytest.skip("no GPU answers inside: see gpu.driver")
    # Compiling PTX for a GPU that TensorFlow has no machine code for takes minutes, once.
    return inside("gpu.py", subject.image.framework, "cuda", ",".join(LIMITS), timeout_s=1800)


def test_driver(subject: Subject, driver: gpu_check.Answer, fact: Fact) -> None:
    """The GPUs that were asked for are there, and each computes a kernel."""
    wrong = gpu_check.problem(subject.asked, driver) if subject.asked else "no GPU was asked for"
    require(not wrong, wrong)
    idle = [device.name for device in driver.devices if not device.computes]
    require(not idle, f"no kernel ran on {', '.join(idle)}")
    fact(gpu_check.summary(driver))


def test_framework(driver: gpu_check.Answer, answer: Answer, fact: Fact) -> None:
    """The framework sees every GPU that the driver shows."""
    found = answer.value("seen")
    require(found["available"], "the framework says that no GPU is available")
    seen, there = len(found["names"]), len(driver.devices)
    require(seen == there, f"it sees {seen} GPUs, and the driver shows {there}")
    fact(", ".join(f"compute capability {cc}" for cc in dict.fromkeys(found["capabilities"])))


def test_loading(answer: Answer) -> None:
    """The framework's log has no library that could not be loaded."""
    answer.value("seen")
    lines = [line for line in answer.log.splitlines() if LOADING_FAILED.search(line)]
    require(not lines, "".join(lines[:1]))


@pytest.mark.parametrize("kind", LIMITS)
def test_kernel(answer: Answer, kind: str, fact: Fact) -> None:
    """A matrix product in this number format is what the CPU computes in float64."""
    error = answer.value(kind)
    # Not a number is not smaller than anything, so it fails.
    require(error <= LIMITS[kind], f"relative error {error:.1e}, at most {LIMITS[kind]:.0e} is rounding")
    fact(f"relative error {error:.1e}")


def test_cudnn(subject: Subject, answer: Answer) -> None:
    """A cuDNN convolution runs and is right, and the cuDNN is the lock's."""
    found = answer.value("convolution")
    require(found["error"] <= 1e-5, f"relative error {found['error']:.1e}")
    locked = expected.locked_version(subject.lock, "cudnn") or subject.image.release.cudnn
    if found["version"] and locked:
        number = expected.cudnn_number(locked)
        require(found["version"] == number, f"cuDNN says {found['version']}, and {locked} is locked")


def test_compiles(answer: Answer) -> None:
    """Compiled code (torch.compile, XLA) runs on the GPU."""
    result = answer.value("compiles")
    require(result == 192.0, f"the result is {result}, not 192")


def test_all_reduce(answer: Answer, fact: Fact) -> None:
    """With two GPUs or more, NCCL adds up what each of them has."""
    sums = answer.value("all_reduce")
    total = len(sums) * (len(sums) + 1) / 2
    require(sums == [total] * len(sums), f"the sums are {json.dumps(sums)}, not {total:g}")
    fact(f"{len(sums)} GPUs")
