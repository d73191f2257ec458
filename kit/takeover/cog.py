"""cog.yaml."""

from __future__ import annotations

from kit.takeover import requirements, shell
from kit.takeover.found import Found
from kit.takeover.marked import Item, Marked

_OTHERS = {
    "predict": "kit runs what it is told: `kit run python predict.py`",
    "train": "kit runs what it is told: `kit run python train.py`",
    "image": "an image of kit's has the name of what is in it",
    "concurrency": "kit serves no predictions",
}


def read(text: str, found: Found) -> None:
    """The keys of cog.yaml."""
    document = Marked(text, found.name)
    for key in document.items(document.root):
        if key.name == "build":
            for inner in document.items(key):
                _build(document, found, inner)
        elif key.name == "environment":
            for item in document.entries(key):
                name, _, value = item.value.partition("=")
                found.variable(item.line, item.text, name, value)
        else:
            found.left(key.line, key.text, _OTHERS.get(key.name, "kit.toml has no key for it"))


def _build(document: Marked, found: Found, key: Item) -> None:
    if key.name == "gpu":
        if key.value.lower() in ("false", "no", "off"):
            found.wish(key.line, key.text, "cpu")
    elif key.name == "cuda":
        found.wish(key.line, key.text, "cuda", key.value)
    elif key.name == "cudnn":
        found.left(key.line, key.text, "cuDNN is the image's")
    elif key.name == "python_version":
        found.wish(key.line, key.text, "python", f"=={'.'.join(key.value.split('.')[:2])}.*")
    elif key.name == "python_requirements":
        requirements.read_file(found, key.line, key.text, key.value)
    elif key.name == "python_packages":
        for item in document.entries(key):
            for _, line in requirements.lines(item.value):
                requirements.read_line(found, item.line, line)
            if not item.is_text:
                found.left(item.line, item.text, "not a requirement")
    elif key.name == "system_packages":
        for item in document.entries(key):
            found.system(item.line, item.text, item.value)
    elif key.name in ("run", "pre_install"):
        for item in document.entries(key):
            commands = [k for k in document.items(item) if k.name == "command"]
            for command in [item] if item.is_text else commands:
                shell.read(
                    found, command.line, command.value, others="kit builds of packages alone and runs no commands"
                )
            if not item.is_text and not commands:
                found.left(item.line, item.text, "not a command")
    else:
        found.left(key.line, key.text, "kit.toml has no key for it")
