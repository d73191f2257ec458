import io
import json
import os
import re
import socket
from pathlib import Path

import click
import pytest

from kit import layout, ports
from kit.cli import docker_words, group
from kit.engine import Engine
from kit.image.build.inputs import fingerprint
from kit.remote import tunnels
from kit.run.prepare import open_files, open_ports
from tests.fake_docker import container, info
from tests.free_ports import free_ports


@pytest.fixture
def docker(fake_docker, project, monkeypatch):
    """A docker that has the image of `project`, up to date."""
    reference = project.catalog.base_for(project.image).reference
    mark = fingerprint(
        (project.folder / "Dockerfile").read_text(), (project.folder / "requirements.lock").read_text(), reference
    )
    fake_docker.has_image({"kit.fingerprint": mark, "kit.base-identity": reference, "kit.base-source": "registry"})
    monkeypatch.setattr(layout, "JUPYTER_PORT", free_ports(10))
    return fake_docker


def test_a_command_runs_here_and_passes_its_output_and_exit_code_on(kit, docker):
    docker.reply("run", stdout="out\n", stderr="err\n", code=37)
    result = kit("run", "tf-cpu", "python", "-c", "print(1)", "--port", "5")
    assert (result.code, result.out, result.err) == (37, "out\n", "err\n")
    args = docker.called("run")[0].args
    assert args[args.index("kit/tf-cpu:latest") + 1 :] == ["python", "-c", "print(1)", "--port", "5"]
    assert "--rm" in args
    assert "--tty" not in args


def test_an_image_that_is_up_to_date_starts_without_asking_for_buildx(kit, docker):
    assert kit("run", "tf-cpu", "true").code == 0
    assert docker.called("buildx") == []
    assert len(docker.calls) <= 6, "each call costs the user a tenth of a second"


def test_an_image_that_is_not_there_is_built_first(kit, docker):
    docker.reply("image", "inspect", code=1, stderr="Error response from daemon: No such image: x\n")
    result = kit("run", "tf-cpu", "true")
    assert result.code == 0
    words = [call.args[:2] for call in docker.calls]
    assert words.index(["buildx", "build"]) < words.index(docker.called("run")[0].args[:2])
    assert "tf-cpu: built in" in result.err


def test_a_failed_build_starts_nothing(kit, docker):
    docker.reply("image", "inspect", code=1, stderr="Error response from daemon: No such image: x\n")
    docker.reply("buildx", "build", code=1)
    assert kit("run", "tf-cpu", "true").code == 1
    assert docker.called("run") == []


def test_a_notebook_prints_its_url_alone_on_standard_output(kit, docker):
    docker.reply("run", serve=200)
    result = kit("run", "tf-cpu", "jupyter")
    token = docker.called("run")[0].env["JUPYTER_TOKEN"]
    assert result.code == 0
    assert result.out == f"http://127.0.0.1:{layout.JUPYTER_PORT}/lab?token={token}\n"
    assert "it stays up: `kit logs kit-tf-cpu-jupyter-" in result.err
    assert token not in json.dumps([call.args for call in docker.calls])


def test_a_notebook_as_json(kit, docker):
    docker.reply("run", serve=200)
    data = json.loads(kit("--json", "run", "tf-cpu", "jupyter").out)
    assert sorted(data) == ["host", "image", "name", "service", "url"]
    assert (data["image"], data["service"]) == ("tf-cpu", "jupyter")


def test_options_reach_the_container(kit, docker, tmp_path):
    kit(
        "run",
        "--user",
        "1234567890",
        "-C",
        str(tmp_path),
        "-e",
        "A=b=c",
        "-e",
        "EMPTY=",
        "--mount",
        f"{tmp_path}:/data:ro",
        "tf-cpu",
        "true",
    )
    args = docker.called("run")[0].args
    assert "--user=1234567890:1234567890" in args
    assert f"--mount=type=bind,source={tmp_path},target=/workspace" in args
    assert f"--mount=type=bind,source={tmp_path},target=/data,readonly" in args
    assert {"A": "b=c", "EMPTY": ""}.items() <= docker.called("run")[0].env.items()


