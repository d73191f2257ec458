import dataclasses
import json
import os
import pwd
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import accounts, layout, paths
from kit.errors import BadInputError, GpuUnavailableError, NoSuchContainerError, NotReadyError, PortTakenError
from kit.facts.engine import FEATURES
from kit.network import NetworkSettings
from kit.run import command
from kit.run.containers import answers, caller, find, listed, sweep
from kit.run.lease import GpuDecision, decide, no_gpus
from kit.run.prepare import Ready, new_name, open_files, place_on
from kit.run.service import start_service
from kit.run.start import RunAsk, plan
from kit.spec.container import (
    Mount,
    Place,
    describe,
    group_lines,
    project_of,
    service_command,
    shm_bytes,
    volume_mounts,
)
from kit.spec.gpu_grant import GpuGrant
from kit.spec.gpu_request import parse_request
from kit.spec.request import RunRequest, as_command, parse_user, parse_variable, wants_terminal
from kit.targets.docker import arguments
from tests.fake_docker import container, info
from tests.free_ports import free_ports

NO_GPUS = GpuDecision(grant=GpuGrant())


@pytest.fixture
def request_(catalog, tmp_path):
    return RunRequest(
        image=catalog.find("tf-cpu"),
        service="jupyter",
        folder=tmp_path,
        user="1000:1000",
        network=NetworkSettings(proxies={}),
    )


@pytest.fixture
def first_port(monkeypatch):
    """A port nothing uses, in the place of Jupyter's own: this machine may have a Jupyter."""
    port = free_ports(10)
    monkeypatch.setattr(layout, "JUPYTER_PORT", port)
    return port


def change(request_, **changes):
    return dataclasses.replace(request_, **changes)


def spec_of(request_, engine, gpus=NO_GPUS.grant):
    place, name = place_on(engine, request_), new_name(request_)
    return describe(request_, place, gpus, name=name, port=8890, token="s3cret")


# -- who


def test_the_caller_is_whoever_called(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.setattr(os, "getgid", lambda: 99)
    assert caller({"SUDO_UID": "5", "SUDO_GID": "6"}) == "1234:99", "the variables mean something to root only"


def test_under_sudo_the_caller_is_who_called_sudo(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert caller({"SUDO_UID": "1234567890", "SUDO_GID": "6"}) == "1234567890:6"
    assert caller({"SUDO_UID": "5"}) == f"{os.getuid()}:{os.getgid()}"


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("0", "0:0"),
        ("1000", "1000:1000"),
        ("1000:5", "1000:5"),
        ("7:", "7:7"),
        ("1234567890:1234567890", "1234567890:1234567890"),
        ("007", "7:7"),
        ("2147483647", "2147483647:2147483647"),
    ],
)
def test_users_in_numbers(text, user):
    assert parse_user(text) == user


@pytest.mark.parametrize(
    "text", ["", ":", ":5", "me", "1000:me", "-1", "1.5", "1:2:3", "2147483648", "1:2147483648", "9" * 5000, "٣", "1 "]
)
def test_users_that_docker_could_not_take_are_bad_input(text):
    with pytest.raises(BadInputError, match="--user"):
        parse_user(text)


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_any_uid_and_gid_is_kept(uid, gid):
    assert parse_user(f"{uid}:{gid}") == f"{uid}:{gid}"


@pytest.mark.parametrize(
    ("user", "lines"),
    [
        ("1234567890:7", ["root:x:0:0:root:/root:/bin/bash", "kit:x:1234567890:7:kit:/home/kit:/bin/bash"]),
        ("0:0", ["root:x:0:0:root:/home/kit:/bin/bash"]),
    ],
)
def test_the_passwd_file_has_the_user(request_, engine, user, lines):
    request_ = change(request_, user=user)
    file = Path(place_on(engine, request_).passwd_file)
    assert file.read_text().splitlines() == lines
    assert Mount(source=str(file), target="/etc/passwd", read_only=True) in spec_of(request_, engine).mounts
    before = file.stat().st_mtime_ns
    assert place_on(engine, request_).passwd_file == str(file)
    assert file.stat().st_mtime_ns == before, "written once"
    file.write_text("damaged")
    assert Path(place_on(engine, request_).passwd_file).read_text().splitlines() == lines


