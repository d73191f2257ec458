"""kit.decide.explain and its table: each recorded line is recognised for what it is, and healthy logs for nothing."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import redact
from kit.catalog import load_catalog
from kit.catalog.rows import Problem, Status
from kit.cli import COMMANDS, group
from kit.decide import explain as module
from kit.decide.doctor import CHECKS, identifier
from kit.decide.explain import OVERLAP_BYTES, PIECE_BYTES, Known, Match, explain_lines, known_errors, numbered_lines

CATALOG = load_catalog()
KNOWN = known_errors(CATALOG)
PROBLEMS = CATALOG.problems
STATUSES = {f"{status.family}-{status.code}" for status in CATALOG.statuses}
EXAMPLES = [(problem, example) for problem in PROBLEMS for example in problem.examples]

ERRORS = Path(__file__).parent / "data" / "errors"
TEXTS = list(csv.DictReader((ERRORS / "expected.tsv").open(encoding="utf-8"), delimiter="\t"))
HEALTHY = sorted((Path(__file__).parent / "data" / "healthy_logs").glob("*.log"))


def explain(text: str, problems: Sequence[Problem]) -> list[Match]:
    known = KNOWN if problems is PROBLEMS else Known(problems=problems)
    return list(explain_lines(enumerate(text.split("\n"), start=1), known).matches)


def ids(text: str) -> list[str]:
    return [match.problem.id for match in explain(text, PROBLEMS)]


def of_rows(text: str) -> list[str]:
    """As `ids`; of a status of NVIDIA's lists, the row that looks it up."""
    looked_up = {"cuda": "cuda-status", "driver": "cuda-status", "cublas": "library-status", "cudnn": "library-status"}
    looked_up |= {"nccl": "nccl-status", "xid": "xid"}
    own = {problem.id for problem in PROBLEMS}
    return [name if name in own else looked_up[name.partition("-")[0]] for name in ids(text)]


def row(**changes: object) -> Problem:
    values: dict[str, object] = {
        "id": "one",
        "hints": ("broken",),
        "patterns": ("it is broken",),
        "examples": (),
        "cause": "",
        "fix": "",
        "source": "",
        "verified": "",
    }
    return Problem(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("problem", "example"), EXAMPLES, ids=[p.id for p, _ in EXAMPLES])
def test_each_recorded_line_is_recognised_and_no_other_row_claims_it(problem: Problem, example: str) -> None:
    assert of_rows(example) == [problem.id]
    if not any(pattern.startswith(("^", "(?:^")) for pattern in problem.patterns):
        indented = example.replace("\n", "\r\n  \x1b[31m")
        assert of_rows(f"a line before\n  \x1b[31m{indented}\x1b[0m\r\na line after") == [problem.id], (
            "colours, indents and line ends of Windows do not matter"
        )


@pytest.mark.parametrize("problem", PROBLEMS, ids=[p.id for p in PROBLEMS])
def test_each_row_keeps_the_rules_of_the_table(problem: Problem) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", problem.id)
    assert problem.examples
    assert problem.hints
    assert problem.cause.endswith((".", ")"))
    assert problem.fix
    assert not problem.fix.endswith("."), "as in kit doctor: a fix is no sentence"
    assert not problem.decide.endswith(".")
    assert re.search(r"https://", problem.source), "where the line was seen"
    assert problem.verified in ("one-source", "two-sources")
    assert problem.verified == "one-source" or problem.source.count("https://") + problem.source.count(", ") > 0
    assert all(hint == hint.lower() and len(hint) >= 3 for hint in problem.hints)
    assert all(part == part.lower() for part in (*problem.near, *problem.unless, *problem.cured_by))
    assert not (problem.symptom and problem.explains), "a symptom explains nothing"
    assert not (problem.harmless and (problem.symptom or problem.explains))


@pytest.mark.parametrize("problem", PROBLEMS, ids=[p.id for p in PROBLEMS])
def test_each_pattern_is_of_use_and_has_a_hint(problem: Problem) -> None:
    for pattern in problem.patterns:
        lines = [line for e in problem.examples for line in e.split("\n")]
        seen = [line for line in lines if re.search(pattern, line, re.IGNORECASE)]
        assert seen, f"no example has {pattern!r}"
        if "(?P<" not in pattern:  # the names of a list are hints too
            assert all(any(hint in line.lower() for hint in problem.hints) for line in seen)


