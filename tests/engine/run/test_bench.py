"""`kit bench` in real containers on the CPU, for both frameworks; the page in a real browser."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from kit.bench import saved
from kit.bench.suite import TEST_NAMES
from tests.engine import witness
from tests.engine.conftest import Kit
from tests.engine.run.test_browser import chromium, dump_page
from tests.engine.witness import containers
from tests.unit.test_bench_saved import whole

pytestmark = pytest.mark.engine
__all__ = ["chromium"]


def of(result: dict[str, Any], outcome: str) -> set[str]:
    return {test["name"] for test in result["tests"] if test["outcome"] == outcome}


def check_cpu_result(result: dict[str, Any], image: str) -> None:
    """What holds of every result on the CPU, whatever the framework."""
    assert result["summary"]["text"] == "functional only, GPU not tested"
    assert result["summary"]["outcome"] == "NOT_APPLICABLE"
    assert of(result, "failed") == set()
    assert {"matmul_fp32_ieee", "matmul_bf16", "memory_copy", "conv_amp", "resnet50_step", "transformer_step"} <= of(
        result, "measured"
    )
    assert {v["outcome"] for v in result["verdicts"] if v["gate"] == "correctness"} == {"PASS"}
    assert {v["outcome"] for v in result["verdicts"] if v["gate"] == "throughput"} == {"NOT_APPLICABLE"}
    assert result["image"]["name"] == image
    assert result["image"]["id"].startswith("sha256:")
    assert result["host"]["is_container"] is True
    assert result["device"]["kind"] == "cpu"
    assert 0 < result["seconds"] < 600  # on a machine that others use too


def test_tensorflow_on_the_cpu(kit: Kit, tf_cpu: str, docker: DockerClient, tmp_path: Path) -> None:
    before, file = containers(docker), tmp_path / "result.json"
    done = kit("bench", tf_cpu, "--device", "cpu", "--save", str(file), "--json")
    result = json.loads(done.stdout)
    check_cpu_result(result, "tf-cpu")
    assert saved.read(file) == result
    assert "matmul_fp16: " in done.stderr  # progress, while it runs
    assert containers(docker) == before


def test_pytorch_on_the_cpu(kit: Kit, torch_cuda: str) -> None:
    result = json.loads(kit("bench", torch_cuda, "--device", "cpu", "--json").stdout)
    check_cpu_result(result, torch_cuda)
    assert {test["name"] for test in result["tests"]} == set(TEST_NAMES)
    assert "matmul_fp8" in of(result, "not_run")


def test_table_for_people_and_a_short_soak(kit: Kit, tf_cpu: str) -> None:
    done = kit("bench", tf_cpu, "--device", "cpu", "--only", "matmul_bf16", "--soak", "0.05", "--shapes", "64x64x64")
    lines = done.stdout.splitlines()
    assert "tf-cpu" in lines[0]
    assert lines[3].startswith("matmul_bf16")
    assert lines[4].startswith("soak")
    assert lines[-1] == "NOT_APPLICABLE: functional only, GPU not tested"


def test_without_a_gpu_it_is_an_error(kit: Kit, torch_cuda: str, gpus_alone: None) -> None:
    from kit.gpu import host_has_gpu

    if host_has_gpu():
        pytest.skip("this host has a GPU")
    assert "no NVIDIA GPU" in kit("bench", torch_cuda, code=3).stderr


def test_all_reduce_between_processes(docker: DockerClient, torch_cuda: str, tmp_path: Path) -> None:
    import kit

    script = tmp_path / "script.py"
    script.write_text(
        "import json\nfrom kit.bench import all_reduce\nfrom kit.bench.work import cpu_sizes\n"
        "if __name__ == '__main__':\n    print(json.dumps(all_reduce.run(2, 'gloo', cpu_sizes(), 64)))\n"
    )
    folder = Path(kit.__path__[0])
    volumes = [f"{folder}:/opt/kit/bench/kit:ro", f"{script}:/script.py:ro"]
    command = (f"kit/{torch_cuda}:latest", "python", "/script.py")
    found = json.loads(witness.run(docker, *command, volumes=volumes, environment={"PYTHONPATH": "/opt/kit/bench"}))
    assert found["correctness"]["passed"] is True
    assert found["value"] > 0
    assert len(found["details"]["product_tflops"]) == 2


def test_pairs_inside_and_outside(kit: Kit, tf_cpu: str, tmp_path: Path) -> None:
    # A Python of the host that gives the same numbers each time: what is tested is the taking turns.
    given = tmp_path / "given.json"
    given.write_text(kit("bench", tf_cpu, "--device", "cpu", "--only", "matmul_fp16", "--json").stdout)
    order = tmp_path / "order"
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\n[ "$1" = -c ] && { echo True; exit; }\n'
        f"echo outside >> {order}\n"
        'for word in "$@"; do case "$word" in --save=*) cp ' + str(given) + ' "${word#--save=}" ;; esac; done\n'
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    done = kit(
        "bench", tf_cpu, "--device", "cpu", "--only", "matmul_fp16", "--host-compare", "--host-python", str(python),
        "--pairs", "2",
    )  # fmt: skip
    steps = [line for line in done.stderr.splitlines() if line in ("inside the container", "outside")]
    assert steps == ["inside the container", "outside", "outside", "inside the container"]
    assert order.read_text().count("outside") == 2
    header, row = done.stdout.splitlines()[:2]
    assert header.split()[:4] == ["test", "inside", "outside", "ratio"]
    assert row.startswith("matmul_fp16")


def screenshot(chromium: str, page: Path, image: Path, profile: Path) -> None:
    subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1000,1400",
            f"--user-data-dir={profile}", f"--screenshot={image}", page.as_uri(),
        ],
        capture_output=True, timeout=180, check=True,
    )  # fmt: skip


def test_page_opens_in_a_browser_and_its_plots_are_drawn(kit: Kit, chromium: str, tmp_path: Path) -> None:
    saved.save(tmp_path / "a.json", whole())
    page = tmp_path / "page.html"
    kit("bench", "report", str(tmp_path / "a.json"), "-o", str(page))
    # The page may run no script: a copy without that rule tells what the browser made of the plots.
    measuring = tmp_path / "measuring.html"
    source = re.sub(r"<meta http-equiv=[^\n]*\n", "", page.read_text())
    script = (
        "<script>document.title = [...document.querySelectorAll('svg')].map(s => { const b = s.getBBox();"
        " const v = s.viewBox.baseVal; return [b.width > 100, b.x >= 0, b.x + b.width <= v.width + 1].join() })"
        ".join(' ') + ' ' + performance.getEntriesByType('resource').length</script>"
    )
    measuring.write_text(source.replace("</body>", script + "</body>"))
    found = dump_page(chromium, measuring.as_uri(), tmp_path / "profile")
    title = re.search(r"<title>(.*?)</title>", found)
    assert title is not None
    *plots, fetched = title[1].split()
    assert plots == ["true,true,true"] * 4
    assert fetched == "0"
    image = tmp_path / "page.png"
    screenshot(chromium, page, image, tmp_path / "profile2")
    assert image.stat().st_size > 20_000, "an empty page is a few kilobytes"
