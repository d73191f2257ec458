import json
from pathlib import Path

import pytest

RECORDED = Path(__file__).parent.parent / "unit/data/buildx"


@pytest.fixture
def docker(fake_docker, project):
    fake_docker.reply("image", "inspect", code=1, stderr="Error response from daemon: No such image: x\n")
    fake_docker.reply("buildx", "build", stdout=(RECORDED / "ok.jsonl").read_text())
    return fake_docker


def fail(docker, name):
    docker.reply("buildx", "build", stdout=(RECORDED / f"{name}.jsonl").read_text(), code=1)


def test_a_build_tells_its_steps_and_where_it_stands(kit, docker):
    result = kit("build", "tf-cpu")
    assert (result.code, result.out) == (0, "")
    assert any("hello" in line for line in result.err.splitlines()), "one line for each finished step"
    assert result.err.splitlines()[-1].startswith("tf-cpu: built in ")
    assert "\x1b" not in result.err, "plain lines where there is no terminal"


def test_quiet_tells_nothing(kit, docker):
    result = kit("--quiet", "build", "tf-cpu")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_json_has_the_result_and_nothing_else_is_on_standard_output(kit, docker):
    data = json.loads(kit("--json", "build", "tf-cpu").out)
    assert [(row["image"], row["is_new"], row["reference"]) for row in data] == [("tf-cpu", True, "kit/tf-cpu:latest")]


def test_a_failed_build_is_the_step_and_its_last_lines_and_not_a_wall_of_text(kit, docker):
    fail(docker, "fail")
    result = kit("build", "tf-cpu")
    assert result.code == 1
    lines = result.err.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("error: "))
    assert lines[start].startswith('error: the build of tf-cpu failed in the step "[2/2] for i in')
    assert lines[-2:] == ["  line 60 of the output", lines[-1]]
    assert lines[-1].startswith("hint: ")
    assert len(lines) - start <= 17


@pytest.mark.parametrize(("name", "code"), [("full", 14), ("missing", 15), ("refused", 19), ("syntax", 1)])
def test_each_kind_of_failure_has_its_exit_code(kit, docker, name, code):
    fail(docker, name)
    result = kit("build", "tf-cpu")
    assert result.code == code
    assert "Traceback" not in result.err


def test_a_base_that_the_registry_does_not_have(kit, docker):
    docker.reply("buildx", "imagetools", stderr="ERROR: docker.io/library/ubuntu:24.04: not found\n", code=1)
    result = kit("build", "tf-cpu")
    assert result.code == 15
    assert "kit update" in result.err
    assert docker.called("buildx", "build") == []


def test_nothing_named_is_wrong_usage(kit, docker):
    result = kit("build")
    assert result.code == 2
    assert "--all" in result.err


def test_a_certificate_file_that_cannot_be_read_is_wrong_usage(kit, docker):
    result = kit("build", "--ca-cert", "/no/such.pem", "tf-cpu")
    assert result.code == 2
    assert "/no/such.pem cannot be read" in result.err
    assert docker.called("buildx", "build") == []


def test_a_tampered_lock_is_not_built(kit, docker, project):
    file = project.folder / "requirements.lock"
    file.write_text(file.read_text().replace("0" * 64, "1" * 64))
    result = kit("build", "tf-cpu")
    assert result.code == 6
    assert "kit lock tf-cpu" in result.err


@pytest.mark.parametrize("content", ["{", "[]", "", "{}"])
def test_an_unreadable_lock_is_not_built(kit, docker, project, content):
    (project.folder / "lock.json").write_text(content)
    result = kit("build", "tf-cpu")
    assert result.code == 6
    assert len(result.err.splitlines()) == 2


def test_one_failure_of_several_does_not_stop_the_others(kit, docker, project):
    # torch-cpu is not in this project's folder: its lock is missing.
    result = kit("build", "torch-cu126", "tf-cpu")
    assert result.code == 1
    assert "tf-cpu: built in" in result.err
    assert result.err.splitlines()[-1] == "error: 1 of 2 images failed"


def test_an_image_that_is_up_to_date_is_not_built_again(kit, docker, project):
    kit("build", "tf-cpu")
    args = docker.called("buildx", "build")[0].args
    labels = dict(a.removeprefix("--label=").partition("=")[::2] for a in args if a.startswith("--label="))
    docker.has_image(labels)
    result = kit("build", "tf-cpu")
    assert (result.code, result.err) == (0, "tf-cpu: up to date\n")
    assert len(docker.called("buildx", "build")) == 1


def test_very_verbose_shows_every_command(kit, docker):
    assert "kit.process: stream: docker buildx build" in kit("-vv", "build", "tf-cpu").err