def test_what_rows_explain_is_known_and_no_two_explain_each_other() -> None:
    explains = {problem.id: problem.explains for problem in PROBLEMS}
    assert {name for names in explains.values() for name in names} <= {*explains, *STATUSES}

    def above(name: str, seen: tuple[str, ...]) -> None:
        assert name not in seen, seen
        for other in explains.get(name, ()):
            above(other, (*seen, name))

    for problem in PROBLEMS:
        above(problem.id, ())


def test_the_checks_that_rows_name_are_those_of_the_doctor() -> None:
    known = {identifier(check) for check in CHECKS}
    assert {problem.check for problem in PROBLEMS if problem.check} <= known


def test_the_commands_that_rows_name_exist() -> None:
    for problem in PROBLEMS:
        for name, rest in re.findall(r"`kit (\w+)([^`]*)`", f"{problem.cause} {problem.fix}"):
            assert name in COMMANDS, problem.id
            command = group.get_command(click.Context(group), name)
            assert command is not None
            options = {option for parameter in command.params for option in parameter.opts}
            assert set(re.findall(r"--[a-z-]+", rest)) <= options, problem.id


def test_there_are_many_rows_and_every_important_check_has_one() -> None:
    assert len(PROBLEMS) >= 90
    assert {p.check for p in PROBLEMS} >= {
        "driver-missing",
        "driver-mismatch",
        "driver-old",
        "nouveau",
        "gpu-lost",
        "gpu-unsupported",
        "gpu-busy",
        "toolkit-missing",
        "toolkit-unconfigured",
        "cdi-missing",
        "cdi-stale",
        "cgroup-reload",
        "engine-down",
        "engine-permission",
        "buildx-missing",
        "disk-low",
        "memory-low",
        "shm-small",
        "ports-busy",
        "ca-missing",
        "registry-unreachable",
        "index-unreachable",
    }


@pytest.mark.parametrize("row", TEXTS, ids=[row["id"] for row in TEXTS])
def test_the_first_cause_of_a_text_that_somebody_printed_is_right(row: dict[str, str]) -> None:
    with (ERRORS / f"{row['id']}.log").open("rb") as log:
        report = explain_lines(numbered_lines(log), KNOWN)
    assert report.cause
    assert report.cause.problem.id == row["problem"], row["right_answer"]


def test_each_text_has_its_line_and_its_thread() -> None:
    assert {row["id"] for row in TEXTS} == {file.stem for file in ERRORS.glob("*.log")}
    assert len(TEXTS) >= 140
    assert all(row["source"] and row["right_answer"] for row in TEXTS)


