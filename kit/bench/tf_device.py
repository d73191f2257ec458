"""TensorFlow on a GPU or, to test the code, on the CPU: the same shapes and names as PyTorch's tests.

TensorFlow has no device events, so time is the wall clock around a block of calls that ends when the device is done.
"""

from __future__ import annotations

import gc
import importlib
import os
import time
from typing import TYPE_CHECKING, Any

from kit.bench import arithmetic
from kit.bench.work import ERROR_LIMITS, Check, NotRunError, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.bench.timing import Before, Call
    from kit.bench.work import Sizes

SEED = 20261121
CHECKED = 64


class TensorFlowBench:
    """TensorFlow on one device. Imports the framework when made; raises ImportError."""

    def __init__(self, kind: str, capability: tuple[int, int] = (0, 0), cache_bytes: int = 0) -> None:
        # Its log goes to stderr, and is about this machine's CPU on every start.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
        self.tf = importlib.import_module("tensorflow")
        self.kind, self.capability = kind, capability
        self.is_gpu = kind == "cuda"
        self.device = "/GPU:0" if self.is_gpu else "/CPU:0"
        self.sample_s = 0.02
        if self.is_gpu:
            for gpu in self.tf.config.list_physical_devices("GPU"):
                # Otherwise it takes all memory at once, and nobody can say how much was needed.
                self.tf.config.experimental.set_memory_growth(gpu, True)
        else:
            self.tf.config.set_visible_devices([], "GPU")
        self.tf.random.set_seed(SEED)
        self._last: Any = None

    def now(self) -> float:
        return time.perf_counter()

    def synchronize(self) -> None:
        sync = getattr(self.tf.test.experimental, "sync_devices", None)
        if sync is not None:
            sync()
        elif self._last is not None:
            # One stream per device: what was given last is done last.
            self.tf.reshape(self._last, [-1])[0].numpy()

    def timed(self, call: Call, samples: int, calls: int, before: Before) -> list[float]:
        found = []
        for sample in range(samples):
            if before:
                before()
            self.synchronize()
            start = time.perf_counter()
            for number in range(calls):
                self._last = call(sample * calls + number)
            self.synchronize()
            found.append((time.perf_counter() - start) / calls)
        return found

    def release(self) -> None:
        self._last = None
        gc.collect()

    def peak_memory_bytes(self) -> int | None:
        if not self.is_gpu or not hasattr(self.tf.config.experimental, "get_memory_info"):
            return None
        return int(self.tf.config.experimental.get_memory_info("GPU:0")["peak"])

    def facts(self) -> dict[str, Any]:
        build = self.tf.sysconfig.get_build_info() if hasattr(self.tf.sysconfig, "get_build_info") else {}
        found = {
            "name": "tensorflow",
            "version": self.tf.__version__,
            "cuda": str(build.get("cuda_version", "")),
            "cudnn": str(build.get("cudnn_version", "")),
            "switches": "TF32 as each test's name says",
        }
        if "cuda_compute_capabilities" in build:
            found["arch_list"] = list(build["cuda_compute_capabilities"])
        return found

    def tests(self) -> dict[str, Callable[[Sizes], Iterator[Work]]]:
        from kit.bench import tf_training

        return {
            "matmul_fp32_ieee": lambda sizes: self.matmul("fp32_ieee", sizes),
            "matmul_tf32": lambda sizes: self.matmul("tf32", sizes),
            "matmul_fp16": lambda sizes: self.matmul("fp16", sizes),
            "matmul_bf16": lambda sizes: self.matmul("bf16", sizes),
            "matmul_fp8": self.matmul_fp8,
            "memory_copy": self.memory_copy,
            "memory_triad": self.memory_triad,
            "conv_fp32": lambda sizes: self.convolution(sizes, with_amp=False),
            "conv_amp": lambda sizes: self.convolution(sizes, with_amp=True),
            "resnet50_step": lambda sizes: tf_training.resnet_step(self, sizes),
            "transformer_step": lambda sizes: tf_training.transformer_step(self, sizes),
        }

    def require(self, capability: tuple[int, int], what: str) -> None:
        """Raise NotRunError on an older GPU, or on the CPU."""
        if not self.is_gpu:
            raise NotRunError(f"{what} is a matter of the GPU")
        if self.capability < capability:
            raise NotRunError(
                f"{what} exists from compute capability {capability[0]}.{capability[1]} on, "
                f"this is {self.capability[0]}.{self.capability[1]}"
            )

    def set_tf32(self, allowed: bool) -> None:
        """Whether fp32 products and convolutions may round their inputs to TF32."""
        self.tf.config.experimental.enable_tensor_float_32_execution(allowed)

    def half(self) -> Any:
        """The 16-bit type to compute in: bfloat16 where the GPU computes in it."""
        return self.tf.bfloat16 if not self.is_gpu or self.capability >= (8, 0) else self.tf.float16

    def random(self, *shape: int, dtype: Any = None, scale: float = 1.0) -> Any:
        with self.tf.device(self.device):
            return self.tf.cast(self.tf.random.normal(shape, stddev=scale), dtype or self.tf.float32)

    def matmul(self, kind: str, sizes: Sizes) -> Iterator[Work]:
        """A x B per shape, B in both memory layouts."""
        if kind == "tf32" or (kind == "bf16" and self.is_gpu):
            self.require((8, 0), kind)
        self.set_tf32(kind == "tf32")
        for m, n, k in sizes.matmul:
            for layout in ("nn", "nt"):
                yield self._product(kind, m, n, k, layout, sizes)

    def matmul_fp8(self, sizes: Sizes) -> Iterator[Work]:
        raise NotRunError("TensorFlow has no public fp8 matrix product")

    def _product(self, kind: str, m: int, n: int, k: int, layout: str, sizes: Sizes) -> Work:
        tf = self.tf
        dtype = {"fp16": tf.float16, "bf16": tf.bfloat16}.get(kind, tf.float32)
        per_set = (m * k + k * n + m * n) * dtype.size
        count = arithmetic.rotating_sets(per_set, sizes.cache_bytes, sizes.memory_bytes // 2)
        shape = (k, n) if layout == "nn" else (n, k)
        sets = [(self.random(m, k, dtype=dtype), self.random(*shape, dtype=dtype)) for _ in range(count)]
        product = tf.function(lambda a, b: tf.matmul(a, b, transpose_b=layout == "nt"))

        def call(number: int) -> Any:
            with tf.device(self.device):
                return product(*sets[number % count])

        def check() -> Check:
            out, again = call(0), call(0)
            with tf.device("/CPU:0"):
                a = tf.cast(sets[0][0][:CHECKED], tf.float64)
                b = sets[0][1][:, :CHECKED] if layout == "nn" else tf.transpose(sets[0][1][:CHECKED])
                reference = tf.matmul(a, tf.cast(b, tf.float64))
            is_whole = bool(tf.reduce_all(tf.math.is_finite(out)))
            return Check(
                measure="relative Frobenius error against float64 on the CPU; every element finite",
                error=self.error(out[:CHECKED, :CHECKED], reference) if is_whole else float("inf"),
                limit=ERROR_LIMITS[kind],
                is_repeatable=bool(tf.reduce_all(tf.equal(out, again))),
            )

        return Work(
            variant=f"{m}x{n}x{k} {layout}",
            unit="TFLOP/s",
            amount=arithmetic.matmul_flops(m, n, k),
            call=call,
            check=check,
            details={"buffer_sets": count},
        )

    def error(self, result: Any, reference: Any) -> float:
        """Relative Frobenius error of a result against a float64 reference."""
        tf = self.tf
        with tf.device("/CPU:0"):
            difference = tf.cast(result, tf.float64) - reference
            return arithmetic.relative_error(
                float(tf.reduce_sum(difference**2)), float(tf.reduce_sum(tf.cast(reference, tf.float64) ** 2))
            )

    def memory_copy(self, sizes: Sizes) -> Iterator[Work]:
        tf = self.tf
        source = self.random(sizes.copy_bytes // 4)
        # tf.identity hands on the same buffer; this operation makes a second one.
        copy = tf.function(lambda x: tf.raw_ops.DeepCopy(x=x))

        def call(_: int) -> Any:
            with tf.device(self.device):
                return copy(source)

        def check() -> Check:
            is_same = bool(tf.reduce_all(tf.equal(call(0), source)))
            return Check("the copy equals the original", 0.0 if is_same else float("inf"), 0.0)

        yield Work(
            variant=f"{sizes.copy_bytes // 2**20} MiB",
            unit="GB/s",
            amount=arithmetic.copy_bytes(sizes.copy_bytes),
            call=call,
            check=check,
        )

    def memory_triad(self, sizes: Sizes) -> Iterator[Work]:
        tf = self.tf
        b, c = self.random(sizes.copy_bytes // 4), self.random(sizes.copy_bytes // 4)
        add = tf.function(lambda x, y: tf.add(x, y))

        def call(_: int) -> Any:
            with tf.device(self.device):
                return add(b, c)

        def check() -> Check:
            with tf.device("/CPU:0"):
                reference = tf.cast(b[::4097], tf.float64) + tf.cast(c[::4097], tf.float64)
            return Check(
                "relative Frobenius error against float64",
                self.error(call(0)[::4097], reference),
                ERROR_LIMITS["fp32_ieee"],
            )

        yield Work(
            variant=f"{sizes.copy_bytes // 2**20} MiB, a = b + c",
            unit="GB/s",
            amount=arithmetic.triad_bytes(sizes.copy_bytes),
            call=call,
            check=check,
            details={"note": "the sum of two arrays moves a triad's bytes; TensorFlow has no kernel for a triad"},
        )

    def convolution(self, sizes: Sizes, *, with_amp: bool) -> Iterator[Work]:
        """3x3 forward and backward, NHWC: fp32, or the 16 bits that mixed precision computes in."""
        tf = self.tf
        self.set_tf32(False)
        batch, channels, size = sizes.conv
        dtype = self.half() if with_amp else tf.float32
        x = self.random(batch, size, size, channels, dtype=dtype)
        weight = self.random(3, 3, channels, channels, dtype=dtype, scale=0.02)
        gradient = self.random(batch, size, size, channels, dtype=dtype)

        @tf.function  # type: ignore[untyped-decorator,unused-ignore]
        def both(x: Any, weight: Any, gradient: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch([x, weight])
                out = tf.nn.conv2d(x, weight, strides=1, padding="SAME")
            return (out, *tape.gradient(out, [x, weight], output_gradients=gradient))

        def call(_: int) -> Any:
            with tf.device(self.device):
                return both(x, weight, gradient)[2]

        def check() -> Check:
            with tf.device(self.device):
                out, of_x, of_weight = both(x, weight, gradient)
            with tf.device("/CPU:0"):
                reference = tf.nn.conv2d(
                    tf.cast(x[:1], tf.float64), tf.cast(weight[..., :8], tf.float64), strides=1, padding="SAME"
                )
            is_whole = all(bool(tf.reduce_all(tf.math.is_finite(part))) for part in (of_x, of_weight))
            return Check(
                "relative Frobenius error of the forward pass against float64; finite gradients",
                self.error(out[:1, ..., :8], reference) if is_whole else float("inf"),
                ERROR_LIMITS["bf16" if with_amp else "fp32_ieee"],
            )

        yield Work(
            variant=f"{batch}x{size}x{size}x{channels} NHWC {dtype.name}",
            unit="TFLOP/s",
            amount=arithmetic.conv_flops(batch, channels, size, 3),
            call=call,
            check=check,
        )
