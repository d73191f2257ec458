"""`kit list` and `kit show`: their output, and the keys programs read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from kit.catalog import load_catalog

KEYS = [
    "name",
    "framework",
    "version",
    "cuda",
    "cudnn",
    "python",
    "provider",
    "base",
    "min_driver",
    "compute_capabilities",
    "locked",
    "unlocked_reason",
    "lock_hashes",
    "built",
]


def test_list_is_a_table_with_the_reasons_below(kit: Callable[..., Any]) -> None:
    result = kit("list")
    assert result.code == 0
    header, *lines = result.out.splitlines()
    assert header.split() == ["name", "version", "CUDA", "cuDNN", "Python", "min", "driver", "locked", "built"]
    rows = lines[: lines.index("")]
    images = [image for image in load_catalog().images() if not image.flavor]
    assert [row.split()[0] for row in rows] == [image.name for image in images]
    torch = next(row for row in rows if row.startswith("torch2.7-cu126"))
    assert torch.split() == ["torch2.7-cu126", "2.7.1", "12.6", "9.5.1.17", "3.12/3.11", "525.60.13", "yes", "-"]
    cpu = next(row for row in rows if row.startswith("torch-cpu"))
    assert cpu.split()[-2:] == ["unconfirmed", "-"]
    *reasons, unconfirmed = lines[lines.index("") + 1 :]
    assert unconfirmed == (
        "unconfirmed: torch-cpu: hashes from public lock files, not confirmed by the index; "
        "`kit lock torch-cpu` confirms them"
    )
    assert [line.split()[1] for line in reasons] == ["torch1.5-cu101:", "torch1.8-cu111:", "torch-cu118:"]
    assert all(line.startswith("unlocked: ") and "`kit lock " in line for line in reasons)
    assert "kit list --all" in result.err


def test_all_shows_devel_images_and_quiet_says_no_more(kit: Callable[..., Any]) -> None:
    result = kit("--quiet", "list", "--all")
    assert "torch2.7-cu126-devel" in result.out
    assert result.err == ""


def test_json_keys_are_an_interface(kit: Callable[..., Any]) -> None:
    result = kit("--json", "list", "--all")
    rows = json.loads(result.out)
    assert [row["name"] for row in rows] == [image.name for image in load_catalog().images()]
    assert all(list(row) == KEYS for row in rows)
    by_name = {row["name"]: row for row in rows}
    assert by_name["torch2.7-cu126"] == {
        "name": "torch2.7-cu126",
        "framework": "torch",
        "version": "2.7.1",
        "cuda": "12.6",
        "cudnn": "9.5.1.17",
        "python": "3.12 or 3.11",
        "provider": "wheels",
        "base": "nvidia/cuda:12.6.3-base-ubuntu24.04",
        "min_driver": "525.60.13",
        "compute_capabilities": ["5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0"],
        "locked": True,
        "unlocked_reason": "",
        "lock_hashes": "",
        "built": None,
    }
    assert by_name["torch-cpu"]["locked"] is True
    assert by_name["torch-cpu"]["lock_hashes"] == "from public lock files, not confirmed by the index"
    assert by_name["torch-cu118"]["locked"] is False
    assert "kit lock torch-cu118" in by_name["torch-cu118"]["unlocked_reason"]


def test_built_is_what_the_engine_has(kit: Callable[..., Any], fake_docker: Any) -> None:
    fake_docker.reply("image", "ls", stdout="kit/tf-cpu:latest 0123456789ab\nother/kit:1 ba9876543210\n")
    rows = {row["name"]: row["built"] for row in json.loads(kit("--json", "list").out)}
    assert rows["tf-cpu"] is True
    assert rows["torch2.7-cu126"] is False


def test_the_python_is_the_one_that_is_or_will_be_inside(
    kit: Callable[..., Any], fake_docker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_docker.reply("image", "ls", stdout="kit/tf-cpu:latest\n")
    fake_docker.reply("image", "inspect", stdout='{"kit.python": "3.13"} sha256:1\n')

    def pythons(*words: str) -> dict[str, str]:
        return {row["name"]: row["python"] for row in json.loads(kit("--json", "list", *words).out)}

    assert pythons()["tf-cpu"] == "3.13", "what was built says it itself"
    assert pythons()["torch2.7-cu126"] == "3.12 or 3.11", "whether a registry answers shows when it is asked"
    monkeypatch.setenv("KIT_BASE", "archive")
    assert pythons()["torch2.7-cu126"] == "3.11"
    monkeypatch.setenv("KIT_BASE", "registry")
    assert pythons()["torch2.7-cu126"] == "3.12"
    assert json.loads(kit("--json", "show", "tf-cpu").out)["python"] == "3.13"


def test_an_engine_that_hangs_does_not_hold_the_list_up(kit: Callable[..., Any], fake_docker: Any) -> None:
    fake_docker.reply("image", "ls", stdout="kit/tf-cpu:latest 0123456789ab\n", sleep=30)
    started = time.monotonic()
    rows = json.loads(kit("--json", "list").out)
    assert time.monotonic() - started < 10
    assert {row["built"] for row in rows} == {None}


def test_show_names_every_fact_and_source(kit: Callable[..., Any]) -> None:
    result = kit("show", "torch-cu126")
    assert result.code == 0
    lines = {line.split("  ")[0]: line for line in result.out.splitlines() if not line.startswith(" ")}
    assert lines["aliases"].endswith("torch-cu126, torch2.7, torch2.7.1, torch2.7.1-cu126")
    assert "PyPI metadata of torch 2.7.1" in lines["source"]
    assert "unconfirmed" in lines["base digest status"]
    assert int(lines["gpus covered"].split()[-1]) > 50
    facts = json.loads(kit("--json", "show", "torch-cu126").out)
    assert list(facts)[: len(KEYS)] == KEYS
    assert facts["locked_packages"] > 100


@pytest.mark.parametrize("name", ["torch-cu162", "torhc"])
def test_show_suggests_the_nearest_name(kit: Callable[..., Any], name: str) -> None:
    result = kit("show", name)
    assert result.code == 4
    assert f"there is no image `{name}`" in result.err
    assert "nearest: " in result.err
    assert result.out == ""