@pytest.mark.parametrize(
    ("text", "ids_found"),
    [
        # The same words with another subject.
        ("inotify_add_watch /data: no space left on device", ["inotify-limit"]),
        ("write /var/lib/docker/tmp/x: no space left on device", ["disk-full"]),
        ("OSError: [Errno 28] No space left on device: '/dev/shm/x'", ["shared-memory-full"]),
        ("OSError: [Errno 122] Disk quota exceeded", ["disk-quota"]),
        ('could not select device driver "cdi" with capabilities: []', ["cdi-not-enabled"]),
        ('could not select device driver "" with capabilities: [[gpu]]', ["no-device-driver"]),
        ("exec /bin/bash: exec format error", ["wrong-platform"]),
        ("exec /entrypoint.sh: exec format error", ["exec-format"]),
        ("certificate verify failed: unable to get local issuer certificate", ["certificate-private"]),
        ("certificate verify failed: certificate has expired", ["certificate-expired"]),
        ("certificate verify failed: certificate is not yet valid", ["clock-wrong"]),
        ("certificate verify failed: Hostname mismatch, certificate is not valid for 'a'", ["certificate-other-name"]),
        ("certificate verify failed (_ssl.c:852)", ["certificate-unclear"]),
        (
            "x509: certificate has expired or is not yet valid: current time 2026-03-01T00:00:12Z is after 2025-05-01",
            ["certificate-expired"],
        ),
        ("No matching distribution found for torch (from versions: none)", ["pip-no-such-version"]),
        ("requirement torch==9 (from versions: none)", []),
        ("Could not find a version that satisfies the requirement torch==9 (from versions: none)", ["pip-none-found"]),
        ("OSError: [Errno 98] Address already in use", ["port-in-use"]),
        ("bind [127.0.0.1]:8888: Address already in use", ["port-forward-taken"]),
        ("[I 10:29:48.671 NotebookApp] The port 8888 is already in use, trying another port.", ["jupyter-port"]),
        ("libcuda.so.1: cannot open shared object file: No such file or directory", ["no-libcuda"]),
        ("libcuda.so: cannot open shared object file: No such file or directory", ["libcuda-without-version"]),
        (
            "ImportError: libsndfile.so.1: cannot open shared object file: No such file or directory",
            ["library-missing"],
        ),
        (
            "OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 16: Operation not permitted",
            ["clone3-refused"],
        ),
        (
            "OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 16: Resource temporarily unavailable",
            ["threads-limit"],
        ),
        ("toomanyrequests: You have reached your pull rate limit.", ["registry-rate-limit"]),
        ("toomanyrequests: retry-after: 35.2s, allowed: 44000/minute", ["registry-limit"]),
        (
            "urllib3.exceptions.ReadTimeoutError: UnixHTTPConnectionPool(host='localhost', port=None): Read timed out.",
            ["engine-slow"],
        ),
        ("ReadTimeoutError: HTTPSConnectionPool(host='index.example', port=443): Read timed out.", ["pip-timeout"]),
        ("nvidia-container-cli: initialization error: cuda error: invalid device ordinal", ["toolkit-cuda-error"]),
        ("RuntimeError: CUDA error: invalid device ordinal", ["invalid-device"]),
        ('exec: "runc": executable file not found in $PATH', ["oci-runtime-missing"]),
        ('exec: "python": executable file not found in $PATH', ["command-not-in-image"]),
        (
            "ImportError: libtorch_cuda_cu.so: cannot open shared object file: No such file or directory",
            ["extension-other-torch"],
        ),
        ("ModuleNotFoundError: No module named 'torch'", ["module-missing"]),
        ("Getting requirements to build wheel\nModuleNotFoundError: No module named 'torch'", ["build-isolation"]),
        (
            "Could not load dynamic library 'libnvinfer.so.7'; dlerror: libnvinfer.so.7: cannot open shared object",
            ["tf-no-tensorrt"],
        ),
        ("Failed to initialize NVML: Unknown Error", ["gpu-lost-in-container"]),
        # Xid 63 is good news, 64 is not.
        ("NVRM: Xid (PCI:0000:44:00): 63, pid=1896, Row Remapper: New row marked for remapping", ["xid-63"]),
        ("NVRM: Xid (PCI:0000:44:00): 74, pid=1896, NVLink: fatal error detected on link 2", ["xid-74"]),
        ("NVRM: Xid (PCI:0000:44:00): 999, nobody knows", []),
        # Other languages.
        ("bash: nvidia-smi: 未找到命令", ["no-nvidia-smi"]),
        ("OSError: [Errno 28] 设备上没有空间: '/data/x'", ["no-space"]),
        ("OSError: [Errno 24] 打开的文件过多: 'x'", ["open-files-limit"]),
        ("train.sh：行 3：  2741 已杀死                  python train.py", ["killed"]),
        ("OSError: [Errno 12] 无法分配内存", ["memory-full"]),
        ("E: 无法定位软件包 nvidia-container-toolkit", ["apt-no-package"]),
        # What is no error.
        ("0 errors, 0 warnings; exit code 0", []),
        ("The process was not killed", []),
        ("Successfully installed torch-2.7.1", []),
        ("loading nvidia_uvm: module verification passed, certificate ok", []),
        ("checked 137 files: exit code 1", []),
        ("Cloning into 'killed'...", []),
        ("step 500: named symbol table built", []),
        ("requests: 407, errors: 0", []),
        ("connection pool ready, lookup took 3 ms", []),
        ("cudaErrorCounter = 0", []),
    ],
)
def test_neighbours_are_told_apart(text: str, ids_found: list[str]) -> None:
    assert ids(text) == ids_found


def test_the_lists_of_nvidia_are_whole() -> None:
    count = Counter(status.family for status in CATALOG.statuses)
    # The numbers of driver_types.h and cuda.h of CUDA 12.8 without success, cublas_api.h, cudnn_graph.h with its older
    # names, nccl.h, and nverror.h with the catalog.
    assert count == {"cuda": 133, "driver": 99, "cublas": 9, "cudnn": 51, "nccl": 8, "xid": 176}
    assert {status.code for status in CATALOG.statuses if status.family == "xid"} == set(range(1, 177))
    actions = {action.name for action in CATALOG.actions}
    assert {status.action for status in CATALOG.statuses} <= actions
    assert {status.next_action for status in CATALOG.statuses} <= {*actions, ""}
    unlisted = [s.code for s in CATALOG.statuses if s.family == "xid" and s.action == "XID_UNLISTED"]
    assert len(unlisted) <= 20, "NVIDIA's own action for all others"


