"""TensorFlow on a GPU or, to test the code, on the CPU: the same shapes and names as PyTorch's tests.

TensorFlow has no device events, so time is the wall clock around a block of calls that ends when the device is done.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kit.bench import arithmetic
from kit.bench.results import Correctness, Details, Framework
from kit.bench.tf_networks import Variables, resnet, transformer
from kit.bench.work import CHECKED, ERROR_LIMITS, SEED, Bench, NotRunError, Work, check, check_copy, learning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.bench.work import Sizes


# float16 loses gradients below 6e-8 unless the loss is larger.
LOSS_SCALE = 1024.0


class TensorFlowBench(Bench):
    """TensorFlow on one device."""

    sample_s = 0.02

    def __init__(self, kind: str, capability: tuple[int, ...]) -> None:
        # Its log goes to stderr, and is about this machine's CPU on every start.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
        super().__init__("tensorflow", kind, capability)
        self.tf = self.library
        self.device = "/GPU:0" if self.is_gpu else "/CPU:0"
        if self.is_gpu:
            for gpu in self.tf.config.list_physical_devices("GPU"):
                # Otherwise it takes all memory at once, and nobody can say how much was needed.
                self.tf.config.experimental.set_memory_growth(gpu, True)
        else:
            self.tf.config.set_visible_devices([], "GPU")
        self.tf.random.set_seed(SEED)

    def synchronize(self) -> None:
        sync = getattr(self.tf.test.experimental, "sync_devices", None)
        if sync is not None:
            sync()
        elif self._last is not None:
            # One stream per device: what was given last is done last.
            self.tf.reshape(self._last, [-1])[0].numpy()

    def peak_memory_bytes(self) -> int | None:
        if not self.is_gpu or not hasattr(self.tf.config.experimental, "get_memory_info"):
            return None
        return int(self.tf.config.experimental.get_memory_info("GPU:0")["peak"])

    def facts(self) -> Framework:
        build = self.tf.sysconfig.get_build_info() if hasattr(self.tf.sysconfig, "get_build_info") else {}
        capabilities = build.get("cuda_compute_capabilities")
        return Framework(
            name="tensorflow",
            version=self.tf.__version__,
            cuda=str(build.get("cuda_version", "")),
            cudnn=str(build.get("cudnn_version", "")),
            arch_list=None if capabilities is None else tuple(capabilities),
            switches="TF32 as each test's name says",
        )

    def set_tf32(self, allowed: bool) -> None:
        self.tf.config.experimental.enable_tensor_float_32_execution(allowed)

    def matmul(self, kind: str, sizes: Sizes) -> Iterator[Work]:
        if kind == "fp8":
            raise NotRunError("TensorFlow has no public fp8 matrix product")
        return super().matmul(kind, sizes)

    def random(self, *shape: int, dtype: Any = None, scale: float = 1.0) -> Any:
        with self.tf.device(self.device):
            return self.tf.cast(self.tf.random.normal(shape, stddev=scale), dtype or self.tf.float32)

    def product(self, kind: str, m: int, n: int, k: int, layout: str, sizes: Sizes) -> Work:
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

        def checked() -> Correctness:
            out, again = call(0), call(0)
            with tf.device("/CPU:0"):
                a = tf.cast(sets[0][0][:CHECKED], tf.float64)
                b = sets[0][1][:, :CHECKED] if layout == "nn" else tf.transpose(sets[0][1][:CHECKED])
                reference = tf.matmul(a, tf.cast(b, tf.float64))
            is_whole = bool(tf.reduce_all(tf.math.is_finite(out)))
            return check(
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
            check=checked,
            details=Details(buffer_sets=count),
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

        def checked() -> Correctness:
            return check_copy(bool(tf.reduce_all(tf.equal(call(0), source))))

        yield Work(
            variant=f"{sizes.copy_bytes // 2**20} MiB",
            unit="GB/s",
            amount=arithmetic.copy_bytes(sizes.copy_bytes),
            call=call,
            check=checked,
        )

    def memory_triad(self, sizes: Sizes) -> Iterator[Work]:
        tf = self.tf
        b, c = self.random(sizes.copy_bytes // 4), self.random(sizes.copy_bytes // 4)
        add = tf.function(lambda x, y: tf.add(x, y))

        def call(_: int) -> Any:
            with tf.device(self.device):
                return add(b, c)

        def checked() -> Correctness:
            with tf.device("/CPU:0"):
                reference = tf.cast(b[::4097], tf.float64) + tf.cast(c[::4097], tf.float64)
            return check(
                "relative Frobenius error against float64",
                self.error(call(0)[::4097], reference),
                ERROR_LIMITS["fp32_ieee"],
            )

        yield Work(
            variant=f"{sizes.copy_bytes // 2**20} MiB, a = b + c",
            unit="GB/s",
            amount=arithmetic.triad_bytes(sizes.copy_bytes),
            call=call,
            check=checked,
            details=Details(note="the sum of two arrays moves a triad's bytes; TensorFlow has no kernel for a triad"),
        )

    def convolution(self, sizes: Sizes, *, with_amp: bool) -> Iterator[Work]:
        """In NHWC."""
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

        def checked() -> Correctness:
            with tf.device(self.device):
                out, of_x, of_weight = both(x, weight, gradient)
            with tf.device("/CPU:0"):
                reference = tf.nn.conv2d(
                    tf.cast(x[:1], tf.float64), tf.cast(weight[..., :8], tf.float64), strides=1, padding="SAME"
                )
            is_whole = all(bool(tf.reduce_all(tf.math.is_finite(part))) for part in (of_x, of_weight))
            return check(
                "relative Frobenius error of the forward pass against float64; finite gradients",
                self.error(out[:1, ..., :8], reference) if is_whole else float("inf"),
                ERROR_LIMITS["bf16" if with_amp else "fp32_ieee"],
            )

        yield Work(
            variant=f"{batch}x{size}x{size}x{channels} NHWC {dtype.name}",
            unit="TFLOP/s",
            amount=arithmetic.conv_flops(batch, channels, size, 3),
            call=call,
            check=checked,
        )

    def resnet_step(self, sizes: Sizes) -> Iterator[Work]:
        """Images per second, 16-bit products, SGD with momentum."""
        tf = self.tf
        batch, image, width, blocks = sizes.resnet
        # Batch normalisation of 16-bit numbers exists on the GPU.
        dtype = self.half() if self.is_gpu else tf.float32
        self.set_tf32(True)
        variables = Variables(self.tf, self.device)
        x = self.random(batch, image, image, 3, dtype=dtype)
        y = tf.random.uniform((batch,), 0, 1000, dtype=tf.int32)
        step = self._step(variables, dtype, lambda: resnet(variables, x, width, blocks), y, rate=0.01)
        call, checked = learning(step)
        yield Work(
            variant=f"batch {batch}, {image}x{image}, NHWC, {dtype.name}",
            unit="images/s",
            amount=batch,
            call=call,
            check=checked,
        )

    def transformer_step(self, sizes: Sizes) -> Iterator[Work]:
        """Tokens per second, 16-bit products, SGD with momentum."""
        tf = self.tf
        batch, context, layers, width, _, vocabulary = sizes.transformer
        dtype = self.half() if self.is_gpu else tf.float32
        self.set_tf32(True)
        variables = Variables(self.tf, self.device)
        tokens = tf.random.uniform((batch, context + 1), 0, vocabulary, dtype=tf.int32)
        step = self._step(
            variables,
            dtype,
            lambda: transformer(variables, tokens[:, :-1], sizes.transformer, dtype),
            tf.reshape(tokens[:, 1:], [-1]),
            rate=0.01,
        )
        call, checked = learning(step)
        yield Work(
            variant=f"{layers} layers, width {width}, batch {batch}x{context}, {dtype.name}",
            unit="tokens/s",
            amount=batch * context,
            call=call,
            check=checked,
            details=Details(
                model_flops_per_token=arithmetic.transformer_flops_per_token(layers, width, context, vocabulary)
            ),
        )

    def _step(
        self, variables: Variables, dtype: Any, logits: Callable[[], Any], y: Any, *, rate: float
    ) -> Callable[[int], Any]:
        """One training step; gives the loss before it."""
        tf = self.tf
        scale = LOSS_SCALE if dtype == tf.float16 else 1.0
        with tf.device(self.device):
            logits()  # makes the variables
            weights = list(variables.named.values())
            momenta = [tf.Variable(tf.zeros_like(weight)) for weight in weights]

        @tf.function  # type: ignore[untyped-decorator,unused-ignore]
        def step() -> Any:
            with tf.GradientTape() as tape:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=tf.cast(logits(), tf.float32))
                loss = tf.reduce_mean(losses)
                scaled = loss * scale
            for index, gradient in enumerate(tape.gradient(scaled, weights)):
                momentum = momenta[index].assign(0.9 * momenta[index] + tf.convert_to_tensor(gradient) / scale)
                weights[index].assign_sub(rate * momentum)
            return loss

        def call(_: int) -> Any:
            with tf.device(self.device):
                return step()

        return call
