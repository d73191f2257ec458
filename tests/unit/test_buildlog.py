"""Against what buildx 0.29 and Docker 28.5 really printed (data/buildx, recorded with kit's own engine; `-0.13` with
the buildx of Debian 13), and Podman 4.3.1 (data/podman).
"""

import base64
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.image.buildlog import EXPORT, KEPT_LINES, BuildLog, PodmanLog, step_title

RECORDED = Path(__file__).parent / "data/buildx"


def read(name):
    log, finished = BuildLog(), []
    for line in (RECORDED / f"{name}.jsonl").read_text().splitlines():
        finished += log.feed(line)
    return log, finished


def vertex(**values):
    return json.dumps({"vertexes": [{"digest": "sha256:1", "name": "[2/3] RUN true", **values}]})


def said(text, digest="sha256:1"):
    return json.dumps({"logs": [{"vertex": digest, "stream": 1, "data": base64.b64encode(text.encode()).decode()}]})


def test_a_build_that_works_finishes_every_step_once_and_has_no_failed_one():
    log, finished = read("ok")
    assert log.failed is None
    assert log.running == []
    assert [step.title for step in finished if not step.is_internal][1:] == [
        '[stage-0 2/3] echo hello && sleep 1.2 && echo "grüße" && echo done >&2',
        '[stage-0 3/3] echo "second step"',
        "exporting to image",
    ]
    assert len({id(step) for step in finished}) == len(finished)


def test_a_step_has_its_time_and_what_it_said():
    log, _ = read("ok")
    step = next(s for s in log.steps.values() if "hello" in s.name)
    assert 1.2 < step.seconds < 10
    assert sorted(step.lines) == ["done", "grüße", "hello"]
    assert not step.cached


def test_a_step_from_the_cache_is_known_as_such():
    log, finished = read("cached")
    step = next(s for s in log.steps.values() if "hello" in s.name)
    assert step.cached
    assert step in finished
    assert step.seconds < 0.5


def test_a_failed_step_is_found_with_its_last_lines():
    log, _ = read("fail")
    assert log.failed is not None
    assert log.failed.title.startswith("[2/2] for i in")
    assert log.failed.error.endswith("did not complete successfully: exit code: 3")
    assert len(log.failed.lines) == KEPT_LINES
    assert log.failed.lines[-1] == "line 60 of the output"
    assert any(line.startswith("ERROR: failed to build") for line in log.other)


def test_records_that_an_older_buildx_indents():
    log, finished = read("ok-0.13")
    assert log.failed is None
    assert not log.other
    step = next(s for s in finished if "hello" in s.name)
    assert sorted(step.lines) == ["done", "grüße", "hello"]
    assert step.seconds > 1.2
    log, _ = read("fail-0.13")
    assert log.failed is not None
    assert list(log.failed.lines) == ["before", "why"]
    assert log.failed.error.endswith("did not complete successfully: exit code: 3")
    assert log.other[-1].startswith("ERROR: failed to solve: ")


def test_a_record_that_is_not_ended_takes_nothing_along():
    log = BuildLog()
    for line in ("{", '  "vertexes": [', "ERROR: the connection is lost", vertex(error="x")):
        log.feed(line)
    assert list(log.other) == ["{", '  "vertexes": [', "ERROR: the connection is lost"]
    assert log.failed is not None


def test_a_step_that_was_only_cancelled_is_not_the_one_that_failed():
    log, _ = read("parallel")
    assert log.failed is not None
    assert log.failed.title == "[b 2/2] sleep 1; echo broken; false"
    # The same, had the cancelled step been named first.
    log.steps = dict(reversed(log.steps.items()))
    assert log.failed.title == "[b 2/2] sleep 1; echo broken; false"