@pytest.mark.parametrize("status", CATALOG.statuses, ids=lambda status: status.name)
def test_each_status_is_recognised_by_its_name_or_number(status: Status) -> None:
    line = (
        f"NVRM: Xid (PCI:0000:0a:00): {status.code}, pid=1" if status.family == "xid" else f"it returned {status.name}"
    )
    (match,) = explain(line, PROBLEMS)
    assert match.problem.cause
    assert match.problem.fix


def test_every_errno_is_known_in_chinese() -> None:
    translated = {row.english for row in CATALOG.translations if row.source == "glibc zh_CN"}
    names = {os.strerror(number) for number in errno.errorcode}
    assert len(names - translated) <= 3
    assert [row.text for row in CATALOG.translations] == sorted(
        (row.text for row in CATALOG.translations), key=len, reverse=True
    ), "a text before those that are parts of it"


@pytest.mark.parametrize("file", HEALTHY, ids=lambda file: file.stem)
def test_a_healthy_log_has_nothing(file: Path) -> None:
    matches = explain(file.read_text(encoding="utf-8"), PROBLEMS)
    assert [match.problem.id for match in matches if not match.problem.harmless] == []


def test_there_are_healthy_logs() -> None:
    assert len(HEALTHY) >= 7


@pytest.mark.parametrize("pattern", sorted({p for problem in PROBLEMS for p in problem.patterns}))
def test_no_pattern_can_take_long(pattern: str) -> None:
    """By its form: no unbounded repetition of a group or of any character, so no two ways to read the same text."""
    re.compile(pattern, re.IGNORECASE)
    plain = re.sub(r"\\.|\[[^\]]*\]", "x", pattern)  # without escapes and character classes
    assert not re.search(r"\)[*+]|\)\{\d*,\}", plain), "a group that is repeated without a bound"
    assert not re.search(r"[*+]|\{\d*,\}", plain), "every repetition has a bound"
    gaps = [int(bound) for bound in re.findall(r"\{\d*,(\d+)\}", plain)]
    assert sum(gap > 80 for gap in gaps) <= 1, "two wide gaps try each way to share a line"


@pytest.mark.parametrize("problem", PROBLEMS, ids=[p.id for p in PROBLEMS])
def test_a_line_made_to_be_slow_is_read(problem: Problem) -> None:
    almost = problem.examples[0].replace("\n", " ")[:-1]
    for text in (almost * 50, problem.hints[0] * 500, problem.hints[0] + "a" * 20_000, problem.hints[0] + "(" * 20_000):
        assert all(match.line == 1 for match in explain(text, (problem,)))


def test_the_root_cause_comes_before_what_follows_from_it() -> None:
    log = (
        "RuntimeError: Found no NVIDIA driver on your system. Please check\n"
        "Failed to initialize NVML: Unknown Error\n"
        "NVRM: Xid (PCI:0000:44:00): 79, GPU has fallen off the bus\n"
    )
    assert ids(log) == ["gpu-off-the-bus", "gpu-lost-in-container", "torch-no-driver"]
    assert explain(log, PROBLEMS)[-1].causes == ("gpu-lost-in-container", "gpu-off-the-bus")


def test_of_two_rows_one_line_stands_for_the_first_of_the_table() -> None:
    line = "nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown"
    assert ids(line) == ["driver-not-loaded"]
    assert [m.problem.id for m in explain("it is broken", (row(id="special"), row(id="general")))] == ["special"]


def test_what_nothing_joins_comes_in_the_order_of_the_log() -> None:
    rows = (row(id="b", patterns=("b broken",)), row(id="a", patterns=("a broken",)))
    assert [(m.problem.id, m.line) for m in explain("a broken\nb broken", rows)] == [("a", 1), ("b", 2)]


