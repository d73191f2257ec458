"""`kit matrix`: its whole output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.catalog import load_catalog
from kit.decide import matrix
from tests.conftest import Result

Kit = Callable[..., Result]


def test_names_one_a_line(kit: Kit) -> None:
    assert kit("matrix", "--only", "tf-cpu", "--only", "torch2.7-cu126") == Result(
        code=0, out="torch2.7-cu126\ntf-cpu\n", err=""
    )


def test_what_has_no_lock_is_named_on_stderr_alone(kit: Kit) -> None:
    without = matrix.left_out(load_catalog())
    result = kit("matrix")
    assert result.code == 0
    assert not set(result.out.split()) & set(without)
    assert result.err == (f"left out, no lock yet: {', '.join(without)}\n" if without else "")
    assert kit("--quiet", "matrix").err == ""


def test_github_is_one_line_for_the_output_file(kit: Kit) -> None:
    assert kit("matrix", "--format", "github", "--only", "tf-cpu") == Result(
        code=0,
        err="",
        out=(
            '{"include":[{"image":"tf-cpu","framework":"tensorflow","cuda":"","python":"3.12",'
            '"platform":"linux/amd64","gpu":false}]}\n'
        ),
    )


def test_json_is_the_list_by_either_option(kit: Kit) -> None:
    first = kit("matrix", "--format", "json", "--only", "tf-cpu")
    assert kit("--json", "matrix", "--only", "tf-cpu") == first
    assert json.loads(first.out) == [
        {
            "image": "tf-cpu",
            "framework": "tensorflow",
            "cuda": "",
            "python": "3.12",
            "platform": "linux/amd64",
            "gpu": False,
        }
    ]


def test_all_has_the_devel_images(kit: Kit) -> None:
    assert "torch2.7-cu126-devel" in kit("matrix", "--all").out.split()
    assert "torch2.7-cu126-devel" not in kit("matrix").out.split()


def test_markdown_is_written_between_the_markers(kit: Kit, tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"before\n{matrix.BEGIN}\n{matrix.END}\nafter\n", encoding="utf-8")
    file.chmod(0o640)
    table = kit("matrix", "--format", "markdown").out
    assert table == matrix.markdown_table(load_catalog())
    write = ("matrix", "--format", "markdown", "--into", str(file))
    assert kit(*write) == Result(code=0, out="", err=f"{file}: table written\n")
    assert file.read_text(encoding="utf-8") == f"before\n{matrix.BEGIN}\n{table}{matrix.END}\nafter\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert kit(*write) == Result(code=0, out="", err=f"{file}: up to date\n")


def test_into_with_another_format_is_wrong_usage(kit: Kit, tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("text", encoding="utf-8")
    assert kit("matrix", "--format", "github", "--into", str(file)) == Result(
        code=2, out="", err="error: --into does not go with --format github\nhint: give --format markdown\n"
    )
    assert file.read_text(encoding="utf-8") == "text"


def test_an_unlocked_image_by_name_is_an_error(kit: Kit) -> None:
    without = matrix.left_out(load_catalog())
    if not without:
        pytest.skip("every image of the catalog has a lock")
    result = kit("matrix", "--only", without[0])
    assert (result.code, result.out) == (7, "")
    assert result.err.startswith(f"error: the image `{without[0]}` has no lock: ")
