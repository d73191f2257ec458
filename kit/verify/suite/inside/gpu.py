"""Inside, with a GPU: kernels of each number format against float64 on the CPU, cuDNN, compiled code, all-reduce."""
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator"

from __future__ import annotations

import os
import socket
import sys
from functools import partial
from typing import Any

from answer import Absent, give
from training import tensorflow_compiles, torch_compiles

SIZE = 256


class TorchGpu:
    """The questions, put to PyTorch."""

    def __init__(self, device: str) -> None:
        import torch

        self.torch, self.device = torch, device
        torch.manual_seed(0)

    def seen(self) -> dict[str, Any]:
        cuda = self.torch.cuda
        places = range(cuda.device_count())
        return {
            "available": cuda.is_available(),
            "names": [cuda.get_device_name(i) for i in places],
            "capabilities": [".".join(map(str, cuda.get_device_capability(i))) for i in places],
        }

    def capability(self) -> tuple[int, int]:
        found: tuple[int, int] = self.torch.cuda.get_device_capability() if self.device == "cuda" else (0, 0)
        return found

    def product(self, kind: str) -> float:
        """The relative error of a product; the inputs are rounded to the format before the CPU gets them."""
        torch = self.torch
        needed = {"tf32": (8, 0), "bfloat16": (8, 0), "float8_e4m3fn": (8, 9)}.get(kind, (0, 0))
        if self.device == "cuda" and self.capability() < needed:
            raise Absent(f"{kind} needs compute capability {needed[0]}.{needed[1]}")
        if kind == "float8_e4m3fn" and not (hasattr(torch, kind) and hasattr(torch, "_scaled_mm")):
            raise Absent(f"torch {torch.__version__} multiplies no {kind}")
        dtype = torch.float32 if kind == "tf32" else getattr(torch, kind)
        torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
        a, b = (torch.randn(SIZE, SIZE).to(dtype) for _ in range(2))
        expected = a.double() @ b.double().t()
        if kind == "float8_e4m3fn":
            one = torch.ones((), device=self.device)
            result = torch._scaled_mm(
                a.to(self.device), b.to(self.device).t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16
            )
            result = result[0] if isinstance(result, tuple) else result  # a pair before torch 2.5
        else:
            result = a.to(self.device) @ b.to(self.device).t()
        return float((result.double().cpu() - expected).norm() / expected.norm())

    def convolution(self) -> dict[str, Any]:
        """By name, and not by torch's choice: cuDNN or an error."""
        torch = self.torch
        image, weight = torch.randn(2, 8, 32, 32), torch.randn(16, 8, 3, 3)
        expected = torch.nn.functional.conv2d(image.double(), weight.double(), padding=1)
        result = torch.cudnn_convolution(
            image.to(self.device), weight.to(self.device), (1, 1), (1, 1), (1, 1), 1, False, False, False
        )
        error = float((result.double().cpu() - expected).norm() / expected.norm())
        return {"error": error, "version": torch.backends.cudnn.version()}

    def all_reduce(self) -> list[float]:
        count = self.torch.cuda.device_count()
        if count < 2:
            raise Absent(f"all-reduce needs two GPUs, {count} is here")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        context = self.torch.multiprocessing.get_context("spawn")
        queue = context.SimpleQueue()
        self.torch.multiprocessing.spawn(torch_rank, args=(count, queue), nprocs=count)
        return sorted(queue.get() for _ in range(count))


def torch_rank(rank: int, count: int, queue: Any) -> None:
    """One process of the all-reduce; each brings its number plus one."""
    import torch
    import torch.distributed as group

    torch.cuda.set_device(rank)
    group.init_process_group("nccl", rank=rank, world_size=count)
    tensor = torch.full((1024,), float(rank + 1), device=f"cuda:{rank}")
    group.all_reduce(tensor)
    queue.put(float(tensor[0]))
    group.destroy_process_group()


