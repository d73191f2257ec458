"""What engines print, recorded on real machines, and CDI specifications."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.engine.info import parse_info, problem_of
from kit.facts.engine import EngineFacts
from kit.facts.host import CdiSpec, GpuContainer
from kit.host.parse_engine import container_name, parse_cdi, parse_containers, parse_version

DATA = Path(__file__).parent / "data" / "host"
SPEC = (DATA / "cdi-nvidia-ctk.yaml").read_text()


def info(name, **more):
    return parse_info((DATA / f"{name}.json").read_text(), **{"errors": "", "program": "docker", **more})


def test_a_docker_engine():
    assert info("docker-28-private") == EngineFacts(
        program="docker",
        version="28.5.2+dfsg4",
        problem="",
        cgroup_driver="cgroupfs",
        cgroup_version="1",
        storage_driver="overlayfs",
        data_root="/var/lib/kit/data/containerd",
        runtimes=("io.containerd.runc.v2", "runc"),
        default_runtime="runc",
        cdi_spec_dirs=("/etc/cdi", "/var/run/cdi", "/var/lib/kit/cdi"),
        buildx="0.29.1+ds1",
        is_containerd_store=True,
        cpus=2,
        memory_bytes=25276502016,
    )


def test_docker_desktop_on_wsl2():
    engine = info("docker-28-desktop-wsl2")
    assert (engine.is_desktop, engine.has_proxy, engine.runtimes) == (
        True,
        True,
        ("io.containerd.runc.v2", "nvidia", "runc"),
    )
    assert (engine.cdi_spec_dirs, engine.buildx, engine.mirrors) == (("/etc/cdi", "/var/run/cdi"), "", ())


def test_an_engine_that_is_down():
    said = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
    engine = info("docker-28-down", errors=said)
    assert (engine.program, engine.problem, engine.problem_text, engine.version) == ("docker", "down", said, "")


@pytest.mark.parametrize(
    "said",
    [
        # docker 24 and 29; https://github.com/docker/cli has both.
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: "
        'Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.24/info": dial unix /var/run/docker.sock: connect: '
        "permission denied",
        "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock",
    ],
)
def test_an_engine_that_this_user_may_not_ask(said):
    engine = info("docker-28-down", errors=said)
    assert (engine.problem, engine.problem_text) == ("denied", said)
    assert parse_info(json.dumps({"ServerErrors": [said]}), "", "docker").problem == "denied"


def test_podman_by_its_own_name_and_by_dockers():
    for program in ("podman", "docker"):
        engine = info("podman-4.3", program=program)
        assert (engine.program, engine.version, engine.problem) == ("podman", "4.3.1", "")
        assert (engine.cgroup_driver, engine.cgroup_version) == ("cgroupfs", "1")
        assert (engine.data_root, engine.storage_driver) == ("/var/lib/containers/storage", "overlay")
        assert (engine.default_runtime, engine.is_rootless, engine.uids) == ("crun", False, None)


@pytest.mark.parametrize(
    ("sizes", "uids"), [([1], 1), ([1, 65536], 65537), ([], None), (None, None), ([None, "x"], None)]
)
def test_the_uids_a_rootless_podman_has(sizes, uids):
    raw = json.loads((DATA / "podman-4.3.json").read_text())
    raw["host"]["idMappings"] = {"uidmap": sizes and [{"container_id": 0, "host_id": 1001, "size": s} for s in sizes]}
    assert parse_info(json.dumps(raw), "", "podman").uids == uids


def test_containers_of_podmans_with_all_their_labels():
    # As podman 4.3.1 prints them, shortened.
    rows = [
        ["0" * 64, "kit-one", "Up 3 seconds ago", {"kit.image": "torch-cu126", "kit.user": "0:0",
         "kit.gpus": "--device=nvidia.com/gpu=0", "kit.lease": "GPU-1 GPU-2", "kit.owner-name": "alice"}],
        ["1" * 64, "kit-two", "Exited (5) About a minute ago", {"kit.image": "torch-cu126"}],
        ["2" * 64, "kit-three", "Paused", {"kit.image": "torch-cu126"}],
        ["3" * 64, "other", "Up 1 second ago", {"io.buildah.version": "1.28.2"}],
        ["4" * 64, "bare", "Up 1 second ago", None],
    ]  # fmt: skip
    names, own = parse_containers("\n".join(map(json.dumps, rows)))
    assert list(names.values()) == ["kit-one", "kit-two", "kit-three", "other", "bare"]
    assert [(c.name, c.status, c.user) for c in own] == [("kit-one", "running", "alice"), ("kit-three", "paused", "")]
    assert (own[0].devices, own[0].lease) == (("nvidia.com/gpu=0",), ("GPU-1", "GPU-2"))


@pytest.mark.parametrize(
    ("changes", "path", "field"),
    [
        ({"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}, "/usr/bin/docker", "is_rootless"),
        ({}, "/snap/docker/2963/bin/docker", "is_snap"),
        ({}, "/usr/bin/snap", "is_snap"),
        ({"DockerRootDir": "/var/snap/docker/common/var-lib-docker"}, "/usr/bin/docker", "is_snap"),
        ({"HttpsProxy": "http://proxy.example:3128"}, "/usr/bin/docker", "has_proxy"),
    ],
)
def test_kinds_of_engines(changes, path, field):
    raw = json.loads((DATA / "docker-28-private.json").read_text()) | changes
    assert getattr(parse_info(json.dumps(raw), "", "docker", path), field)
    assert not getattr(info("docker-28-private", real_path="/usr/bin/docker"), field)


def test_devices_and_mirrors_an_engine_lists():
    raw = {
        "ServerVersion": "28.5.1",
        "DiscoveredDevices": [
            {"Source": "cdi", "ID": "nvidia.com/gpu=0"},
            {"Source": "other", "ID": "x"},
            {"Source": "cdi"},
            None,
        ],
        "RegistryConfig": {"Mirrors": ["https://mirror.example/"]},
    }
    engine = parse_info(json.dumps(raw), "", "docker")
    assert (engine.cdi_devices, engine.mirrors) == (("nvidia.com/gpu=0",), ("https://mirror.example/",))


def test_warnings_around_the_answer_are_passed_over():
    text = "WARNING: No swap limit support\n" + (DATA / "docker-28-private.json").read_text()
    assert parse_info(text, "", "docker").version == "28.5.2+dfsg4"


def test_an_answer_cut_off_anywhere_is_no_error():
    for file in ("docker-28-private.json", "podman-4.3.json"):
        text = (DATA / file).read_text().strip()
        for end in range(0, len(text), 11):
            engine = parse_info(text[:end], "", "docker")
            assert (engine.version, engine.problem) == ("", "down")


@given(st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_an_answer_of_any_shape_is_no_error(data):
    names = ("ServerErrors", "Runtimes", "SecurityOptions", "ClientInfo", "DiscoveredDevices", "CDISpecDirs")
    raw = {"ServerVersion": "1", **dict.fromkeys(names, data)}
    assert parse_info(json.dumps(raw), "", "docker").program == "docker"
    assert parse_info(json.dumps({"host": data, "store": data, "version": data}), "", "x").program == "podman"
    assert isinstance(parse_containers(json.dumps([data] * 8)), tuple)


@given(st.text())
def test_garbage_is_no_error(text):
    assert parse_info(text, text, "docker").program == "docker"
    assert isinstance(problem_of(text), tuple)
    assert parse_containers(text) == ({}, ())
    assert isinstance(parse_version(text), str)
    spec = parse_cdi(text, "x.yaml", text)
    assert spec is None or spec.path == "x.yaml"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80a9b9d0db00d9b1d73c0128c8962c55f4d\n", "1.17.8"),
        ("cli-version: 1.17.4\nlib-version: 1.17.4\n", "1.17.4"),
        ("NVIDIA Container Toolkit CLI version 1.17.0-rc.2\n", "1.17.0-rc.2"),
        ("github.com/docker/buildx 0.29.1+ds1 0.29.1+ds1-1", "0.29.1+ds1"),
        ("github.com/docker/buildx v0.17.1 257815a", "0.17.1"),
        ("podman version 4.3.1\n", "4.3.1"),
        ("docker: unknown command: docker buildx\n", ""),
    ],
)
def test_versions(text, version):
    assert parse_version(text) == version


def test_a_specification_of_nvidia_ctk():
    missing = "/dev/nvidia0\n/dev/nvidiactl\n/run/nvidia/driver/lib/x86_64-linux-gnu/libcuda.so.999.88.77\n"
    assert parse_cdi(f"1763000000\n{SPEC}", "/etc/cdi/nvidia.yaml", missing) == CdiSpec(
        path="/etc/cdi/nvidia.yaml",
        devices=("nvidia.com/gpu=0", "nvidia.com/gpu=all"),
        modified=1763000000.0,
        driver="999.88.77",
        # /dev/nvidia0 is its name in the container, where another path of the machine stands for it.
        missing_files=("/run/nvidia/driver/lib/x86_64-linux-gnu/libcuda.so.999.88.77",),
    )


def test_the_same_as_json():
    yaml = pytest.importorskip("yaml")
    for indent in (None, 2):
        text = json.dumps(yaml.safe_load(SPEC), indent=indent)
        spec = parse_cdi(f"1\n{text}", "x.json", "/dev/nvidia0\n/usr/bin/nvidia-cdi-hook\n")
        assert spec is not None
        assert (spec.devices, spec.driver) == (("nvidia.com/gpu=0", "nvidia.com/gpu=all"), "999.88.77")
        assert spec.missing_files == ("/usr/bin/nvidia-cdi-hook",)


@pytest.mark.parametrize("kind", ["nvidia.com/gpu-other", "amd.com/gpu", "nvidia.com/mofed"])
def test_specifications_of_other_devices(kind):
    assert parse_cdi("1\n" + SPEC.replace("nvidia.com/gpu", kind), "x.yaml", "") is None


def test_containers_of_kits_and_of_others():
    rows = [
        ["a" * 64, "other", "Up 2 hours", "", "", "", "", "", ""],
        [
            "b" * 64,
            "kit-one",
            "Up 3 minutes (healthy)",
            "torch-cu126",
            "jupyter",
            "1000:1000",
            "--gpus=all",
            "GPU-1 x",
            "alice",
        ],
        ["c" * 64, "kit-two", "Up 3 minutes (Paused)", "torch-cu126", "", "0:0", "--device=nvidia.com/gpu=0", "", ""],
        ["d" * 64, "kit-three", "Exited (0) 2 hours ago", "tf-cpu", "", "", "", "", ""],
        ["e" * 64, "kit-four", "Created", "tf-cpu", "", "", "", "", ""],
    ]
    names, own = parse_containers("".join(json.dumps(row) + "\n" for row in rows) + "not json\n[1]\n")
    assert list(names.values()) == ["other", "kit-one", "kit-two", "kit-three", "kit-four"]
    assert own[0] == GpuContainer(
        name="kit-one",
        id="b" * 64,
        image="torch-cu126",
        service="jupyter",
        user="alice",
        status="running",
        devices=("all",),
        lease=("GPU-1", "x"),
    )
    assert [(c.name, c.status, c.user, c.devices) for c in own[1:]] == [
        ("kit-two", "paused", "0:0", ("nvidia.com/gpu=0",)),
        ("kit-four", "created", "", ()),
    ]
    assert parse_containers(json.dumps(["f" * 64, ["named"]]))[0] == {"f" * 64: "named"}


def test_a_container_another_engine_runs_has_the_start_of_its_id():
    assert container_name({"a" * 64: "one"}, "a" * 64) == "one"
    assert container_name({}, "b" * 64) == "b" * 12
    assert container_name({}, "") == ""
