"""What a project says of itself, beside what its image promises."""

from __future__ import annotations

import pytest

from kit.verify.report import PROJECT, Subject
from kit.verify.suite.conftest import PATIENCE_S, require


def test_check(subject: Subject) -> None:
    """The command that its kit.toml names as its check ends well, in its folder, from which it can only read."""
    words = ["exec", "--env=PYTHONDONTWRITEBYTECODE=1"]
    if subject.own:
        if subject.no_project:
            pytest.skip(subject.no_project)
        # Where the image looks for it, the container has a folder of the checks' own.
        words.append(f"--env=PYTHONPATH={subject.own.path.replace('/workspace', PROJECT, 1)}")
    if not subject.no_project:
        words.append(f"--workdir={PROJECT}")
    command = [*words, subject.container, "bash", "-euo", "pipefail", "-c", subject.own_check]
    done = subject.engine.ask(command, timeout_s=PATIENCE_S)
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
    require(done.returncode == 0, "\n".join([f"`{subject.own_check}` ended with exit code {done.returncode}", *said]))
