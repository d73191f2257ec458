import contextlib
import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kit import private_engine, unix_http
from kit.engine import Container, Engine, connect
from kit.engine.find import local_socket
from kit.errors import (
    CommandError,
    EngineDeniedError,
    EngineError,
    EngineFeatureError,
    NoEngineError,
    NoSuchContainerError,
    PortTakenError,
)
from kit.facts import sockets
from kit.spec.container import ContainerSpec
from tests.fake_docker import container, info

NO_DAEMON = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"


# -- calls


def test_call_returns_what_was_printed_and_passes_its_environment(fake_docker):
    fake_docker.reply("version", stdout="28\n")
    engine = Engine(program=str(fake_docker.program), environment={"DOCKER_HOST": "unix:///x", "A": "engine"})
    assert engine.call(["version"], environment={"A": "call"}) == "28\n"
    call = fake_docker.called("version")[0]
    assert (call.env["DOCKER_HOST"], call.env["A"]) == ("unix:///x", "call")


def test_a_failed_call_is_the_kind_its_text_stands_for_and_keeps_its_cause(engine, fake_docker):
    fake_docker.reply("ps", stderr=NO_DAEMON, code=1)
    with pytest.raises(NoEngineError) as caught:
        engine.call(["ps"])
    assert isinstance(caught.value.__cause__, CommandError)
    assert "kit engine up" in caught.value.hint


def test_an_engine_that_hangs_is_given_up(engine, fake_docker):
    fake_docker.reply("ps", sleep=30)
    started = time.monotonic()
    with pytest.raises(EngineError, match="exit code 124"):
        engine.call(["ps"], timeout_s=0.5)
    assert time.monotonic() - started < 5


def test_a_docker_program_that_is_not_there_is_no_engine():
    with pytest.raises(NoEngineError, match="`no-docker-here` is not installed") as caught:
        Engine(program="no-docker-here").call(["ps"])
    assert "kit engine up" in caught.value.hint


def test_a_secret_reaches_the_engine_through_its_environment_and_no_argument_list(engine, fake_docker):
    engine.run_detached(ContainerSpec(image="i", name="n", secret_environment={"JUPYTER_TOKEN": "s3cret"}))
    engine.run_attached(ContainerSpec(image="i", name="n", secret_environment={"JUPYTER_TOKEN": "s3cret"}))
    calls = fake_docker.called("run")
    assert [call.env["JUPYTER_TOKEN"] for call in calls] == ["s3cret", "s3cret"]
    assert "s3cret" not in json.dumps([call.args for call in calls])


# -- what the engine says of itself


def test_info_of_an_engine_with_the_containerd_store(engine, fake_docker):
    fake_docker.reply(
        "info",
        stdout=info(
            DiscoveredDevices=[{"Source": "cdi", "ID": "nvidia.com/gpu=0"}, {"Source": "other", "ID": "x"}],
            CDISpecDirs=["/etc/cdi"],
            Runtimes={"runc": {}, "nvidia": {}},
        ),
    )
    assert engine.info.is_containerd_store
    assert engine.info.cdi_devices == ("nvidia.com/gpu=0",)
    assert engine.info.cdi_spec_dirs == ("/etc/cdi",)
    assert engine.info.runtimes == ("nvidia", "runc")
    assert (engine.info.version, engine.info.memory_bytes, engine.info.cpus) == ("28.5.2", 25276502016, 2)
    assert len(fake_docker.called("info")) == 1, "asked once and kept"


def test_info_of_an_old_engine_with_overlay2(engine, fake_docker):
    fake_docker.reply(
        "info",
        stdout=json.dumps(
            {
                "ServerVersion": "20.10.24",
                "Driver": "overlay2",
                "DriverStatus": [["Backing Filesystem", "extfs"], ["odd"]],
                "Runtimes": None,
                "DockerRootDir": "/var/lib/docker",
            }
        ),
    )
    assert not engine.info.is_containerd_store
    assert engine.info.cdi_devices == engine.info.cdi_spec_dirs == engine.info.runtimes == ()
    assert engine.info.memory_bytes == 0