# -- what is started


@given(st.integers(0, 2**44))
def test_shared_memory_is_half_the_memory_and_at_most_16_gib(memory):
    assert shm_bytes(memory) == min(memory // 2, 17179869184)


def test_a_notebook_server_is_started_for_its_user_on_the_loopback_with_a_hidden_token(request_, engine, tmp_path):
    spec = spec_of(request_, engine)
    assert spec.command == (
        "jupyter",
        "lab",
        "--ip=0.0.0.0",
        "--port=8888",
        "--no-browser",
        "--ServerApp.root_dir=/workspace",
        "--ServerApp.allow_remote_access=False",
    )
    assert (spec.user, spec.workdir, spec.ports) == ("1000:1000", "/workspace", ((8890, 8888),))
    assert spec.secret_environment == {"JUPYTER_TOKEN": "s3cret"}
    assert "s3cret" not in " ".join(arguments(spec))
    assert f"--mount=type=bind,source={tmp_path},target=/workspace" in arguments(spec)
    assert [a for a in arguments(spec) if a.startswith("--publish")] == ["--publish=127.0.0.1:8890:8888"]
    assert spec.shm_bytes == 25276502016 // 2
    assert (spec.remove, spec.healthcheck) == (False, True)


def test_names_are_different_each_time_and_say_what_runs(request_, engine):
    names = {spec_of(request_, engine).name for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("kit-tf-cpu-jupyter-") for name in names)


def test_a_command_is_removed_when_it_ends_and_publishes_nothing(request_, engine):
    spec = spec_of(change(request_, service=None, command=("true",)), engine)
    assert (spec.command, spec.remove, spec.ports, spec.secret_environment) == (("true",), True, (), {})
    assert spec.labels["kit.service"] == ""


def test_tensorboard_has_its_own_port_and_log_folder(request_, engine):
    spec = spec_of(change(request_, service="tensorboard", logdir="runs"), engine)
    assert spec.command[:2] == ("python", "-c")
    assert spec.command[3:] == ("--logdir=runs", "--host=0.0.0.0", "--port=6006")
    assert spec.ports == ((8890, 6006),)
    assert spec.secret_environment["JUPYTER_TOKEN"]


def test_root_must_be_allowed_to_run_a_notebook_server_and_nobody_else_is(request_):
    assert "--allow-root" in service_command(change(request_, user="0:0"))
    assert "--allow-root" not in service_command(request_)


def test_the_home_is_a_volume_of_the_user_and_project_and_installed_packages_of_the_image_too():
    mounts = {m.target: m.source for m in volume_mounts("tf-cpu", "7", project_of(Path("/a/My Notes")))}
    assert mounts == {
        "/home/kit": "kit-7-my-notes-6bfd5deb-home",
        "/home/kit/.local": "kit-7-my-notes-6bfd5deb-tf-cpu-local",
    }
    assert all(m.is_volume for m in volume_mounts("tf-cpu", "7", "p"))
    assert project_of(Path("/b/My Notes")) != project_of(Path("/a/My Notes"))


def test_the_users_own_variables_and_mounts_come_last(request_, engine):
    spec = spec_of(
        change(
            request_,
            environment=(("USER", "me"), ("A", "=b")),
            mounts=(Mount(source="/data", target="/data", read_only=True),),
        ),
        engine,
    )
    assert (spec.environment["USER"], spec.environment["A"]) == ("me", "=b")
    assert spec.mounts[-1].target == "/data"


def test_the_certificates_are_mounted_and_every_program_is_told(request_, engine, tmp_path):
    real, link = tmp_path / "real.crt", tmp_path / "link.crt"
    real.write_text("x")
    link.symlink_to(real)
    spec = spec_of(change(request_, network=NetworkSettings(ca_file=link, proxies={})), engine)
    assert Mount(source=str(real), target=layout.CA_FILE, read_only=True) in spec.mounts
    assert {spec.environment[n] for n in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")} == {layout.CA_FILE}


def test_a_proxys_password_is_in_no_argument(request_, engine):
    network = NetworkSettings(proxies={"https_proxy": "http://me:pass@proxy:1", "no_proxy": "x"})
    spec = spec_of(change(request_, network=network, environment=(("no_proxy", "mine"),)), engine)
    assert spec.secret_environment["https_proxy"] == "http://me:pass@proxy:1"
    assert "pass@" not in " ".join(arguments(spec))
    assert spec.variables["no_proxy"] == "mine", "the user's own value is not covered by the machine's"


def test_gpus_are_injected_and_noted_on_the_container(request_, engine, fake_docker, catalog):
    fake_docker.reply("info", stdout=info(DiscoveredDevices=[{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]))
    image = catalog.find("torch-cu126")
    spec = spec_of(change(request_, image=image), engine, decide(None, engine, image).grant)
    assert "--device=nvidia.com/gpu=all" in arguments(spec)
    assert spec.labels["kit.gpus"] == "nvidia.com/gpu=all"


@pytest.mark.parametrize("start", [command.run_command, command.start_job])
def test_a_kernel_runs_on_the_gpus_before_a_command_does(request_, engine, fake_docker, catalog, monkeypatch, start):
    fake_docker.reply("info", stdout=info(DiscoveredDevices=[{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]))
    fake_docker.reply("run")
    asked = []

    def check(_engine, spec):
        asked.append((spec.gpus.devices, len(fake_docker.called("run"))))
        return "NVIDIA H200", ""

    monkeypatch.setattr("kit.run.gpu_check.check_before", check)
    said = []
    image = catalog.find("torch-cu126")
    wanted = change(request_, image=image, service=None, command=("true",))
    start(wanted, decide(None, engine, image), engine, print, on_gpus=said.append)
    assert asked == [(("nvidia.com/gpu=all",), 0)], "before, and once"
    assert said == [("NVIDIA H200", "")]
    wanted = change(request_, service=None, command=("true",))
    start(wanted, decide(None, engine, wanted.image), engine, print, on_gpus=said.append)
    assert len(asked) == 1, "an image for the CPU has nothing to ask for"


def test_gpus_that_cannot_be_had_are_refused_before_anything_is_built(request_, engine, catalog):
    with pytest.raises(GpuUnavailableError):
        decide(parse_request("all"), engine, catalog.find("torch-cu126"))
    with pytest.raises(GpuUnavailableError):
        decide(parse_request("device=0"), engine, request_.image)
    assert decide(parse_request("none"), engine, request_.image).grant == GpuGrant()


def test_an_image_for_the_cpu_does_not_need_to_know_about_gpus(request_, engine, fake_docker):
    assert decide(None, engine, request_.image) == NO_GPUS
    assert fake_docker.called("info") == [], "one call of the engine less for each `kit run`"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), (None, ("bash",), "")),
        (("shell",), (None, ("bash",), "")),
        (("jupyter",), ("jupyter", (), "")),
        (("tensorboard",), ("tensorboard", (), "")),
        (("python", "-c", "1"), (None, ("python", "-c", "1"), "")),
        (("shell", "x"), (None, ("shell", "x"), "")),
        (("--", "jupyter", "--version"), (None, ("jupyter", "--version"), "")),
        (("--",), (None, ("bash",), "")),
        (("python", "--", "x"), (None, ("python", "--", "x"), "")),
        (("tensorboard", "--logdir", "runs"), ("tensorboard", (), "runs")),
        (("tensorboard", "--logdir=runs/a"), ("tensorboard", (), "runs/a")),
        (("notebook",), ("jupyter", (), "")),
        (("jupyter", "lab"), ("jupyter", (), "")),
        (("jupyter", "notebook"), ("jupyter", (), "")),
        (("train.py", "--epochs", "3"), (None, ("python", "train.py", "--epochs", "3"), "")),
        (("src/train.py",), (None, ("python", "src/train.py"), "")),
        (("job.sh", "a"), (None, ("bash", "job.sh", "a"), "")),
        (("./train.py",), (None, ("./train.py",), "")),
        (("--", "train.py"), (None, ("train.py",), "")),
        (("--", "conda", "list"), (None, ("conda", "list"), "")),
    ],
)
def test_words_after_the_name(words, expected):
    assert as_command(words) == expected