def test_the_current_folder_is_the_workspace(kit, docker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kit("run", "tf-cpu", "true")
    assert f"--mount=type=bind,source={tmp_path},target=/workspace" in docker.called("run")[0].args


def test_a_program_with_the_name_of_a_service_is_run_after_two_dashes(kit, docker):
    kit("run", "tf-cpu", "--", "jupyter", "--version")
    args = docker.called("run")[0].args
    assert args[args.index("kit/tf-cpu:latest") + 1 :] == ["jupyter", "--version"]
    assert "--detach" not in args


def test_no_words_are_a_shell(kit, docker):
    kit("run", "tf-cpu")
    kit("run", "tf-cpu", "shell")
    assert [call.args[-1] for call in docker.called("run")] == ["bash", "bash"]


def test_kits_options_after_the_service_are_refused_with_the_right_order(kit, docker):
    result = kit("run", "tf-cpu", "jupyter", "--port", "9999")
    assert result.code == 2
    assert "kit run --port 9999 NAME jupyter" in result.err


def test_a_port_in_use_has_its_exit_code(kit, docker):
    with ports.reserved(layout.JUPYTER_PORT, exact=True):
        result = kit("run", "--port", str(layout.JUPYTER_PORT), "tf-cpu", "jupyter")
    assert result.code == 16
    assert "leave out --port" in result.err


@pytest.mark.parametrize(("gpus", "code"), [("all", 17), ("two", 2), ("none", 0)])
def test_gpus_on_an_image_for_the_cpu(kit, docker, gpus, code):
    assert kit("run", "--gpus", gpus, "tf-cpu", "true").code == code


def test_bad_users_and_names_are_refused_before_anything_starts(kit, docker):
    assert kit("run", "--user", "me", "tf-cpu", "true").code == 2
    assert kit("run", "tf-cpuu", "true").code == 4
    assert docker.calls == []


def test_a_command_on_a_full_disk_is_no_traceback(kit, docker):
    docker.reply("info", stdout=info())
    docker.reply("run", code=125, stderr="docker: Error response from daemon: no space left on device\n")
    result = kit("run", "tf-cpu", "jupyter")
    assert result.code == 14
    assert "prune" in result.err


@pytest.fixture
def running(kit, docker, tmp_path, monkeypatch):
    """A notebook that was started in this folder, as the engine then lists it."""
    docker.reply("run", serve=200)
    result = kit("run", "tf-cpu", "jupyter")
    call = docker.called("run")[0]
    name = next(word for word in call.args if word.startswith("--name=")).removeprefix("--name=")
    raw = container(
        name,
        Mounts=[{"Source": str(Path.cwd()), "Destination": "/workspace"}],
        HostConfig={"PortBindings": {f"{layout.JUPYTER_PORT}/tcp": [{"HostPort": str(layout.JUPYTER_PORT)}]}},
    )
    raw["Config"]["Env"] = [f"JUPYTER_TOKEN={call.env['JUPYTER_TOKEN']}"]
    docker.reply("ps", stdout="a\n")
    docker.reply("container", "inspect", stdout=json.dumps([raw]))
    return result.out.strip(), name, raw


def test_a_second_notebook_in_the_same_folder_is_the_first(kit, docker, running):
    url, name, _ = running
    result = kit("run", "tf-cpu", "jupyter")
    assert (result.code, result.out) == (0, f"{url}\n")
    assert result.err == f"jupyter runs in this folder already, as {name}; --another starts one more\n"
    assert len(docker.called("run")) == 1
    assert kit("--yes", "run", "tf-cpu", "notebook").out == f"{url}\n"


def test_one_below_a_path_of_its_own_is_asked_there(kit, docker, running, monkeypatch):
    name, raw = running[1:]
    raw["Config"]["Env"].append("KIT_BASE_URL=/me/")
    docker.reply("container", "inspect", stdout=json.dumps([raw]))
    asked = []
    monkeypatch.setattr("kit.run.containers.answers", lambda *words: asked.append(words) or True)
    result = kit("run", "tf-cpu", "jupyter")
    assert f"jupyter runs in this folder already, as {name}" in result.err
    assert "/me/lab?token=" in result.out
    assert [words[3] for words in asked] == ["/me/"]


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--another", "tf-cpu", "jupyter"],
        ["--json", "run", "tf-cpu", "jupyter"],
        ["run", "-e", "A=B", "tf-cpu", "jupyter"],
        ["run", "--memory", "1g", "tf-cpu", "jupyter"],
        ["run", "-C", "..", "tf-cpu", "jupyter"],
    ],
)
def test_what_asks_for_another_gets_one(kit, docker, running, words):
    assert kit(*words).code == 0
    assert len(docker.called("run")) == 2


