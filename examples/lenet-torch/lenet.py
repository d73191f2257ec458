"""LeNet on digits like MNIST's, in PyTorch: train, save, load, predict, and look at it in TensorBoard.

    python lenet.py

The digits are drawn here, so nothing is downloaded. With the real ones, `torchvision.datasets.MNIST` takes the place of
`digits`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
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


def dataset(count, seed):
    images, labels = digits(count, seed)
    return TensorDataset(torch.from_numpy(images)[:, None], torch.from_numpy(labels))


class LeNet(nn.Sequential):
    """LeNet-5, with the activations and the pooling of today."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, 10),
        )


def train(model, batches, epochs, writer):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_of = nn.CrossEntropyLoss()
    step = 0
    for epoch in range(epochs):
        model.train()
        for images, labels in batches:
            loss = loss_of(model(images.to(DEVICE)), labels.to(DEVICE))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            writer.add_scalar("loss", loss.item(), step)
            step += 1
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")


@torch.no_grad()
def accuracy(model, batches):
    model.eval()
    right = sum((model(x.to(DEVICE)).argmax(1).cpu() == y).sum().item() for x, y in batches)
    return right / len(batches.dataset)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=6000)
    options = parser.parse_args()
    torch.manual_seed(0)
    RUNS.mkdir(exist_ok=True)
    print(f"on {torch.cuda.get_device_name() if DEVICE == 'cuda' else 'the CPU'}")

    batches = DataLoader(dataset(options.images, seed=1), batch_size=64, shuffle=True)
    tests = DataLoader(dataset(1000, seed=2), batch_size=250)
    model = LeNet().to(DEVICE)
    with SummaryWriter(RUNS / "lenet") as writer:
        train(model, batches, options.epochs, writer)
        found = accuracy(model, tests)
        writer.add_scalar("accuracy", found, options.epochs)
    print(f"accuracy {found:.3f}")

    file = RUNS / "lenet.pt"
    torch.save(model.state_dict(), file)
    loaded = LeNet().to(DEVICE)
    loaded.load_state_dict(torch.load(file, map_location=DEVICE))
    loaded.eval()
    images, labels = tests.dataset[:5]
    with torch.no_grad():
        predicted = loaded(images.to(DEVICE)).argmax(1).tolist()
    print(f"{file}: sees {predicted} in images of {labels.tolist()}")


if __name__ == "__main__":
    main()