def test_a_service_with_further_words_is_bad_input_with_a_way_out():
    with pytest.raises(BadInputError, match="jupyter takes no further words, got: execute x") as caught:
        as_command(("jupyter", "execute", "x.ipynb"))
    assert "kit run NAME -- jupyter execute x.ipynb" in caught.value.hint
    with pytest.raises(BadInputError) as caught:
        as_command(("jupyter", "--port", "9999"))
    assert "kit run --port 9999 NAME jupyter" in caught.value.hint


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("conda", "install", "x"), "`pip install PACKAGE` in a container"),
        (("a.ipynb",), "kit run NAME -- jupyter execute a.ipynb"),
    ],
)
def test_what_no_image_has_is_answered_with_what_does_it(words, hint):
    with pytest.raises(BadInputError) as caught:
        as_command(words)
    assert hint in caught.value.hint


SIT_AT = ["python", "python3.11 -q", "python -i x.py", "python -m pdb x.py", "python -u -m IPython", "ipython", "bash"]
SIT_AT += ["bash -l", "/usr/bin/htop", "vim x.py", "pdb x.py", "python -i -c 1"]
RUN_ALONE = [
    "python x.py",
    "python -c 1",
    "python -m train",
    "python --version",
    "bash -c ls",
    "bash x.sh",
    "nvidia-smi",
]
RUN_ALONE += ["python x.py -i 5", "python -u x.py", "ipython x.py", "true", "python -m"]


