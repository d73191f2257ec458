"""Inside: a small network learns, is saved and loaded, writes a scalar for TensorBoard, and compiled code runs."""
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator"

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from answer import Absent, give

SCALAR = 0.625  # a number that a 32-bit float holds exactly
STEPS = 40
CLASSES = 10


def torch_learns() -> dict[str, Any]:
    """Images of 28 x 28 with a bright square whose place is the class, which two convolutions learn in seconds."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    labels = torch.arange(256) % CLASSES
    images = torch.randn(256, 1, 28, 28) * 0.1
    for image, label in zip(images, labels):  # noqa: B905 - `strict` is Python 3.10's
        image[0, 2 * int(label) : 2 * int(label) + 8, 4:20] += 1.0

    def make() -> Any:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(800, 64), nn.ReLU(), nn.Linear(64, CLASSES),
        ).to(device)  # fmt: skip

    model = make()
    images, labels = images.to(device), labels.to(device)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.003), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    model.eval()
    with torch.no_grad():
        before = model(images)
        torch.save(model.state_dict(), "verify-model.pt")
        again = make()
        again.load_state_dict(torch.load("verify-model.pt", map_location=device))
        again.eval()
        after = again(images)
    Path("verify-model.pt").unlink()
    right = float((before.argmax(1) == labels).float().mean())
    return {
        "device": str(next(model.parameters()).device),
        "loss": [losses[0], losses[-1]],
        "accuracy": right,
        "difference": float((before - after).abs().max()),
    }


def torch_scalar() -> float:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(log_dir=sys.argv[2]) as writer:
        writer.add_scalar("verify", SCALAR, 1)
    return SCALAR


def torch_compiles(device: str) -> float:
    import torch

    if not hasattr(torch, "compile"):
        raise Absent(f"torch {torch.__version__} has no torch.compile")
    return float(torch.compile(lambda x: (x * 2 + 1).sum())(torch.ones(64, device=device)))


def torch_audio() -> float:
    """How far a tone is from itself once torchaudio has written it as WAV and read it again."""
    import torch

    try:
        import torchaudio
    except ModuleNotFoundError:
        raise Absent("the image has no torchaudio") from None
    if not hasattr(torchaudio, "list_audio_backends"):
        raise Absent("torchaudio reads files by TorchCodec from 2.9 on, which needs FFmpeg; soundfile reads them here")
    tone = torch.sin(torch.arange(16000) * 440 * 2 * torch.pi / 16000).unsqueeze(0) / 2
    torchaudio.save("verify.wav", tone, 16000)
    again, rate = torchaudio.load("verify.wav")
    Path("verify.wav").unlink()
    if rate != 16000:
        raise ValueError(f"written at 16000 Hz, read at {rate}")
    return float((again - tone).abs().max())


def tensorflow_audio() -> float:
    raise Absent("TensorFlow images have no torchaudio")


def tensorflow_learns() -> dict[str, Any]:
    """The same in Keras, with the tutorials' layers."""
    import numpy
    import tensorflow as tf

    tf.random.set_seed(0)
    numbers = numpy.random.RandomState(0)
    labels = numpy.arange(256) % CLASSES
    images = (numbers.standard_normal((256, 28, 28, 1)) * 0.1).astype("float32")
    for image, label in zip(images, labels):  # noqa: B905 - `strict` is Python 3.10's
        image[2 * label : 2 * label + 8, 4:20, 0] += 1.0
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            layers.Conv2D(16, 3, activation="relu", input_shape=(28, 28, 1)), layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(),
            layers.Dense(64, activation="relu"), layers.Dense(CLASSES),
        ]
    )  # fmt: skip
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=tf.keras.optimizers.Adam(0.003), loss=loss)
    history = model.fit(images, labels, batch_size=256, epochs=STEPS, verbose=0).history["loss"]
    before = model.predict(images, verbose=0)
    model.save("verify-model.h5")
    after = tf.keras.models.load_model("verify-model.h5").predict(images, verbose=0)
    Path("verify-model.h5").unlink()
    right = float((before.argmax(1) == labels).mean())
    with tf.device("GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"):
        device = tf.ones(1).device
    return {
        "device": device.rpartition("device:")[2].lower(),
        "loss": [float(history[0]), float(history[-1])],
        "accuracy": right,
        "difference": float(numpy.abs(before - after).max()),
    }


def tensorflow_scalar() -> float:
    import tensorflow as tf

    with tf.summary.create_file_writer(sys.argv[2]).as_default():
        tf.summary.scalar("verify", SCALAR, step=1)
    return SCALAR


def tensorflow_compiles(device: str) -> float:
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def function(x: Any) -> Any:
        return tf.reduce_sum(x * 2 + 1)

    with tf.device(device):
        return float(function(tf.ones(64)))


if __name__ == "__main__":
    if sys.argv[1] == "torch":
        compiles = partial(torch_compiles, "cpu")
        give({"learns": torch_learns, "scalar": torch_scalar, "compiles": compiles, "audio": torch_audio})
    else:
        compiles = partial(tensorflow_compiles, "CPU:0")
        give(
            {"learns": tensorflow_learns, "scalar": tensorflow_scalar, "compiles": compiles, "audio": tensorflow_audio}
        )
