"""KerasTuner looks for the width, depth and learning rate of a small network.

    python tune.py

The points to tell apart are two spirals, one in the other: a network that is too small, or learns too fast, cannot.
What was tried stays in runs/, so that a second run goes on with it; `--again` begins anew.
"""

import argparse

import keras_tuner
import numpy as np
from tensorflow import keras
from tensorflow.keras import layers


def spirals(count, seed):
    """Points on two spirals with some noise, and which one each is on."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    turn = np.sqrt(rng.random(count)) * 2.5 * np.pi
    angle = turn + labels * np.pi
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * turn[:, None] / (2.5 * np.pi)
    return (points + rng.normal(0, 0.02, points.shape)).astype("float32"), labels


def build(hp):
    """A network for one choice of the hyperparameters."""
    model = keras.Sequential([layers.Input((2,))])
    for _ in range(hp.Int("layers", 1, 3)):
        model.add(layers.Dense(hp.Choice("width", [8, 16, 32, 64]), activation="relu"))
    model.add(layers.Dense(1, activation="sigmoid"))
    rate = hp.Float("rate", 1e-3, 3e-2, sampling="log")
    model.compile(optimizer=keras.optimizers.Adam(rate), loss="binary_crossentropy", metrics=["accuracy"])
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--again", action="store_true", help="forget what was tried before")
    options = parser.parse_args()
    points, labels = spirals(2000, seed=1)
    tests, expected = spirals(500, seed=2)

    tuner = keras_tuner.RandomSearch(
        build,
        objective="val_accuracy",
        max_trials=options.trials,
        seed=0,
        directory="runs",
        project_name="spirals",
        overwrite=options.again,
    )
    tuner.search(points, labels, validation_data=(tests, expected), epochs=options.epochs, batch_size=64, verbose=0)
    best = tuner.get_best_hyperparameters()[0]
    print(f"best of {options.trials}: {best.values}")
    _, accuracy = tuner.get_best_models()[0].evaluate(tests, expected, verbose=0)
    print(f"accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