@pytest.mark.parametrize("change", ["owner", "image", "service", "status", "answer"])
def test_what_is_not_the_same_is_not_offered(kit, docker, running, change):
    raw = running[2]
    labels = raw["Config"]["Labels"]
    labels.update({"owner": {"kit.owner": "54321"}, "image": {"kit.image": "tf2"}}.get(change, {}))
    labels.update({"kit.service": "tensorboard"} if change == "service" else {})
    raw["State"]["Status"] = "exited" if change == "status" else "running"
    if change == "answer":
        raw["Config"]["Env"] = ["JUPYTER_TOKEN=another"]
    docker.reply("container", "inspect", stdout=json.dumps([raw]))
    assert kit("run", "tf-cpu", "jupyter").code == 0
    assert len(docker.called("run")) == 2


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_the_running_one_is_a_question(kit, docker, running, monkeypatch, answer):
    asked = []
    monkeypatch.setattr("kit.cli.run.ask_user", lambda text, **_: asked.append(text) or answer)
    monkeypatch.setattr("kit.cli.run.is_terminal", lambda: True)
    assert kit("run", "tf-cpu", "jupyter").code == 0
    assert asked == [f"jupyter runs in this folder already, as {running[1]}. Take it, instead of starting another?"]
    assert len(docker.called("run")) == (1 if answer else 2)


def test_what_a_build_takes_is_said_before_it_and_asked_on_a_terminal(kit, docker, monkeypatch):
    docker.reply("image", "inspect", code=1, stderr="Error response from daemon: No such image: x\n")
    result = kit("run", "tf-cpu", "true")
    assert "tf-cpu has to be built: 1 package and a base image to download, of unknown size" in result.err
    assert docker.called("buildx", "build"), "nobody can be asked"
    asked = []

    def refuse(text, **_):
        asked.append(text)
        raise click.Abort

    monkeypatch.setattr("kit.cli.screen.is_terminal", lambda: True)
    monkeypatch.setattr("kit.cli.screen.ask", refuse)
    count = len(docker.called("buildx", "build"))
    assert kit("run", "tf-cpu", "true").code == 130
    assert asked == ["Download and build it now?"]
    assert len(docker.called("buildx", "build")) == count
    assert kit("--yes", "run", "tf-cpu", "true").code == 0


# -- what people know from docker


def starts(docker):
    """The arguments of what was started, without the container that makes places for mounts."""
    return [call.args for call in docker.called("run") if not any("-mounts" in word for word in call.args)]


def test_limits_ports_and_a_network_reach_the_container(kit, docker):
    words = ["--cpus", "1.5", "--shm-size", "1g", "--ulimit", "memlock=unlimited", "--ulimit", "stack=1:2"]
    result = kit("run", *words, "-p", "7860", "-p", "127.0.0.1:7861:80", "--network", "lab", "tf-cpu", "true")
    assert result.code == 0, result.err
    (args,) = starts(docker)
    assert {"--cpus=1.5", f"--shm-size={2**30}", "--network=lab"} <= {*args}
    hard = open_files(Engine())
    assert [word for word in args if word.startswith("--ulimit")] == [
        f"--ulimit=nofile={min(65536, hard)}:{hard}",
        "--ulimit=memlock=-1:-1",
        "--ulimit=stack=1:2",
    ]
    assert [word for word in args if word.startswith("--publish")] == [
        "--publish=127.0.0.1:7860:7860",
        "--publish=127.0.0.1:7861:80",
    ]
    assert docker.called("network", "create") == []


