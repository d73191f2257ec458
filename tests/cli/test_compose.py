import json
import os
import stat
from dataclasses import replace

import pytest
import yaml

from kit import accounts, labels, layout, ports
from kit.compose import make
from kit.engine import Engine
from kit.engine.podman import Podman
from kit.spec.container import project_of
from tests.fake_docker import info

CDI_DEVICES = [{"Source": "cdi", "ID": f"nvidia.com/gpu={name}"} for name in ("0", "all")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    made = tmp_path / "my project"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def docker(fake_docker):
    fake_docker.reply("compose", "version", stdout="2.40.3\n")
    fake_docker.reply("image", "inspect", stdout="{}\n")
    return fake_docker


def service(folder, name="jupyter", file="compose.yaml"):
    return yaml.safe_load((folder / file).read_text())["services"][name]


def test_a_file_and_a_token(kit, docker, folder):
    result = kit("compose", "tf-cpu")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == [
        "wrote compose.yaml: jupyter, on the CPU",
        "wrote .env: a random JUPYTER_TOKEN",
        "first build the image: kit build tf-cpu",
        "start it: docker compose up --detach",
    ]
    assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
    assert service(folder)["image"] == "kit/tf-cpu:latest"
    token = (folder / ".env").read_text().split("JUPYTER_TOKEN=")[1].strip()
    assert token not in (folder / "compose.yaml").read_text()
    # The fake engine has 24 GB.
    assert service(folder)["shm_size"] == "${SHM_SIZE:-12638251008}"
    uid = os.getuid()
    made = [call.args[-1] for call in docker.called("volume", "create")]
    project = project_of(folder)
    assert made == [f"kit-{uid}-{project}-home", f"kit-{uid}-{project}-tf-cpu-local"]


def test_again_changes_nothing_and_another_choice_replaces_it(kit, docker, folder):
    kit("compose", "tf-cpu")
    token = (folder / ".env").read_text()
    result = kit("compose", "tf-cpu")
    assert result.err.splitlines()[0] == "unchanged: compose.yaml: jupyter, on the CPU"
    result = kit("compose", "tf-cpu", "--with", "tensorboard", "--logdir", "runs", "--port", "9000")
    assert result.err.splitlines()[0] == "wrote compose.yaml: jupyter and tensorboard, on the CPU"
    assert "--logdir=runs" in service(folder, "tensorboard")["command"]
    assert service(folder)["ports"] == ["127.0.0.1:${JUPYTER_PORT:-9000}:8888"]
    assert (folder / ".env").read_text() == token


def test_what_somebody_wrote_is_not_replaced(kit, docker, folder):
    (folder / "compose.yaml").write_text("services: {}\n")
    result = kit("compose", "tf-cpu")
    assert (result.code, result.out) == (2, "")
    assert [line.split(":")[0] for line in result.err.splitlines()] == ["error", "hint"]
    assert (folder / "compose.yaml").read_text() == "services: {}\n"
    assert not (folder / ".env").exists()
    assert docker.called("volume") == []
    assert kit("compose", "tf-cpu", "--force").code == 0
    assert service(folder)


def test_an_own_change_is_not_replaced(kit, docker, folder):
    kit("compose", "tf-cpu")
    with (folder / "compose.yaml").open("a") as file:
        file.write("# mine\n")
    assert kit("compose", "tf-cpu").code == 2
    assert (folder / "compose.yaml").read_text().endswith("# mine\n")


def test_printing_makes_nothing(kit, docker, folder):
    result = kit("compose", "tf-cpu", "-o", "-")
    assert (result.code, result.err) == (0, "")
    assert list(folder.iterdir()) == []
    assert docker.called("volume") == []
    data = yaml.safe_load(result.out)
    assert list(data["services"]) == ["jupyter"]
    assert data["name"].startswith("kit-my-project-")
    assert not any("external" in volume for volume in data["volumes"].values())


def test_another_file_elsewhere(kit, docker, folder):
    (folder / "lab").mkdir()
    result = kit("compose", "tf-cpu", "-o", "lab/notebook.yaml")
    assert result.err.splitlines()[-1] == "start it: in lab: docker compose --file notebook.yaml up --detach"
    assert (folder / "lab/.env").exists()
    assert yaml.safe_load((folder / "lab/notebook.yaml").read_text())["name"].startswith("kit-lab-")


def test_for_programs(kit, docker, folder):
    data = json.loads(kit("--json", "compose", "tf-cpu", "--with", "tensorboard").out)
    assert data == {
        "file": "compose.yaml",
        "image": "tf-cpu",
        "services": ["jupyter", "tensorboard"],
        "project": f"kit-my-project-{os.getuid()}",
        "gpus": [],
        "gpu_form": None,
        "token": "written",
    }


def test_gpus_in_the_engines_form(kit, docker, folder):
    docker.reply("info", stdout=info(DiscoveredDevices=CDI_DEVICES))
    result = kit("compose", "torch2.7-cu126", "--gpus", "device=0", "--with", "tensorboard")
    assert result.err.splitlines()[0] == "wrote compose.yaml: jupyter and tensorboard, GPUs by CDI"
    reserved = service(folder)["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": "cdi", "device_ids": ["nvidia.com/gpu=0"], "capabilities": ["gpu"]}]
    assert "deploy" not in service(folder, "tensorboard")
    assert service(folder, "tensorboard")["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    result = kit("compose", "torch2.7-cu126", "--gpu-form", "nvidia")
    assert "`kit run` takes CDI on the engine here" in result.err
    reserved = service(folder)["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["torch2.7-cu126", "--gpus", "free"], 2),
        (["torch2.7-cu126", "--gpus", "2"], 2),
        (["torch2.7-cu126", "--gpus", "device=7"], 17),
        (["tf-cpu", "--gpus", "all"], 17),
        (["tf-cpu", "--with", "vim"], 2),
        (["tf-cpu", "--user", "me"], 2),
        (["tf-cpu", "-e", "novalue"], 2),
        (["tf-cpu", "--env-file", "nothing"], 2),
        (["nonesuch"], 4),
        ([], 2),
    ],
)
def test_what_cannot_be_written_is_said_and_nothing_made(kit, docker, folder, words, code):
    docker.reply("info", stdout=info(DiscoveredDevices=CDI_DEVICES))
    result = kit("compose", *words)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("error: ")
    assert list(folder.iterdir()) == []


