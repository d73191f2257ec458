"""The saved format and what is printed of it, byte for byte: files written before results had types."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kit.bench import compare, report, saved, text, verdicts

DATA = Path(__file__).parent / "data" / "bench"
NAMES = ("gpu", "tensorflow", "cpu")


def read(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_file_is_written_again_as_it_was(name: str, tmp_path: Path) -> None:
    saved.save(tmp_path / "again.json", saved.read(DATA / f"{name}.json"))
    assert (tmp_path / "again.json").read_text(encoding="utf-8") == read(f"{name}.json")


def test_lines_are_as_they_were() -> None:
    results = [saved.read(DATA / f"{name}.json") for name in NAMES]
    assert "\n\n".join("\n".join(text.lines(result)) for result in results) + "\n" == read("lines.txt")


def test_comparisons_are_as_they_were() -> None:
    gpu, tensorflow = (saved.read(DATA / f"{name}.json") for name in NAMES[:2])
    found = {
        "tests": [asdict(row) for row in compare.compare(gpu, tensorflow)],
        "differences": compare.differences(gpu, tensorflow),
        "ratios": [asdict(row) for row in compare.paired_ratios([(gpu, tensorflow), (tensorflow, gpu), (gpu, gpu)])],
    }
    assert json.dumps(found, indent=1) + "\n" == read("compared.json")


class Content(HTMLParser):
    """A page's elements with their attributes and its texts, whatever the white space between them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[object] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))

    def handle_endtag(self, tag: str) -> None:
        self.found.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.found.append(data.split())


def test_the_page_is_as_it_was() -> None:
    page = report.page([saved.read(DATA / f"{name}.json") for name in NAMES])
    assert Content(page).found == Content(read("report.html")).found


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_result_is_judged_again_as_it_was(name: str) -> None:
    result = saved.read(DATA / f"{name}.json")
    assert verdicts.judged(replace(result, verdicts=(), summary=verdicts.UNJUDGED)) == result