def test_a_further_port_that_is_in_use_is_said_before_the_start(kit, docker, tmp_path, monkeypatch):
    with ports.reserved(layout.JUPYTER_PORT, exact=True), socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        for words in (["true"], ["jupyter"]):
            result = kit("run", "-p", str(server.getsockname()[1]), "tf-cpu", *words)
            assert result.code == 16
            assert "--publish" in result.err
        assert starts(docker) == []
        monkeypatch.chdir(tmp_path)
        (tmp_path / "kit.toml").write_text(f"publish = [{server.getsockname()[1]}]\n")
        result = kit("run", "tf-cpu", "true")
        assert result.code == 0
        assert "is in use, and not published a second time" in result.err
    (args,) = starts(docker)
    assert not [word for word in args if "publish" in word]


def test_a_further_port_that_is_taken_in_that_moment_is_tried_once(kit, docker, monkeypatch):
    said = "docker: Error response from daemon: Bind for 127.0.0.1:{} failed: port is already allocated\n"
    docker.reply("run", code=125, stderr=said.format(7860))
    result = kit("run", "-p", "7860", "tf-cpu", "jupyter")
    assert result.code == 16
    assert len(starts(docker)) == 1


def test_further_ports_of_another_machine_have_a_tunnel_each(monkeypatch):
    opened, lines = [], []

    def open_tunnel(target, *, container, service, remote_port, first_port, life):
        opened.append((target, container, service, remote_port, first_port, life))
        return type("Tunnel", (), {"local_port": first_port + 1})

    monkeypatch.setattr(tunnels, "open_tunnel", open_tunnel)
    engine = type("There", (), {"target": "lab1", "life": lambda _, name: f"life of {name}"})()
    open_ports(engine, "kit-a", ((7860, 80), (1, 2)), lines.append)
    assert opened == [("lab1", "kit-a", "", port, port, "life of kit-a") for port in (7860, 1)]
    assert lines == ["port 80 of kit-a: http://127.0.0.1:7861", "port 2 of kit-a: http://127.0.0.1:2"]
    here = type("Here", (), {"target": ""})()
    open_ports(here, "kit-a", ((7860, 80),), lines.append)
    assert len(lines) == 2


def test_the_machines_own_network_is_for_commands_and_said(kit, docker):
    result = kit("run", "--network", "host", "tf-cpu", "true")
    assert result.code == 0
    assert "warning: --network host: the container reaches" in result.err
    assert "--network=host" in starts(docker)[0]
    for name in ("host", "none"):
        for words in (["run", "--network", name, "tf-cpu", "jupyter"], ["compose", "--network", name, "tf-cpu"]):
            result = kit(*words)
            assert result.code == 2
            assert f"--network {name} is for a command" in result.err
    assert len(starts(docker)) == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--publish", each) for each in ("0", "65536", "0.0.0.0:1:2", "a:b", "1:2:3:4", "::1:2", "١")),
        *(("--ulimit", each) for each in ("memlock", "none=1", "stack=x", "stack=2:1", "stack=-1:1", "nofile=1:2:3")),
        *(("--cpus", each) for each in ("0", "-1", "x", "1e3", "0.001")),
        *(("--shm-size", each) for each in ("0", "x", "none", "1k")),
        *(("--name", each) for each in ("-x", "a b", "x" * 64, "a/b", "a")),
        *(("--network", each) for each in ("container:x", "a b", "-x", "lab,alias=y")),
        *(("--jupyter-option", each) for each in ("x", "--ServerApp.ip=0.0.0.0", "--ServerApp.token=", "--x=1")),
    ],
)
def test_what_is_no_such_value_is_refused_before_anything_starts(kit, docker, option, value):
    result = kit("run", f"{option}={value}", "tf-cpu", "jupyter")
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert docker.calls == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--jupyter-option", "--A.b=1"], "for the notebook"),
        (["-v", "/a:/b"], "--mount SOURCE:TARGET"),
        (["-it"], "leave it out"),
        (["--rm"], "leave it out"),
        (["-w", "/x"], "-C FOLDER"),
        (["--privileged"], "no capabilities"),
        (["--ipc=host"], "--shm-size"),
        (["--mount", "type=bind,source=/a,target=/b"], "/srv/set1:/data:ro"),
    ],
)
def test_options_of_docker_are_answered_with_kits_word(kit, docker, words, said):
    result = kit("run", *words, "tf-cpu", "bash")
    assert result.code == 2
    assert said in result.err
    assert docker.calls == []


