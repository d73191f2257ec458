import json
import re
import subprocess

import pytest

from kit.run import again
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
    header, row, *below = result.out.splitlines()
    assert header.split() == ["NAME", "RUNS", "SINCE", "STATUS"]
    assert re.fullmatch(rf"{NAME}  jupyter  \d+ d +running", row)
    assert below == ["     in /srv/mnist", "     at http://127.0.0.1:8890/lab"]
    assert "se=cret" not in result.out, "a list is shown to others; `kit url` is not"


def test_ps_all_lists_what_ended_too(kit, docker):
    result = kit("ps", "--all")
    row, folder = result.out.splitlines()[-2:]
    assert row.startswith("kit-tf-cpu-run-cd34      python train.py  ")
    assert row.endswith("exited (0)")
    assert folder == "     in /srv/mnist"


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
        "command": "python train.py",
        "folder": "/srv/mnist",
        "since": "2026-11-21T06:00:00Z",
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
    assert result.out.splitlines()[0].split() == ["NAME", "RUNS", "SINCE", "STATUS", "USER"]
    assert re.fullmatch(rf"{NAME}  jupyter  \d+ d +running  bob", result.out.splitlines()[1])
    assert json.loads(kit("--json", "ps").out)[0]["url"] == ""


def many(fake_docker, **containers):
    """A docker with containers of these names, each with its changes."""
    found = {
        name.replace("_", "-"): container(name.replace("_", "-"), **changes) for name, changes in containers.items()
    }
    fake_docker.reply("ps", stdout="".join(f"{name}\n" for name in found))
    for name, raw in found.items():
        fake_docker.reply("container", "inspect", name, stdout=json.dumps([raw]))
    fake_docker.reply("container", "inspect", *found, stdout=json.dumps(list(found.values())))
    return fake_docker


NEWER = {"labels": {"kit.image": "torch2.7-cu126"}}
JOB = {"labels": {"kit.image": "torch2.7-cu126", "kit.service": ""}}
CPU = {"labels": {"kit.image": "tf-cpu", "kit.service": "tensorboard"}}


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("torch-cu126-jupyter", "kit-torch2.7-cu126-jupyter-aa11"),
        ("pytorch2.7-cu126-notebook", "kit-torch2.7-cu126-jupyter-aa11"),
        ("jupyter", "kit-torch2.7-cu126-jupyter-aa11"),
        ("tensorboard", "kit-tf-cpu-tensorboard-cc33"),
        ("tensorflow", "kit-tf-cpu-tensorboard-cc33"),
        ("tf-cpu", "kit-tf-cpu-tensorboard-cc33"),
        ("bb22", "kit-torch2.7-cu126-run-bb22"),
        ("run-bb22", "kit-torch2.7-cu126-run-bb22"),
        ("-bb22", "kit-torch2.7-cu126-run-bb22"),
    ],
)
def test_what_was_typed_finds_the_container(kit, fake_docker, typed, name):
    names = ("kit-torch2.7-cu126-jupyter-aa11", "kit-torch2.7-cu126-run-bb22", "kit-tf-cpu-tensorboard-cc33")
    many(fake_docker, **dict(zip(names, (NEWER, JOB, CPU), strict=True)))
    assert kit("stop", "--", typed).err == f"stopped {name}\n"


def test_what_means_several_names_them_with_what_tells_them_apart(kit, fake_docker):
    ended = {**JOB, "state": {"Status": "exited"}}
    many(fake_docker, **{"kit-torch2.7-cu126-run-aa11": JOB, "kit-torch2.7-cu126-run-bb22": ended})
    assert kit("stop", "torch-cu126").err == "stopped kit-torch2.7-cu126-run-aa11\n", "the one that runs"
    many(fake_docker, **{"kit-torch2.7-cu126-run-aa11": JOB, "kit-torch2.7-cu126-run-bb22": JOB})
    result = kit("stop", "torch-cu126")
    assert result.code == 13
    assert "  kit-torch2.7-cu126-run-bb22 (running) in /srv/mnist" in result.err.splitlines()


@pytest.mark.parametrize("typed", ["torch-cu118", "cu126", "26-jupyter-aa11", "lab2", "1"])
def test_what_only_looks_like_a_name_finds_nothing(kit, fake_docker, typed):
    many(fake_docker, **{"kit-torch2.7-cu126-jupyter-aa11": NEWER})
    assert kit("stop", typed).code == 13
    assert fake_docker.called("stop") == []


def test_ps_fits_a_terminal_of_80_columns(kit, fake_docker, monkeypatch):
    long = {"Config": {**container()["Config"], "Cmd": ["python", "train.py", *(f"--option{i}=1" for i in range(30))]}}
    long["Config"]["Labels"] = {
        **long["Config"]["Labels"],
        "kit.service": "",
        "kit.owner": "1",
        "kit.owner-name": "bob",
    }
    many(fake_docker, **{"kit-torch2.10-cu128-devel-run-aa11bb": long})
    monkeypatch.setattr("kit.cli.lifecycle.columns_of_terminal", lambda: 80)
    lines = kit("ps").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "python train.p…" in lines[1] or "…" in lines[1]


