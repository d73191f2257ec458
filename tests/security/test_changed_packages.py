"""A package that is not the locked one: the build ends, and says of which package."""

from __future__ import annotations

import base64
import json

import pytest

from kit.errors import BuildFailedError
from kit.image.build.images import build_error
from kit.image.buildlog import BuildLog, Log, PodmanLog

# As uv 0.13.8 prints it, with as many hashes as a package with wheels for all platforms has.
SAID = [
    "error: Failed to download `numpy==2.3.5`",
    "  cause: Hash mismatch for `numpy==2.3.5`",
    "",
    "         Expected:",
    *(f"           sha256:{number:064x}" for number in range(90)),
    "",
    "         Computed:",
    f"           sha256:{'c' * 64}",
]
STEP = "[stage-0 5/9] RUN --mount=type=bind,source=/uv,target=/run/kit/uv install_layer framework"


def buildkit_log() -> Log:
    log = BuildLog()
    step = {"digest": "sha256:1", "name": STEP, "started": "2026-11-28T12:00:00Z"}
    log.feed(json.dumps({"vertexes": [step]}))
    for line in SAID:
        log.feed(
            json.dumps({"logs": [{"vertex": "sha256:1", "data": base64.b64encode(f"{line}\n".encode()).decode()}]})
        )
    log.feed(json.dumps({"vertexes": [step | {"completed": "2026-11-28T12:00:09Z", "error": "exit code: 1"}]}))
    return log


def podman_log() -> Log:
    log = PodmanLog()
    for line in [f"STEP 5/9: {STEP.partition('] ')[2]}", *SAID, 'Error: building at STEP "RUN": exit status 1']:
        log.feed(line)
    return log


@pytest.mark.parametrize("log", [buildkit_log, podman_log])
def test_the_package_and_both_hashes_are_said(log) -> None:
    error = build_error("tf-cpu", log(), 1)
    assert type(error) is BuildFailedError
    assert error.message == (
        "the build of tf-cpu failed: hash mismatch, the index sent another numpy==2.3.5 than is locked"
    )
    assert error.details[0] == SAID[0]
    assert error.details[-1] == SAID[-1]
    assert len(error.details) < 8
    assert "index" in error.hint
