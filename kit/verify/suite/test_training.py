"""Training, as the tutorials do it."""

from __future__ import annotations

from kit.verify.report import Subject
from kit.verify.suite.conftest import Answer, Fact, Inside, require

# Of the largest difference between what a model says before it was saved and after it was loaded.
TOLERANCE = 1e-4


def test_model(subject: Subject, model: Answer, fact: Fact) -> None:
    """A small network learns, is saved and loaded, and then predicts the same."""
    found = model.value("learns")
    first, last = found["loss"]
    require(last < first / 2, f"the loss went from {first:.3f} to {last:.3f}")
    require(found["accuracy"] > 0.9, f"it knows {found['accuracy']:.0%} of what it was shown")
    require(found["difference"] <= TOLERANCE, f"loaded again it differs by {found['difference']:g}")
    require(not (subject.asked and found["device"].startswith("cpu")), "it ran on the CPU, and a GPU was asked for")
    fact(f"loss {first:.2f} to {last:.4f} on {found['device']}")


def test_workers(subject: Subject, inside: Inside, fact: Fact) -> None:
    """Batches larger than docker's own shared memory go through four worker processes."""
    found = inside("workers.py", subject.image.framework).value("batches")
    require(found["right"], "the batches do not hold what the workers put there")
    fact(f"{found['batches']} batches, {found['workers']} workers")


def test_audio(model: Answer) -> None:
    """torchaudio writes a WAV and reads it again."""
    difference = model.value("audio")
    require(difference <= TOLERANCE, f"what was read differs by {difference:g}")