def test_every_word_of_docker_is_none_of_kits():
    taken = {option for parameter in group.get_command(click.Context(group), "run").params for option in parameter.opts}
    assert not taken & docker_words.WORDS.keys()
    assert docker_words.of("run", "--rm")
    assert not docker_words.of("ps", "--rm")
    for text in docker_words.WORDS.values():
        for option in re.findall(r"`(-[-\w]+)", text):
            assert option in taken


def test_a_container_has_the_name_that_was_asked_for(kit, docker):
    assert kit("run", "--name", "mine", "tf-cpu", "true").code == 0
    assert "--name=mine" in starts(docker)[0]


def test_a_name_that_is_taken_starts_and_removes_nothing(kit, docker):
    docker.reply("ps", stdout="abc\n")
    for words in (["true"], ["jupyter"]):
        result = kit("run", "--name", "mine", "tf-cpu", *words)
        assert result.code == 2
        assert "--name mine: there is a container of that name" in result.err
    assert starts(docker) == docker.called("rm") == []


@pytest.mark.parametrize("words", [["-d", "tf-cpu", "true"], ["tf-cpu", "jupyter"], ["tf-cpu", "true"]])
def test_a_name_that_is_taken_in_that_moment_removes_nothing_either(kit, docker, monkeypatch, words):
    conflict = 'docker: Error response from daemon: Conflict. The container name "/mine" is already in use by container'
    docker.reply("run", code=125, stderr=f"{conflict} abc.\n")
    docker.reply("container", "inspect", stdout=json.dumps([container("mine", labels={"kit.client": "other:1"})]))
    for module in ("command", "service"):
        monkeypatch.setattr(f"kit.run.{module}.require_free", lambda *_: None)
    assert kit("run", "--name", "mine", *words).code in (2, 125)
    assert docker.called("rm") == []


def test_a_token_and_a_path_of_the_users_own(kit, docker, tmp_path, monkeypatch):
    monkeypatch.setattr(ports, "is_free", lambda _: True)
    asked = []
    monkeypatch.setattr("kit.run.service.answers", lambda *words: asked.append(words) or True)
    options = ["--ServerApp.base_url=/me/", "--ServerApp.root_dir=/data"]
    result = kit(
        "run", "-e", "JUPYTER_TOKEN=s3cret&token", "--jupyter-option", options[1], "tf-cpu", "jupyter", options[0]
    )
    assert result.code == 0, result.err
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/me/lab\?token=s3cret%26token\n", result.out)
    assert asked[0][2:] == ("s3cret&token", "/me/")
    (call,) = docker.called("run")
    assert call.env["JUPYTER_TOKEN"] == "s3cret&token"
    assert call.env["KIT_BASE_URL"] == "/me/"
    assert call.args[-2:] == [options[1], options[0]]
    assert not [word for word in call.args if "s3cret" in word or word == "--ServerApp.root_dir=/workspace"]
    for token in ("", "short", "with space", "x" * 201):
        assert kit("run", "-e", f"JUPYTER_TOKEN={token}", "tf-cpu", "jupyter").code == 2


def test_a_command_has_a_variable_of_that_name_as_it_is(kit, docker):
    kit("run", "-e", "JUPYTER_TOKEN=x", "tf-cpu", "env", "--A.b=c")
    (call,) = docker.called("run")
    assert call.env["JUPYTER_TOKEN"] == "x"
    assert call.args[-2:] == ["env", "--A.b=c"]


