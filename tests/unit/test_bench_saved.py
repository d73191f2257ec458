"""Saved results, comparisons and the page made of them; files that are no results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from kit.bench import SCHEMA, compare, report, saved, text, verdicts
from kit.bench.results import Device, Expectations, Peak, Result, Window, as_json
from kit.errors import BadInputError
from tests.unit.bench_results import measured, not_run, reference_of, result_of, sample


def whole(**changed: float) -> Result:
    """A judged result of an H200."""
    values = {"matmul_bf16": 788.0, "memory_copy": 4300.0, "launch_eager": 4.0, **changed}
    units = {"memory_copy": "GB/s", "launch_eager": "us"}
    tests = [
        measured(name, value, units.get(name, "TFLOP/s"), at_s=float(i))
        for i, (name, value) in enumerate(values.items())
    ]
    expected = Expectations(
        gpu="NVIDIA H200",
        peaks={"matmul_bf16": Peak(989.0, "TFLOP/s", "s"), "memory_copy": Peak(4800.0, "GB/s", "s")},
        rates={},
        references={"matmul_bf16": reference_of(790.29)},
    )
    telemetry = tuple(sample(i / 5) for i in range(20))
    result = result_of(*tests, not_run("all_reduce", "one GPU"), telemetry=telemetry, expectations=expected)
    return verdicts.judged(result)


def test_a_result_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "result.json"
    saved.save(file, whole())
    assert saved.read(file) == whole()
    assert [path.name for path in file.parent.iterdir()] == ["result.json"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="cannot be written"):
        saved.save(tmp_path / "file" / "result.json", whole())


def without(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(result: dict[str, Any]) -> None:
        for name in names:
            del result[name]

    return change


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (without("tests"), "the key `tests` is missing"),
        (lambda r: r.update(tests={}), "key `tests`: expected a list"),
        (lambda r: r.update(tests=None), "key `tests`: expected a list"),
        (lambda r: r.update(summary=[]), "key `summary`: expected a table"),
        (lambda r: r.update(unheard=1), "unknown key `unheard`"),
        (lambda r: r["device"].pop("kind"), "key `device`: the key `kind` is missing"),
        (lambda r: r["host"].pop("is_container"), "key `host`: the key `is_container` is missing"),
        (lambda r: r["image"].pop("name"), "key `image`: the key `name` is missing"),
        (lambda r: r["tests"][0].pop("name"), "key `tests`[0]: the key `name` is missing"),
        (lambda r: r["tests"][0].update(outcome="fine"), "key `tests`[0]: key `outcome`: `fine` is not one of"),
        (lambda r: r["tests"][0].update(value="fast"), "key `tests`[0]: key `value`: expected a number"),
        (lambda r: r["tests"][0].update(value=-1), "key `tests`[0]: key `value` is no number above 0"),
        (lambda r: r["tests"][0].update(value=True), "key `tests`[0]: key `value`: expected a number"),
        (lambda r: r["tests"][0].update(samples=["x"]), "key `tests`[0]: key `samples`[0]: expected a number"),
        (lambda r: r["tests"][0].pop("correctness"), "key `tests`[0]: the key `correctness` is missing"),
        (lambda r: r["tests"][0].pop("unit"), "key `tests`[0]: the key `unit` is missing"),
        (lambda r: r["tests"][-1].pop("reason"), "key `tests`[3]: the key `reason` is missing"),
        (lambda r: r["telemetry"][0].pop("at_s"), "key `telemetry`[0]: the key `at_s` is missing"),
        (lambda r: r["verdicts"][0].update(outcome="OK"), "key `verdicts`[0]: key `outcome`: `OK` is not one of"),
        (lambda r: r["summary"].update(outcome="OK"), "key `summary`: key `outcome`: `OK` is not one of"),
        (
            lambda r: r["expectations"]["peaks"].update(x=1),
            "key `expectations`: key `peaks`: key `x`: expected a table",
        ),
    ],
)
def test_a_result_that_is_not_whole_is_refused_with_what_is_wrong(
    change: Callable[[dict[str, Any]], None], detail: str
) -> None:
    result = as_json(whole())
    change(result)
    with pytest.raises(BadInputError) as e:
        saved.parse(json.dumps(result), "F")
    assert any(line.startswith(f"result: {detail}") for line in e.value.details), e.value.details


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "F is no saved result"),
        ("{", "F is no saved result"),
        ("[]", "it has no `schema`"),
        ('{"name": "x"}', "it has no `schema`"),
        ('{"schema": 99}', "F is of schema 99"),
        ('{"schema": "1"}', "F is of schema '1'"),
        ('{"schema": 1, "x": NaN}', "NaN is not a number"),
        ('{"schema": 1, "x": 1e999}', "1e999 is not a number"),
    ],
)
def test_what_is_no_result_is_refused(content: str, message: str) -> None:
    with pytest.raises(BadInputError) as e:
        saved.parse(content, "F")
    assert message in e.value.message
    assert e.value.hint


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot be read"):
        saved.read(tmp_path / "missing.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInputError, match="cannot be read"):
        saved.read(tmp_path / "bytes.json")


def test_comparison_says_how_much_faster_the_second_is() -> None:
    first, second = whole(), whole(matmul_bf16=394.0, launch_eager=2.0, memory_copy=4310.0)
    found = {row.test: row for row in compare.compare(first, second)}
    assert found["matmul_bf16"].ratio == pytest.approx(0.5)
    assert found["launch_eager"].ratio == pytest.approx(2.0)  # half the time
    assert found["matmul_bf16"].is_clear
    assert not found["memory_copy"].is_clear
    assert compare.differences(first, second) == []


def test_what_one_result_has_alone_is_shown_without_a_ratio() -> None:
    first, second = whole(), whole(conv_amp=300.0)
    row = next(row for row in compare.compare(first, second) if row.test == "conv_amp")
    assert (row.first, row.second, row.ratio, row.is_clear) == (None, 300.0, None, False)


def test_other_reasons_for_a_difference_are_named() -> None:
    first, second = whole(), whole()
    tests = (replace(second.tests[0], variant="4096x4096x4096 nn"), *second.tests[1:])
    second = replace(
        second,
        method=2,
        framework=replace(second.framework, version="2.12.0"),
        device=replace(second.device, power_limit_w=600.0),
        tests=tests,
    )
    assert compare.differences(first, second) == [
        "method: 1 / 2",
        "framework version: 2.11.0+cu130 / 2.12.0",
        "power limit: 700.0 / 600.0",
        "matmul_bf16: 8192x8192x8192 nt / 4096x4096x4096 nn",
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.99, 1.01, "none"),
        (0.97, 1.01, "not distinguishable"),
        (0.90, 0.95, "slower"),
        (1.05, 1.10, "faster"),
        (0.99, 1.03, "not distinguishable"),
    ],
)
def test_nothing_is_lost_only_when_the_whole_interval_says_so(low: float, high: float, expected: str) -> None:
    assert compare.judge_loss(low, high, 0.02) == expected


def test_pairs_inside_and_outside() -> None:
    pairs = [(whole(matmul_bf16=v), whole(matmul_bf16=800.0)) for v in (798.0, 800.0, 802.0, 799.0, 801.0)]
    found = {ratio.test: ratio for ratio in compare.paired_ratios(pairs)}
    bf16 = found["matmul_bf16"]
    assert (bf16.inside, bf16.outside, bf16.ratio, bf16.pairs) == (800.0, 800.0, 1.0, 5)
    assert 0.99 < bf16.low <= bf16.ratio <= bf16.high < 1.01
    assert bf16.loss == "none"
    assert compare.paired_ratios(pairs) == compare.paired_ratios(pairs)  # no chance in it


def test_a_slow_container_is_seen_in_rates_and_in_times() -> None:
    pairs = [(whole(matmul_bf16=700.0 + i, launch_eager=8.0), whole(launch_eager=4.0)) for i in range(5)]
    found = {ratio.test: ratio for ratio in compare.paired_ratios(pairs)}
    assert found["matmul_bf16"].loss == "slower"
    assert found["launch_eager"].ratio == pytest.approx(0.5)
    assert found["launch_eager"].loss == "slower"


def test_noisy_pairs_say_nothing() -> None:
    pairs = [(whole(matmul_bf16=v), whole(matmul_bf16=w)) for v, w in ((700, 900), (900, 700), (800, 820), (820, 790))]
    (bf16,) = [ratio for ratio in compare.paired_ratios(pairs) if ratio.test == "matmul_bf16"]
    assert bf16.loss == "not distinguishable"


class Page(HTMLParser):
    """What is on a page: its elements, and every address in it."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_page_has_plots_and_a_table_and_fetches_nothing() -> None:
    source = report.page([whole(), whole(matmul_bf16=700.0)])
    page = Page(source)
    assert page.tags.count("section") == 2
    assert page.tags.count("svg") == 8  # bars, clock, power, temperature; twice
    assert page.tags.count("table") == 2
    assert page.addresses == []
    assert "script" not in page.tags
    assert not re.search(r"https?://|url\(|@import", source)
    assert "788 of 989 TFLOP/s, 80%" in source