def test_without_an_engine_it_is_for_another_machine(kit, folder):
    result = kit("compose", "torch2.7-cu126", "--user", "1000:1000")
    assert result.code == 0
    assert result.err.splitlines()[0].endswith("GPUs by CDI (no engine answers here to be asked)")
    data = yaml.safe_load((folder / "compose.yaml").read_text())
    assert not any("external" in volume for volume in data["volumes"].values())
    assert data["services"]["jupyter"]["user"] == "${USER_ID:-1000}:${GROUP_ID:-1000}"


def test_a_framework_is_resolved_for_this_machine(kit, docker, folder):
    result = kit("compose", "tf")
    assert result.err.splitlines()[0].startswith("tf: tf-cpu (")
    assert service(folder)["image"] == "kit/tf-cpu:latest"


def test_what_is_missing_is_said(kit, docker, folder):
    (folder / ".env").write_text("PORT=1\n")
    docker.reply("image", "inspect", stderr="Error: No such image: kit/tf-cpu:latest\n", code=1)
    docker.reply("compose", "version", stdout="2.20.0\n")
    lines = kit("compose", "tf-cpu").err.splitlines()
    assert lines[1].startswith(".env has no JUPYTER_TOKEN")
    assert lines[2] == "first build the image: kit build tf-cpu"
    assert lines[-1] == "warning: this Docker Compose is 2.20.0, and the file needs 2.23.1 or newer"
    assert (folder / ".env").read_text() == "PORT=1\n"