def test_a_mount_takes_the_place_of_a_volume(kit, docker, tmp_path):
    (tmp_path / "home").mkdir()
    assert kit("run", "--mount", f"{tmp_path}/home:/home/kit", "tf-cpu", "true").code == 0
    targets = [word for word in starts(docker)[0] if "target=/home/kit" in word]
    assert sorted(word.partition(",")[0] for word in targets) == ["--mount=type=bind", "--mount=type=volume"]
    # Made by the caller, and not by the engine.
    assert (tmp_path / "home/.local").is_dir()


# -- what a container has of its machine


def test_the_callers_groups_are_those_of_the_container_under_their_names(kit, docker, monkeypatch):
    monkeypatch.setattr(os, "getgroups", lambda: [os.getgid(), 2147483640, 4])
    assert kit("run", "tf-cpu", "true").code == 0
    (args,) = starts(docker)
    assert [word for word in args if word.startswith("--group-add")] == ["--group-add=4", "--group-add=2147483640"]
    (mount,) = [word for word in args if word.endswith("target=/etc/group,readonly")]
    source = Path(re.search("source=([^,]+)", mount)[1])
    own = "root" if os.getgid() == 0 else "kit"
    lines = source.read_text().splitlines()
    assert lines[-3:] == [f"{own}:x:{os.getgid()}:", "adm:x:4:", "group:x:2147483640:"]


def test_somebody_elses_groups_are_not_the_callers(kit, docker, monkeypatch):
    monkeypatch.setattr(os, "getgroups", lambda: [4])
    kit("run", "--user", "2147483640:7", "tf-cpu", "true")
    assert not [word for word in starts(docker)[0] if "group-add" in word]


def test_a_proxy_on_the_loopback_is_left_out_with_a_line(kit, docker, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    docker.reply("network", "inspect", stdout="172.17.0.1 \n")
    result = kit("run", "tf-cpu", "true")
    assert "warning: http://127.0.0.1:9 is on this machine's loopback" in result.err
    (call,) = docker.called("run")
    # The program itself runs here, where the proxy is.
    (name,) = [word.partition("=")[2] for word in call.args if word.startswith("--env-file")]
    assert name
    assert call.env["HF_ENDPOINT"] == "https://hub.example"
    assert call.env["TZ"] == "Asia/Shanghai"
    assert not [word for word in call.args if "add-host" in word]


def test_a_proxy_that_listens_at_the_machines_address_too_is_reached_there(kit, docker, monkeypatch):
    docker.reply("network", "inspect", stdout="172.17.0.1 \n")
    with socket.socket() as server:
        server.bind(("", 0))
        server.listen()
        monkeypatch.setenv("https_proxy", f"http://localhost:{server.getsockname()[1]}")
        result = kit("run", "tf-cpu", "true")
        (call,) = docker.called("run")
        assert call.env["https_proxy"] == f"http://host.docker.internal:{server.getsockname()[1]}"
    assert "loopback" not in result.err
    assert "--add-host=host.docker.internal:host-gateway" in call.args
    assert call.env["no_proxy"] == "127.0.0.1,localhost,::1"


def test_what_standard_input_may_be(tmp_path, monkeypatch):
    from kit.cli.run import _input

    (tmp_path / "s.py").write_text("print(1)")
    reader, writer = os.pipe()
    with (tmp_path / "s.py").open() as file, open(os.devnull) as nothing, os.fdopen(reader) as pipe:  # noqa: PTH123
        for source, expected in ((file, "file"), (nothing, ""), (pipe, "stream"), (io.StringIO(), "")):
            monkeypatch.setattr("sys.stdin", source)
            assert _input() == expected
        os.close(writer)


def test_a_job_without_anybody_takes_no_file(kit, docker, tmp_path, monkeypatch):
    (tmp_path / "s.py").write_text("print(1)")
    with (tmp_path / "s.py").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        result = kit("run", "--detach", "tf-cpu", "python", "-")
    assert result.code == 2
    assert "--detach: nobody is there to hand a file to its standard input" in result.err
    assert docker.called("run") == []
