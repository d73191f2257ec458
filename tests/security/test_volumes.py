"""One project's container leaves nothing that another project's would run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from kit import layout
from kit.spec.container import fresh_volumes, project_of, slug, volume_mounts
from tests.engine import witness

# What a shell, Python, IPython, Jupyter, pip or PyTorch Hub takes from a home folder by itself.
PLANT = r"""
import pathlib, site, stat
home, user = pathlib.Path.home(), pathlib.Path(site.getusersitepackages())
for name in ("python", "jupyter", "pip", "env", "new-program"):
    file = home / ".local/bin" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("#!/bin/sh\necho HIJACKED\n")
    file.chmod(0o755)
for file in (
    user / "usercustomize.py", user / "sitecustomize.py", user / "planted.pth",
    home / ".ipython/profile_default/startup/00.py", home / ".jupyter/jupyter_server_config.py",
    home / ".cache/torch/hub/hubconf.py", home / ".pythonrc.py",
):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("import sys; print('HIJACKED')\n")
for file in (home / ".bashrc", home / ".bash_profile", home / ".profile"):
    file.write_text("echo HIJACKED\n")
(home / ".config/pip").mkdir(parents=True, exist_ok=True)
(home / ".config/pip/pip.conf").write_text("[global]\nindex-url = http://evil.test\n")
"""
LOOK = "find ~ -type f | head; python -c 'print(1)'; bash -lc 'echo 2'; bash -ic 'echo 3' 2>/dev/null; pip config list"


def test_every_folder_that_is_kept_is_of_one_project() -> None:
    first, second = (project_of(Path(folder)) for folder in ("/home/a/x", "/home/b/x"))
    assert not {m.source for m in volume_mounts("i", "1", first)} & {m.source for m in volume_mounts("i", "1", second)}
    for volume in volume_mounts("i", "1", first):
        assert first in volume.source
    kept = [volume for volume in fresh_volumes("1") if volume.source]
    assert [volume.target for volume in kept] == [layout.CUDA_CACHE]
    assert kept[0].source not in {m.source for m in volume_mounts("i", "1", first)}


def test_no_folders_name_makes_another_projects_volume() -> None:
    odd = ("a", "a-b", "a/b", "A", "é", "..", "a b", "a\n", "x" * 300, "-home", "\udcff")
    names = [volume_mounts("i", "1", project_of(Path("/p") / name))[0].source for name in odd]
    assert len({*names}) == len(odd)
    assert all(len(name) < 100 and name.isascii() and slug(name) for name in names)


@pytest.fixture
def folders(tmp_path: Path, docker: DockerClient) -> Iterator[tuple[Path, Path]]:
    both = tmp_path / "one/project", tmp_path / "two/project"
    for folder in both:
        folder.mkdir(parents=True)
    yield both
    for folder in both:
        for name in (n for n in witness.volumes(docker, "kit-") if project_of(folder) in n):
            docker.volumes.get(name).remove()


@pytest.mark.engine
def test_what_one_project_plants_another_does_not_meet(
    engine_kit: Any, tf_cpu: str, folders: tuple[Path, Path]
) -> None:
    first, second = folders
    (first / "plant.py").write_text(PLANT)
    engine_kit("run", "-C", str(first), tf_cpu, "python", "plant.py")
    done = engine_kit("run", "-C", str(second), tf_cpu, "sh", "-c", LOOK)
    assert "HIJACKED" not in done.stdout + done.stderr
    assert "evil.test" not in done.stdout
    assert done.stdout.startswith("1\n2\n3\n"), "and its home is empty"


@pytest.mark.engine
def test_what_is_installed_stays_and_comes_after_the_lock(
    engine_kit: Any, tf_cpu: str, folders: tuple[Path, Path]
) -> None:
    first, _ = folders
    (first / "plant.py").write_text(PLANT)
    engine_kit("run", "-C", str(first), tf_cpu, "python", "plant.py")
    look = "new-program; for name in python jupyter pip; do command -v $name; done"
    done = engine_kit("run", "-C", str(first), tf_cpu, "sh", "-c", look)
    found = done.stdout.splitlines()
    assert found[-4:] == ["HIJACKED", *(f"{layout.VENV}/bin/{name}" for name in ("python", "jupyter", "pip"))]
