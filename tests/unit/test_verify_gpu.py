"""What is said of GPUs inside a container: the question, the answer, and the judgement of each check."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from kit import locks, paths
from kit.run import gpu_check
from kit.run.gpu_check import Answer, Asked, Device
from kit.spec.container import ContainerSpec, Mount
from kit.spec.gpu_grant import GpuGrant
from kit.verify.report import Subject
from kit.verify.suite import conftest, test_gpu, test_training

UUID = "5f0e0000-0000-0000-0000-000000000001"
OTHER = "5f0e0000-0000-0000-0000-000000000002"
H200 = Device(name="NVIDIA H200", uuid=UUID, computes=True)


@pytest.mark.parametrize(
    ("devices", "asked"),
    [
        ((), None),
        (("nvidia.com/gpu=all",), Asked()),
        (("nvidia.com/gpu=0", "nvidia.com/gpu=3"), Asked(count=2)),
        ((f"nvidia.com/gpu=GPU-{UUID.upper()}",), Asked(count=1, uuids=(UUID,))),
        (("nvidia.com/gpu=0:1",), Asked()),
        (("nvidia.com/gpu=MIG-1", "nvidia.com/gpu=MIG-2"), Asked()),
        (("all",), Asked()),
        ((f"GPU-{UUID}", "1"), Asked(count=2, uuids=(UUID,))),
    ],
)
def test_what_to_look_for_of_the_devices_a_container_was_given(devices, asked):
    assert gpu_check.asked_for(devices) == asked


@pytest.mark.parametrize(
    ("asked", "answer", "problem"),
    [
        (Asked(), Answer(devices=(H200,)), ""),
        (Asked(count=1, uuids=(UUID,)), Answer(devices=(H200,)), ""),
        (Asked(), Answer(), "no GPU is usable inside: the driver shows none"),
        (Asked(), Answer(error="libcuda.so.1: not there"), "no GPU is usable inside: libcuda.so.1: not there"),
        (Asked(count=2), Answer(devices=(H200,)), "2 GPUs were asked for, and 1 are there"),
        (Asked(count=1), Answer(devices=(H200, H200)), "1 GPUs were asked for, and 2 are there"),
        (
            Asked(count=1, uuids=(OTHER,)),
            Answer(devices=(H200,)),
            f"GPU-{OTHER} was asked for and is not there: GPU-{UUID}",
        ),
        (Asked(), Answer(devices=(H200,), error="out of memory"), "the GPU computes nothing: out of memory"),
    ],
)
def test_what_is_wrong_with_the_gpus_inside(asked, answer, problem):
    assert gpu_check.problem(asked, answer) == problem


def test_answers_are_read_and_what_is_none_is_an_error():
    text = json.dumps({"devices": [{"name": "NVIDIA H200", "uuid": UUID, "computes": True}], "error": ""})
    assert gpu_check.read_answer(f"noise\n{text}\n") == Answer(devices=(H200,))
    for nonsense in ("", "Killed", "[]", '{"devices": [{}]}', '{"devices": []}'):
        assert gpu_check.read_answer(nonsense).error.startswith("the check printed no answer"), nonsense


def test_gpus_in_a_few_words():
    assert gpu_check.summary(Answer(devices=(H200, H200, Device(name="NVIDIA L4", uuid="")))) == (
        "2 x NVIDIA H200, NVIDIA L4"
    )


ALL = ("nvidia.com/gpu=all",)


def test_containers_without_gpus_are_not_asked(engine, fake_docker):
    assert gpu_check.check(engine, "c", ()) is None
    assert fake_docker.calls == []


def test_a_running_container_is_asked_by_its_own_python(engine, fake_docker):
    answer = {"devices": [{"name": "NVIDIA H200", "uuid": UUID, "computes": True}], "error": ""}
    fake_docker.reply("exec", stdout=json.dumps(answer))
    assert gpu_check.check(engine, "c", ALL) == ("NVIDIA H200", "")
    assert fake_docker.called("exec")[0].args == ["exec", "--interactive", "c", "python", "-"]
    fake_docker.reply("exec", stdout=json.dumps({"devices": [], "error": "no device"}))
    assert gpu_check.check(engine, "c", ALL) == ("", "no GPU is usable inside: no device")


def test_a_question_that_cannot_be_put_is_what_is_wrong(engine, fake_docker):
    fake_docker.reply("exec", code=126, stderr="OCI runtime exec failed: python: not found\n")
    gpus, wrong = gpu_check.check(engine, "c", ("all",))
    assert gpus == ""
    assert "python: not found" in wrong


SPEC = ContainerSpec(
    image="kit/x:latest",
    name="kit-x-run-ab",
    command=("python", "train.py"),
    user="1000:1000",
    mounts=(Mount(source="/data", target="/data"),),
    secret_environment={"KEY": "secret"},
    gpus=GpuGrant(form="cdi", devices=ALL),
    tty=True,
)


def test_a_command_s_gpus_are_asked_for_in_a_container_of_its_own(engine, fake_docker):
    answer = {"devices": [{"name": "NVIDIA H200", "uuid": UUID, "computes": True}], "error": ""}
    fake_docker.reply("run", stdout=json.dumps(answer))
    assert gpu_check.check_before(engine, SPEC) == ("NVIDIA H200", "")
    args = fake_docker.called("run")[0].args
    assert args[-3:] == ["kit/x:latest", "python", "-"]
    assert {"--device=nvidia.com/gpu=all", "--rm", "--interactive", "--user=1000:1000"} <= set(args)
    assert "--tty" not in args
    assert not any(arg.startswith("--mount") for arg in args)
    assert gpu_check.check_before(engine, SPEC) is None, "what was found good is not asked again"
    other = dataclasses.replace(SPEC, gpus=GpuGrant(form="cdi", devices=("nvidia.com/gpu=0",)))
    assert gpu_check.check_before(engine, other) == ("NVIDIA H200", "")
    assert gpu_check.check_before(engine, dataclasses.replace(SPEC, gpus=GpuGrant())) is None
    assert len(fake_docker.called("run")) == 2


def test_gpus_that_are_not_there_are_asked_for_each_time(engine, fake_docker):
    fake_docker.reply("run", stdout=json.dumps({"devices": [], "error": "no device"}))
    for _ in range(2):
        assert gpu_check.check_before(engine, SPEC) == ("", "no GPU is usable inside: no device")
    assert len(fake_docker.called("run")) == 2


def test_a_check_that_cannot_start_is_what_is_wrong_and_leaves_nothing(engine, fake_docker):
    fake_docker.reply("run", code=127, stderr="docker: python: not found\n")
    gpus, wrong = gpu_check.check_before(engine, SPEC)
    assert gpus == ""
    assert "python: not found" in wrong
    assert fake_docker.called("rm")[0].args[-1] == "kit-x-run-ab-check"


# The driver's functions as cuda.h declares them, on memory of the CPU. BREAK names one that fails, or `kernel` for
# a wrong result, DEVICES how many GPUs there are.
FAKE_DRIVER = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
static int broken(const char *name) { const char *b = getenv("BREAK"); return b && !strcmp(b, name); }
#define FAIL(name) if (broken(name)) return 999
int cuInit(unsigned flags) { FAIL("cuInit"); return flags != 0; }
int cuGetErrorString(int code, const char **text) { *text = "unknown to the test"; return 0; }
int cuDeviceGetCount(int *count) { *count = getenv("DEVICES") ? atoi(getenv("DEVICES")) : 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Fake GPU", size); return 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    memset(uuid, 0, 16); uuid[0] = 0x5f; uuid[1] = 0x0e; uuid[15] = device + 1; return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    FAIL("cuDevicePrimaryCtxRetain"); *context = (void *)7; return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
int cuCtxSetCurrent(void *context) { return context != (void *)7; }
int cuModuleLoadData(void **module, const char *image) {
    *module = (void *)8; return strstr(image, ".entry fill") == 0;
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
    *function = (void *)9; return module != (void *)8 || strcmp(name, "fill");
}
int cuMemAlloc_v2(uint64_t *memory, size_t size) { *memory = (uint64_t)calloc(1, size); return 0; }
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **values, void **extra) {
    if (function != (void *)9 || gy * gz * by * bz != 1 || shared || stream || extra) return 1;
    uint32_t *data = (uint32_t *)*(uint64_t *)values[0];
    for (unsigned i = 0; i < gx * bx; i++) data[i] = 3 * i + (broken("kernel") ? 2 : 1);
    return 0;
}
int cuCtxSynchronize(void) { return 0; }
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size) { memcpy(to, (void *)from, size); return 0; }
"""


