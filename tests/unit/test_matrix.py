"""kit.decide.matrix: which images CI builds, and the README's table."""

from __future__ import annotations

import dataclasses
import json

import pytest

from kit import paths
from kit.catalog import Catalog
from kit.decide import matrix
from kit.errors import BadInputError, NoSuchImageError, UnlockedError

REASON = "its index cannot be reached"
UNLOCKED = {"torch2.6-cu124": "", "torch2.7-cu126": "", "torch-cu118": REASON, "tf-cpu": ""}


@pytest.fixture
def catalog() -> Catalog:
    """Four of the catalog's releases, one of them without a lock."""
    catalog = Catalog(paths.catalog_dir())
    # In the place where the tables that were read are kept.
    catalog.__dict__["releases"] = tuple(
        dataclasses.replace(row, unlocked=UNLOCKED[row.name]) for row in catalog.releases if row.name in UNLOCKED
    )
    return catalog


def test_jobs_are_the_locked_images_in_the_tables_order(catalog: Catalog) -> None:
    assert [job.image for job in matrix.jobs(catalog)] == ["torch2.6-cu124", "torch2.7-cu126", "tf-cpu"]


def test_all_adds_the_devel_images(catalog: Catalog) -> None:
    assert [job.image for job in matrix.jobs(catalog, with_devel=True)] == [
        "torch2.6-cu124",
        "torch2.6-cu124-devel",
        "torch2.7-cu126",
        "torch2.7-cu126-devel",
        "tf-cpu",
    ]


def test_a_job_says_what_the_image_is(catalog: Catalog) -> None:
    gpu, cpu = matrix.jobs(catalog, names=["torch2.7-cu126", "tf-cpu"])
    assert dataclasses.asdict(gpu) == {
        "image": "torch2.7-cu126",
        "framework": "torch",
        "cuda": "12.6",
        "python": "3.12",
        "platform": "linux/amd64",
        "gpu": True,
    }
    assert (cpu.framework, cpu.cuda, cpu.gpu) == ("tensorflow", "", False)


def test_names_may_be_aliases_repeated_and_in_any_order(catalog: Catalog) -> None:
    found = matrix.jobs(catalog, names=["tf-cpu", "torch-cu126-devel", "torch-cu124", "torch2.6-cu124"])
    assert [job.image for job in found] == ["torch2.6-cu124", "torch2.7-cu126-devel", "tf-cpu"]


def test_a_named_image_without_a_lock_is_an_error_that_says_why(catalog: Catalog) -> None:
    with pytest.raises(UnlockedError, match="its index cannot be reached") as caught:
        matrix.jobs(catalog, names=["tf-cpu", "torch-cu118"])
    assert "kit lock torch-cu118" in caught.value.hint


def test_an_unknown_name_is_an_error(catalog: Catalog) -> None:
    with pytest.raises(NoSuchImageError):
        matrix.jobs(catalog, names=["torch-cu999"])


def test_an_image_for_another_platform_only_is_no_job(catalog: Catalog) -> None:
    catalog.__dict__["releases"] = tuple(
        dataclasses.replace(row, platforms=("linux/arm64",)) if row.name == "tf-cpu" else row
        for row in catalog.releases
    )
    assert "tf-cpu" not in [job.image for job in matrix.jobs(catalog)]


def test_left_out_names_every_unlocked_image(catalog: Catalog) -> None:
    assert matrix.left_out(catalog) == ["torch-cu118", "torch-cu118-devel"]


def test_github_format_is_one_line_of_json(catalog: Catalog) -> None:
    text = matrix.as_github(matrix.jobs(catalog))
    assert "\n" not in text
    names = [entry["image"] for entry in json.loads(text)["include"]]
    assert names == ["torch2.6-cu124", "torch2.7-cu126", "tf-cpu"]


def test_the_table_has_a_row_for_every_release(catalog: Catalog) -> None:
    header, rule, *rows = matrix.markdown_table(catalog).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert header.count("|") == rule.count("|") == rows[0].count("|")
    assert {row[0]: row[-1] for row in cells} == {
        "`torch2.6-cu124`": "yes",
        "`torch2.7-cu126`": "yes",
        "`torch-cu118`": "not yet",
        "`tf-cpu`": "yes",
    }
    assert next(row for row in cells if row[0] == "`torch2.7-cu126`") == [
        "`torch2.7-cu126`",
        "torch 2.7.1",
        "12.6",
        "9.5",
        "3.11, 3.12, 3.13",
        "525.60.13",
        "either",
        "yes",
        "yes",
    ]
    assert next(row for row in cells if row[0] == "`tf-cpu`")[2:4] == ["–", "–"]


def test_replace_table_changes_nothing_but_the_table() -> None:
    before = f"# title\n\n{matrix.BEGIN}\n| old |\n{matrix.END}\n\nend\n"
    after = matrix.replace_table(before, "| new |\n")
    assert after == f"# title\n\n{matrix.BEGIN}\n| new |\n{matrix.END}\n\nend\n"
    assert matrix.replace_table(after, "| new |\n") == after


@pytest.mark.parametrize("text", ["# no markers\n", f"{matrix.BEGIN}\n", f"{matrix.END}\n{matrix.BEGIN}\n"])
def test_replace_table_without_both_markers_is_an_error(text: str) -> None:
    with pytest.raises(BadInputError, match="no place"):
        matrix.replace_table(text, "| new |\n")