@pytest.mark.parametrize(("text", "expected"), [*((t, True) for t in SIT_AT), *((t, False) for t in RUN_ALONE)])
def test_what_somebody_sits_at(text, expected):
    assert wants_terminal(tuple(text.split())) == expected


# On a terminal, or with something in standard input; the command; with socket or without: how it is run there.
WAYS = [
    ({"is_terminal": True}, ("python",), True, "attached"),
    ({"is_terminal": True}, ("python", "train.py"), True, "job"),
    ({"is_terminal": True, "wants_terminal": True}, ("python", "train.py"), True, "attached"),
    ({}, ("python",), True, "job"),
    ({"input": "file"}, ("python", "-"), True, "job"),
    ({"input": "stream"}, ("python", "-"), False, "attached"),
    ({"input": "stream", "detach": True}, ("python", "x.py"), False, "job"),
]


@pytest.mark.parametrize(("given", "command", "has_socket", "way"), WAYS)
def test_how_a_command_runs_on_a_host(catalog, engine, monkeypatch, tmp_path, given, command, has_socket, way):
    account = SimpleNamespace(uid=1, gid=1, groups=())
    there = SimpleNamespace(
        target="lab",
        connection=SimpleNamespace(account=account),
        takes_input=has_socket,
        is_here=False,
        is_rootless=False,
    )
    image = next(image for image in catalog.images() if image.name == "tf-cpu")
    ready = Ready(catalog=catalog, image=image, engine=there, network=SimpleNamespace(), gpus=no_gpus(image))
    for name, result in (("prepare", ready), ("bring", ready), ("folder_on", tmp_path), ("user_inside", "1:1")):
        monkeypatch.setattr(f"kit.run.start.{name}", lambda *_, _result=result, **__: _result)
    ask = RunAsk(name="tf-cpu", words=command, target="lab", folder=tmp_path, **given)
    assert plan(ask, None).way == way


@pytest.mark.parametrize(
    ("given", "words", "what"),
    [
        ({"wants_terminal": True}, ("python",), "this is no terminal"),
        ({"wants_terminal": True, "is_terminal": True, "detach": True}, ("python",), "somebody sits at"),
        ({"wants_terminal": True, "is_terminal": True}, ("jupyter",), "somebody sits at"),
        ({"detach": True, "input": "file"}, ("python", "-"), "nobody is there"),
    ],
)
def test_words_of_the_terminal_that_contradict_each_other(tmp_path, given, words, what):
    with pytest.raises(BadInputError, match=what):
        plan(RunAsk(name="tf-cpu", words=words, folder=tmp_path, **given), None)


# -- starting


