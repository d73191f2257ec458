"""Runs inside a container: asks the NVIDIA driver for its GPUs and has a kernel computed; prints one line of JSON.

The driver alone, through ctypes: no framework is imported, so it answers within a second in every image. Python 3.8.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import uuid
from typing import Any

# PTX, which the driver itself compiles for the GPU at hand: data[i] = 3 * i + 1.
KERNEL = b"""
.version 6.0
.target sm_30
.address_size 64
.visible .entry fill(.param .u64 data)
{
    .reg .b32 %r<6>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [data];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.s32 %r4, %r1, %r2, %r3;
    mad.lo.s32 %r5, %r4, 3, 1;
    mul.wide.u32 %rd3, %r4, 4;
    add.s64 %rd4, %rd2, %rd3;
    st.global.u32 [%rd4], %r5;
    ret;
}
"""
BLOCKS, THREADS = 16, 64


class DriverError(Exception):
    """A call of the driver that did not succeed."""


class Driver:
    """The driver's library; each call raises DriverError with the driver's own words."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")

    def call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.library, name)(*arguments)
        if code != 0:
            text = ctypes.c_char_p()
            self.library.cuGetErrorString(code, ctypes.byref(text))
            raise DriverError(f"{name}: {(text.value or b'unknown error').decode()} (code {code})")

    def devices(self) -> list[int]:
        self.call("cuInit", 0)
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        found = []
        for ordinal in range(count.value):
            device = ctypes.c_int()
            self.call("cuDeviceGet", ctypes.byref(device), ordinal)
            found.append(device.value)
        return found

    def describe(self, device: int) -> dict[str, Any]:
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, len(name), device)
        raw = ctypes.create_string_buffer(16)
        # The second form, since CUDA 11.4, gives a MIG device its own UUID instead of its GPU's.
        form = "cuDeviceGetUuid_v2" if hasattr(self.library, "cuDeviceGetUuid_v2") else "cuDeviceGetUuid"
        self.call(form, raw, device)
        return {"name": name.value.decode(errors="replace"), "uuid": str(uuid.UUID(bytes=raw.raw))}

    def compute(self, device: int) -> None:
        """Have the kernel fill a piece of the device's memory, and compare what comes back."""
        context, module, function = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        memory = ctypes.c_uint64()
        size = BLOCKS * THREADS
        result = (ctypes.c_uint32 * size)()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        try:
            self.call("cuCtxSetCurrent", context)
            self.call("cuModuleLoadData", ctypes.byref(module), KERNEL)
            self.call("cuModuleGetFunction", ctypes.byref(function), module, b"fill")
            self.call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(ctypes.sizeof(result)))
            values = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(memory), ctypes.c_void_p))
            self.call("cuLaunchKernel", function, BLOCKS, 1, 1, THREADS, 1, 1, 0, None, values, None)
            self.call("cuCtxSynchronize")
            self.call("cuMemcpyDtoH_v2", result, memory, ctypes.c_size_t(ctypes.sizeof(result)))
        finally:
            self.library.cuDevicePrimaryCtxRelease_v2(device)
        if list(result) != [3 * i + 1 for i in range(size)]:
            raise DriverError("a kernel ran and its result is wrong")


def ask(*, every: bool) -> dict[str, Any]:
    """The GPUs the driver shows here; a kernel is run on the first, or on `every` one."""
    # The variable hides GPUs from programs; what was injected is the question here.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    found: list[dict[str, Any]] = []
    try:
        driver = Driver()
        for place, device in enumerate(driver.devices()):
            entry = driver.describe(device)
            found.append(entry)
            if place == 0 or every:
                driver.compute(device)
                entry["computes"] = True
    except (OSError, AttributeError, DriverError) as e:
        return {"devices": found, "error": str(e)}
    return {"devices": found, "error": ""}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(ask(every="--all" in sys.argv[1:])) + "\n")