@pytest.fixture(scope="module")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler on this machine, to make a driver of the test's own")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "cuda.c").write_text(FAKE_DRIVER)
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", "libcuda.so.1", "cuda.c"], cwd=folder, check=True)
    return folder


def ask(folder: Path, *arguments: str, **variables: str) -> Answer:
    script = Path(str(resources.files("kit.run.gpu_check"))) / "driver.py"
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return gpu_check.read_answer(done.stdout)


def test_the_driver_is_asked_through_its_own_functions(fake_driver):
    assert ask(fake_driver) == Answer(devices=(Device(name="Fake GPU", uuid=UUID, computes=True),))


def test_every_gpu_computes_when_that_is_asked(fake_driver):
    assert [d.computes for d in ask(fake_driver, DEVICES="2").devices] == [True, False]
    found = ask(fake_driver, "--all", DEVICES="2", CUDA_VISIBLE_DEVICES="")
    assert [(d.uuid, d.computes) for d in found.devices] == [(UUID, True), (OTHER, True)]


@pytest.mark.parametrize(
    ("broken", "devices", "error"),
    [
        ("cuInit", 0, "cuInit: unknown to the test (code 999)"),
        ("cuDevicePrimaryCtxRetain", 1, "cuDevicePrimaryCtxRetain: unknown to the test (code 999)"),
        ("kernel", 1, "a kernel ran and its result is wrong"),
    ],
)
def test_a_driver_that_fails_is_quoted(fake_driver, broken, devices, error):
    found = ask(fake_driver, BREAK=broken)
    assert (len(found.devices), found.error) == (devices, error)
    assert not any(device.computes for device in found.devices)


