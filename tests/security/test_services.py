"""A service answers who has its token, under a name of this machine; containers of others do not reach it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from docker import DockerClient
from hypothesis import given
from hypothesis import strategies as st

from kit import labels
from kit.engine import Container, Engine
from kit.engine.container import from_inspect, from_list
from kit.engine.podman import Podman
from kit.errors import BadInputError, EngineError
from kit.layout import MOUNT_POINTS
from kit.run import containers
from kit.spec.request import parse_mount
from kit.spec.tensorboard import HOSTS, guarded
from kit.verify.suite.test_jupyter import get
from tests.conftest import Result
from tests.engine import witness
from tests.engine.remote.client import eventually
from tests.fake_docker import FakeDocker, container
from tests.security.fuzzing import fuzz

TOKEN = "s3s4m3-_x"


def ask(**environ: str) -> tuple[str, list[tuple[str, str]]]:
    """The status and headers of the answer to a request with this environment."""
    answers: list[tuple[str, list[tuple[str, str]]]] = []

    def app(_: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [b"logs"]

    body = guarded(app, TOKEN)(environ, lambda status, headers, *_: answers.append((status, headers)))
    assert (body == [b"logs"]) == (answers[0][0] == "200 OK")
    return answers[0]


def test_tensorboard_takes_the_token_as_jupyter_does() -> None:
    assert ask(HTTP_HOST="127.0.0.1:6006")[0].startswith("403")
    for given_ in ({"QUERY_STRING": f"a=b&token={TOKEN}"}, {"HTTP_AUTHORIZATION": f"token {TOKEN}"}):
        status, headers = ask(HTTP_HOST="127.0.0.1:6006", **given_)
        (cookie,) = [value for name, value in headers if name == "Set-Cookie"]
        assert status == "200 OK"
        assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        assert ask(HTTP_HOST="localhost:1", HTTP_COOKIE=f"x=y; {cookie.split(';')[0]}; z=1") == ("200 OK", [])


@given(
    st.fixed_dictionaries(
        {
            "HTTP_HOST": st.sampled_from(["127.0.0.1", "evil.test", "", "127.0.0.1.evil.test:6006", "[::1]:6006"]),
            "QUERY_STRING": st.sampled_from(["", "token=", f"token={TOKEN[:-1]}", f"token={TOKEN}x", f"Token={TOKEN}"])
            | st.text(),
            "HTTP_AUTHORIZATION": st.sampled_from(["", "token", f"token {TOKEN[:-1]}", f"Bearer {TOKEN}"]) | st.text(),
            "HTTP_COOKIE": st.sampled_from(["", f"token={TOKEN}", "kit-tensorboard-=;;="]) | st.text(),
        }
    )
)
def test_nobody_without_the_token_gets_in(environ: dict[str, str]) -> None:
    assert ask(**environ)[0].startswith("403")


def test_the_token_alone_is_not_enough_under_another_name() -> None:
    for name in ("evil.test", "evil.test:6006", "", "127.0.0.1.evil.test", "localhost.", "127.0.0.1@evil.test"):
        assert ask(HTTP_HOST=name, QUERY_STRING=f"token={TOKEN}")[0].startswith("403")
    for name in HOSTS:
        assert ask(HTTP_HOST=f"{name}:6006", QUERY_STRING=f"token={TOKEN}")[0] == "200 OK"


WORDS = st.text(max_size=20) | st.sampled_from(["jupyter", "tensorboard", "-1", "0:0", "x:y:z", "\x1b[8m", "١"])
NAMES = st.sampled_from([value for name, value in vars(labels).items() if name.isupper()]) | WORDS


def test_labels_of_others_are_text_and_no_more(engine: Engine) -> None:
    def read(said: dict[str, str]) -> None:
        raw = container()
        raw["Config"]["Labels"] = said or None
        raw["NetworkSettings"] = {}
        for found in (from_inspect(raw), from_list({"Id": "1", "Labels": said})):
            shown = containers.describe(found, engine)
            assert isinstance(shown, containers.Running)
            containers.owner_of(found)

    fuzz(st.dictionaries(NAMES, WORDS, max_size=8), read)


@pytest.mark.parametrize("command", [["ps"], ["ps", "--all"], ["--json", "ps"], ["logs", "odd"], ["stop", "odd"]])
def test_a_container_with_odd_labels_is_no_defect(
    kit: Callable[..., Result], fake_docker: FakeDocker, command: list[str]
) -> None:
    raw = container("kit-odd", labels={"kit.service": "\x1b[8mx"})
    del raw["Config"]["Labels"]["kit.image"]
    fake_docker.reply("ps", stdout="odd\n")
    fake_docker.reply("container", "inspect", stdout=json.dumps([raw]))
    assert kit(*command).code == 0
    assert kit("url", "odd").code in (0, 2, 13)


def test_url_names_no_option_that_it_lacks(kit: Callable[..., Result], fake_docker: FakeDocker) -> None:
    fake_docker.reply("ps", stdout="odd\n")
    fake_docker.reply("container", "inspect", stdout=json.dumps([container(labels={"kit.owner": "4242"})]))
    result = kit("url", "kit-tf-cpu-jupyter-ab12")
    assert result.code == 2
    assert "--force" not in result.err


@pytest.mark.parametrize("words", [["--port", "5"], ["--restart", "always"], ["--port", "5", "-d"]])
def test_what_a_command_has_no_use_for_is_refused(
    kit: Callable[..., Result], fake_docker: FakeDocker, words: list[str]
) -> None:
    result = kit("run", *words, "tf-cpu", "true")
    assert result.code == 2
    assert words[0] in result.err
    assert fake_docker.called("run") == []


@pytest.mark.parametrize("target", [*MOUNT_POINTS, "/", "//", "/workspace/", "/x/../workspace", "//workspace/."])
def test_nothing_is_mounted_over_what_kit_mounts(target: str) -> None:
    with pytest.raises(BadInputError, match="already"):
        parse_mount(f"/srv:{target}")
    assert parse_mount("/srv:/workspace/data").target == "/workspace/data"


def test_root_runs_as_whoever_owns_the_folder(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "user_of", lambda _: "0:0")
    monkeypatch.setattr(Engine, "is_rootless", False)
    owner = f"{tmp_path.stat().st_uid}:{tmp_path.stat().st_gid}"
    assert containers.user_inside(engine, tmp_path) == ("0:0" if owner.startswith("0:") else owner)
    with monkeypatch.context() as changed:
        changed.setattr(Path, "stat", lambda _: type("Status", (), {"st_uid": 4242, "st_gid": 43}))
        assert containers.user_inside(engine, tmp_path) == "4242:43"
    assert containers.user_inside(engine) == "0:0"


def test_each_owner_has_a_network(engine: Engine, fake_docker: FakeDocker) -> None:
    fake_docker.reply("network", "inspect", code=1)
    fake_docker.reply("network", "inspect", "--format={{index .Options", stdout="")
    assert engine.own_network("7") == "kit-7"
    assert [call.args[-1] for call in fake_docker.called("network", "create")] == ["kit-7"]
    fake_docker.reply("network", "inspect", stdout="1400\n")
    assert engine.own_network("8") == "kit-8"
    assert len(fake_docker.called("network", "create")) == 1, "it is there"
    assert Podman().own_network("7") == "", "each container has its own"


def test_two_starts_at_once_make_one_network(engine: Engine, fake_docker: FakeDocker) -> None:
    fake_docker.reply("network", "inspect", stdout="[]")
    fake_docker.reply("network", "inspect", "--format={{index .Options", stdout="")
    fake_docker.reply("network", "inspect", code=1, times=1)
    fake_docker.reply("network", "create", stderr="network with name kit-7 already exists", code=1)
    assert engine.own_network("7") == "kit-7"
    fake_docker.reply("network", "inspect", code=1)
    with pytest.raises(EngineError, match="network create"):
        engine.own_network("7")


@pytest.mark.engine
def test_tensorboard_of_a_container(engine_kit: Any, tf_cpu: str, docker: DockerClient, workspace: Path) -> None:
    started = json.loads(engine_kit("--json", "run", "-C", str(workspace), tf_cpu, "tensorboard").stdout)
    try:
        parts = urlsplit(started["url"])
        token = parts.query.removeprefix("token=")
        assert get(started["url"])[0] == 200
        for path in ("/", "/data/environment", "/index.js", "/?token=x"):
            assert get(f"http://{parts.netloc}{path}")[0] == 403
        request = urllib.request.Request(started["url"], headers={"Host": "evil.test"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=10)
        found = docker.containers.get(started["name"])
        assert token not in json.dumps(found.attrs["Args"]) + json.dumps(found.top())
        listed = {row["name"]: row["url"] for row in json.loads(engine_kit("--json", "ps").stdout)}
        assert listed[started["name"]] == started["url"]
    finally:
        engine_kit("rm", "--force", started["name"])


@pytest.mark.engine
def test_jupyter_answers_under_a_name_of_this_machine_alone(engine_kit: Any, tf_cpu: str, workspace: Path) -> None:
    jupyter = json.loads(engine_kit("--json", "run", "-C", str(workspace), tf_cpu, "jupyter").stdout)
    try:
        request = urllib.request.Request(jupyter["url"], headers={"Host": "evil.test"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=10)
        assert get(jupyter["url"])[0] == 200
    finally:
        engine_kit("rm", "--force", jupyter["name"])


@pytest.mark.engine
def test_another_port_of_a_notebook_wants_its_token(engine_kit: Any, tf_cpu: str, workspace: Path) -> None:
    (workspace / "secret.txt").write_text("of the project")
    jupyter = json.loads(engine_kit("--json", "run", "-C", str(workspace), tf_cpu, "jupyter").stdout)
    try:
        parts = urlsplit(jupyter["url"])
        token = parts.query.removeprefix("token=")
        serve = "python -m http.server --bind 127.0.0.1 7777 >/dev/null 2>&1 &"
        engine_kit("exec", jupyter["name"], "sh", "-c", serve)
        url = f"http://{parts.netloc}/proxy/7777/secret.txt"
        eventually(lambda: get(url, token=token) == (200, b"of the project"), "the server")
        for path in ("proxy/7777", "proxy/absolute/7777", "proxy/127.0.0.1:7777", "proxy/localhost:7777"):
            for wrong in ("", "x", "0" * len(token)):
                assert b"of the project" not in get(f"http://{parts.netloc}/{path}/secret.txt", token=wrong)[1]
        request = urllib.request.Request(url, headers={"Host": "evil.test", "Authorization": f"token {token}"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=10)
        # Not a way to other machines.
        assert get(f"http://{parts.netloc}/proxy/192.0.2.1:80/", token=token)[0] == 403
    finally:
        engine_kit("rm", "--force", jupyter["name"])


@pytest.mark.engine
def test_containers_of_two_owners_do_not_reach_each_other(
    engine_kit: Any, tf_cpu: str, docker: DockerClient, workspace: Path
) -> None:
    serve = "python -m http.server 7777"
    name = engine_kit("run", "-d", "-C", str(workspace), tf_cpu, "sh", "-c", serve).stdout.strip()
    other = docker.networks.create("kit-4242")
    try:
        networks = docker.containers.get(name).attrs["NetworkSettings"]["Networks"]
        assert len(networks) == 1
        ((network, found),) = networks.items()
        assert re.fullmatch(r"kit-\d+", network), "not one that others are on"
        look = (
            "import socket, time\n"
            "for _ in range(40):\n"
            "  try: socket.create_connection(('{}', 7777), 1).close(); print('reached'); break\n"
            "  except OSError: time.sleep({})\n"
        )
        own, theirs = look.format(found["IPAddress"], 0.3), look.format(found["IPAddress"], 0).replace("40", "2")
        assert "reached" in engine_kit("run", "-C", str(workspace), tf_cpu, "python", "-c", own).stdout
        for at in ("kit-4242", "bridge"):
            printed = witness.run(docker, f"kit/{tf_cpu}:latest", "python", "-c", theirs, network=at)
            assert "reached" not in printed, f"from {at}"
    finally:
        other.remove()
        engine_kit("rm", "--force", name)


def test_a_container_of_nobodys_is_whole() -> None:
    found = Container(name="n", image="i", status="running", exit_code=0, labels={}, environment={}, ports={})
    assert containers.owner_of(found) == ""
