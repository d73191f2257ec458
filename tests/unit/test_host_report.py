"""`--json` is pasted into public reports: whose machine it is must not be in it."""

import json
import socket
from dataclasses import asdict, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.facts.engine import EngineFacts
from kit.facts.host import CdiSpec, Endpoint, GpuContainer, GpuProcess, Host, HostGpu
from kit.host.report import to_json

HOSTILE = Host(
    target="alice@gpu-server.corp.example",
    os="Ubuntu 24.04.3 LTS",
    os_id="ubuntu",
    driver_problem="cannot read /home/alice/.cache/x for alice (token=abc123)",
    gpus=(
        HostGpu(
            name="NVIDIA A100",
            processes=(
                GpuProcess(pid=7, name="python3", user="bob", container="bob-jupyter"),
                GpuProcess(pid=8, name="train", user="ubuntu"),
            ),
        ),
    ),
    cdi_specs=(CdiSpec(path="/home/carol/cdi/nvidia.yaml", missing_files=("/home/carol/lib/libcuda.so",)),),
    containers=(GpuContainer(name="kit-torch-ab12", id="a" * 64, user="1000:1000"),),
    engine=EngineFacts(
        program="docker",
        endpoint="ssh://alice@gpu-server.corp.example",
        data_root="/home/alice/.local/share/docker",
        problem="down",
        problem_text="Get https://alice:hunter2@proxy.example:3128/v1?token=s3cret: on gpu-server.corp.example "
        "Bearer eyJhbGciOi hf_AbCdEfGhIjKlMnOp",
        mirrors=("https://user:p@ss@mirror.example/path?key=1#x",),
    ),
    endpoints=(Endpoint(kind="index", url="https://u:p@index.example/simple"),),
    unread=("docker info: /Users/dave/x and C:\\Users\\eve\\y", "API_KEY=zzz password: yyy"),
)


def test_nothing_says_whose_machine_it_is():
    text = json.dumps(to_json(HOSTILE))
    for word in (
        *("alice", "bob", "carol", "dave", "eve", "gpu-server", "corp.example", "hunter2", "s3cret", "p@ss"),
        *("abc123", "eyJhbGciOi", "AbCdEfGhIjKlMnOp", "zzz", "yyy", "u:p", "key=1"),
    ):
        assert word not in text, word


def test_what_helps_is_still_there():
    data = to_json(HOSTILE)
    assert (data["target"], data["os"], data["os_id"]) == ("remote", "Ubuntu 24.04.3 LTS", "ubuntu")
    assert data["engine"]["endpoint"] == "ssh://"
    assert data["engine"]["data_root"] == "~/.local/share/docker"
    assert data["engine"]["mirrors"] == ["https://mirror.example/path"]
    assert data["cdi_specs"][0]["path"] == "~/cdi/nvidia.yaml"
    process = data["gpus"][0]["processes"][0]
    assert (process["pid"], process["name"], process["user"]) == (7, "python3", "")
    assert process["container"] == "user-jupyter"
    assert data["containers"][0]["user"] == "1000:1000"
    assert data["endpoints"][0]["url"] == "https://index.example/simple"


def test_who_started_a_container_is_hidden_where_that_is_a_name():
    host = Host(containers=tuple(GpuContainer(name=f"kit-{n}", id="a", user=n) for n in ("frank", "1000:1000")))
    found = to_json(host)["containers"]
    assert [(c["name"], c["user"]) for c in found] == [("kit-user", ""), ("kit-1000:1000", "1000:1000")]


def test_this_machines_own_name_and_home_are_hidden(monkeypatch, tmp_path):
    monkeypatch.setattr(socket, "gethostname", lambda: "workstation7.lab.example")
    monkeypatch.setenv("HOME", "/data/people/frank")
    monkeypatch.setenv("LOGNAME", "frank")
    host = Host(unread=("docker: on workstation7 /data/people/frank/.docker of frank, /root/x, /rooted",))
    assert to_json(host)["unread"] == ["docker: on host ~/.docker of user, ~/x, /rooted"]


def test_the_engines_socket_stays():
    for socket_ in ("unix:///var/run/docker.sock", "unix:///run/user/1000/docker.sock"):
        assert to_json(Host(engine=EngineFacts(endpoint=socket_)))["engine"]["endpoint"] == socket_


def test_every_field_is_there_under_its_name():
    assert list(to_json(Host())) == [field.name for field in fields(Host)]
    plain = json.loads(json.dumps(asdict(Host())))
    # The keys are an interface; an engine's facts that only kit itself needs are no part of it.
    for name in ("is_containerd_store", "cpus", "memory_bytes", "lists_cdi"):
        del plain["engine"][name]
    assert to_json(Host()) == plain


@pytest.mark.parametrize("lists", [True, False])
def test_devices_that_an_engine_does_not_list_are_said_of_the_specifications_alone(lists):
    devices = ("nvidia.com/gpu=all",)
    spec = CdiSpec(path="/etc/cdi/nvidia.yaml", devices=devices)
    data = to_json(Host(cdi_specs=(spec,), engine=EngineFacts(cdi_devices=devices, lists_cdi=lists)))
    assert data["cdi_specs"][0]["devices"] == [*devices]
    assert data["engine"]["cdi_devices"] == ([*devices] if lists else [])


@given(st.text())
def test_any_text_is_data(text):
    host = Host(driver_problem=text, target=text, unread=(text,), engine=EngineFacts(endpoint=text))
    assert set(to_json(host)) == {field.name for field in fields(Host)}