def test_variables_files_and_mounts(kit, docker, folder):
    (folder / "train.env").write_text("A=1\n")
    result = kit(
        *("compose", "tf-cpu", "-e", "B=$x", "--env-file", "train.env", "--mount", f"{folder}:/d:ro"),
        *("--restart", "unless-stopped"),
    )
    assert result.code == 0
    made = service(folder)
    assert made["environment"]["B"] == "$$x"
    assert made["env_file"] == [{"path": "./train.env", "format": "raw"}]
    mount = {"type": "bind", "source": str(folder), "target": "/d", "bind": {"create_host_path": False}}
    assert {**mount, "read_only": True} in made["volumes"]
    assert made["restart"] == "${RESTART:-unless-stopped}"


def test_places_of_mounts_are_made_where_the_image_is_and_told_where_not(kit, docker, folder, monkeypatch):
    words = ("compose", "tf-cpu", "--mount", f"{folder}:/workspace/data")
    result = kit(*words)
    assert "once the image is there, `kit compose` again" in result.err
    assert not (folder / "data").exists()
    monkeypatch.setattr(make, "current", lambda *_: {})
    result = kit(*words)
    assert result.code == 0, result.err
    assert "once the image" not in result.err
    assert (folder / "data").is_dir()


def test_a_token_of_ones_own_is_in_the_file_for_it_alone(kit, docker, folder):
    assert kit("compose", "tf-cpu", "-e", "JUPYTER_TOKEN=a-token-of-mine").code == 0
    assert "a-token-of-mine" not in (folder / "compose.yaml").read_text()
    assert "JUPYTER_TOKEN=a-token-of-mine\n" in (folder / ".env").read_text()


@pytest.fixture
def podman(docker, monkeypatch):
    """Podman of an ordinary user."""
    docker.program.rename(docker.bin / "podman")
    monkeypatch.setenv("KIT_ENGINE", "podman")
    monkeypatch.setattr(Podman, "is_rootless", True)
    raw = {
        "host": {"cpus": 2, "memTotal": 25276502016, "security": {"rootless": True}},
        "store": {"graphRoot": "/home/alice/.local/share/containers/storage"},
        "version": {"Version": "4.3.1"},
    }
    docker.reply("info", stdout=json.dumps(raw))
    docker.reply("volume", "exists", code=1)
    return docker


def test_with_podman_the_file_is_written_and_nothing_promised(kit, podman, folder):
    result = kit("compose", "torch-cpu")
    assert result.code == 0
    assert result.err.splitlines()[:2] == [
        "wrote compose.yaml: jupyter, on the CPU",
        "wrote .env: a random JUPYTER_TOKEN",
    ]
    assert "start it: " not in result.err
    assert "note: it is for Docker Compose with Docker" in result.err
    # Root inside is the user outside, to whom the container belongs.
    assert service(folder)["user"] == "0:0"
    uid = os.getuid()
    assert service(folder)["labels"].get("kit.owner", "0") == str(uid)
    assert podman.called("volume", "create")[0].args[-1] == f"kit-0-{project_of(folder)}-home"