def test_bars_are_as_long_as_their_part_of_the_peak() -> None:
    bars = report.peak_bars(whole())
    assert [(bar.label, round(bar.fraction, 3)) for bar in bars] == [("matmul_bf16", 0.797), ("memory_copy", 0.896)]
    assert bars[0].reference == pytest.approx(790.29 / 989)
    widths = [float(width) for width in re.findall(r'class="bar"[^>]*width="([\d.]+)"', report.page([whole()]))]
    assert widths[1] / widths[0] == pytest.approx((4300 / 4800) / (788 / 989), rel=0.01)


def test_a_bar_beyond_the_peak_stays_on_the_page() -> None:
    source = report.page([whole(matmul_bf16=989 * 1.16)])
    assert report.peak_bars(whole(matmul_bf16=989 * 1.16))[0].fraction == pytest.approx(1.16)
    (page_width,) = set(re.findall(r'viewBox="0 0 (\d+) ', source))
    bars = re.findall(r'class="bar" x="(\d+)"[^>]*width="([\d.]+)"', source)
    assert len(bars) == 2
    assert all(float(left) + float(width) < float(page_width) for left, width in bars)


def test_text_of_a_result_cannot_become_markup() -> None:
    result = as_json(whole())
    evil = "<script>alert(1)</script>"
    result["device"]["name"] = evil
    result["image"]["name"] = evil
    result["framework"]["version"] = evil
    result["tests"][0]["name"] = evil
    result["tests"][-1]["reason"] = evil
    result["tests"][1]["unit"] = evil
    result["started"] = evil
    result["summary"]["text"] = evil
    for verdict in result["verdicts"]:
        verdict["text"] = evil
        verdict["test"] = evil if verdict["test"] == "matmul_bf16" else verdict["test"]
    page = Page(report.page([saved.parse(json.dumps(result), "F")]))
    assert "script" not in page.tags