def test_info_of_no_engine(engine, fake_docker):
    # Docker prints its own half and fails; version 20 to 24 say so in `ServerErrors` with exit code 0.
    fake_docker.reply("info", stdout='{"ServerVersion": ""}', stderr=NO_DAEMON, code=1)
    with pytest.raises(NoEngineError):
        engine.info  # noqa: B018
    fake_docker.reply("info", stdout=json.dumps({"ServerErrors": [NO_DAEMON.strip()]}))
    with pytest.raises(NoEngineError, match="does not answer: Cannot connect"):
        engine.info  # noqa: B018


# -- images


def test_labels_of_an_image(engine, fake_docker):
    fake_docker.reply("image", "inspect", stdout='{"kit.image":"x"} sha256:1\n')
    assert engine.image_labels("kit/x:latest") == {"kit.image": "x"}
    fake_docker.reply("image", "inspect", stdout="null sha256:1\n")
    assert engine.image_labels("kit/x:latest") == {}


def test_an_image_that_is_not_there_has_no_labels(engine, fake_docker):
    fake_docker.reply("image", "inspect", stdout="\n", stderr="Error response from daemon: No such image: x\n", code=1)
    assert engine.image_labels("x") is None


def test_an_engine_that_fails_is_not_an_image_that_is_not_there(engine, fake_docker):
    fake_docker.reply("image", "inspect", stderr="Error response from daemon: corrupt index\n", code=1)
    with pytest.raises(EngineError, match="failed"):
        engine.image_labels("x")
    fake_docker.reply("image", "inspect", stderr=NO_DAEMON, code=1)
    with pytest.raises(NoEngineError):
        engine.image_labels("x")


def test_tags_of_local_images(engine, fake_docker):
    fake_docker.reply("image", "ls", stdout="kit/a:latest\n\nkit/b:latest\n")
    assert engine.tags() == ["kit/a:latest", "kit/b:latest"]


@pytest.mark.parametrize(
    "text",
    [
        "docker: unknown command: docker buildx\n\nRun 'docker --help' for more information",
        "docker: 'buildx' is not a docker command.\nSee 'docker --help'",
    ],
)
def test_a_docker_without_buildx_is_refused_with_what_to_install(engine, fake_docker, text):
    fake_docker.reply("buildx", "version", stderr=text, code=1)
    with pytest.raises(EngineFeatureError, match="no buildx") as caught:
        engine.require_buildx()
    assert "docker-buildx" in caught.value.hint
    assert "kit engine up" in caught.value.hint


# -- containers


def test_a_container_is_read_from_what_the_engine_says(engine, fake_docker):
    fake_docker.reply("container", "inspect", stdout=json.dumps([container()]))
    found = engine.container("kit-tf-cpu-jupyter-ab12")
    assert isinstance(found, Container)
    assert (found.name, found.status, found.exit_code) == ("kit-tf-cpu-jupyter-ab12", "running", 0)
    assert found.environment == {"PATH": "/bin", "JUPYTER_TOKEN": "se=cret"}
    assert found.ports == {8888: 8890}


def test_a_container_without_ports_labels_or_environment(engine, fake_docker):
    raw = container(HostConfig={"PortBindings": {"8888/tcp": [], "1/tcp": [{"HostPort": ""}], "2/tcp": None}})
    raw["Config"] |= {"Labels": None, "Env": None}
    fake_docker.reply("container", "inspect", stdout=json.dumps([raw]))
    found = engine.container("x")
    assert (found.ports, found.labels, found.environment) == ({}, {}, {})


def test_a_container_that_is_not_there(engine, fake_docker):
    fake_docker.reply(
        "container", "inspect", stdout="[]\n", code=1, stderr="Error response from daemon: No such container: x\n"
    )
    with pytest.raises(NoSuchContainerError) as caught:
        engine.container("x")
    assert "kit ps" in caught.value.hint


def test_containers_are_listed_by_label_and_no_call_is_made_for_none(engine, fake_docker):
    assert engine.containers(label="kit.client") == []
    assert fake_docker.called("container") == []
    assert "--filter=label=kit.client" in fake_docker.called("ps")[0].args