def test_a_secret_in_a_command_is_not_listed(kit, fake_docker):
    raw = {
        "Config": {**container()["Config"], "Cmd": ["python", "x.py", "--token=hf_abcdefghijklmnopqrstuvwxyz123456"]}
    }
    raw["Config"]["Labels"] = {**raw["Config"]["Labels"], "kit.service": ""}
    many(fake_docker, **{"kit-tf-cpu-run-aa11": raw})
    assert "hf_abcdef" not in kit("ps").out
    assert "hf_abcdef" not in kit("--json", "ps").out


def test_start_starts_what_ended_and_says_when_the_port_is_gone(kit, fake_docker):
    ended = {**JOB, "state": {"Status": "exited"}}
    many(fake_docker, **{"kit-torch2.7-cu126-run-aa11": ended, "kit-torch2.7-cu126-run-bb22": JOB})
    assert kit("start", "torch-cu126").code == 0
    assert fake_docker.called("start")[0].args == ["start", "kit-torch2.7-cu126-run-aa11"], "not the one that runs"
    assert kit("start", "bb22").err.splitlines()[0] == "kit-torch2.7-cu126-run-bb22 runs already"
    fake_docker.reply(
        "start", code=1, stderr="driver failed: Bind for 127.0.0.1:8890 failed: port is already allocated\n"
    )
    result = kit("start", "aa11")
    assert result.code == 16
    assert result.err.splitlines()[0] == "error: port 8890 of kit-torch2.7-cu126-run-aa11 is another program's now"
    assert "kit run torch2.7-cu126" in result.err


def test_restart_stops_and_starts(kit, fake_docker):
    many(fake_docker, **{"kit-torch2.7-cu126-run-aa11": JOB})
    assert kit("restart", "--time", "3", "torch-cu126").code == 0
    assert [call.args for call in fake_docker.calls if call.args[0] in ("stop", "start")] == [
        ["stop", "--time=3", "kit-torch2.7-cu126-run-aa11"],
        ["start", "kit-torch2.7-cu126-run-aa11"],
    ]


@pytest.mark.parametrize("command", ["start", "restart"])
@pytest.mark.parametrize("name", ["data", "sub/data", "project"])
def test_what_a_job_exchanged_for_a_link_is_not_followed(kit, fake_docker, tmp_path, command, name):
    """An engine mounts what the path leads to when the container starts, and not what it was when it was made."""
    project, outside = tmp_path / "project", tmp_path / "outside"
    source = tmp_path / name if name == "project" else project / name
    source.mkdir(parents=True)
    outside.mkdir()
    mounts = [
        {"Type": "bind", "Source": str(project), "Destination": "/workspace"},
        {"Type": "bind", "Source": str(source), "Destination": "/workspace" if name == "project" else "/data"},
        # In a home that is a link itself.
        {"Type": "bind", "Source": str(tmp_path / "link/passwd"), "Destination": "/etc/passwd"},
    ]
    (tmp_path / "link").symlink_to(outside)
    ended = {**JOB, "state": {"Status": "exited"}, "Mounts": mounts}
    many(fake_docker, **{"kit-torch2.7-cu126-run-aa11": ended})
    assert kit(command, "aa11").code == 0
    assert len(fake_docker.called("start")) == 1
    source.rename(source.with_name("kept"))
    source.symlink_to(outside)
    result = kit(command, "aa11")
    assert result.code == 2
    assert f"{source} leads elsewhere than when it was made" in result.err
    assert len(fake_docker.called("start")) == 1


def test_the_same_is_seen_on_another_machine(tmp_path):
    home, data = tmp_path / "home", tmp_path / "real/project/a b"
    data.mkdir(parents=True)
    home.symlink_to(tmp_path / "real")
    pairs = [str(home / "project"), str(home / "project/a b")]
    look = ["sh", "-c", again.EXCHANGED, "sh", *pairs]
    assert subprocess.run(look, capture_output=True, text=True, check=True).stdout == ""
    data.rename(data.with_name("kept"))
    data.symlink_to(tmp_path)
    assert subprocess.run(look, capture_output=True, text=True, check=True).stdout == f"{pairs[1]}\n"


@pytest.mark.parametrize("command", ["start", "restart"])
def test_another_users_is_not_started(kit, others, command):
    assert kit(command, NAME).code == 2
    assert others.called("start") == []


def test_a_gpu_that_is_leased_meanwhile_is_not_taken(kit, fake_docker, monkeypatch, tmp_path):
    monkeypatch.setattr("kit.run.lease.LOCK_FOLDERS", (tmp_path,))
    monkeypatch.setattr("kit.run.lease.lock_file", lambda: tmp_path / "lock")
    lease = {"kit.lease": "GPU-1", "kit.service": "", "kit.image": "torch2.7-cu126"}
    many(
        fake_docker,
        **{
            "kit-torch2.7-cu126-run-aa11": {"labels": lease, "state": {"Status": "exited"}},
            "kit-torch2.7-cu126-run-bb22": {"labels": {**lease, "kit.owner-name": "bob"}},
        },
    )
    result = kit("start", "aa11")
    assert result.code == 17
    assert "leased to kit-torch2.7-cu126-run-bb22 (bob) now" in result.err
    assert fake_docker.called("start") == []