def test_a_library_that_is_none_is_quoted(tmp_path):
    (tmp_path / "libcuda.so.1").write_text("a host's name\n")
    found = ask(tmp_path)
    assert found.devices == ()
    assert "libcuda.so.1" in found.error


def answer(log: str = "", **parts: object) -> conftest.Answer:
    """An answer of the framework's script with these values; an exception is a part that failed."""
    return conftest.Answer(
        script="gpu.py",
        log=log,
        parts={
            name: {"value": None, "error": repr(value), "where": "gpu.py:1"}
            if isinstance(value, Exception)
            else {"value": value, "error": ""}
            for name, value in parts.items()
        },
    )


def ignore(_: str) -> None:
    pass


@pytest.fixture
def subject(catalog, engine) -> Subject:
    image = catalog.find("torch2.7-cu126")
    return Subject(
        image=image,
        lock=locks.read_lock(paths.images_dir() / image.name, image),
        engine=engine,
        reference=image.reference,
        container="c",
        config={},
        platform="linux/amd64",
        labels={},
        environment={},
        held=(),
        privileged=(),
        scripts=Path("/nonexistent"),
        asked=Asked(count=1),
        no_gpu="",
        shm_bytes=0,
        start_service=lambda _: pytest.fail("no service is needed"),
    )


def test_driver_must_show_what_was_asked_and_every_gpu_must_compute(subject):
    test_gpu.test_driver(subject, Answer(devices=(H200,)), ignore)
    for wrong in (Answer(), Answer(devices=(H200, H200)), Answer(devices=(replace(H200, computes=False),))):
        with pytest.raises(AssertionError):
            test_gpu.test_driver(subject, wrong, ignore)