def test_a_container_that_went_away_meanwhile_is_left_out(engine, fake_docker):
    """Twenty kits list and remove at once; `docker inspect` prints what it finds and fails for the rest."""
    fake_docker.reply("ps", stdout="aaa\nbbb\n")
    fake_docker.reply(
        "container",
        "inspect",
        stdout=json.dumps([container("kit-a")]),
        code=1,
        stderr="Error response from daemon: No such container: bbb\n",
    )
    assert [c.name for c in engine.containers()] == ["kit-a"]


def test_an_engine_that_fails_at_listing_is_an_error(engine, fake_docker):
    fake_docker.reply("ps", stdout="aaa\n")
    fake_docker.reply("container", "inspect", stdout="[]", stderr=NO_DAEMON, code=1)
    with pytest.raises(NoEngineError):
        engine.containers()


def test_a_container_that_cannot_start_is_removed(engine, fake_docker):
    fake_docker.reply("run", stderr="docker: Error response from daemon: port is already allocated\n", code=125)
    with pytest.raises(PortTakenError):
        engine.run_detached(ContainerSpec(image="i", name="n"))
    assert [call.args for call in fake_docker.calls[-1:]] == [["rm", "--force", "--volumes", "n"]]


def test_no_image_is_pulled_on_starting(engine, fake_docker):
    engine.run_detached(ContainerSpec(image="i", name="n"))
    engine.run_attached(ContainerSpec(image="i", name="n"))
    assert [call.args[:2] for call in fake_docker.called("run")] == [
        ["run", "--detach"],
        ["run", "--pull=never"],
    ]
    assert all("--pull=never" in call.args for call in fake_docker.called("run"))


def test_the_exit_code_of_an_attached_command_is_passed_on(engine, fake_docker):
    fake_docker.reply("run", code=37)
    assert engine.run_attached(ContainerSpec(image="i", name="n")) == 37


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_container_whose_terminal_went_away_is_told_to_end_before_it_is_removed(engine, fake_docker, is_gone):
    fake_docker.reply("run", code=129)
    fake_docker.reply("ps", stdout="" if is_gone else "n\n")
    assert engine.run_attached(ContainerSpec(image="i", name="n", tty=True)) == 129
    ended = [call.args[0] for call in fake_docker.calls if call.args[0] in ("stop", "rm")]
    assert ended == ([] if is_gone else ["stop", "rm"])


def test_a_container_that_cannot_be_told_is_removed_all_the_same(engine, fake_docker):
    fake_docker.reply("run", code=137)
    fake_docker.reply("ps", stdout="n\n")
    fake_docker.reply("stop", stderr="Error response from daemon: cannot stop container: n\n", code=1)
    assert engine.run_attached(ContainerSpec(image="i", name="n")) == 137
    assert [call.args for call in fake_docker.called("rm")] == [["rm", "--force", "--volumes", "n"]]


def test_logs_are_the_last_lines_of_both_streams(engine, fake_docker):
    fake_docker.reply("logs", stdout="a\nb\n", stderr="c\n")
    assert engine.logs("n", tail=2) == ["b", "c"]


def test_removing_by_force_what_is_not_there_is_no_error(engine, fake_docker):
    fake_docker.reply("rm", stderr="Error response from daemon: No such container: n\n", code=1)
    engine.remove("n", force=True)
    with pytest.raises(NoSuchContainerError):
        engine.remove("n")


def test_stopping_waits_longer_than_the_container_may_take(engine, fake_docker):
    engine.stop("n", timeout_s=3)
    assert fake_docker.called("stop")[0].args == ["stop", "--time=3", "n"]


# -- asking an engine on this machine directly


@pytest.fixture
def serve(tmp_path_factory):
    """A function that puts an engine on a unix socket: it answers each GET with what the table has for its path."""
    servers = []

    def start(answers):
        path = tmp_path_factory.mktemp("s") / "d.sock"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen()
        servers.append(server)

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        url = client.recv(65536).split(b" ")[1].decode()
                        client.sendall(answers.get(url, b"HTTP/1.0 404 Not Found\r\n\r\n{}"))

        threading.Thread(target=answer, daemon=True).start()
        return path

    yield start
    for server in servers:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()


