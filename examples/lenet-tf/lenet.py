"""LeNet on digits like MNIST's, in TensorFlow: train, save, load, predict, and look at it in TensorBoard.

    python lenet.py

The digits are drawn here, so nothing is downloaded. With the real ones, `keras.datasets.mnist.load_data()` takes the
place of `digits`.
"""

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

RUNS = Path("runs")

# A digit as a pocket calculator shows it: which bars are lit, and where each is (top, left, height, width).
LIT = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgcde", "abc", "abcdefg", "abcdfg")
BARS = {
    "a": (0, 0, 3, 12),
    "b": (0, 9, 10, 3),
    "c": (8, 9, 10, 3),
    "d": (15, 0, 3, 12),
    "e": (8, 0, 10, 3),
    "f": (0, 0, 10, 3),
    "g": (7, 0, 3, 12),
}


def digits(count, seed):
    """Images of 28 x 28 from 0 to 1, each digit somewhere in it under noise, and what they show."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    images = rng.normal(0, 0.3, (count, 28, 28))
    for image, label in zip(images, labels, strict=True):
        top, left = rng.integers(1, 9, 2)
        for bar in LIT[label]:
            y, x, height, width = BARS[bar]
            image[top + y : top + y + height, left + x : left + x + width] += 0.8
    return images.clip(0, 1).astype("float32"), labels


def lenet():
    """LeNet-5, with the activations and the pooling of today."""
    model = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(6, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=6000)
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    RUNS.mkdir(exist_ok=True)
    gpus = tf.config.list_physical_devices("GPU")
    print(f"on {len(gpus)} GPU(s)" if gpus else "on the CPU")

    images, labels = digits(options.images, seed=1)
    tests, expected = digits(1000, seed=2)
    model = lenet()
    board = keras.callbacks.TensorBoard(RUNS / "lenet")
    model.fit(
        images[..., None],
        labels,
        batch_size=64,
        epochs=options.epochs,
        validation_data=(tests[..., None], expected),
        callbacks=[board],
        verbose=2,
    )

    file = RUNS / "lenet.keras"
    model.save(file)
    loaded = keras.models.load_model(file)
    _, accuracy = loaded.evaluate(tests[..., None], expected, verbose=0)
    print(f"accuracy {accuracy:.3f}")
    predicted = loaded.predict(tests[:5, ..., None], verbose=0).argmax(1).tolist()
    print(f"{file}: sees {predicted} in images of {expected[:5].tolist()}")


if __name__ == "__main__":
    main()
