"""The compiler of a `-devel` image."""

from __future__ import annotations

import re

import pytest

from kit.verify.report import Subject
from kit.verify.suite.conftest import SCRIPTS, Fact, Host, require


def test_nvcc(subject: Subject, host: Host, fact: Fact) -> None:
    """nvcc of the image's CUDA compiles a kernel; with a GPU the kernel runs."""
    if subject.image.flavor != "devel":
        pytest.skip("not a -devel image")
    version = host.run("nvcc --version")
    require(version.rc == 0, f"nvcc does not run: {version.stderr.strip()[-200:]}")
    release = re.search(r"release (\d+\.\d+)", version.stdout)
    found = release[1] if release else version.stdout.strip()
    require(
        found == subject.image.release.cuda, f"nvcc is of CUDA {found}, and {subject.image.release.cuda} is promised"
    )
    built = host.run("timeout 120 nvcc -o /tmp/kit-kernel %s", f"{SCRIPTS}/kernel.cu")
    require(built.rc == 0, f"nvcc compiles nothing: {(built.stderr or built.stdout).strip()[-300:]}")
    if not subject.asked:
        fact(f"nvcc {found} compiles; not run: {subject.no_gpu}")
        return
    ran = host.run("timeout 60 /tmp/kit-kernel")
    require(ran.stdout.strip() == "right", f"the kernel: {(ran.stdout + ran.stderr).strip()[-200:]}")
    fact(f"nvcc {found} compiles, and the kernel runs")