def test_gpus_with_podman_are_asked_for_by_cdi(kit, podman, folder, monkeypatch, tmp_path):
    (tmp_path / "nvidia.json").write_text('{"kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": "all"}]}')
    monkeypatch.setattr("kit.facts.engine.CDI_FOLDERS", (str(tmp_path),))
    result = kit("compose", "torch2.7-cu126")
    assert "wrote compose.yaml: jupyter, GPUs by CDI" in result.err
    (device,) = service(folder)["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["device_ids"]) == ("cdi", ["nvidia.com/gpu=all"])
    assert "GPUs have been seen not to reach" in result.err


# -- the same as `kit run`


def comparable(spec):
    """A container without what only one that kit starts itself has: a name, a token, an owner, files of kit's own."""
    starter = (labels.CLIENT, labels.OWNER, labels.OWNER_NAME)
    assert spec.labels[labels.CLIENT]
    return replace(
        spec,
        name="",
        secret_environment={n: "" if n == "JUPYTER_TOKEN" else v for n, v in spec.secret_environment.items()},
        mounts=tuple(
            replace(m, source="") if m.target in (layout.PASSWD_FILE, layout.GROUP_FILE) else m for m in spec.mounts
        ),
        labels={name: value for name, value in spec.labels.items() if name not in starter},
        interactive=False,
        tty=False,
        network="",
    )


@pytest.fixture
def described(monkeypatch):
    """The containers that `kit run` starts, and those that `kit compose` writes down, in the order in which they
    come.
    """
    found = {"run": [], "compose": []}

    def text(file):
        found["compose"] += file.services
        return "# first\n"

    # This machine may have a Jupyter, and other tests take ports meanwhile; nothing listens on these.
    monkeypatch.setattr(ports, "is_free", lambda _: True)
    monkeypatch.setattr("kit.run.start.bring", lambda ready, *_: ready)
    monkeypatch.setattr("kit.run.service.answers", lambda *_: True)
    monkeypatch.setattr(Engine, "run_detached", lambda _, spec: found["run"].append(spec))
    monkeypatch.setattr(make.compose, "text", text)
    return found


@pytest.mark.parametrize("image", ["tf-cpu", "torch2.7-cu126"])
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--gpus", "none"),
        ("--user", "0:50", "--restart", "always"),
        ("--user", "2147483640:12", "-e", "A=$x \"'", "-e", "no_proxy=own", "--logdir", "runs/$x"),
        ("--mount", ".:/data:ro", "--mount", "/:/all", "--ca-cert", "ca.crt"),
        ("--mount", ".:/home/kit", "--mount", ".:/home/kit/.local", "--user", "7:8"),
        ("--cpus", "1.5", "--shm-size", "1g", "--ulimit", "memlock=unlimited", "--ulimit", "nofile=7:8"),
        ("--publish", "7860", "-p", "7861:80", "--jupyter-option", "--ServerApp.base_url=/me"),
        ("-e", "JUPYTER_TOKEN=own-token", "-e", "TZ=Asia/Tokyo", "--user", "7:8"),
    ],
)
def test_a_file_starts_what_kit_run_starts(kit, docker, folder, described, monkeypatch, image, words):
    monkeypatch.setattr(accounts, "groups_of", lambda uid, gid: ((50, "lab"), (uid + 60, "")))
    monkeypatch.setattr(accounts, "timezone", lambda: "Asia/Shanghai")
    monkeypatch.setattr("kit.engine.docker.Engine.host_address", lambda _: "172.17.0.1")
    monkeypatch.setattr("kit.ports.listening", lambda *_: frozenset({7890}))
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:7890")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:7891")
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:pass@mirror.example/simple")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    docker.reply("info", stdout=info(DiscoveredDevices=CDI_DEVICES))
    (folder / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    monkeypatch.setenv("http_proxy", "http://me:pass@proxy:1")
    monkeypatch.setenv("no_proxy", "a,b")
    result = kit("run", *words, "--tensorboard", image, "jupyter")
    assert result.code == 0, result.err
    result = kit("compose", *words, "--with", "tensorboard", image)
    assert result.code == 0, result.err
    assert [spec.labels[labels.SERVICE] for spec in described["run"]] == ["jupyter", "tensorboard"]
    assert [comparable(spec) for spec in described["compose"]] == [comparable(spec) for spec in described["run"]]
    notebook = described["run"][0]
    assert notebook.groups == (50, int(notebook.user.partition(":")[0]) + 60)
    assert notebook.environment["all_proxy"] == "socks5://host.docker.internal:7890"
    assert "https_proxy" not in notebook.variables
    assert notebook.variables["TZ"] == ("Asia/Tokyo" if "TZ=Asia/Tokyo" in words else "Asia/Shanghai")


@pytest.mark.parametrize("form", ["cdi", "nvidia"])
def test_so_does_one_with_gpus_that_are_named(kit, docker, folder, described, form):
    one = {"DiscoveredDevices": CDI_DEVICES} if form == "cdi" else {"Runtimes": {"nvidia": {}}}
    docker.reply("info", stdout=info(**one))
    assert kit("run", "--gpus", "device=0", "torch2.7-cu126", "jupyter").code == 0
    assert kit("compose", "--gpus", "device=0", "--gpu-form", form, "torch2.7-cu126").code == 0
    assert comparable(described["run"][0]) == comparable(described["compose"][0])
    assert described["run"][0].gpus.devices == (("nvidia.com/gpu=0",) if form == "cdi" else ("0",))