def test_page_of_a_cpu_result_has_no_plots_and_says_what_it_is() -> None:
    result = result_of(measured("matmul_fp16", 0.3), device=Device(kind="cpu", name="EPYC"), telemetry=())
    source = report.page([replace(verdicts.judged(result), peak_memory_bytes=None)])
    assert "functional only, GPU not tested" in source
    assert "svg" not in Page(source).tags


def test_page_of_a_soak_shows_it_over_time() -> None:
    windows = tuple(Window(at_s=float(i), value=780.0 - i, passed=True) for i in range(10))
    result = result_of(measured("soak", 775.0, windows=windows))
    assert "Sustained" in report.page([verdicts.judged(result)])


def test_lines_for_a_terminal() -> None:
    lines = text.lines(whole())
    assert lines[0] == "NVIDIA H200, torch 2.11.0+cu130, torch2.14-cu130"
    assert lines[2].split() == ["test", "result", "spread", "of", "peak", "at", "its", "clock", "verdict"]
    assert "matmul_bf16" in lines[3]
    assert lines[3].endswith("PASS")
    assert "80%" in lines[3]
    assert "not run: all_reduce: one GPU" in lines
    assert lines[-1].startswith("PASS: software: PASS")


def test_schema_is_in_every_result() -> None:
    assert whole().schema == as_json(whole())["schema"] == SCHEMA