def test_a_step_is_running_between_its_start_and_its_end():
    log = BuildLog()
    assert log.feed(vertex()) == []
    assert log.running == []
    assert log.feed(vertex(started="2026-11-21T06:00:00.5Z")) == []
    assert [s.name for s in log.running] == ["[2/3] RUN true"]
    finished = log.feed(vertex(started="2026-11-21T06:00:00.5Z", completed="2026-11-21T06:00:02.123456789Z"))
    assert [s.seconds for s in finished] == [1.623456]
    assert log.running == []
    assert log.feed(vertex(completed="2026-11-21T06:00:02.123456789Z")) == [], "a step finishes once"


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2026-11-21T06:00:00Z", 0),
        ("2026-11-21T06:00:00.1Z", 100000),
        ("2026-11-21T06:00:00.123456Z", 123456),
        ("2026-11-21T06:00:00.123456789Z", 123456),
        ("2026-11-21T06:00:00.12+00:00", 120000),
        ("2026-11-21T06:00:00.5", 500000),
    ],
)
def test_times_of_every_precision_are_read(text, microsecond):
    log = BuildLog()
    log.feed(vertex(started=text))
    assert log.steps["sha256:1"].started == datetime(2026, 11, 21, 6, microsecond=microsecond, tzinfo=timezone.utc)


def test_only_the_last_lines_of_a_step_are_kept():
    log = BuildLog()
    log.feed(vertex())
    for number in range(1000):
        log.feed(said(f"line {number}\n"))
    assert list(log.steps["sha256:1"].lines) == [f"line {n}" for n in range(1000 - KEPT_LINES, 1000)]


def test_lines_that_are_no_record_are_kept_for_the_error_message():
    log = BuildLog()
    for line in ("ERROR: no builder", "", "   ", "[1, 2]", "null", "{broken"):
        assert log.feed(line) == []
    assert list(log.other) == ["ERROR: no builder", "[1, 2]", "null", "{broken"]


@pytest.mark.parametrize(
    "line",
    [
        '{"vertexes": null, "logs": null}',
        '{"vertexes": 5, "logs": "x"}',
        '{"vertexes": [{}], "logs": [{}]}',
        '{"vertexes": [null, 7, []]}',
        '{"vertexes": [{"digest": []}]}',
        '{"vertexes": [{"digest": "a", "started": "soon"}]}',
        '{"vertexes": [{"digest": "a", "completed": 5, "name": null}]}',
        '{"logs": [{"vertex": [], "data": 5}]}',
        '{"logs": [{"vertex": "unknown", "data": "aGk="}]}',
    ],
)
def test_records_of_another_shape_do_not_end_the_build(line):
    assert BuildLog().feed(line) == []


def test_output_that_is_no_base64_or_no_text_is_left_out_or_replaced():
    log = BuildLog()
    log.feed(vertex())
    log.feed('{"logs": [{"vertex": "sha256:1", "data": "%%%"}, {"vertex": "sha256:1", "data": "é"}]}')
    log.feed('{"logs": [{"vertex": "sha256:1", "data": "/3g="}]}')
    assert "\ufffdx" in log.steps["sha256:1"].lines


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["vertexes", "logs", "digest", "name", "started", "completed", "error", "vertex", "data"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.text() | json_values.map(json.dumps), max_size=5))
def test_no_line_whatsoever_raises(lines):
    log = BuildLog()
    for line in lines:
        log.feed(line)
    assert log.failed is None or log.failed.error
    for step in log.running:
        assert isinstance(step.title, str)


@given(st.integers(0, 200))
def test_a_recording_cut_off_anywhere_is_read(size):
    text = (RECORDED / "fail.jsonl").read_text()
    log = BuildLog()
    for line in text[: len(text) * size // 200].splitlines():
        log.feed(line)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        (
            "[stage-1 3/9] RUN --mount=type=bind,from=kit,source=uv,target=/run/kit/uv "
            "--mount=type=bind,from=lock,source=/lock/cuda.txt,target=/run/kit/wheels.txt "
            ". /run/kit/begin && install_layer cuda /v",
            "[stage-1 3/9] install the cuda wheels",
        ),
        (
            "[1/9] RUN --mount=type=secret,id=ca . /run/kit/begin && apt-get install --yes tini",
            "[1/9] install system packages",
        ),
        ("[3/9] RUN groupadd kit && useradd kit", "[3/9] add the user"),
        ("[4/9] RUN --mount=type=bind,from=kit,source=uv,target=/x /x venv", "[4/9] /x venv"),
        ("[5/9] RUN /run/kit/uv venv /opt", "[5/9] make the virtual environment"),
        ("exporting to image", "exporting to image"),
        ("[internal] load metadata for docker.io/x", "[internal] load metadata for docker.io/x"),
    ],
)
def test_steps_are_named_for_people(name, title):
    assert step_title(name) == title