class TensorflowGpu:
    """The questions, put to TensorFlow."""

    def __init__(self, device: str) -> None:
        import tensorflow

        self.tf, self.device = tensorflow, "GPU:0" if device == "cuda" else "CPU:0"
        self.gpus = tensorflow.config.list_physical_devices("GPU")
        tensorflow.random.set_seed(0)

    def seen(self) -> dict[str, Any]:
        details = [self.tf.config.experimental.get_device_details(gpu) for gpu in self.gpus]
        return {
            "available": bool(self.gpus),
            "names": [d.get("device_name", "") for d in details],
            "capabilities": [".".join(map(str, d.get("compute_capability", ()))) for d in details],
        }

    def product(self, kind: str) -> float:
        tf = self.tf
        if kind == "float8_e4m3fn":
            raise Absent("TensorFlow multiplies no float8")
        if kind in ("tf32", "bfloat16") and self.gpus:
            capability = tf.config.experimental.get_device_details(self.gpus[0]).get("compute_capability", (0, 0))
            if tuple(capability) < (8, 0):
                raise Absent(f"{kind} needs compute capability 8.0")
        dtype = tf.float32 if kind == "tf32" else getattr(tf, kind)
        tf.config.experimental.enable_tensor_float_32_execution(kind == "tf32")
        with tf.device("CPU:0"):
            a, b = (tf.cast(tf.random.normal((SIZE, SIZE)), dtype) for _ in range(2))
            expected = tf.matmul(tf.cast(a, tf.float64), tf.cast(b, tf.float64), transpose_b=True)
        with tf.device(self.device):
            result = tf.matmul(tf.identity(a), tf.identity(b), transpose_b=True)
        if self.device not in result.device:
            raise RuntimeError(f"it ran on {result.device}, not on {self.device}")
        with tf.device("CPU:0"):
            return float(tf.norm(tf.cast(result, tf.float64) - expected) / tf.norm(expected))

    def convolution(self) -> dict[str, Any]:
        """On a GPU TensorFlow's convolutions are cuDNN's."""
        tf = self.tf
        tf.config.experimental.enable_tensor_float_32_execution(False)
        with tf.device("CPU:0"):
            image, weight = tf.random.normal((2, 32, 32, 8)), tf.random.normal((3, 3, 8, 16))
            expected = tf.nn.conv2d(tf.cast(image, tf.float64), tf.cast(weight, tf.float64), 1, "SAME")
        with tf.device(self.device):
            result = tf.nn.conv2d(tf.identity(image), tf.identity(weight), 1, "SAME")
        with tf.device("CPU:0"):
            error = float(tf.norm(tf.cast(result, tf.float64) - expected) / tf.norm(expected))
        return {"error": error, "version": None}

    def all_reduce(self) -> list[float]:
        tf, count = self.tf, len(self.gpus)
        if count < 2:
            raise Absent(f"all-reduce needs two GPUs, {count} is here")
        strategy = tf.distribute.MirroredStrategy(cross_device_ops=tf.distribute.NcclAllReduce())

        @tf.function
        def step() -> Any:
            context = tf.distribute.get_replica_context()
            mine = tf.cast(context.replica_id_in_sync_group, tf.float32) + 1.0
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        return sorted(float(value) for value in strategy.experimental_local_results(strategy.run(step)))


if __name__ == "__main__":
    # The second word is `cuda`; `cpu` puts the same questions to the CPU, to try this file without a GPU.
    is_torch = sys.argv[1] == "torch"
    chosen = TorchGpu(sys.argv[2]) if is_torch else TensorflowGpu(sys.argv[2])
    compiles = partial(torch_compiles if is_torch else tensorflow_compiles, chosen.device)
    parts = {"seen": chosen.seen, **{kind: partial(chosen.product, kind) for kind in sys.argv[3].split(",")}}
    parts.update(convolution=chosen.convolution, compiles=compiles, all_reduce=chosen.all_reduce)
    give(parts)
