import json

import pytest

from tests.fake_docker import container

NAME = "kit-tf-cpu-jupyter-ab12"


@pytest.fixture
def docker(fake_docker):
    fake_docker.reply("ps", stdout="a\nb\n")
    fake_docker.reply(
        "container",
        "inspect",
        stdout=json.dumps(
            [
                container(NAME),
                container("kit-tf-cpu-run-cd34", labels={"kit.service": ""}, state={"Status": "exited"}),
            ]
        ),
    )
    fake_docker.reply("container", "inspect", NAME, stdout=json.dumps([container(NAME)]))
    fake_docker.reply(
        "container",
        "inspect",
        "kit-tf-cpu-run-cd34",
        stdout=json.dumps([container("kit-tf-cpu-run-cd34", state={"Status": "exited"})]),
    )
    fake_docker.reply(
        "container",
        "inspect",
        "a",
        "b",
        stdout=json.dumps(
            [
                container(NAME),
                container("kit-tf-cpu-run-cd34", labels={"kit.service": ""}, state={"Status": "exited"}),
            ]
        ),
    )
    return fake_docker


def test_ps_lists_what_runs_without_its_token(kit, docker):
    result = kit("ps")
    assert result.code == 0
    assert [line.split() for line in result.out.splitlines()] == [
        ["NAME", "SERVICE", "STATUS", "URL"],
        [NAME, "jupyter", "running", "http://127.0.0.1:8890/lab"],
    ]
    assert "se=cret" not in result.out, "a list is shown to others; `kit url` is not"


def test_ps_all_lists_what_ended_too(kit, docker):
    result = kit("ps", "--all")
    assert result.out.splitlines()[-1].split() == ["kit-tf-cpu-run-cd34", "command", "exited", "(0)"]


def test_ps_for_programs_keeps_its_keys(kit, docker):
    data = json.loads(kit("--json", "ps").out)
    assert len(data) == 1
    assert data[0] == {
        "name": NAME,
        "image": "tf-cpu",
        "service": "jupyter",
        "status": "running",
        "gpus": "",
        "lease": [],
        "url": "http://127.0.0.1:8890/lab?token=se=cret",
        "host": "",
        "user": "1000:1000",
        "owner": "alice",
        "exit_code": None,
    }


def test_ps_of_nothing(kit, fake_docker):
    result = kit("ps")
    assert (result.code, result.out, result.err) == (0, "", "nothing runs\n")
    assert json.loads(kit("--json", "ps").out) == []
    assert kit("--quiet", "ps").err == ""


def test_url_prints_the_url_with_its_token_and_nothing_else(kit, docker):
    result = kit("url", "tf-cpu")
    assert (result.code, result.out, result.err) == (0, "http://127.0.0.1:8890/lab?token=se=cret\n", "")
    assert json.loads(kit("--json", "url", "tf-cpu").out) == {
        "name": NAME,
        "url": "http://127.0.0.1:8890/lab?token=se=cret",
        "host": "",
    }


def test_url_of_what_has_none(kit, docker):
    result = kit("url", "kit-tf-cpu-run-cd34")
    assert result.code == 13
    assert "is no running service (status: exited)" in result.err


@pytest.mark.parametrize("command", ["logs", "url", "exec", "stop", "rm"])
def test_a_name_that_nothing_has(kit, docker, command):
    result = kit(command, "nothing")
    assert result.code == 13
    assert result.err.splitlines()[0] == "error: no container of kit's is named 'nothing'"
    assert f"  {NAME}" in result.err.splitlines()


def test_logs_are_the_engines_own(kit, docker):
    docker.reply("logs", stdout="out\n", stderr="err\n", code=0)
    result = kit("logs", "--tail", "5", "tf-cpu")
    assert (result.code, result.out, result.err) == (0, "out\n", "err\n")
    assert docker.called("logs")[0].args == ["logs", "--tail=5", NAME]
    kit("logs", "-f", NAME)
    assert docker.called("logs")[1].args == ["logs", "--follow", NAME]


def test_exec_passes_words_and_exit_code_on(kit, docker):
    docker.reply("exec", code=3)
    assert kit("exec", "tf-cpu", "python", "-c", "1", "--json").code == 3
    assert kit("exec", "tf-cpu").code == 3
    assert kit("exec", "tf-cpu", "--", "ls", "-l").code == 3
    assert [call.args[-4:] for call in docker.called("exec")[:1]] == [["python", "-c", "1", "--json"]]
    assert docker.called("exec")[1].args[-2:] == [NAME, "bash"]
    assert docker.called("exec")[2].args[-3:] == [NAME, "ls", "-l"]
    assert "--tty" not in docker.called("exec")[0].args, "this is no terminal"


def test_stop_stops_by_name_and_all(kit, docker):
    result = kit("stop", "--time", "2", "tf-cpu")
    assert (result.code, result.err) == (0, f"stopped {NAME}\n")
    assert docker.called("stop")[0].args == ["stop", "--time=2", NAME]
    assert kit("stop", "--all").code == 0
    assert len(docker.called("stop")) == 2, "what ended already is not stopped"


def test_rm_removes_what_ended_and_refuses_what_runs(kit, docker):
    result = kit("rm", NAME)
    assert result.code == 2
    assert f"`kit stop {NAME}`" in result.err
    assert docker.called("rm") == []
    assert kit("rm", "--all").code == 0
    assert [call.args[-1] for call in docker.called("rm")] == ["kit-tf-cpu-run-cd34"]
    assert kit("rm", "--force", NAME).code == 0
    assert docker.called("rm")[-1].args == ["rm", "--force", "--volumes", NAME]


@pytest.mark.parametrize("command", ["stop", "rm"])
def test_nothing_named_is_wrong_usage(kit, docker, command):
    result = kit(command)
    assert result.code == 2
    assert "--all" in result.err


@pytest.fixture
def others(fake_docker):
    """A docker whose only container another user started."""
    labels = {"kit.owner": "54321", "kit.owner-name": "bob"}
    fake_docker.reply("ps", stdout="a\n")
    fake_docker.reply("container", "inspect", stdout=json.dumps([container(NAME, labels=labels)]))
    return fake_docker


@pytest.mark.parametrize("command", [["stop", NAME], ["rm", NAME], ["exec", NAME, "true"], ["url", NAME]])
def test_what_another_user_started_is_left_alone(kit, others, command):
    result = kit(*command)
    assert result.code == 2
    assert f"another user started: {NAME} (bob)" in result.err
    assert [call.args[0] for call in others.calls if call.args[0] in ("stop", "rm", "exec")] == []


def test_force_is_for_one_that_is_named(kit, others):
    assert kit("stop", "--all", "--force").code == 0
    assert others.called("stop") == []
    assert kit("stop", "--force", NAME).code == 0
    assert others.called("stop")[0].args[-1] == NAME


def test_ps_says_whose_it_is_and_keeps_the_token(kit, others):
    result = kit("ps")
    assert result.out.splitlines()[0].split() == ["NAME", "SERVICE", "STATUS", "URL", "USER"]
    assert result.out.splitlines()[1].split() == [NAME, "jupyter", "running", "bob"]
    assert json.loads(kit("--json", "ps").out)[0]["url"] == ""