def test_framework_must_see_every_gpu_of_the_driver():
    seen = {"available": True, "names": ["NVIDIA H200"], "capabilities": ["9.0"]}
    test_gpu.test_framework(Answer(devices=(H200,)), answer(seen=seen), ignore)
    with pytest.raises(AssertionError, match="sees 1 GPUs, and the driver shows 2"):
        test_gpu.test_framework(Answer(devices=(H200, H200)), answer(seen=seen), ignore)
    with pytest.raises(AssertionError, match="no GPU is available"):
        test_gpu.test_framework(Answer(devices=(H200,)), answer(seen={**seen, "available": False}), ignore)


@pytest.mark.parametrize(
    "line",
    [
        "W tensorflow/core/common_runtime/gpu/gpu_device.cc:2256] Cannot dlopen some GPU libraries. Please make sure "
        "the missing libraries mentioned above are installed properly if you would like to use GPU.",
        "I external/local_xla/xla/tsl/cuda/cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will "
        "not be used.",
        "W tensorflow/stream_executor/platform/default/dso_loader.cc:64] Could not load dynamic library "
        "'libcudnn.so.8'; dlerror: libcudnn.so.8: cannot open shared object file: No such file or directory",
    ],
)
def test_tensorflow_s_log_must_have_no_library_that_failed_to_load(line):
    with pytest.raises(AssertionError):
        test_gpu.test_loading(answer(log=f"other\n{line}\n", seen={}))


def test_tensorrt_is_not_promised():
    line = "dso_loader.cc:64] Could not load dynamic library 'libnvinfer.so.7'; dlerror: libnvinfer.so.7: cannot open"
    test_gpu.test_loading(answer(log=line, seen={}))


@pytest.mark.parametrize("kind", test_gpu.LIMITS)
def test_kernels_must_be_right(kind):
    limit = test_gpu.LIMITS[kind]
    test_gpu.test_kernel(answer(**{kind: limit / 2}), kind, ignore)
    for wrong in (limit * 2, float("nan"), float("inf")):
        with pytest.raises(AssertionError):
            test_gpu.test_kernel(answer(**{kind: wrong}), kind, ignore)
    error = RuntimeError("CUDA error: no kernel image is available for execution on the device")
    with pytest.raises(pytest.fail.Exception, match="no kernel image"):
        test_gpu.test_kernel(answer(**{kind: error}), kind, ignore)


def test_convolution_must_be_right_and_of_the_locked_cudnn(subject):
    test_gpu.test_cudnn(subject, answer(convolution={"error": 1e-7, "version": 90501}))
    test_gpu.test_cudnn(subject, answer(convolution={"error": 1e-7, "version": None}))
    with pytest.raises(AssertionError, match="cuDNN says 91000"):
        test_gpu.test_cudnn(subject, answer(convolution={"error": 1e-7, "version": 91000}))
    with pytest.raises(AssertionError, match="relative error"):
        test_gpu.test_cudnn(subject, answer(convolution={"error": 1e-2, "version": 90501}))


def test_compiled_code_must_be_right():
    test_gpu.test_compiles(answer(compiles=192.0))
    with pytest.raises(AssertionError):
        test_gpu.test_compiles(answer(compiles=191.0))


def test_all_reduce_must_add_up():
    test_gpu.test_all_reduce(answer(all_reduce=[3.0, 3.0]), ignore)
    for wrong in ([1.0, 2.0], [3.0, 2.0]):
        with pytest.raises(AssertionError):
            test_gpu.test_all_reduce(answer(all_reduce=wrong), ignore)


def test_training_on_the_cpu_fails_where_a_gpu_was_asked_for(subject):
    found = {"device": "cuda:0", "loss": [2.3, 0.1], "accuracy": 1.0, "difference": 0.0}
    test_training.test_model(subject, answer(learns=found), ignore)
    for change in (
        {"device": "cpu"},
        {"device": "cpu:0"},
        {"loss": [2.3, 2.2]},
        {"accuracy": 0.5},
        {"difference": 1.0},
    ):
        with pytest.raises(AssertionError):
            test_training.test_model(subject, answer(learns={**found, **change}), ignore)
