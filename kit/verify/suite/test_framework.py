"""The framework, and the CUDA and cuDNN that it loads."""

from __future__ import annotations

import pytest

from kit.verify import expected
from kit.verify.report import Subject
from kit.verify.suite.conftest import Answer, Fact, Host, Inside, require

NO_CUDA = "the image is built for the CPU"


def test_imports(subject: Subject, libraries: Answer, fact: Fact) -> None:
    """It imports, at its version."""
    found = libraries.value("facts")["version"]
    version = subject.image.release.version
    require(expected.is_same_version(version, found), f"{subject.image.framework} {found}, and {version} is promised")
    fact(f"{subject.image.framework} {found}")


def test_cuda(subject: Subject, libraries: Answer, fact: Fact) -> None:
    """The CUDA it was compiled for is the image's; the CUDA runtime that is loaded is the lock's."""
    release = subject.image.release
    compiled = libraries.value("facts")["cuda"]
    require(compiled == release.cuda, f"compiled for CUDA {compiled or '-'}, and {release.cuda or '-'} is promised")
    if not subject.image.is_gpu:
        fact("none, as promised")
        return
    locked = expected.cuda_version(release, subject.lock)
    found = libraries.value("cuda_runtime")
    require(found == expected.cuda_number(locked), f"the CUDA runtime says {found}, and CUDA {locked} is locked")
    fact(f"CUDA {locked}")


def test_cudnn(subject: Subject, libraries: Answer, fact: Fact) -> None:
    """The cuDNN that is loaded is the lock's."""
    if not subject.image.is_gpu:
        pytest.skip(NO_CUDA)
    locked = expected.locked_version(subject.lock, "cudnn") or subject.image.release.cudnn
    if not locked:
        pytest.skip("no source states which cuDNN this release has inside")
    found = libraries.value("cudnn")
    require(found == expected.cudnn_number(locked), f"cuDNN says {found}, and {locked} is locked")
    fact(f"cuDNN {locked}")


def test_architectures(subject: Subject, libraries: Answer, fact: Fact) -> None:
    """It is compiled for exactly the GPU architectures that the catalog names."""
    if not subject.image.is_gpu:
        pytest.skip(NO_CUDA)
    found = set(libraries.value("facts")["architectures"])
    promised = expected.architectures(subject.image.release, subject.platform)
    more, fewer = sorted(found - promised), sorted(promised - found)
    require(not more, f"also compiled for {', '.join(more)}, which the catalog does not name")
    require(not fewer, f"not compiled for {', '.join(fewer)}")
    fact(" ".join(sorted(found)))


def test_one_copy(subject: Subject, files: Answer, request: pytest.FixtureRequest, fact: Fact) -> None:
    """Each CUDA library can be loaded from one place only, and an image for the CPU has none."""
    there = files.value("look")["libraries"]
    if not subject.image.is_gpu:
        require(not there, f"CUDA libraries in an image for the CPU: {', '.join(there)}")
        fact("none, as promised")
        return
    copies = expected.copies(there, is_devel=subject.image.flavor == "devel")
    require(not copies, "; ".join(f"{name}: {' and '.join(paths)}" for name, paths in copies.items()))
    libraries: Answer = request.getfixturevalue("libraries")
    loaded = expected.copies(libraries.value("loaded"), is_devel=False)
    require(not loaded, "loaded twice: " + "; ".join(" and ".join(paths) for paths in loaded.values()))
    fact(f"{len(there)} libraries")


def test_by_name(inside: Inside, fact: Fact) -> None:
    """CUDA's libraries are found by their names, for programs that know nothing of the wheels they are in."""
    found = inside("by_name.py").value("by_name")
    failed = [f"{name}: {why}" for name, why in found.items() if why]
    require(not failed, "; ".join(failed))
    fact(f"{len(found)} libraries")


def test_library_path(subject: Subject, host: Host) -> None:
    """No variable sends the loader elsewhere."""
    for name in ("LD_LIBRARY_PATH", "LD_PRELOAD"):
        value = host.environment().get(name, "")
        require(not value, f"{name}={value}")


def test_compiles(model: Answer) -> None:
    """Compiled code (torch.compile, XLA) runs with the image's own compiler, on the CPU."""
    result = model.value("compiles")
    require(result == 192.0, f"the result is {result}, not 192")
