"""The rules of the test suite itself: what happens to tests that need an engine where there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent.parent / "conftest.py"


def run_pytest(folder, **environment):
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    engine: x\n    gpu: x\n")
    (folder / "test_it.py").write_text(
        "import pytest\n\n@pytest.mark.engine\ndef test_engine(): pass\n\ndef test_plain(): pass\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", str(folder)],
        text=True,
        capture_output=True,
        cwd=folder,
        check=False,
        env={**os.environ, "KIT_ENGINE": "private", "KIT_ENGINE_DIR": str(folder / "none"), **environment},
    )


def test_engine_tests_are_skipped_with_the_reason_where_no_engine_answers(tmp_path):
    done = run_pytest(tmp_path)
    assert "1 passed, 1 skipped" in done.stdout
    assert "needs a container engine: no container engine answers: start kit's private engine" in done.stdout


def test_engine_tests_fail_where_an_engine_is_required(tmp_path):
    done = run_pytest(tmp_path, KIT_REQUIRE_ENGINE="1")
    assert done.returncode == 1
    assert "KIT_REQUIRE_ENGINE=1, but no container engine answers" in done.stdout


@pytest.mark.parametrize("name", ["DOCKER_HOST", "KIT_BASE", "SSL_CERT_FILE", "https_proxy", "PIP_INDEX_URL"])
def test_settings_of_whoever_runs_the_tests_do_not_reach_them(name):
    assert name not in os.environ
    assert Path.home().name.startswith("home")
