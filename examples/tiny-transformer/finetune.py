"""A tiny transformer learns the words of a language that is made up here, and is then fine-tuned to judge sentences.

    python finetune.py

Nothing is downloaded: config.json says how the model is built, and its weights are random at first. With a model from
the Hugging Face hub, its name takes the place of the folder `runs/base`.
"""

import argparse
import random
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BASE, TUNED = Path("runs/base"), Path("runs/tuned")

GOOD = ("clear", "fast", "kind", "bright", "warm")
BAD = ("dull", "slow", "rude", "dark", "cold")
THINGS = ("film", "room", "meal", "trip", "song")
WORDS = ("[PAD]", "[CLS]", "[MASK]", "the", "was", "and", "not", *GOOD, *BAD, *THINGS)
PAD, CLS, MASK = 0, 1, 2
LENGTH, BATCH = 8, 32


def sentence(rng):
    """A sentence as numbers of words, and whether it is meant well: `not` turns the word behind it around."""
    is_good, is_turned = rng.random() < 0.5, rng.random() < 0.4
    word = rng.choice(GOOD if is_good != is_turned else BAD)
    words = ["[CLS]", "the", rng.choice(THINGS), "was", *(["not"] if is_turned else []), word]
    numbers = [WORDS.index(word) for word in words]
    return numbers + [PAD] * (LENGTH - len(numbers)), int(is_good)


def sentences(count, seed):
    rng = random.Random(seed)
    numbers, labels = zip(*(sentence(rng) for _ in range(count)), strict=True)
    return torch.tensor(numbers, device=DEVICE), torch.tensor(labels, device=DEVICE)


def fit(model, steps, rate, batch_of):
    """Train for some steps; `batch_of` makes the arguments of the model, labels among them."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for step in range(steps):
        loss = model(**batch_of()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 24:
            print(f"  step {step + 1}: loss {loss.item():.3f}")


def pretrain(numbers, steps):
    """Learn the language: guess the words that are hidden."""
    model = AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(".")).to(DEVICE)

    def batch():
        rows = numbers[torch.randint(len(numbers), (BATCH,), device=DEVICE)]
        hidden = (torch.rand(rows.shape, device=DEVICE) < 0.2) & (rows > MASK)
        return {
            "input_ids": rows.masked_fill(hidden, MASK),
            "attention_mask": (rows != PAD).long(),
            "labels": rows.masked_fill(~hidden, -100),
        }

    fit(model, steps, 1e-3, batch)
    model.save_pretrained(BASE)


def finetune(numbers, labels, steps):
    """Learn to judge, from the weights that know the language."""
    model = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=2).to(DEVICE)

    def batch():
        chosen = torch.randint(len(numbers), (BATCH,), device=DEVICE)
        rows = numbers[chosen]
        return {"input_ids": rows, "attention_mask": (rows != PAD).long(), "labels": labels[chosen]}

    fit(model, steps, 5e-4, batch)
    model.save_pretrained(TUNED)


@torch.no_grad()
def judge(rows):
    model = AutoModelForSequenceClassification.from_pretrained(TUNED).to(DEVICE).eval()
    return model(input_ids=rows, attention_mask=(rows != PAD).long()).logits.argmax(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    torch.manual_seed(0)
    numbers, labels = sentences(2000, seed=1)
    print(f"learning the language, on {DEVICE}")
    pretrain(numbers, options.steps)
    print("fine-tuning")
    finetune(numbers, labels, options.steps)
    tests, expected = sentences(500, seed=2)
    judged = judge(tests)
    print(f"accuracy {(judged == expected).float().mean().item():.3f}")
    for row, verdict in zip(tests[:3].tolist(), judged[:3].tolist(), strict=True):
        print(" ".join(WORDS[number] for number in row if number > MASK), "->", ("bad", "good")[verdict])


if __name__ == "__main__":
    main()