def test_a_service_is_started_and_its_url_has_its_port_and_token(request_, engine, fake_docker, first_port):
    fake_docker.reply("run", serve=200)
    started = start_service(request_, NO_GPUS, engine, print)
    token = fake_docker.called("run")[0].env["JUPYTER_TOKEN"]
    assert started.url == f"http://127.0.0.1:{first_port}/lab?token={token}"
    assert len(token) >= 32
    assert fake_docker.called("rm") == []


def test_a_second_service_gets_the_next_port(request_, engine, fake_docker, first_port):
    fake_docker.reply("run", serve=200)
    urls = [start_service(request_, NO_GPUS, engine, print).url for _ in range(2)]
    assert [url.split("/")[2] for url in urls] == [f"127.0.0.1:{first_port}", f"127.0.0.1:{first_port + 1}"]
    assert len({url.split("=")[1] for url in urls}) == 2, "each has a token of its own"


def test_a_port_taken_between_the_look_and_the_start_is_passed_over(request_, engine, fake_docker, first_port):
    fake_docker.reply("run", serve=200)
    fake_docker.reply("run", stderr="docker: Error: port is already allocated\n", code=125, times=2)
    started = start_service(request_, NO_GPUS, engine, print)
    assert f":{first_port + 2}/" in started.url
    assert len(fake_docker.called("rm")) == 2, "what could not start is removed"


def test_an_asked_port_is_used_or_refused(request_, engine, fake_docker, first_port):
    fake_docker.reply("run", stderr="docker: Error: port is already allocated\n", code=125)
    with pytest.raises(PortTakenError):
        start_service(change(request_, port=first_port), NO_GPUS, engine, print)
    assert len(fake_docker.called("run")) == 1
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", first_port))
        server.listen()
        with pytest.raises(PortTakenError, match=f"port {first_port} on"):
            start_service(change(request_, port=first_port), NO_GPUS, engine, print)
    assert len(fake_docker.called("run")) == 1


def test_a_search_for_a_port_ends(request_, engine, fake_docker, first_port, monkeypatch):
    monkeypatch.setattr("kit.run.service.START_TRIES", 3)
    fake_docker.reply("run", stderr="docker: Error: address already in use\n", code=125)
    with pytest.raises(PortTakenError, match="in 3 tries"):
        start_service(request_, NO_GPUS, engine, print)


def test_a_server_that_does_not_take_the_token_is_not_the_one_that_was_started(
    request_, engine, fake_docker, first_port
):
    fake_docker.reply("run", serve=403)
    fake_docker.reply("logs", stdout="".join(f"line {n}\n" for n in range(30)))
    with pytest.raises(NotReadyError, match=r"did not answer on port \d+ within 0.5 s") as caught:
        start_service(request_, NO_GPUS, engine, print, timeout_s=0.5)
    assert caught.value.details == tuple(f"line {n}" for n in range(15, 30))
    name = next(a for a in fake_docker.called("run")[0].args if a.startswith("--name=")).removeprefix("--name=")
    assert fake_docker.calls[-1].args == ["rm", "--force", "--volumes", name]


def test_a_container_that_ends_instead_of_answering_is_reported_with_its_last_lines(
    request_, engine, fake_docker, first_port
):
    fake_docker.reply("container", "inspect", stdout=json.dumps([container(state={"Status": "exited", "ExitCode": 3})]))
    fake_docker.reply("logs", stderr="ModuleNotFoundError: jupyterlab\n")
    started = time.monotonic()
    with pytest.raises(NotReadyError, match="jupyter ended with exit code 3 instead of answering") as caught:
        start_service(request_, NO_GPUS, engine, print)
    assert caught.value.details == ("ModuleNotFoundError: jupyterlab",)
    assert time.monotonic() - started < 5, "not only after the whole time"
    assert fake_docker.called("rm")


def test_an_interrupted_start_leaves_no_container(request_, engine, fake_docker, first_port, monkeypatch):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("kit.run.service.answers", interrupt)
    with pytest.raises(KeyboardInterrupt):
        start_service(request_, NO_GPUS, engine, print)
    assert fake_docker.calls[-1].args[:2] == ["rm", "--force"]