def test_a_cause_comes_before_what_it_explains_however_far_above_or_below() -> None:
    rows = (
        row(id="end", patterns=("the end is broken",)),
        row(id="middle", patterns=("the middle is broken",), explains=("end",)),
        row(id="root", patterns=("the root is broken",), explains=("middle",)),
    )
    log = "the end is broken\n" + "fine\n" * 1000 + "the middle is broken\n" + "fine\n" * 1000 + "the root is broken"
    found = explain(log, rows)
    assert [(m.problem.id, m.causes) for m in found] == [("root", ()), ("middle", ("root",)), ("end", ("middle",))]


def test_a_symptom_is_explained_by_anything_else_but_by_what_is_harmless() -> None:
    rows = (
        row(id="symptom", patterns=("it ended broken",), symptom=True),
        row(id="harmless", patterns=("a little broken",), harmless=True),
        row(id="cause", patterns=("really broken",)),
    )
    found = explain("a little broken\nit ended broken\nreally broken", rows)
    assert [(m.problem.id, m.causes) for m in found] == [("cause", ()), ("symptom", ("cause",)), ("harmless", ())]
    assert [m.causes for m in explain("a little broken\nit ended broken", rows)] == [(), ()]


def test_what_a_later_line_cures_is_no_error() -> None:
    rows = (row(cured_by=("all is well",)), row(id="other", patterns=("other broken",)))
    assert explain("it is broken\nit is broken\nALL IS WELL", rows) == []
    assert explain("it is broken\nall is well\nit is broken", rows)
    assert [m.problem.id for m in explain("it is broken\nother broken\nall is well", rows)] == ["other"]
    far = "fine\n" * 1000
    assert explain(f"it is broken\n{far}all is well", rows) == []


@pytest.mark.parametrize("lines", [0, 1, module.WINDOW, module.WINDOW + 1])
@pytest.mark.parametrize("before", [0, module.BLOCK_LINES - 3, module.BLOCK_LINES - 1, 5 * module.BLOCK_LINES])
def test_what_must_or_must_not_stand_near_is_looked_for_on_both_sides(lines: int, before: int) -> None:
    wants, excludes = row(near=("the subject",)), row(unless=("the subject",))
    far, near = "fine\n" * before, lines <= module.WINDOW
    between = "\n" * lines if lines else " "
    for log in (f"{far}THE subject{between}it is broken", f"{far}it is broken{between}the Subject"):
        assert bool(explain(log, (wants,))) == near
        assert bool(explain(log, (excludes,))) != near
    assert not explain("it is broken", (wants,))
    assert explain("it is broken", (excludes,))


def test_each_row_once_with_its_count_and_first_line() -> None:
    report = explain_lines(
        enumerate(["", "it is broken 1", "fine", "IT IS BROKEN 2"], start=1), Known(problems=(row(),))
    )
    assert [(m.line, m.text, m.count) for m in report.matches] == [(2, "it is broken 1", 2)]
    assert report.lines == 4


def test_parts_of_a_line_that_a_progress_bar_or_json_joined() -> None:
    bar = "  0%|          | 0/391\r 50%|█████     | it is broken\r100%|██████████|"
    assert explain(bar, (row(),))[0].text == "50%|█████ | it is broken"
    json_log = '{"log":"fine\\r\\nit is broken\\nfine","stream":"stderr"}'
    assert explain(json_log, (row(),))[0].text == "it is broken"


def test_colours_inside_a_text_do_not_hide_it() -> None:
    assert explain("it \x1b[1;31mis\x1b[0m bro\x1b]8;;x\x07ken", (row(),))


def test_a_long_line_is_shown_around_what_was_found() -> None:
    text = explain("x" * 500 + " it is broken " + "y" * 500, (row(),))[0].text
    assert "it is broken" in text
    assert text[0] == text[-1] == "…"
    assert len(text) == module.SHOWN + 2


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("http://127.0.0.1:8888/lab?token=4a945b4b262fc0c58fef", "4a945b4b262fc0c58fef"),
        ("Get https://me:se%20cret@proxy:3128/v2/", "se%20cret"),
        ("Authorization: token 8f024144ef92336602a1", "8f024144ef92336602a1"),
        ("authorization: Bearer eyJhbGciOi.J9", "eyJhbGciOi"),
        ("-H 'Authorization: Basic dXNlcjpwYXNzd29yZA=='", "dXNlcjpwYXNzd29yZA"),
        ("HF_TOKEN=hf_abcdefghijklmnop1234", "abcdefghijklmnop"),
        ("using hf_abcdefghijklmnop1234 now", "abcdefghijklmnop"),
        ("AWS_SECRET_ACCESS_KEY: wJalrXUtnFEMI", "wJalrXUtnFEMI"),
        ('{"password": "hunter22", "x": 1}', "hunter22"),
        ("data?Expires=1&Signature=NRKvCXmfbeNeq7&Key-Pair-Id=K", "NRKvCXmfbeNeq7"),
        ("login?next=%2Ftree%3Ftoken%3D8f024144ef92", "8f024144ef92"),
    ],
)
def test_secrets_are_not_shown(text: str, without: str) -> None:
    assert without not in redact.text(text)
    assert "***" in redact.text(text)
    (match,) = explain(f"{text} it is broken", (row(),)) or explain(f"it is broken {text}", (row(),))
    assert without not in match.text


