"""PyTorch on a GPU or, to test the code, on the CPU: products, memory, transfers, launches, convolution."""

from __future__ import annotations

import contextlib
import gc
import importlib
import time
from typing import TYPE_CHECKING, Any

from kit.bench import arithmetic
from kit.bench.work import ERROR_LIMITS, Check, NotRunError, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.bench.timing import Before, Call
    from kit.bench.work import Sizes

SEED = 20261121
# Rows and columns of a product that are compared with float64.
CHECKED = 64
FLUSH_BYTES = 256 * 2**20


class TorchBench:
    """PyTorch on one device. Imports the framework when made; raises ImportError."""

    def __init__(self, kind: str, capability: tuple[int, int] = (0, 0), cache_bytes: int = 0) -> None:
        self.torch = importlib.import_module("torch")
        self.kind, self.capability = kind, capability
        self.is_gpu = kind == "cuda"
        self.device = self.torch.device(kind)
        self.sample_s = 0.002 if self.is_gpu else 0.02
        self._flush_bytes = max(FLUSH_BYTES, 4 * cache_bytes)
        self.torch.manual_seed(SEED)

    def now(self) -> float:
        return time.perf_counter()

    def synchronize(self) -> None:
        if self.is_gpu:
            self.torch.cuda.synchronize()

    def timed(self, call: Call, samples: int, calls: int, before: Before) -> list[float]:
        if not self.is_gpu:
            found = []
            for sample in range(samples):
                if before:
                    before()
                start = time.perf_counter()
                for number in range(calls):
                    call(sample * calls + number)
                found.append((time.perf_counter() - start) / calls)
            return found
        event = self.torch.cuda.Event
        pairs = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(samples)]
        for sample, (start, end) in enumerate(pairs):
            if before:
                before()
            start.record()
            for number in range(calls):
                call(sample * calls + number)
            end.record()
        self.torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1000 / calls for start, end in pairs]

    def release(self) -> None:
        gc.collect()
        if self.is_gpu:
            self.torch.cuda.empty_cache()

    def peak_memory_bytes(self) -> int | None:
        return int(self.torch.cuda.max_memory_reserved()) if self.is_gpu else None

    def facts(self) -> dict[str, Any]:
        torch = self.torch
        found: dict[str, Any] = {"name": "torch", "version": torch.__version__, "cuda": torch.version.cuda or ""}
        if self.is_gpu:
            found["cudnn"] = str(torch.backends.cudnn.version() or "")
            with contextlib.suppress(AttributeError, RuntimeError):  # built without NCCL
                found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        if hasattr(torch.cuda, "get_arch_list"):
            found["arch_list"] = list(torch.cuda.get_arch_list())
        found["switches"] = "TF32 as each test's name says; cudnn.benchmark on"
        return found

    def tests(self) -> dict[str, Callable[[Sizes], Iterator[Work]]]:
        from kit.bench import torch_training

        return {
            "matmul_fp32_ieee": lambda sizes: self.matmul("fp32_ieee", sizes),
            "matmul_tf32": lambda sizes: self.matmul("tf32", sizes),
            "matmul_fp16": lambda sizes: self.matmul("fp16", sizes),
            "matmul_bf16": lambda sizes: self.matmul("bf16", sizes),
            "matmul_fp8": lambda sizes: self.matmul("fp8", sizes),
            "memory_copy": self.memory_copy,
            "memory_triad": self.memory_triad,
            "h2d_pinned": lambda sizes: self.transfer(sizes, to_device=True, pinned=True),
            "h2d_pageable": lambda sizes: self.transfer(sizes, to_device=True, pinned=False),
            "d2h_pinned": lambda sizes: self.transfer(sizes, to_device=False, pinned=True),
            "d2h_pageable": lambda sizes: self.transfer(sizes, to_device=False, pinned=False),
            "launch_eager": self.launch_eager,
            "launch_graph": self.launch_graph,
            "conv_fp32": lambda sizes: self.convolution(sizes, with_amp=False),
            "conv_amp": lambda sizes: self.convolution(sizes, with_amp=True),
            "resnet50_step": lambda sizes: torch_training.resnet_step(self, sizes),
            "transformer_step": lambda sizes: torch_training.transformer_step(self, sizes),
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
        """Whether fp32 products and convolutions may round their inputs to TF32: set both ways, never left alone."""
        torch = self.torch
        if hasattr(torch, "set_float32_matmul_precision"):
            torch.set_float32_matmul_precision("high" if allowed else "highest")
        else:
            torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed
        torch.backends.cudnn.benchmark = True

    def half(self) -> Any:
        """The 16-bit type to train in: bfloat16 where the GPU computes in it."""
        return self.torch.bfloat16 if not self.is_gpu or self.capability >= (8, 0) else self.torch.float16

    def matmul(self, kind: str, sizes: Sizes) -> Iterator[Work]:
        """A x B per shape, B in both memory layouts, since the library's kernels differ by layout."""
        # On the CPU bf16 only tests the code; tf32 and fp8 it does not have.
        if kind in ("tf32", "fp8") or (kind == "bf16" and self.is_gpu):
            self.require((8, 9) if kind == "fp8" else (8, 0), kind)
        self.set_tf32(kind == "tf32")
        layouts = ("nt",) if kind == "fp8" else ("nn", "nt")
        for m, n, k in sizes.matmul:
            for layout in layouts:
                yield self._product(kind, m, n, k, layout, sizes)

    def _product(self, kind: str, m: int, n: int, k: int, layout: str, sizes: Sizes) -> Work:
        torch = self.torch
        types = {"fp32_ieee": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        stored = torch.float8_e4m3fn if kind == "fp8" else types[kind]
        result_type = torch.bfloat16 if kind == "fp8" else stored
        bytes_each = {torch.float32: 4}.get(stored, 1 if kind == "fp8" else 2)
        per_set = (m * k + k * n) * bytes_each + m * n * 2
        count = arithmetic.rotating_sets(per_set, sizes.cache_bytes, sizes.memory_bytes // 2)
        shape = (k, n) if layout == "nn" else (n, k)

        def random(*size: int) -> Any:
            return torch.randn(*size, device=self.device).to(stored)

        sets = [(random(m, k), random(*shape)) for _ in range(count)]
        outputs = [torch.empty(m, n, device=self.device, dtype=result_type) for _ in range(count)]
        one = torch.ones((), device=self.device) if kind == "fp8" else None

        def call(number: int) -> None:
            a, b = sets[number % count]
            out = outputs[number % count]
            right = b if layout == "nn" else b.t()
            if one is not None:
                torch._scaled_mm(
                    a, right, scale_a=one, scale_b=one, out_dtype=result_type, use_fast_accum=True, out=out
                )
            else:
                torch.matmul(a, right, out=out)

        def check() -> Check:
            out = outputs[0].fill_(float("nan"))
            call(0)
            first = out.clone()
            call(0)
            a, b = sets[0][0][:CHECKED], sets[0][1]
            b = b[:, :CHECKED] if layout == "nn" else b[:CHECKED].t()
            is_whole = bool(torch.isfinite(out).all())
            error = self.error(out[:CHECKED, :CHECKED], a.cpu().double() @ b.cpu().double())
            return Check(
                measure="relative Frobenius error against float64 on the CPU; every element written",
                error=error if is_whole else float("inf"),
                limit=ERROR_LIMITS[kind],
                is_repeatable=bool(torch.equal(out, first)),
            )

        try:
            call(0)
        except (RuntimeError, AttributeError, TypeError) as e:
            if not self.is_gpu or kind == "fp8":
                raise NotRunError(f"{kind} is not there: {_first_line(e)}") from None
            raise
        return Work(
            variant=f"{m}x{n}x{k} {layout}",
            unit="TFLOP/s",
            amount=arithmetic.matmul_flops(m, n, k),
            call=call,
            check=check,
            before=self.cache_flush(),
            details={"buffer_sets": count},
        )

    def cache_flush(self) -> Before:
        """Overwrites more than the last-level cache, as mamf-finder and Triton's do_bench do before each sample."""
        if not self.is_gpu:
            return None
        buffer = self.torch.empty(self._flush_bytes, dtype=self.torch.int8, device=self.device)
        return lambda: buffer.zero_()

    def error(self, result: Any, reference: Any) -> float:
        """Relative Frobenius error of a result against a float64 reference."""
        reference = reference.double().cpu()
        difference = result.double().cpu() - reference
        return arithmetic.relative_error(float((difference**2).sum()), float((reference**2).sum()))

    def memory_copy(self, sizes: Sizes) -> Iterator[Work]:
        torch = self.torch
        source = torch.randn(sizes.copy_bytes // 4, device=self.device)
        target = torch.empty_like(source)

        def check() -> Check:
            target.fill_(float("nan"))
            target.copy_(source)
            return Check("the copy equals the original", 0.0 if torch.equal(source, target) else float("inf"), 0.0)

        yield Work(
            variant=f"{sizes.copy_bytes // 2**20} MiB",
            unit="GB/s",
            amount=arithmetic.copy_bytes(sizes.copy_bytes),
            call=lambda _: target.copy_(source),
            check=check,
        )

    def memory_triad(self, sizes: Sizes) -> Iterator[Work]:
        torch = self.torch
        b, c = (torch.randn(sizes.copy_bytes // 4, device=self.device) for _ in range(2))
        a = torch.empty_like(b)

        def check() -> Check:
            a.fill_(float("nan"))
            torch.add(b, c, alpha=0.5, out=a)
            part = slice(0, None, 4097)
            error = self.error(a[part], b[part].cpu().double() + 0.5 * c[part].cpu().double())
            return Check(
                "relative Frobenius error against float64",
                error if bool(torch.isfinite(a).all()) else float("inf"),
                ERROR_LIMITS["fp32_ieee"],
            )

        yield Work(
            variant=f"{sizes.copy_bytes // 2**20} MiB",
            unit="GB/s",
            amount=arithmetic.triad_bytes(sizes.copy_bytes),
            call=lambda _: torch.add(b, c, alpha=0.5, out=a),
            check=check,
        )

    def transfer(self, sizes: Sizes, *, to_device: bool, pinned: bool) -> Iterator[Work]:
        """Copies between host and device. Pinned memory stays at 256 MiB: WSL2 has little of it (WSL issue 14078)."""
        if not self.is_gpu:
            raise NotRunError("there is no way between the host and the device when the device is the CPU")
        torch = self.torch
        host = torch.randint(0, 256, (sizes.host_bytes,), dtype=torch.uint8)
        host = host.pin_memory() if pinned else host
        device = torch.empty_like(host, device=self.device) if to_device else host.to(self.device)
        source, target = (host, device) if to_device else (device, host)

        def check() -> Check:
            kept = source.clone()
            target.zero_()
            target.copy_(source, non_blocking=pinned)
            torch.cuda.synchronize()
            is_same = torch.equal(kept.cpu(), target.cpu())
            return Check("the copy equals the original", 0.0 if is_same else float("inf"), 0.0)

        yield Work(
            variant=f"{sizes.host_bytes // 2**20} MiB",
            unit="GB/s",
            amount=sizes.host_bytes,
            call=lambda _: target.copy_(source, non_blocking=pinned),
            check=check,
            calls=4,
        )

    def launch_eager(self, sizes: Sizes) -> Iterator[Work]:
        number = self.torch.zeros(1, device=self.device)
        yield Work(
            variant="add_ of one element",
            unit="us",
            amount=1,
            call=lambda _: number.add_(1),
            check=lambda: self._counts(number, lambda: number.add_(1), 1),
            calls=sizes.launches,
        )

    def launch_graph(self, sizes: Sizes) -> Iterator[Work]:
        if not self.is_gpu:
            raise NotRunError("CUDA graphs are a matter of the GPU")
        torch = self.torch
        number = torch.zeros(1, device=self.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            number.add_(1)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(sizes.launches):
                number.add_(1)
        yield Work(
            variant=f"graph of {sizes.launches} add_",
            unit="us",
            amount=sizes.launches,
            call=lambda _: graph.replay(),
            check=lambda: self._counts(number, graph.replay, sizes.launches),
        )

    def _counts(self, number: Any, step: Callable[[], object], by: int) -> Check:
        number.zero_()
        step()
        self.synchronize()
        return Check("the kernels counted right", abs(float(number) - by), 0.0)

    def convolution(self, sizes: Sizes, *, with_amp: bool) -> Iterator[Work]:
        """3x3 forward and backward: fp32 in NCHW, or 16 bits in channels_last as AMP runs it."""
        torch, functional = self.torch, self.torch.nn.functional
        self.set_tf32(False)
        batch, channels, size = sizes.conv
        dtype = self.half() if with_amp else torch.float32
        layout = torch.channels_last if with_amp else torch.contiguous_format

        def random(*shape: int, scale: float = 1.0) -> Any:
            values = torch.randn(*shape, device=self.device).mul_(scale).to(dtype)
            return values.contiguous(memory_format=layout).requires_grad_()

        x, weight = random(batch, channels, size, size), random(channels, channels, 3, 3, scale=0.02)
        gradient = torch.randn_like(x)

        def forward() -> Any:
            return functional.conv2d(x, weight, padding=1)

        def call(_: int) -> None:
            x.grad = weight.grad = None
            forward().backward(gradient)

        def check() -> Check:
            call(0)
            with torch.no_grad():
                result = forward()[:1, :8]
                reference = functional.conv2d(x[:1].cpu().double(), weight[:8].cpu().double(), padding=1)
            is_whole = bool(torch.isfinite(x.grad).all() and torch.isfinite(weight.grad).all())
            return Check(
                "relative Frobenius error of the forward pass against float64; finite gradients",
                self.error(result, reference) if is_whole else float("inf"),
                ERROR_LIMITS["bf16" if with_amp else "fp32_ieee"],
            )

        name = str(dtype).split(".")[-1]
        yield Work(
            variant=f"{batch}x{channels}x{size}x{size} {'channels_last' if with_amp else 'NCHW'} {name}",
            unit="TFLOP/s",
            amount=arithmetic.conv_flops(batch, channels, size, 3),
            call=call,
            check=check,
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