def test_no_answer_is_no_answer(first_port):
    assert not answers("jupyter", first_port, "x")
    assert not answers("tensorboard", first_port, "")


def test_the_machines_proxy_is_not_asked_for_the_machines_own_address(
    request_, engine, fake_docker, first_port, monkeypatch
):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    fake_docker.reply("run", serve=200)
    assert start_service(request_, NO_GPUS, engine, print, timeout_s=10).url


def test_a_command_passes_its_exit_code_on_and_says_that_it_runs_on_the_cpu(
    request_, engine, fake_docker, catalog, monkeypatch
):
    monkeypatch.setattr("kit.run.lease.host_has_gpu", lambda: False)
    fake_docker.reply("run", code=9)
    said = []
    wanted = change(request_, image=catalog.find("torch-cu126"), service=None, command=("false",))
    assert command.run_command(wanted, decide(None, engine, wanted.image), engine, said.append) == 9
    assert said == ["no NVIDIA GPU on this host: running on the CPU"]
    assert "--rm" in fake_docker.called("run")[0].args


def test_containers_that_a_killed_kit_of_this_host_left_unstarted_are_removed(engine, fake_docker):
    host = socket.gethostname()

    def one(name, status, client):
        return container(name, state={"Status": status}, labels={"kit.client": client})

    fake_docker.reply("ps", stdout="a\n")
    fake_docker.reply(
        "container",
        "inspect",
        stdout=json.dumps(
            [
                one("kit-dead", "created", f"{host}:4194999"),
                one("kit-alive", "created", f"{host}:{os.getpid()}"),
                one("kit-running", "running", f"{host}:4194999"),
                one("kit-elsewhere", "created", "other-host:4194999"),
                one("kit-none", "created", ""),
            ]
        ),
    )
    assert not Path("/proc/4194999").exists()
    assert sweep(engine) == ["kit-dead"]
    assert [call.args[-1] for call in fake_docker.called("rm")] == ["kit-dead"]


# -- by name


@pytest.fixture
def some(fake_docker):
    fake_docker.reply("ps", stdout="a\n")
    fake_docker.reply(
        "container",
        "inspect",
        stdout=json.dumps(
            [
                container("kit-tf-cpu-jupyter-aa11"),
                container("kit-tf-cpu-jupyter-aa22", state={"Status": "exited"}),
                container("kit-torch2.7-cu126-run-bb33", labels={"kit.service": "", "kit.image": "torch2.7-cu126"}),
            ]
        ),
    )


@pytest.mark.parametrize("name", ["kit-tf-cpu-jupyter-aa11", "tf-cpu-jupyter-aa11", "tf-cpu", "kit-tf"])
def test_a_container_is_found_by_its_name_or_as_the_only_running_one(engine, some, name):
    assert find(engine, name).name == "kit-tf-cpu-jupyter-aa11"


@pytest.mark.parametrize("name", ["torch2.7-cu126", "torch", "kit-torch2.7-cu126-run-bb33"])
def test_a_container_is_found_by_the_start_of_its_name(engine, some, name):
    assert find(engine, name).name == "kit-torch2.7-cu126-run-bb33"


def test_a_name_for_several_lists_them(engine, some):
    with pytest.raises(NoSuchContainerError, match="'kit-' stands for 3 containers") as caught:
        find(engine, "kit-")
    assert len(caught.value.details) == 3


def test_a_name_for_none_lists_what_there_is(engine, some):
    with pytest.raises(NoSuchContainerError, match="no container of kit's is named 'x'") as caught:
        find(engine, "x")
    assert len(caught.value.details) == 3
    assert "kit ps --all" in caught.value.hint


def test_what_runs_is_described_with_its_url(engine, some):
    found = listed(engine, everything=False)
    assert [(r.name, r.service, r.status) for r in found] == [
        ("kit-tf-cpu-jupyter-aa11", "jupyter", "running"),
        ("kit-torch2.7-cu126-run-bb33", "", "running"),
    ]
    assert found[0].url == "http://127.0.0.1:8890/lab?token=se=cret"
    assert found[1].url == "", "a command has none"
    assert [r.url for r in listed(engine, everything=True) if r.status == "exited"] == [""]