@pytest.mark.parametrize("example", [example for _, example in EXAMPLES])
def test_what_is_no_secret_is_shown(example: str) -> None:
    assert redact.text(example) == example


@given(st.text(), st.lists(st.sampled_from([e for _, e in EXAMPLES]), max_size=3))
def test_any_text_is_survived(noise: str, lines: list[str]) -> None:
    matches = explain("\n".join([noise, *lines, noise]), PROBLEMS)
    assert len(matches) == len({match.problem.id for match in matches})
    assert all(match.count >= 1 and match.line >= 1 for match in matches)


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(noise: bytes) -> None:
    stream = io.BytesIO(noise + b"\nit is broken\n" + noise)
    report = explain_lines(numbered_lines(stream), Known(problems=(row(),)))
    assert report.matches
    assert report.lines == noise.count(b"\n") * 2 + 2 + (bool(noise) and not noise.endswith(b"\n"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gbk", "latin-1"])
def test_any_encoding_is_read(encoding: str) -> None:
    report = explain_lines(
        numbered_lines(io.BytesIO("eins\r\nit is broken\r\n".encode(encoding))), Known(problems=(row(),))
    )
    assert [m.line for m in report.matches] == [2]


def test_a_file_without_line_ends_is_read_in_pieces() -> None:
    pieces = list(numbered_lines(io.BytesIO(b"x" * (3 * PIECE_BYTES + 1) + b"\nend")))
    assert [number for number, _ in pieces] == [1, 1, 1, 1, 2]
    assert max(len(text) for _, text in pieces) <= PIECE_BYTES + OVERLAP_BYTES


@pytest.mark.parametrize("shift", range(-60, 21, 4))
def test_an_error_across_the_end_of_a_piece_is_read(shift: int) -> None:
    log = b"x" * (PIECE_BYTES + shift) + b" it is broken " + b"y" * 2 * PIECE_BYTES
    assert explain_lines(numbered_lines(io.BytesIO(log)), Known(problems=(row(),))).matches


def test_escapes_that_a_notebook_wrote_down_are_read() -> None:
    cell = r""""\u001b[0;31mRuntimeError\u001b[0m: it \u001b[1mis\u001b[0m broken\n","""
    assert [m.text for m in explain(cell, (row(),))] == ['"RuntimeError: it is broken']


def test_the_work_grows_with_the_log_and_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns are tried on lines that have a hint alone, and only some lines are held at a time."""
    tried = 0
    compiled = module._compiled

    def counted(pattern: str) -> re.Pattern[str]:
        nonlocal tried
        tried += 1
        return compiled(pattern)

    monkeypatch.setattr(module, "_compiled", counted)
    alive: weakref.WeakSet[Line] = weakref.WeakSet()

    def lines(count: int) -> Iterator[tuple[int, str]]:
        for number in range(1, count + 1):
            text = f"{number} CUDA out of memory" if number % 100 == 0 else f"step {number}: loss 0.1234, 18.4 it/s"
            line = Line(text)
            alive.add(line)
            assert len(alive) <= 3 * module.BLOCK_LINES + module.REMEMBERED
            yield number, line

    work = []
    for count in (1_000, 2_000, 4_000):
        tried = 0
        report = explain_lines(lines(count), KNOWN)
        assert (report.lines, report.matches[0].count) == (count, count // 100)
        work.append(tried)
    assert [later - earlier for earlier, later in pairwise(work)] == [10, 20]


class Line(str):
    """A text that can be watched, and that is only equal to itself."""

    __slots__ = ("__weakref__",)
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other
