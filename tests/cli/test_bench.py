"""`kit bench`: its three commands as a user types them, without an engine and without a GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.bench import saved
from tests.unit.test_bench_saved import whole


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, with two results."""
    saved.save(tmp_path / "a.json", whole())
    saved.save(tmp_path / "b.json", whole(matmul_bf16=394.0))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_names_the_commands_and_the_image_s_options(kit: Callable[..., Any]) -> None:
    result = kit("bench", "--help")
    assert result.code == 0
    for word in ("kit bench NAME", "compare", "image", "report"):
        assert word in result.out
    options = kit("bench", "tf-cpu", "--help")
    assert options.code == 0
    for word in ("--device", "--soak", "--save", "--host-compare", "--shapes", "--only"):
        assert word in options.out


def test_nothing_to_measure_is_wrong_use(kit: Callable[..., Any]) -> None:
    assert kit("bench").code == 2


@pytest.mark.usefixtures("files")
def test_compare_is_a_table(kit: Callable[..., Any]) -> None:
    result = kit("bench", "compare", "a.json", "b.json")
    assert result.code == 0
    header, *rows = result.out.splitlines()
    assert header.split() == ["test", "a.json", "b.json", "ratio", "clear"]
    assert rows[0].split() == ["matmul_bf16", "788", "TFLOP/s", "394", "TFLOP/s", "0.500", "yes"]
    assert rows[1].endswith("within the spread")


@pytest.mark.usefixtures("files")
def test_compare_as_json(kit: Callable[..., Any]) -> None:
    found = json.loads(kit("bench", "compare", "a.json", "b.json", "--json").out)
    assert found["differences"] == []
    assert found["tests"][0] == {
        "test": "matmul_bf16",
        "unit": "TFLOP/s",
        "first": 788.0,
        "second": 394.0,
        "ratio": 0.5,
        "is_clear": True,
    }


@pytest.mark.usefixtures("files")
def test_compare_can_fail_a_script(kit: Callable[..., Any]) -> None:
    result = kit("bench", "compare", "a.json", "b.json", "--fail-below", "0.95")
    assert result.code == 1
    assert "matmul_bf16: 0.500" in result.err
    assert kit("bench", "compare", "a.json", "a.json", "--fail-below", "0.95").code == 0


def test_report_is_one_page(kit: Callable[..., Any], files: Path) -> None:
    result = kit("bench", "report", "a.json", "b.json", "-o", "page.html")
    assert result.code == 0
    assert result.out == ""
    assert result.err == "2 results written to page.html\n"
    assert (files / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert not (files / "bench-report.html").exists()


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("command", [("compare", "a.json", "bad.json"), ("report", "a.json", "bad.json")])
def test_bad_files_are_refused_and_nothing_is_written(
    kit: Callable[..., Any], files: Path, command: tuple[str, ...]
) -> None:
    (files / "bad.json").write_text('{"schema": 7}')
    result = kit("bench", *command)
    assert result.code == 2
    assert result.out == ""
    assert "bad.json is of schema 7" in result.err
    assert not (files / "bench-report.html").exists()
    (files / "bad.json").unlink()
    assert "bad.json cannot be read" in kit("bench", *command).err


def test_an_image_for_the_cpu_has_no_gpu_to_measure(kit: Callable[..., Any], fake_docker: Any) -> None:
    result = kit("bench", "tf-cpu")
    assert result.code == 3
    assert "tf-cpu is built for the CPU" in result.err
    assert "--device cpu" in result.err
    assert fake_docker.calls == [], "nothing is asked of the engine, or built"


def test_without_a_gpu_nothing_is_built_and_the_exit_code_is_3(
    kit: Callable[..., Any], fake_docker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.host.DRIVER_TRACES", ())
    monkeypatch.setattr("kit.run.lease.host_has_gpu", lambda: False)
    result = kit("bench", "torch2.7-cu126")
    assert result.code == 3
    assert "no NVIDIA GPU" in result.err
    assert not [call for call in fake_docker.calls if call.args[:1] == ["run"] or "build" in call.args]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "matmul"), "there is no test 'matmul'"),
        (("--shapes", "4096"), "is not MxNxK"),
        (("--soak", "-1"), "--soak"),
        (("--gpus", "all"), "contradict each other"),
        (("--pairs", "1"), "--pairs"),
    ],
)
def test_wrong_options(kit: Callable[..., Any], arguments: tuple[str, ...], message: str) -> None:
    result = kit("bench", "--device", "cpu", *arguments, "tf-cpu")
    assert result.code == 2
    assert message in result.err


def test_a_name_that_is_no_image(kit: Callable[..., Any]) -> None:
    result = kit("bench", "--device", "cpu", "tf-cpv")
    assert result.code == 4
    assert "tf-cpu" in result.err


def test_host_compare_needs_a_python_with_the_framework(
    kit: Callable[..., Any], fake_docker: Any, tmp_path: Path
) -> None:
    empty = tmp_path / "python"
    empty.write_text("#!/bin/sh\necho False\n")
    empty.chmod(0o755)
    arguments = ("bench", "tf-cpu", "--device", "cpu", "--host-compare", "--host-python")
    result = kit(*arguments, str(empty))
    assert result.code == 2
    assert "has no tensorflow" in result.err
    assert "images/tf-cpu/requirements.lock" in result.err
    missing = kit(*arguments, str(tmp_path / "nothing"))
    assert missing.code == 2
    assert "not installed" in missing.err
    assert fake_docker.calls == [], "before anything is built"