def test_state_is_kept_under_the_users_state_folder(request_, engine):
    spec_of(request_, engine)
    assert (paths.state_dir() / "passwd/1000-1000").is_file()


def test_an_empty_name_is_no_container(engine, fake_docker):
    fake_docker.reply("ps", stdout="a\n")
    fake_docker.reply("container", "inspect", stdout=json.dumps([container("kit-a")]))
    with pytest.raises(NoSuchContainerError, match="empty"):
        find(engine, "")
    assert find(engine, "a").name == "kit-a"


@pytest.mark.parametrize("text", ["A\nB=1", "A B=1", "A\t=1", "=1", "A"])
def test_a_variable_has_a_name_that_a_file_can_have(text):
    with pytest.raises(BadInputError, match="--env"):
        parse_variable(text)
    assert parse_variable("A.b=x\ny=z") == ("A.b", "x\ny=z")


# -- groups and zones


def test_group_files_have_each_number_and_each_name_once():
    lines = group_lines(
        "7", ((4, "adm"), (5, "kit"), (6, "root"), (8, ""), (9, "domain users"), (10, "a:b\nc"), (11, ""))
    )
    assert lines == (
        "root:x:0:",
        "kit:x:7:",
        "adm:x:4:",
        "kit-5:x:5:",
        "root-6:x:6:",
        "group:x:8:",
        "domain_users:x:9:",
        "a_b_c:x:10:",
        "group-11:x:11:",
    )
    assert group_lines("0") == ("root:x:0:",)


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("Asia/Shanghai", "Asia/Shanghai"),
        (":America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires"),
        ("Etc/GMT+8", "Etc/GMT+8"),
        ("UTC", ""),
        ("../../etc/passwd", ""),
        ("<+08>-8", ""),
        ("A\nB", ""),
    ],
)
def test_the_time_zone_is_a_name_or_none(zone, expected):
    assert accounts.timezone({"TZ": zone}) == expected


def test_the_machines_zone_is_where_its_link_leads(tmp_path, monkeypatch):
    link = tmp_path / "localtime"
    monkeypatch.setattr(accounts, "LOCALTIME", str(link))
    assert accounts.timezone({}) == ""
    link.symlink_to("/usr/share/zoneinfo/Europe/Rome")
    assert accounts.timezone({}) == "Europe/Rome"


def test_groups_of_an_account_are_those_that_the_machine_says():
    assert accounts.groups_of(2**31 - 8, 0) == ()
    number = pwd.getpwuid(os.geteuid()).pw_uid
    assert all(isinstance(gid, int) and gid != os.getegid() for gid, _ in accounts.groups_of(number, os.getegid()))


@pytest.mark.parametrize(
    ("bounding", "limit", "expected"),
    [
        ("000001ffffffffff", "4096", 524288),
        ("00000000a80425fb", "4096", 4096),
        ("00000000a80425fb", "1048576", 524288),
        ("00000000a80425fb", "unlimited", 0),
        (None, "4096", 524288),
    ],
)
def test_no_limit_is_above_what_the_engine_may_set(bounding, limit, expected):
    texts = {
        "/proc/self/status": f"Name:\tx\nCapBnd:\t{bounding}\nSeccomp:\t2\n" if bounding else None,
        "/proc/self/limits": f"Max processes  1 2 processes\nMax open files            1024     {limit}     files\n",
    }
    engine = SimpleNamespace(is_rootless=False, features=FEATURES["docker"], read_text=texts.get)
    assert open_files(engine) == expected
    assert open_files(SimpleNamespace(is_rootless=False, features=FEATURES["podman"])) == 0
    rootless = type("Rootless", (), {"is_rootless": True})()
    assert open_files(rootless) == 0


@pytest.mark.parametrize(("allowed", "limits"), [(524288, "65536:524288"), (4096, "4096:4096"), (0, "")])
def test_open_files_of_a_container(request_, allowed, limits):
    spec = describe(request_, Place(client="x", open_files=allowed), GpuGrant(), name="n", port=1)
    assert [str(limit) for limit in spec.ulimits] == ([f"nofile={limits}"] if limits else [])
