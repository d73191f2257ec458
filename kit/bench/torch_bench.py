"""PyTorch on a GPU or, to test the code, on the CPU: products, memory, transfers, launches, convolution, and a
training step of two networks, on random data that is already on the device."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from kit.bench import arithmetic
from kit.bench.results import Correctness, Details, Framework
from kit.bench.torch_networks import resnet, transformer
from kit.bench.work import CHECKED, ERROR_LIMITS, SEED, Bench, NotRunError, Work, check, check_copy, learning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.bench.work import Before, Call, Sizes

FLUSH_BYTES = 256 * 2**20


class TorchBench(Bench):
    """PyTorch on one device."""

    def __init__(self, kind: str, capability: tuple[int, ...], cache_bytes: int) -> None:
        super().__init__("torch", kind, capability)
        self.torch = self.library
        self.device = self.torch.device(kind)
        self.sample_s = 0.002 if self.is_gpu else 0.02
        self._flush_bytes = max(FLUSH_BYTES, 4 * cache_bytes)
        self.torch.manual_seed(SEED)

    def synchronize(self) -> None:
        if self.is_gpu:
            self.torch.cuda.synchronize()

    def timed(self, call: Call, samples: int, calls: int, before: Before) -> list[float]:
        if not self.is_gpu:
            return super().timed(call, samples, calls, before)
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
        super().release()
        if self.is_gpu:
            self.torch.cuda.empty_cache()

    def peak_memory_bytes(self) -> int | None:
        return int(self.torch.cuda.max_memory_reserved()) if self.is_gpu else None

    def facts(self) -> Framework:
        torch, nccl = self.torch, None
        if self.is_gpu:
            with contextlib.suppress(AttributeError, RuntimeError):  # built without NCCL
                nccl = ".".join(map(str, torch.cuda.nccl.version()))
        return Framework(
            name="torch",
            version=torch.__version__,
            cuda=torch.version.cuda or "",
            cudnn=str(torch.backends.cudnn.version() or "") if self.is_gpu else None,
            nccl=nccl,
            arch_list=tuple(torch.cuda.get_arch_list()) if hasattr(torch.cuda, "get_arch_list") else None,
            switches="TF32 as each test's name says; cudnn.benchmark on",
        )

    def tests(self) -> dict[str, Callable[[Sizes], Iterator[Work]]]:
        return {
            **super().tests(),
            "h2d_pinned": partial(self.transfer, to_device=True, pinned=True),
            "h2d_pageable": partial(self.transfer, to_device=True, pinned=False),
            "d2h_pinned": partial(self.transfer, to_device=False, pinned=True),
            "d2h_pageable": partial(self.transfer, to_device=False, pinned=False),
            "launch_eager": self.launch_eager,
            "launch_graph": self.launch_graph,
        }

    def set_tf32(self, allowed: bool) -> None:
        torch = self.torch
        if hasattr(torch, "set_float32_matmul_precision"):
            torch.set_float32_matmul_precision("high" if allowed else "highest")
        else:
            torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed
        torch.backends.cudnn.benchmark = True

    def product(self, kind: str, m: int, n: int, k: int, layout: str, sizes: Sizes) -> Work:
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

        def checked() -> Correctness:
            out = outputs[0].fill_(float("nan"))
            call(0)
            first = out.clone()
            call(0)
            a, b = sets[0][0][:CHECKED], sets[0][1]
            b = b[:, :CHECKED] if layout == "nn" else b[:CHECKED].t()
            is_whole = bool(torch.isfinite(out).all())
            error = self.error(out[:CHECKED, :CHECKED], a.cpu().double() @ b.cpu().double())
            return check(
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
            check=checked,
            before=self.cache_flush(),
            details=Details(buffer_sets=count),
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

        def checked() -> Correctness:
            target.fill_(float("nan"))
            target.copy_(source)
            return check_copy(torch.equal(source, target))

        yield Work(
            variant=f"{sizes.copy_bytes // 2**20} MiB",
            unit="GB/s",
            amount=arithmetic.copy_bytes(sizes.copy_bytes),
            call=lambda _: target.copy_(source),
            check=checked,
        )

    def memory_triad(self, sizes: Sizes) -> Iterator[Work]:
        torch = self.torch
        b, c = (torch.randn(sizes.copy_bytes // 4, device=self.device) for _ in range(2))
        a = torch.empty_like(b)

        def checked() -> Correctness:
            a.fill_(float("nan"))
            torch.add(b, c, alpha=0.5, out=a)
            part = slice(0, None, 4097)
            error = self.error(a[part], b[part].cpu().double() + 0.5 * c[part].cpu().double())
            return check(
                "relative Frobenius error against float64",
                error if bool(torch.isfinite(a).all()) else float("inf"),
                ERROR_LIMITS["fp32_ieee"],
            )

        yield Work(
            variant=f"{sizes.copy_bytes // 2**20} MiB",
            unit="GB/s",
            amount=arithmetic.triad_bytes(sizes.copy_bytes),
            call=lambda _: torch.add(b, c, alpha=0.5, out=a),
            check=checked,
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

        def checked() -> Correctness:
            kept = source.clone()
            target.zero_()
            target.copy_(source, non_blocking=pinned)
            torch.cuda.synchronize()
            return check_copy(torch.equal(kept.cpu(), target.cpu()))

        yield Work(
            variant=f"{sizes.host_bytes // 2**20} MiB",
            unit="GB/s",
            amount=sizes.host_bytes,
            call=lambda _: target.copy_(source, non_blocking=pinned),
            check=checked,
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

    def _counts(self, number: Any, step: Callable[[], object], by: int) -> Correctness:
        number.zero_()
        step()
        self.synchronize()
        return check("the kernels counted right", abs(float(number) - by))

    def convolution(self, sizes: Sizes, *, with_amp: bool) -> Iterator[Work]:
        """fp32 in NCHW, or 16 bits in channels_last as AMP runs it."""
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

        def checked() -> Correctness:
            call(0)
            with torch.no_grad():
                result = forward()[:1, :8]
                reference = functional.conv2d(x[:1].cpu().double(), weight[:8].cpu().double(), padding=1)
            is_whole = bool(torch.isfinite(x.grad).all() and torch.isfinite(weight.grad).all())
            return check(
                "relative Frobenius error of the forward pass against float64; finite gradients",
                self.error(result, reference) if is_whole else float("inf"),
                ERROR_LIMITS["bf16" if with_amp else "fp32_ieee"],
            )

        yield Work(
            variant=f"{batch}x{channels}x{size}x{size} {'channels_last' if with_amp else 'NCHW'} {_name(dtype)}",
            unit="TFLOP/s",
            amount=arithmetic.conv_flops(batch, channels, size, 3),
            call=call,
            check=checked,
        )

    def resnet_step(self, sizes: Sizes) -> Iterator[Work]:
        """Images per second, AMP and channels_last, SGD with momentum."""
        torch = self.torch
        batch, image, width, blocks = sizes.resnet
        self.set_tf32(True)
        model = resnet(torch, width, blocks).to(self.device).to(memory_format=torch.channels_last).train()
        x = torch.randn(batch, 3, image, image, device=self.device).contiguous(memory_format=torch.channels_last)
        y = torch.randint(0, 1000, (batch,), device=self.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        step = self._step(optimizer, lambda: torch.nn.functional.cross_entropy(model(x).float(), y))
        call, checked = learning(step)
        yield Work(
            variant=f"batch {batch}, {image}x{image}, channels_last, {_name(self.half())}",
            unit="images/s",
            amount=batch,
            call=call,
            check=checked,
            details=Details(parameters=sum(p.numel() for p in model.parameters())),
        )

    def transformer_step(self, sizes: Sizes) -> Iterator[Work]:
        """Tokens per second, AMP, attention by scaled_dot_product_attention, AdamW."""
        torch = self.torch
        batch, context, layers, width, heads, vocabulary = sizes.transformer
        if not hasattr(torch.nn.functional, "scaled_dot_product_attention"):
            raise NotRunError(f"torch {torch.__version__} has no scaled_dot_product_attention")
        self.set_tf32(True)
        model = transformer(torch, context, layers, width, heads, vocabulary).to(self.device).train()
        tokens = torch.randint(0, vocabulary, (batch, context + 1), device=self.device)
        x, y = tokens[:, :-1], tokens[:, 1:].reshape(-1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=self.is_gpu)
        step = self._step(
            optimizer, lambda: torch.nn.functional.cross_entropy(model(x).reshape(-1, vocabulary).float(), y)
        )
        call, checked = learning(step)
        yield Work(
            variant=f"{layers} layers, width {width}, batch {batch}x{context}, {_name(self.half())}",
            unit="tokens/s",
            amount=batch * context,
            call=call,
            check=checked,
            details=Details(
                parameters=sum(p.numel() for p in model.parameters()),
                model_flops_per_token=arithmetic.transformer_flops_per_token(layers, width, context, vocabulary),
            ),
        )

    def _step(self, optimizer: Any, loss_of: Callable[[], Any]) -> Callable[[int], Any]:
        """One training step; gives the loss before it. float16 needs its loss scaled, bfloat16 does not."""
        torch = self.torch
        if not hasattr(torch, "autocast"):
            raise NotRunError(f"torch {torch.__version__} has no torch.autocast")
        half = self.half()
        # torch.amp has it from 2.3 on, torch.cuda.amp before.
        make_scaler = getattr(torch.amp, "GradScaler", None) or torch.cuda.amp.GradScaler
        scaler = make_scaler() if half == torch.float16 else None

        def step(_: int) -> Any:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.kind, dtype=half):
                loss = loss_of()
            if scaler:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            else:
                loss.backward()
                optimizer.step()
            return loss.detach()

        return step


def _name(dtype: Any) -> str:
    return str(dtype).split(".")[-1]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
