"""`kit matrix`: its whole output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kit import matrix
from kit.catalog import load_catalog
from kit.cli import group
from kit.errors import BadInputError, UnlockedError


def kit(*args: str) -> Result:
    return CliRunner().invoke(group, args)


def test_names_one_a_line() -> None:
    result = kit("matrix", "--only", "tf-cpu", "--only", "torch2.7-cu126")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "torch2.7-cu126\ntf-cpu\n", "")


def test_what_has_no_lock_is_named_on_stderr_alone() -> None:
    catalog = load_catalog()
    without = matrix.left_out(catalog)
    result = kit("matrix")
    assert result.exit_code == 0
    assert not set(result.stdout.split()) & set(without)
    assert result.stderr == (f"left out, no lock yet: {', '.join(without)}\n" if without else "")
    assert kit("--quiet", "matrix").stderr == ""


def test_github_is_one_line_for_the_output_file() -> None:
    result = kit("matrix", "--format", "github", "--only", "tf-cpu")
    assert result.exit_code == 0
    assert result.stdout.endswith("\n")
    assert result.stdout.count("\n") == 1
    [entry] = json.loads(result.stdout)["include"]
    assert sorted(entry) == ["cuda", "framework", "gpu", "image", "platform", "python"]


def test_json_is_the_list_by_either_option() -> None:
    first, second = kit("matrix", "--format", "json", "--only", "tf-cpu"), kit("--json", "matrix", "--only", "tf-cpu")
    assert first.stdout == second.stdout
    assert json.loads(first.stdout)[0]["image"] == "tf-cpu"


def test_all_has_the_devel_images() -> None:
    names = kit("--quiet", "matrix", "--all").stdout.split()
    assert "torch2.7-cu126-devel" in names
    assert "torch2.7-cu126-devel" not in kit("--quiet", "matrix").stdout.split()


def test_markdown_is_written_between_the_markers(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"before\n{matrix.BEGIN}\n{matrix.END}\nafter\n", encoding="utf-8")
    first = kit("matrix", "--format", "markdown", "--into", str(file))
    table = kit("matrix", "--format", "markdown").stdout
    assert (first.exit_code, first.stdout, first.stderr) == (0, "", f"{file}: table written\n")
    assert file.read_text(encoding="utf-8") == f"before\n{matrix.BEGIN}\n{table}{matrix.END}\nafter\n"
    assert kit("matrix", "--format", "markdown", "--into", str(file)).stderr == f"{file}: up to date\n"


def test_into_with_another_format_is_wrong_usage(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("text", encoding="utf-8")
    result = kit("matrix", "--format", "github", "--into", str(file))
    assert isinstance(result.exception, BadInputError)
    assert file.read_text(encoding="utf-8") == "text"


def test_an_unlocked_image_by_name_is_an_error() -> None:
    without = matrix.left_out(load_catalog())
    if not without:
        pytest.skip("every image of the catalog has a lock")
    assert isinstance(kit("matrix", "--only", without[0]).exception, UnlockedError)
