"""Inside: the framework's version, the CUDA it was compiled for and with, and the CUDA libraries it loads."""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import ctypes
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

from answer import give

LIBRARY = re.compile(
    r"lib(cudart|cudnn|cublas|cublasLt|cufft|curand|cusolver|cusparse|nccl|nvrtc|nvJitLink)\.so[.0-9]*$"
)


def torch_facts() -> dict[str, Any]:
    import torch

    flags = torch._C._cuda_getArchFlags() if torch.version.cuda else ""
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda or "",
        "architectures": sorted((flags or "").split()),
    }


def tensorflow_facts() -> dict[str, Any]:
    import tensorflow

    build = tensorflow.sysconfig.get_build_info()
    return {
        "version": tensorflow.__version__,
        "cuda": build.get("cuda_version", "") if build.get("is_cuda_build") else "",
        "architectures": sorted(build.get("cuda_compute_capabilities") or ()),
    }


def loaded() -> list[str]:
    """The CUDA libraries this process has loaded."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    paths = {Path(line.split()[-1]) for line in lines if ".so" in line}
    return sorted(str(path) for path in paths if LIBRARY.match(path.name))


def find(name: str) -> list[str]:
    """The names to load a library by: the one in this process, the wheels', then whatever the loader knows."""
    present = [path for path in loaded() if Path(path).name.startswith(f"lib{name}.so")]
    wheels = Path(sysconfig.get_paths()["purelib"], "nvidia").glob(f"**/lib/lib{name}.so.*")
    return (
        present
        or sorted(map(str, wheels))
        or [f"lib{name}.so.{major}" for major in (13, 12, "11.0", "10.2", 10, 9, 8, 7)]
    )


def load(name: str) -> Any:
    for path in find(name):
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    raise OSError(f"lib{name} is not there, or cannot be loaded")


def cuda_runtime() -> int:
    """What the CUDA runtime says it is, `12060`."""
    version = ctypes.c_int()
    code = load("cudart").cudaRuntimeGetVersion(ctypes.byref(version))
    if code != 0:
        raise OSError(f"cudaRuntimeGetVersion: error {code}")
    return version.value


def cudnn() -> int:
    """What cuDNN says it is, `90501`."""
    function = load("cudnn").cudnnGetVersion
    function.restype = ctypes.c_size_t
    return int(function())


if __name__ == "__main__":
    facts = torch_facts if sys.argv[1] == "torch" else tensorflow_facts
    # In this order: what the framework loads by itself comes before what is loaded to be asked.
    give({"facts": facts, "loaded": loaded, "cuda_runtime": cuda_runtime, "cudnn": cudnn})
