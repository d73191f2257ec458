"""What opens and closes a build's steps, run by the shell here."""

import os
import subprocess
from pathlib import Path

import pytest

from kit import paths
from kit.catalog import load_catalog
from kit.locks.uv import uv_program
from tests.fake_wheels import make_index, make_wheel, sha256_of


def test_what_a_step_writes_at_once_is_newer_than_its_start(tmp_path):
    begin = (paths.templates_dir() / "begin.sh").read_text().replace("/dev/shm", str(tmp_path))
    assert str(tmp_path) in begin
    (tmp_path / "begin").write_text(begin)
    script = 'echo before > before; . ./begin; echo after > after; find before after -newer "$start"'
    for _ in range(30):
        done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, check=True, timeout=20)
        assert done.stdout == b"after\n"


class Step:
    """A folder with what a step finds at /run, an index like PyPI, and one of the framework's own.

    Both have a file of triton 3.0; the lock is of the first's. torch is on the second alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        uv = uv_program(load_catalog().uv_version)
        (folder / "run" / "kit").mkdir(parents=True)
        (folder / "run" / "kit" / "uv").symlink_to(uv)
        begin = (paths.templates_dir() / "begin.sh").read_text()
        begin = begin.replace("/run/", f"{folder}/run/").replace("/dev/shm", str(folder))
        (folder / "begin").write_text(begin)
        subprocess.run([uv, "venv", "--quiet", "--no-project", "venv"], cwd=folder, check=True, timeout=60)
        public, own = folder / "public", folder / "own"
        public.mkdir()
        own.mkdir()
        self.triton = make_wheel(public, "triton", "3.0")
        make_wheel(public, "torch", "2.0")
        make_wheel(own, "triton", "3.0", requires=("other",))
        self.torch = make_wheel(own, "torch", "2.0+cpu")
        self.lock()
        self.default, self.index = make_index(folder / "simple", public), make_index(folder / "whl", own)

    def lock(self, torch: str = "") -> None:
        (self.folder / "run" / "kit" / "wheels.txt").write_text(
            f"# layer: framework\ntorch==2.0+cpu \\\n    --hash=sha256:{torch or sha256_of(self.torch)}\n"
            f"triton==3.0 \\\n    --hash=sha256:{sha256_of(self.triton)}\n"
        )

    def run(self, *arguments: str, mirror: str = "") -> subprocess.CompletedProcess[str]:
        variables = {"KIT_FRAMEWORK_INDEX": mirror} if mirror else {}
        return subprocess.run(
            ["sh", "-c", '. ./begin; install_layer framework venv "$@"; echo done', "sh", *arguments],
            cwd=self.folder,
            env={**os.environ, "UV_DEFAULT_INDEX": self.default, "SOURCE_DATE_EPOCH": "0", **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def installed(self) -> set[str]:
        return {path.name.removesuffix(".dist-info") for path in self.folder.glob("venv/lib/*/site-packages/*-info")}


@pytest.fixture
def step(tmp_path: Path) -> Step:
    return Step(tmp_path)


def test_a_releases_own_packages_are_from_its_own_index_and_no_others(step: Step) -> None:
    done = step.run(step.index, "torch", "torchvision")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert step.installed() == {"torch-2.0+cpu", "triton-3.0"}


def test_a_page_of_all_wheels_is_an_index_too(step: Step) -> None:
    page = step.folder / "stable.html"
    page.write_text(f'<a href="{step.torch.as_uri()}">{step.torch.name}</a>')
    done = step.run(page.as_uri(), "torch")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert step.installed() == {"torch-2.0+cpu", "triton-3.0"}


def test_a_mirror_takes_the_place_of_a_releases_own_index(step: Step) -> None:
    done = step.run("https://index.invalid/whl", "torch", mirror=step.index)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert "torch-2.0+cpu" in step.installed()


def test_without_an_index_of_its_own_all_is_from_the_package_index(step: Step) -> None:
    done = step.run()
    assert done.returncode != 0  # it has no 2.0+cpu
    assert "torch==2.0+cpu" in done.stderr
    assert "done" not in done.stdout


def test_a_wheel_with_another_hash_ends_the_step(step: Step) -> None:
    step.lock(torch="0" * 64)
    done = step.run(step.index, "torch")
    assert done.returncode != 0
    assert "done" not in done.stdout
    assert "Hash mismatch for `torch==2.0+cpu`" in done.stderr
    assert not any(name.startswith("torch") for name in step.installed())