def ok(text):
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + text.encode()


def test_a_local_engine_is_asked_without_starting_a_program(fake_docker, serve):
    path = serve(
        {
            "/info": ok(info(Runtimes={"nvidia": {}})),
            "/images/kit/x:latest/json": ok('{"Id": "sha256:1", "Config": {"Labels": {"a": "b"}}}'),
            "/images/kit/bare:latest/json": ok('{"Id": "sha256:2", "Config": {"Labels": null}}'),
        }
    )
    engine = Engine(program=str(fake_docker.program), socket_path=path)
    assert engine.info.runtimes == ("nvidia",)
    assert engine.image_labels("kit/x:latest") == {"a": "b"}
    assert engine.image_labels("kit/bare:latest") == {}
    assert engine.image_labels("kit/none:latest") is None
    assert fake_docker.calls == []


@pytest.mark.parametrize("answer", [b"", b"garbage", b"HTTP/1.0 200 OK\r\n\r\nno json", b"HTTP/1.0 500 Oops\r\n\r\n{}"])
def test_an_engine_that_answers_oddly_is_asked_by_the_command_line(fake_docker, serve, answer):
    path = serve({"/info": answer, "/images/x/json": answer})
    fake_docker.reply("image", "inspect", stdout='{"from": "docker"} sha256:1')
    engine = Engine(program=str(fake_docker.program), socket_path=path)
    assert engine.info.version == "28.5.2"
    assert engine.image_labels("x") == {"from": "docker"}


def test_an_engine_that_is_gone_is_asked_by_the_command_line_whose_error_is_told(fake_docker, tmp_path):
    fake_docker.reply("info", stderr=NO_DAEMON, code=1)
    with pytest.raises(NoEngineError):
        Engine(program=str(fake_docker.program), socket_path=tmp_path / "gone").info  # noqa: B018


def test_an_answer_is_not_waited_for_without_end(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        started = time.monotonic()
        assert unix_http.get(tmp_path / "s", "/info", timeout_s=0.2) is None
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("unix:///run/docker.sock", Path("/run/docker.sock")),
        ("", None),
        ("tcp://127.0.0.1:2375", None),
        ("ssh://me@host", None),
        ("unix://relative", None),
    ],
)
def test_only_sockets_of_this_machine_are_asked_directly(address, path):
    assert local_socket(address) == path


# -- which engine


@pytest.fixture
def listens(monkeypatch):
    """Say where the system's engine is to be looked for."""

    def at(path):
        first = replace(sockets.CANDIDATES[0], folder=str(path.parent), file=path.name)
        monkeypatch.setattr(sockets, "CANDIDATES", (first, *sockets.CANDIDATES[1:]))

    return at


@pytest.fixture
def no_private(monkeypatch):
    monkeypatch.setattr(private_engine, "is_up", lambda: False)


@pytest.fixture
def private(monkeypatch):
    monkeypatch.setattr(private_engine, "is_up", lambda: True)
    monkeypatch.setattr(private_engine, "environment", lambda: {"DOCKER_HOST": "unix:///private"})
    monkeypatch.setattr(private_engine, "docker_program", lambda: None)


@pytest.fixture
def system_socket(tmp_path_factory, listens):
    path = tmp_path_factory.mktemp("s") / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        listens(path)
        yield path


def test_without_any_engine_the_error_says_how_to_get_one(no_private):
    with pytest.raises(NoEngineError, match="no container engine answers") as caught:
        connect()
    assert "kit engine up" in caught.value.hint


@pytest.mark.parametrize("variable", ["DOCKER_HOST", "DOCKER_CONTEXT"])
def test_the_users_own_choice_goes_first(monkeypatch, private, system_socket, variable):
    monkeypatch.setenv(variable, "chosen")
    assert connect().environment == {}


def test_a_context_in_dockers_configuration_is_a_choice(tmp_path, monkeypatch, private):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"currentContext": "remote"}')
    assert connect().environment == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"currentContext": "default"}'])
