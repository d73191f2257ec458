"""Damaged results of `kit bench`, which people send each other."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

import pytest

from kit.bench import compare, report, saved, text, verdicts
from kit.bench.results import Device, Window, as_json
from kit.errors import BadInputError
from tests.security.fuzzing import damaged, fuzz, replaced
from tests.unit.bench_results import measured, result_of
from tests.unit.test_bench_saved import whole

SOAK = result_of(measured("soak", 775.0, windows=tuple(Window(float(i), 780.0 - i, True) for i in range(10))))
CPU = result_of(measured("matmul_fp16", 0.3), device=Device(kind="cpu", name="EPYC"), telemetry=())
RESULTS = [as_json(verdicts.judged(one)) for one in (whole(), SOAK, CPU)]
TEXTS = [json.dumps(value).encode() for value in RESULTS]
SOUND = saved.parse(TEXTS[0].decode(), "sound")


def use(content: bytes) -> None:
    """What `kit bench compare` and `report` make of a file, up to the bytes that are written."""
    found = saved.parse(content.decode(errors="surrogateescape"), "file")
    report.page([found]).encode()
    "\n".join(text.lines(found)).encode()
    compare.compare(SOUND, found)
    compare.differences(found, SOUND)
    compare.paired_ratios([(found, SOUND), (SOUND, found)])
    json.dumps(as_json(found), allow_nan=False)


def test_bytes() -> None:
    fuzz(damaged(TEXTS), use)


def test_values() -> None:
    fuzz(replaced(RESULTS), lambda value: use(json.dumps(value).encode()))


def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 2**32)
    os.mkfifo(tmp_path / "pipe")
    for file, says in (
        (tmp_path / "large", "more than"),
        (tmp_path / "pipe", "a pipe"),
        (Path("/dev/zero"), "a device"),
    ):
        with pytest.raises(BadInputError, match=says):
            saved.read(file)


ENDS = ["1e308", "-1e308", "1e-320", "9" * 400, "1" + "0" * 5000, "1e999", "NaN", "-Infinity", "1e31"]
KEYS = ["value", "p20", "at_s", "sm_mhz", "power_w", "seconds", "peak", "reference", "start_s"]


def with_number(key: str, number: str) -> bytes:
    content = re.sub(rf'"{key}": [-\d.e+]+', f'"{key}": {number}', TEXTS[0].decode()).encode()
    assert content != TEXTS[0]
    return content


@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("key", KEYS)
def test_numbers_that_nothing_can_give_are_refused(key: str, number: str) -> None:
    with pytest.raises(BadInputError, match="is not a number"):
        use(with_number(key, number))


@pytest.mark.parametrize("number", ["-1", "0", "1e-29", "-1e29", "1e29"])
@pytest.mark.parametrize("key", KEYS)
def test_numbers_at_the_ends_are_shown_or_refused(key: str, number: str) -> None:
    with contextlib.suppress(BadInputError):
        use(with_number(key, number))
