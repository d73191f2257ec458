"""One training step in PyTorch of a ResNet-50-shaped CNN and of a GPT-2-small-shaped transformer, on random data that
is already on the device. Own definitions: no torchvision, no weights, no download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kit.bench import arithmetic
from kit.bench.work import NotRunError, Work, learning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kit.bench.torch_device import TorchBench
    from kit.bench.work import Sizes


def resnet_step(bench: TorchBench, sizes: Sizes) -> Iterator[Work]:
    """Images per second, AMP and channels_last, SGD with momentum."""
    torch = bench.torch
    batch, image, width, blocks = sizes.resnet
    bench.set_tf32(True)
    model = resnet(torch, width, blocks).to(bench.device).to(memory_format=torch.channels_last).train()
    x = torch.randn(batch, 3, image, image, device=bench.device).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 1000, (batch,), device=bench.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    step = _step(bench, optimizer, lambda: torch.nn.functional.cross_entropy(model(x).float(), y))
    step, check = learning(step)
    yield Work(
        variant=f"batch {batch}, {image}x{image}, channels_last, {_name(bench.half())}",
        unit="images/s",
        amount=batch,
        call=step,
        check=check,
        details={"parameters": sum(p.numel() for p in model.parameters())},
    )


def transformer_step(bench: TorchBench, sizes: Sizes) -> Iterator[Work]:
    """Tokens per second, AMP, attention by scaled_dot_product_attention, AdamW."""
    torch = bench.torch
    batch, context, layers, width, heads, vocabulary = sizes.transformer
    if not hasattr(torch.nn.functional, "scaled_dot_product_attention"):
        raise NotRunError(f"torch {torch.__version__} has no scaled_dot_product_attention")
    bench.set_tf32(True)
    model = transformer(torch, context, layers, width, heads, vocabulary).to(bench.device).train()
    tokens = torch.randint(0, vocabulary, (batch, context + 1), device=bench.device)
    x, y = tokens[:, :-1], tokens[:, 1:].reshape(-1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=bench.is_gpu)
    step = _step(
        bench, optimizer, lambda: torch.nn.functional.cross_entropy(model(x).reshape(-1, vocabulary).float(), y)
    )
    step, check = learning(step)
    yield Work(
        variant=f"{layers} layers, width {width}, batch {batch}x{context}, {_name(bench.half())}",
        unit="tokens/s",
        amount=batch * context,
        call=step,
        check=check,
        details={
            "parameters": sum(p.numel() for p in model.parameters()),
            "model_flops_per_token": arithmetic.transformer_flops_per_token(layers, width, context, vocabulary),
        },
    )


def _name(dtype: Any) -> str:
    return str(dtype).split(".")[-1]


def _step(bench: TorchBench, optimizer: Any, loss_of: Callable[[], Any]) -> Callable[[int], Any]:
    """One training step; gives the loss before it. float16 needs its loss scaled, bfloat16 does not."""
    torch = bench.torch
    if not hasattr(torch, "autocast"):
        raise NotRunError(f"torch {torch.__version__} has no torch.autocast")
    half = bench.half()
    # torch.amp has it from 2.3 on, torch.cuda.amp before.
    make_scaler = getattr(torch.amp, "GradScaler", None) or torch.cuda.amp.GradScaler
    scaler = make_scaler() if half == torch.float16 else None

    def step(_: int) -> Any:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(bench.kind, dtype=half):
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


def resnet(torch: Any, width: int, blocks: tuple[int, ...]) -> Any:
    """A residual network of bottleneck blocks; width 64 and 3, 4, 6, 3 blocks are ResNet-50 (arXiv 1512.03385) with
    the stride on the 3x3 convolution."""
    nn = torch.nn

    def conv(inner: int, outer: int, kernel: int, stride: int = 1) -> list[Any]:
        return [nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outer)]

    class Bottleneck(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, inner: int, middle: int, stride: int) -> None:
            super().__init__()
            outer = 4 * middle
            self.body = nn.Sequential(
                *conv(inner, middle, 1),
                nn.ReLU(inplace=True),
                *conv(middle, middle, 3, stride),
                nn.ReLU(inplace=True),
                *conv(middle, outer, 1),
            )
            changes = stride != 1 or inner != outer
            self.shortcut = nn.Sequential(*conv(inner, outer, 1, stride)) if changes else nn.Identity()

        def forward(self, x: Any) -> Any:
            return torch.relu(self.body(x) + self.shortcut(x))

    stages, inner = [], width
    for stage, count in enumerate(blocks):
        middle = width * 2**stage
        for block in range(count):
            stages.append(Bottleneck(inner, middle, 2 if stage and not block else 1))
            inner = 4 * middle
    return nn.Sequential(
        *conv(3, width, 7, 2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        *stages,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(inner, 1000),
    )


def transformer(torch: Any, context: int, layers: int, width: int, heads: int, vocabulary: int) -> Any:
    """A decoder with learnt positions and norms ahead of each part; 12 layers of width 768 are GPT-2 small."""
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: Any) -> Any:
            batch, length, _ = x.shape
            qkv = self.qkv(self.first(x)).reshape(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            attended = nn.functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
            x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
            return x + self.mlp(self.second(x))

    class Decoder(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

        def forward(self, x: Any) -> Any:
            places = self.places(torch.arange(x.shape[1], device=x.device))
            return self.head(self.norm(self.blocks(self.tokens(x) + places)))

    return Decoder()
