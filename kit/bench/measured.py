"""One whole measurement: facts of machine and framework, the tests with the GPU's state beside them, the verdicts."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.bench import METHOD, SCHEMA, drivers, suite, verdicts
from kit.bench.expectations import Tables, expectations
from kit.bench.results import Device, Host, Measurement, Result
from kit.bench.sampler import Sampler
from kit.bench.work import Sizes, cpu_sizes, gpu_sizes, parse_shapes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from kit.bench.work import Bench

FRAMEWORKS = {"torch": "torch", "tf": "tensorflow"}


class NoDeviceError(Exception):
    """There is no GPU to measure."""


@dataclass(frozen=True)
class Request:
    """What to measure."""

    framework: str  # torch or tf
    device: str = "cuda"  # or cpu
    only: tuple[str, ...] = ()
    shapes: tuple[tuple[int, int, int], ...] = ()
    soak_minutes: float = 0.0
    tables: Tables | None = None  # of the catalog; None: nothing can be rated


def parse_request(options: argparse.Namespace) -> Request:
    """The command line's options. Raises ValueError."""
    only = tuple(filter(None, options.only.split(",")))
    known = (*suite.TEST_NAMES, "all_reduce", "none")
    if unknown := [name for name in only if name not in known]:
        raise ValueError(f"there is no test {', '.join(unknown)}; there are: {' '.join(known)}")
    if options.soak < 0:
        raise ValueError(f"--soak {options.soak:g}: a number of minutes, above 0")
    return Request(
        framework=options.framework,
        device=options.device,
        only=only,
        shapes=parse_shapes(options.shapes),
        soak_minutes=options.soak,
        tables=_tables(json.loads(Path(options.expect).read_text(encoding="utf-8")))
        if options.expect
        else package_tables(),
    )


class Row(dict):  # type: ignore[type-arg]
    """A row of a table with the attributes that the catalog's own has; what it does not say is None."""

    __getattr__ = dict.get


def _tables(raw: Any) -> Tables:
    return Tables(*([Row(row) for row in raw[table]] for table in ("gpu", "rate", "reference")))  # type: ignore[arg-type]


def package_tables() -> Tables | None:
    """The catalog's tables beside this code; None where they are not, or this Python cannot read them (before 3.11)."""
    try:
        toml: Any = importlib.import_module("tomllib")
        files = [pkgutil.get_data("kit", f"catalog/{name}.toml") for name in ("gpus", "references")]
    except (ImportError, OSError):
        return None
    gpus, references = (toml.loads((data or b"").decode()) for data in files)
    return _tables({**gpus, **references})


def measure(request: Request, say: Callable[[str], None]) -> Result:
    """Run the tests and judge them. Raises NoDeviceError without a GPU, ImportError without the framework."""
    begun, started = time.time(), time.monotonic()
    devices = drivers.cuda_devices(drivers.load(drivers.CUDA_LIBRARY)) if request.device == "cuda" else []
    if request.device == "cuda" and not devices:
        raise NoDeviceError("no GPU: the NVIDIA driver's library is missing or knows none; --device cpu tests the code")
    device = devices[0] if devices else Device(kind="cpu", name=_processor())
    address = device.pci_address or ""
    with drivers.open_gpu(drivers.load(drivers.NVML_LIBRARY) if address else None, address) as gpu:
        # Before the framework takes memory: what is in use now is somebody else's.
        device = gpu.describe(device) if gpu else device
        bench = make_bench(request, device)
        framework = bench.facts()
        sizes = choose_sizes(request, device)
        sampler = Sampler(gpu.sample if gpu else None, start_s=started)
        sampler.start()
        try:
            tests = _tests(request, bench, sizes, len(devices), lambda: time.monotonic() - started, say)
        finally:
            sampler.stop()
    return verdicts.judged(
        Result(
            schema=SCHEMA,
            method=METHOD,
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
            framework=framework,
            device=device,
            device_count=len(devices),
            host=host_facts(),
            image=None,
            expectations=expectations(device, framework.name, request.tables) if request.tables else None,
            tests=tuple(tests),
            telemetry=tuple(sampler.samples),
            peak_memory_bytes=bench.peak_memory_bytes(),
            seconds=round(time.monotonic() - started, 1),
            verdicts=(),
            summary=verdicts.UNJUDGED,
        )
    )


def make_bench(request: Request, device: Device) -> Bench:
    """The framework on the device. Raises ImportError, and NoDeviceError when the framework cannot use the GPU."""
    if request.framework == "torch":
        from kit.bench.torch_bench import TorchBench

        bench = TorchBench(request.device, device.capability, device.cache_bytes or 0)
        if request.device == "cuda" and not bench.torch.cuda.is_available():
            build = f"{bench.torch.__version__}, CUDA {bench.torch.version.cuda or 'not compiled in'}"
            raise NoDeviceError(f"the driver has {device.name}, but this torch cannot use it ({build})")
        return bench
    from kit.bench.tf_bench import TensorFlowBench

    tensorflow = TensorFlowBench(request.device, device.capability)
    if request.device == "cuda" and not tensorflow.tf.config.list_physical_devices("GPU"):
        raise NoDeviceError(f"the driver has {device.name}, but this TensorFlow cannot use it; its log says why")
    return tensorflow


def choose_sizes(request: Request, device: Device) -> Sizes:
    """How large the work is on this device."""
    if request.device == "cpu":
        return cpu_sizes(request.shapes)
    free = (device.memory_bytes or 0) - (device.used_bytes or 0)
    return gpu_sizes(free, device.cache_bytes or 0, request.shapes)


def _tests(
    request: Request,
    bench: Bench,
    sizes: Sizes,
    device_count: int,
    elapsed: Callable[[], float],
    say: Callable[[str], None],
) -> list[Measurement]:
    def told(test: Measurement) -> None:
        say(f"{test.name}: " + (f"{test.value:g} {test.unit}" if test.is_measured else test.reason))

    if request.device == "cuda":
        suite.warm_up(bench, sizes)
    found = suite.run(bench, sizes, only=request.only, elapsed=elapsed, on_test=told)
    if device_count > 1 and request.framework == "torch" and (not request.only or "all_reduce" in request.only):
        from kit.bench import all_reduce

        bench.release()
        try:
            found.append(all_reduce.run(device_count, "nccl", sizes, max(sizes.matmul)[0]))
        except RuntimeError as e:
            found.append(Measurement("all_reduce", "failed", str(e)))
        told(found[-1])
    if request.soak_minutes:
        say(f"soak: {request.soak_minutes:g} minutes")
        found.append(
            suite.soak(
                bench,
                sizes,
                request.soak_minutes,
                elapsed=elapsed,
                on_window=lambda seconds, value: say(f"soak: {seconds:.0f} s, {value:g} TFLOP/s"),
            )
        )
    return found


def host_facts() -> Host:
    """This machine, or the container this runs in."""
    try:
        shm = os.statvfs("/dev/shm")
        shm_bytes = shm.f_frsize * shm.f_blocks
    except OSError:
        shm_bytes = None
    quota = next(iter(_lines("/sys/fs/cgroup/cpu.max")), "").split()
    return Host(
        platform=platform.platform(),
        python=platform.python_version(),
        machine=platform.machine(),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        # Docker's and Podman's own marks.
        is_container=any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")),
        shm_bytes=shm_bytes,
        cpu_quota=int(quota[0]) / int(quota[1]) if len(quota) == 2 and quota[0].isdigit() else None,
    )


def _processor() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
