import os
import subprocess
import sys

import click
import pytest

from kit import cli
from kit.cli import output
from kit.errors import KitError
from tests.fake_docker import info


def fails_with(monkeypatch, error):
    @click.command()
    def command():
        raise error

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: command)


def test_an_error_is_what_happened_and_what_to_do_next(kit):
    result = kit("show", "nope")
    assert (result.code, result.out) == (4, "")
    lines = result.err.splitlines()
    assert len(lines) == 2
    assert lines[0] == "error: there is no image `nope`"
    assert lines[1].startswith("hint: ")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("torch-cu12", "torch-cu12"),
        ("tf-cpuu", "tf-cpu"),
        ("torhc-cu126", "torch-cu126"),
        ("torch2.7-cu125", "torch2.7-cu126"),
    ],
)
@pytest.mark.parametrize("command", ["run", "build"])
def test_an_unknown_image_is_answered_with_the_nearest(kit, command, name, nearest):
    result = kit(command, name)
    assert result.code == 4
    assert nearest in result.err.splitlines()[1]


def test_details_are_between_the_two_lines(kit, monkeypatch):
    fails_with(monkeypatch, KitError("what", hint="next", details=("one", "two")))
    assert kit("list").err == "error: what\n  one\n  two\nhint: next\n"


def test_an_error_without_a_hint_is_one_line(kit, monkeypatch):
    fails_with(monkeypatch, KitError("what"))
    assert kit("list").err == "error: what\n"


@pytest.mark.parametrize("switch", [["--debug"], []])
def test_debug_shows_the_traceback_and_keeps_the_exit_code(kit, switch):
    result = kit(*switch, "show", "nope")
    assert result.code == 4
    assert ("Traceback (most recent call last)" in result.err) is bool(switch)
    assert "error: there is no image `nope`" in result.err


def test_kit_debug_in_the_environment_does_the_same(kit, monkeypatch):
    monkeypatch.setenv("KIT_DEBUG", "1")
    assert "Traceback" in kit("show", "nope").err


def test_a_debug_option_of_the_program_that_is_run_is_not_kits(kit):
    result = kit("run", "nope", "python", "--debug")
    assert result.code == 4
    assert "Traceback" not in result.err


def test_a_defect_of_kit_is_told_as_one_with_its_own_exit_code(kit, monkeypatch):
    fails_with(monkeypatch, ZeroDivisionError("division by zero"))
    result = kit("list")
    assert result.code == 70
    assert result.err.splitlines()[0] == "error: unexpected ZeroDivisionError: division by zero"
    assert "--debug" in result.err.splitlines()[1]
    assert "Traceback" not in result.err
    assert "Traceback" in kit("--debug", "list").err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_is_no_error(kit, monkeypatch, error):
    fails_with(monkeypatch, error)
    result = kit("list")
    assert (result.code, result.err.strip()) == (130, "interrupted")


@pytest.mark.parametrize("words", [["list", "--all"], ["--json", "list"], ["--help"]])
def test_a_reader_that_goes_away_is_no_error(words):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "kit", *words], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "words",
    [
        ["ps"],
        ["build", "tf-cpu"],
        ["run", "tf-cpu", "true"],
        ["logs", "x"],
        ["url", "x"],
        ["exec", "x"],
        ["stop", "x"],
        ["rm", "x"],
        ["stop", "--all"],
    ],
)
def test_without_an_engine_every_command_that_needs_one_says_how_to_get_one(kit, words):
    result = kit(*words)
    assert result.code == 10
    assert result.err.splitlines() == [
        "error: no container engine answers",
        "hint: start kit's private engine with `kit engine up`, or install Docker Engine",
    ]


def test_an_engine_that_does_not_answer_is_told_the_same(kit, fake_docker):
    fake_docker.reply(
        "ps", code=1, stderr="Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?"
    )
    result = kit("ps")
    assert result.code == 10
    assert result.err.splitlines()[-1].startswith("hint: start kit's private engine")


def test_a_context_that_does_not_exist_is_told(kit, fake_docker):
    fake_docker.reply(
        "ps",
        code=1,
        stderr='Failed to initialize: unable to resolve docker endpoint: context "x": context '
        "not found: open /root/.docker/x: no such file or directory",
    )
    result = kit("ps")
    assert result.code == 10
    assert "docker context" in result.err.splitlines()[-1]


def test_an_engine_without_buildx_has_its_own_exit_code(kit, fake_docker, project):
    fake_docker.reply("image", "inspect", code=1, stderr="Error response from daemon: No such image: x")
    fake_docker.reply("buildx", code=1, stderr="docker: unknown command: docker buildx")
    assert kit("build", "tf-cpu").code == 11


def test_a_gpu_that_cannot_be_had_has_its_own_exit_code(kit, fake_docker):
    fake_docker.reply("info", stdout=info())
    result = kit("run", "--gpus", "all", "torch-cu126", "true")
    assert result.code == 17
    assert fake_docker.called("buildx") == [], "known before anything is built"


def test_an_unreadable_table_has_its_own_exit_code(kit, monkeypatch, tmp_path):
    (tmp_path / "frameworks.toml").write_text("[[release]\n")
    monkeypatch.setattr("kit.paths.catalog_dir", lambda: tmp_path)
    result = kit("list")
    assert result.code == 5
    assert "frameworks.toml is not valid TOML" in result.err
    assert "line 1" in result.err


def test_quiet_silences_what_goes_on_and_not_errors(capfd):
    output.say(cli.Options(quiet=True), "working")
    output.say(cli.Options(), "working too")
    output.print_error(KitError("what"))
    assert capfd.readouterr().err == "working too\nerror: what\n"


def test_data_goes_to_standard_output(capfd):
    output.print_json({"name": "grüße"})
    output.print_table(["A", "LONG"], [["1", "2"], ["333", ""]])
    printed = capfd.readouterr()
    assert printed.out == '{\n  "name": "grüße"\n}\nA    LONG\n1    2\n333\n'
    assert printed.err == ""
