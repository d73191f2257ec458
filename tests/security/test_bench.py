"""What docker-bench-security says of images and containers, asked of real ones: docs/security-bench.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from kit import paths
from kit.catalog import load_catalog

PAGE = Path(__file__).parents[2] / "docs/security-bench.md"
SENSITIVE = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr")


def rows() -> dict[str, str]:
    found = re.findall(r"^\| (\d\.\d+) \| [^|]+ \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    assert len(found) == len(dict(found)), "one row for each"
    return dict(found)


def test_the_page_has_every_point_and_a_reason_for_what_does_not_hold() -> None:
    expected = [*(f"4.{n}" for n in range(1, 13)), *(f"5.{n}" for n in range(1, 33))]
    assert list(rows()) == expected
    for number, said in rows().items():
        assert said.startswith("holds") or len(said.split()) >= 5, f"{number} needs a reason"


@pytest.mark.parametrize("name", [image.name for image in load_catalog().images()])
def test_dockerfiles(name: str) -> None:
    text = (paths.images_dir() / name / "Dockerfile").read_text()
    steps = re.split(r"(?m)^(?=[A-Z]+ )", text)
    assert not [step for step in steps if step.startswith("ADD ")], "4.9"
    assert "HEALTHCHECK " in text, "4.6"
    assert re.findall(r"(?m)^USER (.*)$", text)[-1] == "1000:1000", "4.1"
    for step in steps:
        if re.search(r"apt-get .*update", step):
            assert "install" in step, "4.7"


@pytest.mark.engine
@pytest.mark.parametrize("service", ["jupyter", "tensorboard", ""])
def test_a_container(engine_kit: Any, tf_cpu: str, docker: DockerClient, workspace: Path, service: str) -> None:
    workspace.chmod(0o777)
    of = ("--json", "run", "-C", str(workspace), "--user", "4242:4242")
    what = (tf_cpu, service) if service else ("-d", tf_cpu, "sleep", "60")
    options, words = (of, what) if service else ((*of, what[0]), what[1:])
    name = json.loads(engine_kit(*options, *words).stdout)["name"]
    try:
        found = docker.containers.get(name).attrs
        host, config = found["HostConfig"], found["Config"]
        held = {
            "4.1": config["User"] == "4242:4242",
            "5.4": host["CapDrop"] == ["ALL"] and not host["CapAdd"],
            "5.5": not host["Privileged"],
            "5.6": not [m for m in found["Mounts"] if m["Type"] == "bind" and m["Source"] in SENSITIVE],
            "5.8": all(int(b["HostPort"]) >= 1024 for b in bindings(found)),
            "5.9": len(bindings(found)) == (1 if service else 0),
            "5.10": host["NetworkMode"] not in ("host", "default", "bridge"),
            "5.11": host["Memory"] > 0,
            "5.14": all(b["HostIp"] == "127.0.0.1" for b in bindings(found)),
            "5.15": host["RestartPolicy"]["Name"] in ("", "no"),
            "5.16": host["PidMode"] != "host",
            "5.17": host["IpcMode"] != "host",
            "5.18": not host["Devices"],
            "5.20": not [m for m in found["Mounts"] if "shared" in m["Propagation"]],
            "5.21": host["UTSMode"] != "host",
            "5.22": not [o for o in host["SecurityOpt"] if "seccomp" in o or "unconfined" in o or "disable" in o],
            "5.26": "no-new-privileges" in host["SecurityOpt"],
            "5.27": service != "jupyter" or bool(config["Healthcheck"]),
            "5.29": 0 < host["PidsLimit"] <= 16384,
            "5.30": list(found["NetworkSettings"]["Networks"]) != ["bridge"],
            "5.31": host["UsernsMode"] != "host",
            "5.32": not [m for m in found["Mounts"] if "docker.sock" in m["Source"]],
        }
        assert not [number for number, is_so in held.items() if not is_so]
        status = engine_kit("exec", name, "cat", "/proc/self/status").stdout
        assert re.findall(r"(?:Cap\w+|NoNewPrivs|Seccomp):\t(\S+)", status) == ["0" * 16] * 5 + ["1", "2"]
        assert engine_kit("exec", name, "sh", "-c", "command -v sshd; id -u").stdout == "4242\n", "5.7, 5.24"
    finally:
        engine_kit("rm", "--force", name)


def bindings(found: dict[str, Any]) -> list[dict[str, str]]:
    return [one for each in found["NetworkSettings"]["Ports"].values() for one in each or ()]