def test_the_steps_of_kits_own_templates_are_all_named(catalog):
    """Were a template's mount renamed, the titles would silently become shell text."""
    import re

    from kit.render import render_dockerfile

    text = render_dockerfile(catalog, catalog.find("torch2.7-cu126"), None).replace("\\\n", " ")
    commands = [" ".join(line.split()) for line in text.splitlines() if re.match(r"RUN .*kit/begin", line)]
    titles = [step_title(f"[1/1] {command}").removeprefix("[1/1] ") for command in commands]
    assert titles == [
        "install system packages",
        "add the user",
        "make the virtual environment",
        "install the cuda wheels",
        "install the framework wheels",
        "install the apps wheels",
    ]


# -- Podman


def read_podman(name):
    times = iter(datetime(2026, 11, 21, tzinfo=timezone.utc) + timedelta(seconds=n) for n in range(1000))
    log, finished = PodmanLog(clock=lambda: next(times)), []
    for line in (RECORDED.parent / f"podman/{name}.txt").read_text().splitlines():
        finished += log.feed(line)
    return log, finished


def test_a_podman_build_that_works_finishes_every_step_once():
    log, finished = read_podman("ok")
    assert log.failed is None
    assert log.running == []
    titles = [step.title for step in finished]
    assert titles[2] == "[1/2 3/3] echo hi > a.txt"
    assert titles[-3:] == ['[2/2 5/6] echo "second step"', '[2/2 6/6] LABEL "kit.x"="1"', EXPORT]
    assert len(finished) == len({id(step) for step in finished}) == 10
    assert not any(step.cached for step in finished)
    assert all(step.seconds > 0 for step in finished)


def test_what_a_podman_step_says_is_its_own_to_the_last_byte_without_a_newline():
    log, _ = read_podman("ok")
    step = next(s for s in log.steps.values() if "hello" in s.name)
    assert list(step.lines) == ["hello", "grüße", "no newlinedone"]


def test_podman_steps_from_the_cache_are_known_as_such():
    _, finished = read_podman("cached")
    assert [step.cached for step in finished] == ["FROM" not in s.name and s.name != EXPORT for s in finished]


def test_a_failed_podman_step_is_found_with_its_last_lines():
    log, _ = read_podman("fail")
    assert log.failed is not None
    assert log.failed.title.startswith("[2/3] for i in")
    assert log.failed.error == "while running runtime: exit status 3"
    assert log.failed.lines[-1] == "line 60 of the output"


def test_a_podman_step_may_print_errors_and_go_on():
    log = PodmanLog()
    for line in ("STEP 1/2: FROM x", "STEP 2/2: RUN y", "Error: not that bad", "more"):
        log.feed(line)
    assert log.failed is None
    assert [s.name for s in log.running] == ["[2/2] RUN y"]
    assert list(log.running[0].lines) == ["Error: not that bad", "more"]


def test_a_podman_build_that_does_not_begin_has_no_failed_step():
    log, _ = read_podman("flag")
    assert log.failed is None
    assert "Error: unknown flag: --build-context" in log.other


@given(st.lists(st.sampled_from(["STEP 1/2: RUN a", "--> 0123456789ab", "Error: x", "COMMIT x", ""]) | st.text()))
def test_no_line_whatsoever_raises_with_podman(lines):
    log = PodmanLog()
    for line in lines:
        log.feed(line)
    assert log.failed is None or log.failed.error
