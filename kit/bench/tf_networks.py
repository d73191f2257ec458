"""The same two networks as PyTorch's, out of TensorFlow's own operations: Keras 2 and Keras 3 differ too much to be one
program."""

from __future__ import annotations

import math
from typing import Any


class Variables:
    """The trainable numbers of a network, made the first time a name is asked for."""

    def __init__(self, tf: Any, device: str) -> None:
        self.tf, self.device = tf, device
        self.named: dict[str, Any] = {}

    def get(self, name: str, shape: tuple[int, ...], *, deviation: float = 0.0, start: float = 0.0) -> Any:
        if name not in self.named:
            tf = self.tf
            with tf.device(self.device), tf.init_scope():
                value = tf.random.normal(shape, stddev=deviation) if deviation else tf.fill(shape, start)
                self.named[name] = tf.Variable(value, name=name)
        return self.named[name]


def resnet(variables: Variables, x: Any, width: int, blocks: tuple[int, ...]) -> Any:
    """A residual network of bottleneck blocks; width 64 and 3, 4, 6, 3 blocks are ResNet-50 (arXiv 1512.03385) with
    the stride on the 3x3 convolution."""
    tf = variables.tf

    def conv(name: str, x: Any, outer: int, kernel: int, stride: int = 1) -> Any:
        inner = x.shape[-1]
        deviation = math.sqrt(2 / (kernel * kernel * inner))
        weight = variables.get(f"{name}/weight", (kernel, kernel, inner, outer), deviation=deviation)
        x = tf.nn.conv2d(x, tf.cast(weight, x.dtype), strides=stride, padding="SAME")
        scale = variables.get(f"{name}/scale", (outer,), start=1.0)
        offset = variables.get(f"{name}/offset", (outer,))
        empty = tf.zeros((0,), tf.float32)
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=empty, variance=empty, is_training=True
        ).y

    x = tf.nn.relu(conv("stem", x, width, 7, 2))
    x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    for stage, count in enumerate(blocks):
        middle = width * 2**stage
        for block in range(count):
            name, stride = f"stage{stage}/block{block}", 2 if stage and not block else 1
            changes = stride != 1 or x.shape[-1] != 4 * middle
            shortcut = conv(f"{name}/shortcut", x, 4 * middle, 1, stride) if changes else x
            inner = tf.nn.relu(conv(f"{name}/a", x, middle, 1))
            inner = tf.nn.relu(conv(f"{name}/b", inner, middle, 3, stride))
            x = tf.nn.relu(conv(f"{name}/c", inner, 4 * middle, 1) + shortcut)
    x = tf.reduce_mean(x, axis=[1, 2])
    weight = variables.get("head", (x.shape[-1], 1000), deviation=0.01)
    return tf.matmul(x, tf.cast(weight, x.dtype))


def transformer(variables: Variables, tokens: Any, size: tuple[int, int, int, int, int, int], dtype: Any) -> Any:
    """A decoder with learnt positions and norms ahead of each part; 12 layers of width 768 are GPT-2 small."""
    tf = variables.tf
    batch, context, layers, width, heads, vocabulary = size

    def dense(name: str, x: Any, outer: int) -> Any:
        inner = x.shape[-1]
        weight = variables.get(f"{name}/weight", (inner, outer), deviation=0.02)
        bias = variables.get(f"{name}/bias", (outer,))
        return tf.matmul(x, tf.cast(weight, dtype)) + tf.cast(bias, dtype)

    def norm(name: str, x: Any) -> Any:
        wide = tf.cast(x, tf.float32)
        mean, variance = tf.nn.moments(wide, axes=[-1], keepdims=True)
        scale = variables.get(f"{name}/scale", (width,), start=1.0)
        offset = variables.get(f"{name}/offset", (width,))
        return tf.cast(tf.nn.batch_normalization(wide, mean, variance, offset, scale, 1e-5), dtype)

    def parts(x: Any) -> Any:
        return tf.transpose(tf.reshape(x, (batch, context, heads, width // heads)), (0, 2, 1, 3))

    mask = tf.linalg.band_part(tf.ones((context, context), dtype), -1, 0)
    hidden = tf.constant(-1e4, dtype) * (1 - mask)
    embedding = variables.get("tokens", (vocabulary, width), deviation=0.02)
    places = variables.get("places", (context, width), deviation=0.02)
    x = tf.reshape(tf.cast(tf.gather(embedding, tokens) + places, dtype), (batch * context, width))
    for layer in range(layers):
        q, k, v = (parts(part) for part in tf.split(dense(f"{layer}/qkv", norm(f"{layer}/1", x), 3 * width), 3, axis=1))
        scores = tf.matmul(q, k, transpose_b=True) / math.sqrt(width // heads) + hidden
        attended = tf.matmul(tf.nn.softmax(scores), v)
        attended = tf.reshape(tf.transpose(attended, (0, 2, 1, 3)), (batch * context, width))
        x = x + dense(f"{layer}/out", attended, width)
        x = x + dense(f"{layer}/down", tf.nn.gelu(dense(f"{layer}/up", norm(f"{layer}/2", x), 4 * width)), width)
    return tf.matmul(norm("last", x), tf.cast(variables.get("head", (width, vocabulary), deviation=0.02), dtype))