def test_a_configuration_without_a_context_is_none(tmp_path, monkeypatch, private, text):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(text)
    assert connect().environment == {"DOCKER_HOST": "unix:///private"}


def test_the_systems_engine_goes_before_the_private_one(private, system_socket):
    assert connect().environment == {}


def test_a_socket_that_nobody_listens_on_is_no_engine(private, tmp_path, listens):
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(dead))
    listens(dead)
    assert connect().environment == {"DOCKER_HOST": "unix:///private"}


def test_rootless_docker_is_found_by_its_socket(private, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "docker.sock"))
        server.listen()
        assert connect().environment == {"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}


def test_kit_engine_chooses(monkeypatch, private, system_socket, listens):
    monkeypatch.setenv("KIT_ENGINE", "private")
    assert connect().environment == {"DOCKER_HOST": "unix:///private"}
    monkeypatch.setenv("KIT_ENGINE", "system")
    assert connect().environment == {}
    listens(system_socket.parent / "none")
    with pytest.raises(NoEngineError):
        connect()


@pytest.fixture
def denied(monkeypatch):
    def deny(_path):
        raise PermissionError

    monkeypatch.setattr("kit.engine.find._answers", deny)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


def test_a_socket_the_caller_may_not_use_is_told_apart(denied, no_private):
    with pytest.raises(EngineDeniedError, match="no right to use the container engine") as caught:
        connect()
    assert "`ls -l" in caught.value.hint, "nobody can say whose it is"


def test_the_private_engine_is_taken_where_the_systems_may_not_be_used(denied, private):
    assert connect().environment == {"DOCKER_HOST": "unix:///private"}


LISTED = {
    "Id": "ab" * 32,
    "Names": ["/kit-a"],
    "Image": "kit/tf-cpu:latest",
    "State": "exited",
    "Status": "Exited (137) 2 hours ago",
    "Labels": {"kit.image": "tf-cpu"},
    "Ports": [{"PrivatePort": 8888, "Type": "tcp"}],
}


def test_the_engines_list_says_enough_of_each(monkeypatch, tmp_path):
    running = {
        **LISTED,
        "Names": ["/kit-b"],
        "State": "running",
        "Status": "Up 3 minutes (healthy)",
        "Ports": [{"IP": "127.0.0.1", "PrivatePort": 8888, "PublicPort": 29104, "Type": "tcp"}],
    }
    asked = []
    monkeypatch.setattr("kit.unix_http.get_list", lambda path, url: asked.append(url) or [LISTED, running])
    one, two = Engine(socket_path=tmp_path).listed(label="kit.client")
    assert (one.name, one.status, one.exit_code, dict(one.ports)) == ("kit-a", "exited", 137, {})
    assert (two.name, two.status, two.exit_code, dict(two.ports)) == ("kit-b", "running", 0, {8888: 29104})
    assert one.labels == {"kit.image": "tf-cpu"}
    assert len(asked) == 1
    assert "kit.client" in asked[0]


def test_containers_are_asked_for_one_by_one_without_the_command_line(monkeypatch, tmp_path, fake_docker):
    from tests.fake_docker import container

    answers = {"/containers/a/json": (200, container("kit-a")), "/containers/b/json": (404, {})}
    monkeypatch.setattr("kit.unix_http.get_list", lambda *_: [{"Id": "a"}, {"Id": "b"}])
    monkeypatch.setattr("kit.unix_http.get", lambda _, url: answers[url])
    found = Engine(socket_path=tmp_path).containers()
    assert [c.name for c in found] == ["kit-a"], "one that went away meanwhile is left out"
    assert fake_docker.calls == []
    # What the socket does not answer as it should, the command line is asked.
    answers["/containers/b/json"] = (500, {})
    fake_docker.reply("ps", stdout="a\nb\n")
    fake_docker.reply("container", "inspect", stdout=json.dumps([container("kit-c")]))
    assert [c.name for c in Engine(socket_path=tmp_path).containers()] == ["kit-c"]
