"""`kit start`, `restart` and `clean`, and a second start in the same folder, on a real engine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from docker import DockerClient

from tests.engine.conftest import Kit
from tests.engine.notebook import get, split

pytestmark = pytest.mark.engine


def test_a_stopped_notebook_starts_again_at_the_same_address(kit: Kit, jupyter: dict[str, str]) -> None:
    name, url = jupyter["name"], jupyter["url"]
    kit("exec", name, "sh", "-c", "echo kept > /tmp/kept")
    kit("stop", name)
    assert kit("start", name.rpartition("-")[2]).stdout.strip() == url
    address, token = split(url)
    assert get(f"{address}/api/status", token=token)[0] == 200
    assert kit("exec", name, "cat", "/tmp/kept").stdout == "kept\n"
    assert "runs already" in kit("start", name).stderr
    assert kit("restart", "--time", "5", name).stdout.strip() == url
    assert get(f"{address}/api/status", token=token)[0] == 200


def test_a_second_notebook_in_the_same_folder_is_offered_the_first(
    kit: Kit, jupyter: dict[str, str], tf_cpu: str, workspace: Path
) -> None:
    again = kit("run", "-C", str(workspace), tf_cpu, "jupyter")
    assert again.stdout.strip() == jupyter["url"]
    assert f"jupyter runs in this folder already, as {jupyter['name']}" in again.stderr
    another = json.loads(kit("--json", "run", "-C", str(workspace), tf_cpu, "jupyter").stdout)
    try:
        assert another["name"] != jupyter["name"]
    finally:
        kit("rm", "--force", another["name"])


def test_ps_says_what_runs_where_and_since_when(kit: Kit, jupyter: dict[str, str], workspace: Path) -> None:
    lines = kit("ps").stdout.splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith(jupyter["name"]))
    assert lines[row].split()[1] == "jupyter"
    assert str(workspace) in lines[row + 1]
    found = next(r for r in json.loads(kit("--json", "ps").stdout) if r["name"] == jupyter["name"])
    assert found["folder"] == str(workspace)
    assert found["since"].startswith("20")


def test_a_job_starts_again(kit: Kit, tf_cpu: str, workspace: Path, docker: DockerClient) -> None:
    (workspace / "job.py").write_text("open('runs', 'a').write('x')\n")
    name = kit("run", "-d", "-C", str(workspace), tf_cpu, "job.py").stdout.strip()
    try:
        docker.containers.get(name).wait()
        kit("start", name)
        docker.containers.get(name).wait()
        assert (workspace / "runs").read_text() == "xx"
        row = next(r for r in json.loads(kit("--json", "ps", "--all").stdout) if r["name"] == name)
        assert row["command"] == "python job.py"
    finally:
        kit("rm", "--force", name)


def test_clean_deletes_what_is_named_and_the_callers_own_alone(kit: Kit, docker: DockerClient) -> None:
    own, others = f"kit-{os.getuid()}-clean-test-home", "kit-4294000000-clean-test-home"
    try:
        for name in (own, others):
            docker.volumes.create(name)
        rows = json.loads(kit("--json", "clean", "volumes").stdout)
        assert own in [row["name"] for row in rows]
        assert others not in [row["name"] for row in rows]
        assert {row["deleted"] for row in rows} == {False}
        assert "nothing of yours is named" in kit("--yes", "clean", others, code=2).stderr
        kit("--yes", "clean", own)
        names = [volume.name for volume in docker.volumes.list()]
        assert own not in names
        assert others in names
    finally:
        for name in (own, others):
            if name in [volume.name for volume in docker.volumes.list()]:
                docker.volumes.get(name).remove(force=True)


def test_an_image_that_a_container_uses_stays(kit: Kit, jupyter: dict[str, str], tf_cpu: str) -> None:
    rows = {row["name"]: row for row in json.loads(kit("--json", "clean", "images").stdout)}
    row = rows[f"kit/{tf_cpu}:latest"]
    assert row["stays"] == "a container uses it"
    assert row["size"] > 10**8
