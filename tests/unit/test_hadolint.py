"""Every committed Dockerfile passes hadolint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kit import paths

HADOLINT = Path(sys.executable).with_name("hadolint")
DOCKERFILES = sorted(paths.images_dir().glob("*/Dockerfile"))


def hadolint(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HADOLINT, "--no-color", "--config", paths.root_dir() / ".hadolint.yaml", file],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)
def test_dockerfile(file: Path) -> None:
    done = hadolint(file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM ubuntu\nRUN cd /tmp && apt-get install gcc\n", encoding="utf-8")
    done = hadolint(file)
    assert done.returncode != 0
    assert "DL3006" in done.stdout
