"""A ResNet-50-shaped CNN and a GPT-2-small-shaped transformer in PyTorch. Own definitions: no torchvision, no weights,
no download."""

from __future__ import annotations

from typing import Any


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
