import io
import json
import sys
from dataclasses import replace

import pytest

from kit.catalog import load_catalog
from kit.facts.host import ContainerToolkit, Host
from tests.fake_docker import container
from tests.unit.test_doctor import WSL

NAME = "kit-tf-cpu-jupyter-ab12"
MISSING = 'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].'
NO_DRIVER = "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """The machine that is asked for what proves a cause."""
    host = Host(platform="linux/amd64")
    read = []
    monkeypatch.setattr("kit.host.read_host", lambda target="": read.append(target) or host)

    def put(**facts):
        nonlocal host
        host = replace(WSL, **facts)
        return read

    return put


@pytest.fixture
def stdin(monkeypatch):
    """Sets what standard input has; None: it is a terminal."""

    def put(data):
        stream = io.TextIOWrapper(io.BytesIO(data or b""), encoding="utf-8")
        if data is None:
            stream.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", stream)

    return put


@pytest.fixture
def docker(fake_docker):
    fake_docker.reply("ps", stdout="a\n")
    fake_docker.reply(
        "container", "inspect", stdout=json.dumps([container(NAME, state={"Status": "exited", "ExitCode": 137})])
    )
    return fake_docker


def problem(identifier):
    return next(p for p in load_catalog().problems if p.id == identifier)


def test_a_log_is_explained_the_root_cause_first(kit, tmp_path):
    (tmp_path / "train.log").write_text(f"starting\n{NO_DRIVER}\n{MISSING}\n{NO_DRIVER}\n")
    result = kit("explain", str(tmp_path / "train.log"))
    first, second = problem("no-device-driver"), problem("torch-no-driver")
    assert (result.code, result.out) == (
        0,
        f"line 3: {MISSING} [no-device-driver]\n"
        f"  cause: {first.cause}\n"
        f"  fix: {first.fix}\n"
        "  found by: `kit doctor` (toolkit-missing)\n"
        f"  seen: {first.source}\n"
        "\n"
        f"line 2, 2 times: {NO_DRIVER} [torch-no-driver]\n"
        f"  cause: {second.cause}\n"
        "  follows from: no-device-driver\n"
        f"  fix: {second.fix}\n"
        "  found by: `kit doctor` (driver-missing)\n"
        f"  seen: {second.source}\n",
    )
    assert result.err == "\n2 known problems in 4 lines\n"


def test_a_problem_that_no_check_finds_names_none(kit, tmp_path):
    (tmp_path / "log").write_text("RuntimeError: CUDA error: device-side assert triggered\n")
    result = kit("explain", str(tmp_path / "log"))
    assert (result.code, result.err) == (0, "\n1 known problem in 1 line\n")
    assert "kit doctor" not in result.out


@pytest.mark.parametrize("words", [["explain"], ["explain", "-"]])
def test_standard_input_is_read(kit, stdin, words):
    stdin(MISSING.encode())
    result = kit(*words)
    assert result.code == 0
    assert result.out.startswith("line 1: docker: ")


def test_quiet_leaves_the_result(kit, stdin):
    stdin(MISSING.encode())
    result = kit("-q", "explain")
    assert result.err == ""
    assert "  fix: " in result.out


@pytest.mark.parametrize("words", [["--json", "explain"], ["explain", "--json"]])
def test_for_programs_it_keeps_its_keys(kit, stdin, words):
    stdin(f"x\n{MISSING}\n".encode())
    result = kit(*words)
    known = problem("no-device-driver")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out) == {
        "problems": [
            {
                "id": "no-device-driver",
                "line": 2,
                "text": MISSING,
                "count": 1,
                "causes": [],
                "cause": known.cause,
                "decide": "",
                "fix": known.fix,
                "check": "toolkit-missing",
                "harmless": False,
                "source": known.source,
                "here": None,
            }
        ],
        "lines": 2,
    }


def test_what_is_not_known_is_said_so(kit, tmp_path):
    (tmp_path / "log").write_text("all is well\nor not\n")
    result = kit("explain", str(tmp_path / "log"))
    assert (result.code, result.out) == (1, "")
    lines = result.err.splitlines()
    assert lines[0] == f"error: nothing known in {tmp_path / 'log'} (2 lines)"
    assert lines[1].startswith("hint: `kit doctor` ")


def test_an_empty_log_has_nothing_known(kit, stdin):
    stdin(b"")
    result = kit("explain")
    assert result.code == 1
    assert result.err.startswith("error: nothing known in standard input (0 lines)\n")


def test_nothing_known_is_an_empty_list_for_programs(kit, stdin):
    stdin(b"all is well\n")
    result = kit("explain", "--json")
    assert (result.code, json.loads(result.out)) == (1, {"problems": [], "lines": 1})


def test_secrets_of_the_log_are_not_printed(kit, stdin):
    stdin(b"http://127.0.0.1:8888/?token=4a945b4b262fc0c5 CUDA out of memory\n")
    result = kit("explain")
    assert "4a945b4b262fc0c5" not in result.out
    assert "token=*** CUDA out of memory" in result.out


def test_a_terminal_is_not_waited_for(kit, stdin):
    stdin(None)
    result = kit("explain")
    assert result.code == 2
    assert result.err.splitlines()[0] == "error: no log given"
    assert "| kit explain" in result.err.splitlines()[1]


def test_a_file_that_does_not_exist(kit, tmp_path):
    result = kit("explain", str(tmp_path / "nope.log"))
    assert result.code == 2
    assert result.err.splitlines()[0] == f"error: there is no file {tmp_path / 'nope.log'}"


def test_a_folder_is_no_log(kit, tmp_path):
    result = kit("explain", str(tmp_path))
    assert result.code == 2
    assert result.err.splitlines()[0] == f"error: cannot read {tmp_path}: Is a directory"


@pytest.mark.parametrize("words", [["x.log", "--container", "x"], ["x.log", "--list"], ["--container", "x", "--list"]])
def test_one_log_at_a_time(kit, words):
    result = kit("explain", *words)
    assert result.code == 2
    assert "exclude each other" in result.err


def test_the_list_has_every_row(kit):
    result = kit("explain", "--list")
    assert result.code == 0
    ids = [line.split()[0] for line in result.out.splitlines()]
    assert ids == ["id", *(p.id for p in load_catalog().problems)]


def test_the_list_for_programs(kit):
    rows = json.loads(kit("explain", "--list", "--json").out)
    known = problem("driver-mismatch")
    assert {"id": known.id, "cause": known.cause, "check": "driver-mismatch"} in rows
    assert len(rows) == len(load_catalog().problems)


def test_the_log_of_a_container_and_how_it_ended(kit, docker):
    docker.reply("logs", stdout=f"starting\n{NO_DRIVER}\n")
    docker.reply(
        "container",
        "inspect",
        "--format={{json .State}}",
        stdout=json.dumps({"Running": False, "ExitCode": 137, "OOMKilled": True, "Error": ""}),
    )
    result = kit("explain", "--container", "tf-cpu", "--json")
    found = json.loads(result.out)
    assert result.code == 0
    assert [row["id"] for row in found["problems"]] == ["killed-for-memory", "torch-no-driver"]
    assert found["problems"][0]["text"] == '{"ExitCode": 137, "OOMKilled": true, "Error": ""}'
    assert found["lines"] == 2
    assert docker.called("logs")[0].args[-1] == NAME


def test_a_container_that_runs_and_is_well(kit, docker):
    docker.reply("logs", stdout="starting\n")
    docker.reply(
        "container",
        "inspect",
        "--format={{json .State}}",
        stdout=json.dumps({"Running": True, "ExitCode": 0, "OOMKilled": False}),
    )
    result = kit("explain", "--container", NAME)
    assert result.code == 1
    assert result.err.startswith(f"error: nothing known in the log of {NAME} (1 line)\n")


def test_a_container_that_is_not_kits(kit, docker):
    docker.reply("logs", stderr=MISSING)
    docker.reply("container", "inspect", "--format={{json .State}}", stdout='{"Running": true}')
    result = kit("explain", "--container", "mine")
    assert result.code == 0
    assert "[no-device-driver]" in result.out
    assert docker.called("logs")[0].args[-1] == "mine"


def test_a_container_that_nothing_has(kit, docker):
    docker.reply("ps", "--all", "--quiet", "--filter=name=^/?nothing$", stdout="")
    result = kit("explain", "--container", "nothing")
    assert result.code == 13
    assert result.err.splitlines()[0] == "error: no container of kit's is named 'nothing'"


def test_without_an_engine_a_containers_log_cannot_be_read(kit):
    assert kit("explain", "--container", "x").code == 10


OUT_OF_MEMORY = "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 22.00 MiB."


def test_the_log_of_a_container_that_failed_ends_with_the_cause(kit, docker):
    docker.reply("logs", stdout=f"starting\n{OUT_OF_MEMORY}\n")
    docker.reply("container", "inspect", "--format={{json .State}}", stdout='{"Running": false, "ExitCode": 1}')
    known = problem("gpu-memory-full")
    result = kit("logs", "tf-cpu")
    assert result.code == 0
    assert result.err.endswith(f"cause: {known.cause} [gpu-memory-full]\n  fix: {known.fix}\n")


def test_a_log_that_says_nothing_known_ends_as_it_is(kit, docker):
    docker.reply("logs", stdout="starting\n")
    docker.reply("container", "inspect", "--format={{json .State}}", stdout='{"Running": false, "ExitCode": 1}')
    assert "cause: " not in kit("logs", "tf-cpu").err


def test_a_command_of_the_engine_that_failed_ends_with_the_cause(kit, docker):
    docker.reply("rm", code=1, stderr="exec /start.sh: exec format error\n")
    result = kit("rm", "tf-cpu")
    known = problem("exec-format")
    assert result.code == 12
    assert result.err.endswith(f"cause: {known.cause} [exec-format]\n  decide: {known.decide}\n  fix: {known.fix}\n")


ERROR_500 = "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 500: named symbol not found"


@pytest.mark.parametrize("options", [(), ("--host", "me@gpu1")])
def test_the_facts_of_the_machine_prove_a_cause(kit, stdin, machine, options):
    read = machine(driver="560.70", toolkit=ContainerToolkit(version="1.13.5"))
    stdin(ERROR_500.encode())
    result = kit("explain", *options)
    assert result.code == 0
    assert "  proven here: " in result.out
    assert "1.13.5" in result.out
    assert "  fix here: " in result.out
    assert read == [options[-1] if options else ""]
    stdin(ERROR_500.encode())
    (row,) = json.loads(kit("explain", "--json", *options).out)["problems"]
    assert row["id"] == "wsl-driver-too-new-for-toolkit"
    assert "1.13.5" in row["here"]["message"]


def test_a_machine_that_is_well_proves_nothing(kit, stdin, machine):
    machine(driver="560.70", toolkit=ContainerToolkit(version="1.17.4"))
    stdin(ERROR_500.encode())
    result = kit("explain")
    assert "proven" not in result.out
    assert "found by: `kit doctor` (toolkit-version)" in result.out


def test_a_machine_is_not_read_for_a_cause_that_no_check_finds(kit, stdin, machine):
    read = machine()
    stdin(b"RuntimeError: CUDA error: device-side assert triggered\n")
    assert kit("explain").code == 0
    assert read == []
