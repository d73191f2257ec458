"""An image with a Dockerfile of three lines, for what can go wrong with a build: there is no framework to wait for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from kit import paths
from tests.engine.conftest import KIT, Kit, as_environment
from tests.engine.remote.client import eventually

# One of the catalog that no test builds in full.
NAME = "torch2.6-cu124"
REFERENCE = f"kit/{NAME}:latest"
TEMPLATE = "ARG BASE={{{{ base }}}}\nFROM ${{BASE}}\nRUN {step}\n"


class Short:
    """A copy of what the image is made of, with a single step in its template."""

    def __init__(self, kit: Kit, root: Path) -> None:
        self.kit, self.root = kit, root
        for folder in (paths.templates_dir(), paths.images_dir() / NAME):
            shutil.copytree(folder, root / folder.relative_to(paths.root_dir()))
        self.environment = as_environment(KIT_ROOT=str(root))

    def write(self, step: str) -> None:
        """Have this step, in the template and the Dockerfile."""
        (self.root / "templates/torch.Dockerfile.j2").write_text(TEMPLATE.format(step=step))
        self.kit("render", NAME, env=self.environment)

    def build(self, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return self.kit("build", NAME, "--base", "archive", *options, **{"env": self.environment, **more})

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start the build as a shell does, in a process group of its own."""
        return subprocess.Popen(
            [KIT, "build", NAME, "--base", "archive", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            start_new_session=True,
        )


def runs(command: str) -> bool:
    """Whether a process has exactly these words; those of containers are seen from here too."""
    words = command.replace(" ", "\0").encode() + b"\0"
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if file.read_bytes() == words:
                return True
        except OSError:
            continue
    return False


def until_it_runs(command: str) -> None:
    eventually(lambda: runs(command), f"`{command}` runs", interval_s=0.02)


def until_it_is_gone(command: str) -> None:
    eventually(lambda: not runs(command), f"`{command}` is gone")


@pytest.fixture
def short(kit: Kit, docker: DockerClient, tmp_path: Path) -> Iterator[Short]:
    """The files of the image; what was built of them is removed."""
    yield Short(kit, tmp_path / "root")
    if any(REFERENCE in image.tags for image in docker.images.list()):
        docker.images.remove(REFERENCE, force=True)
