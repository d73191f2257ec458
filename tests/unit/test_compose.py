import dataclasses
import os
import re
import stat
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kit import accounts, render
from kit.catalog import load_catalog
from kit.compose import make
from kit.compose.start import docker_words, version_problem
from kit.compose.written import is_untouched, stamped, write, write_token
from kit.engine import Engine
from kit.errors import BadInputError, GpuUnavailableError
from kit.facts.engine import EngineFacts
from kit.network import NetworkSettings
from kit.spec.container import ContainerSpec, Mount, Place, Ulimit, describe, project_of, slug, volume_mounts
from kit.spec.gpu_grant import HIDDEN, UNCHECKED, GpuGrant, grant_in
from kit.spec.gpu_request import parse_request
from kit.spec.request import Contents, RunRequest
from kit.targets import compose
from tests.fake_docker import info

IMAGES = load_catalog().images()
CPU, GPU = load_catalog().find("tf-cpu"), load_catalog().find("torch2.7-cu126")
DATA = Path(__file__).parent / "data" / "compose"
# The one in C reads all of these files in a tenth of the time.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def loaded(text: str, **variables: str):
    """A compose file as Compose reads it, variables filled in."""
    return filled(yaml.load(text, Loader=LOADER), variables)


def filled(data, variables: dict[str, str]):
    if isinstance(data, dict):
        return {key: filled(value, variables) for key, value in data.items()}
    if isinstance(data, list):
        return [filled(value, variables) for value in data]
    return interpolated(data, variables) if isinstance(data, str) else data


def interpolated(text: str, variables: dict[str, str]) -> str:
    """`$$`, `${NAME}`, `${NAME:-default}` and `${NAME:?message}`, the innermost first."""
    text = text.replace("$$", "\0")
    while found := re.search(r"\$\{(\w+)(?::([-?])([^${}]*))?\}", text):
        name, sign, default = found.groups()
        value = variables.get(name) or (default or "" if sign != "?" else "")
        assert value or sign != "?", f"{name} is needed"
        text = text[: found.start()] + value + text[found.end() :]
    return text.replace("\0", "$")


def described(image=CPU, *, gpus: GpuGrant | None = None, owner: str = "", **more) -> ContainerSpec:
    """A notebook as `kit compose` describes it."""
    network = NetworkSettings(proxies={})
    asked = {"service": "jupyter", "folder": Path("/data/of mine"), "user": "1000:1000", "network": network, **more}
    return describe(
        RunRequest(image=image, **asked), Place(owner=owner, client="compose"), gpus or GpuGrant(), port=8888
    )


def written(*services: ContainerSpec, **more) -> str:
    return compose.text(compose.ComposeFile(header=(), project="kit-p", services=services, **more))


def notebook(spec: ContainerSpec, **more):
    """The notebook's service in the file of one."""
    return loaded(written(spec, **more), JUPYTER_TOKEN="x")["services"]["jupyter"]


# -- whole files

DEVICES = [{"Source": "cdi", "ID": f"nvidia.com/gpu={name}"} for name in ("0", "1", "GPU-5f0e", "all")]
LIMIT = "a $HOME ${X} $$ \"q' # é家"
AWKWARD = (
    *("--with", "tensorboard", "--logdir", 'runs/$x "a"', "--restart", "always", "--port", "8123"),
    *("-e", f"LIMIT={LIMIT}", "-e", "no_proxy=own", "--env-file", "my $x.env"),
    *("--mount", 'd $x, "家":/data', "--mount", "it's:/e:ro", "--ca-cert", "ca $HOME é.crt"),
)
# What was asked for, by the file in data/compose.
CASES = {
    "cpu": ("tf-cpu",),
    "cpu-printed": ("tf-cpu", "-o", "-"),
    "cpu-awkward-root": ("tf-cpu", "--user", "0:50", *AWKWARD),
    "gpu-by-cdi": ("torch2.7-cu126",),
    "gpu-by-runtime": ("torch2.7-cu126", "--gpu-form", "nvidia"),
    "gpu-none": ("torch2.7-cu126", "--gpus", "none", "--with", "tensorboard"),
    "gpu-by-cdi-awkward": ("torch2.7-cu126", "--gpus", "device=0,GPU-5f0e", "--user", "2147483640:12", *AWKWARD),
    "gpu-by-runtime-awkward-root": (
        *("torch2.7-cu126", "--gpus", "device=0,GPU-5f0e", "--gpu-form", "nvidia", "--user", "0:50", *AWKWARD),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_whole_text_of_a_file(kit, fake_docker, tmp_path: Path, monkeypatch, case: str) -> None:
    fake_docker.reply("info", stdout=info(DiscoveredDevices=DEVICES))
    fake_docker.reply("image", "inspect", stdout="{}\n")
    folder = tmp_path / "My Notes.2"
    for name in ('d $x, "家"', "it's"):
        (folder / name).mkdir(parents=True)
    (folder / "my $x.env").write_text("A=1\n")
    (folder / "ca $HOME é.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    monkeypatch.chdir(folder)
    for name in ("getuid", "geteuid", "getgid"):
        monkeypatch.setattr(os, name, lambda: 1234)
    monkeypatch.setattr(os, "getgroups", lambda: [1234])
    monkeypatch.setattr(accounts, "timezone", lambda: "")
    monkeypatch.setattr(make, "open_files", lambda _: 524288)
    monkeypatch.setenv("http_proxy", "http://me:pass@proxy:1")
    monkeypatch.setenv("NO_PROXY", "a,b")
    result = kit("compose", *CASES[case])
    assert result.code == 0, result.err
    text = result.out or (folder / "compose.yaml").read_text()
    text = text.replace(str(folder), "/srv/My Notes.2").replace(project_of(folder), "my-notes-2-0123abcd")
    first, stamp, *lines = text.splitlines()
    assert stamp.startswith("# sha256:")
    assert [first, *lines] == (DATA / f"{case}.yaml").read_text().splitlines()


def test_no_file_is_left_over() -> None:
    assert {file.stem for file in DATA.iterdir()} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_what_compose_reads_in_a_file(case: str) -> None:
    text = (DATA / f"{case}.yaml").read_text()
    assert "pass@" not in text
    variables = {"JUPYTER_TOKEN": "secret", "HTTP_PROXY": "http://me:pass@proxy:1", "no_proxy": "a,b"}
    data = loaded(text, FOLDER="/data/of mine", TENSORBOARD_PORT="8124", **variables)
    is_awkward, is_root = "awkward" in case, "root" in case
    assert set(data["services"]) == {"jupyter"} | ({"tensorboard"} if is_awkward or case == "gpu-none" else set())
    for name, service in data["services"].items():
        is_notebook = name == "jupyter"
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
        assert service["pull_policy"] == "never"
        outer, inner = ("8123" if is_awkward else "8888", 8888) if is_notebook else ("8124", 6006)
        assert service["ports"] == [f"127.0.0.1:{outer}:{inner}"]
        assert service["working_dir"] == "/workspace"
        assert service["configs"] == [{"source": name, "target": f"/etc/{name}"} for name in ("passwd", "group")]
        assert service["ulimits"] == {"nofile": {"soft": "65536", "hard": "524288"}}
        assert service.get("healthcheck") == (None if is_notebook else {"disable": True})
        assert service["labels"]["kit.client"] == "compose"
        assert service["labels"]["kit.user"] == service["user"]
        assert service["environment"].get("JUPYTER_TOKEN") == "secret"
        assert service["environment"]["http_proxy"] == "http://me:pass@proxy:1"
        assert service["environment"]["no_proxy"] == ("own" if is_awkward else "127.0.0.1,localhost,::1,a,b")
        assert ("deploy" in service) == (is_notebook and case.startswith("gpu-by"))
        binds = [volume for volume in service["volumes"] if not isinstance(volume, str)]
        # `docker run --mount` makes no folder either.
        assert all(bind["bind"] == {"create_host_path": False} for bind in binds)
        workspace, *others = [(bind["source"], bind["target"], bind.get("read_only", False)) for bind in binds]
        assert workspace == ("/data/of mine", "/workspace", False)
        if is_awkward:
            assert service["environment"]["LIMIT"] == LIMIT
            assert service["env_file"] == [{"path": "./my $x.env", "format": "raw"}]
            assert ("--allow-root" in service["command"]) == (is_root and is_notebook)
            if not is_notebook:
                assert '--logdir=runs/$x "a"' in service["command"]
            assert others == [
                ('/srv/My Notes.2/d $x, "家"', "/data", False),
                ("/srv/My Notes.2/it's", "/e", True),
                ("/srv/My Notes.2/ca $HOME é.crt", "/run/kit/ca.crt", True),
            ]
    lines = data["configs"]["passwd"]["content"].splitlines()
    assert lines[0] == ("root:x:0:0:root:/root:/bin/bash" if not is_root else "root:x:0:50:root:/home/kit:/bin/bash")
    assert len(lines) == (1 if is_root else 2)


# Docker reads the rest of what a person can type; the characters that mean something to YAML, Compose or a shell.
@given(st.text("a $\"'{}[]:#&*!|>%@`,\\\n\té家-", max_size=20))
def test_a_value_is_read_as_it_was_meant(value: str) -> None:
    spec = described(environment=(("A", value),), mounts=(Mount(source=f"/{value}", target=f"/t{value}"),))
    found = notebook(spec)
    assert found["environment"]["A"] == value
    assert {"source": f"/{value}", "target": f"/t{value}"}.items() <= found["volumes"][1].items()


# What a compose file does not say: Compose names its containers itself, and a service has no terminal. It works in
# /workspace, as everything that kit starts.
UNSAID = {"name", "remove", "interactive", "tty", "workdir", "keeps_groups"}  # Docker Compose knows no such groups
OTHER = {
    "image": "kit/x:1",
    "command": ("true",),
    "user": "7:8",
    "environment": {"A": "b"},
    "secret_environment": {"https_proxy": "x"},
    "mounts": (Mount(source="/x", target="/x"),),
    "ports": ((1, 2),),
    "labels": {"kit.service": "jupyter", "more": "x"},
    "gpus": grant_in("cdi"),
    "shm_bytes": 7,
    "memory_bytes": 7,
    "pids": 7,
    "cpus": 1.5,
    "groups": (7,),
    "ulimits": (Ulimit(name="stack", soft=7, hard=-1),),
    "network": "lab",
    "hosts": (("host.docker.internal", "host-gateway"),),
    "healthcheck": False,
    "restart": "always",
}


@pytest.mark.parametrize("target", ["/workspace", "/etc/passwd", "/data"])
def test_a_mount_of_the_users_own_is_in_the_file_wherever_it_goes(target: str) -> None:
    own = Mount(source="/srv/mine", target=target)
    assert "/srv/mine" not in written(described())
    assert {"/srv/mine"} == {
        m.get("source") for m in notebook(described(mounts=(own,)))["volumes"][1:] if isinstance(m, dict)
    }


def test_no_field_of_a_container_is_forgotten() -> None:
    assert {field.name for field in dataclasses.fields(ContainerSpec)} == UNSAID | set(OTHER)
    before = described()
    for field, value in OTHER.items():
        assert written(dataclasses.replace(before, **{field: value})) != written(before), field


@pytest.mark.parametrize("image", [i for i in IMAGES if not i.flavor], ids=lambda image: image.name)
def test_examples_are_for_anybody(image) -> None:
    files = render.compose_examples(image)
    assert set(files) == {f"{image.name}.yaml"} | ({f"{image.name}.cdi.yaml"} if image.is_gpu else set())
    projects = set()
    for name, text in files.items():
        assert text.startswith(f"# Generated by `kit render {image.name}`")
        assert max(map(len, text.splitlines())) <= 120
        assert "/data" not in text
        assert "external" not in text
        data = loaded(text, JUPYTER_TOKEN="x", USER_ID="7", GROUP_ID="8")
        service = data["services"]["jupyter"]
        assert (service["user"], service["labels"]["kit.user"]) == ("7:8", "7:8")
        assert service["labels"]["kit.client"] == "compose"
        assert data["volumes"]["home"]["name"] == f"kit-7-compose-{image.name}-home"
        assert data["volumes"]["local"]["name"] == f"kit-7-compose-{image.name}-{image.name}-local"
        assert "kit:x:7:8:" in data["configs"]["passwd"]["content"]
        assert re.fullmatch(r"kit-[a-z0-9_-]+-7", data["name"])
        drivers = [d.split()[-1] for d in text.splitlines() if "driver:" in d]
        assert drivers == ([] if not image.is_gpu else ["cdi" if ".cdi." in name else "nvidia"])
        projects.add(data["name"])
    assert len(projects) == 1, "both forms are the same containers"


def test_a_token_is_needed_and_in_no_file() -> None:
    text = render.compose_examples(CPU)["tf-cpu.yaml"]
    with pytest.raises(AssertionError, match="JUPYTER_TOKEN is needed"):
        loaded(text)


def test_mirrors_are_in_the_file_without_passwords() -> None:
    for index, there in (
        ("https://mirror.example/simple", "https://mirror.example/simple"),
        ("https://me:p4ss@mirror.example/simple", ""),
        ("https://mirror.example/a}b", ""),
    ):
        network = NetworkSettings(proxies={}, named_index=index, hub="https://hub.example")
        text = written(described(network=network))
        assert "p4ss" not in text
        found = loaded(text, JUPYTER_TOKEN="x")["services"]["jupyter"]["environment"]
        assert (found["PIP_INDEX_URL"], found["HF_ENDPOINT"]) == (there, "https://hub.example")
        own = loaded(text, JUPYTER_TOKEN="x", PIP_INDEX_URL="https://own.example")["services"]["jupyter"]["environment"]
        assert own["PIP_INDEX_URL"] == "https://own.example"


def test_further_ports_groups_and_a_network_are_in_the_file() -> None:
    place = Place(client="compose", groups=((44, "video"), (50, "a b")))
    asked = RunRequest(
        image=CPU,
        service="jupyter",
        folder=Path("/p"),
        user="1000:1000",
        network=NetworkSettings(proxies={}),
        ports=((7860, 80),),
        joins="lab",
    )
    spec = describe(asked, place, GpuGrant(), port=8888)
    file = compose.ComposeFile(header=(), project="kit-p", services=(spec,), groups=place.groups)
    data = loaded(compose.text(file), JUPYTER_TOKEN="x")
    found = data["services"]["jupyter"]
    assert found["ports"] == ["127.0.0.1:8888:8888", "127.0.0.1:7860:80"]
    assert found["group_add"] == ["44", "50"]
    assert data["configs"]["group"]["content"].splitlines()[1:] == ["kit:x:1000:", "video:x:44:", "a_b:x:50:"]
    assert data["networks"] == {"default": {"name": "lab", "external": True}}


def test_volumes_of_kit_run_outlive_what_compose_takes_down() -> None:
    text = written(described(), volumes_exist=True)
    assert all(volume["external"] is True for volume in loaded(text, JUPYTER_TOKEN="x")["volumes"].values())


def test_containers_of_two_users_in_folders_of_one_name_are_two_projects() -> None:
    project = f"kit-{slug('My Notes.2')}"
    names = set()
    for uid in ("5", "6", "0"):
        file = compose.ComposeFile(header=(), project=project, services=(described(user=f"{uid}:9"),))
        assert loaded(compose.text(file), JUPYTER_TOKEN="x")["name"] == file.project_name
        names.add(file.project_name)
    assert names == {"kit-my-notes-2-5", "kit-my-notes-2-6", "kit-my-notes-2-0"}
    assert slug("") == slug("家") == "folder"


def test_another_owner_than_who_it_runs_as_is_told() -> None:
    assert notebook(described(owner="12"))["labels"]["kit.owner"] == "12"
    assert "kit.owner" not in notebook(described())["labels"]


def test_an_env_file_is_read_as_docker_reads_it() -> None:
    assert notebook(described(), env_file="./my $x.env")["env_file"] == [{"path": "./my $x.env", "format": "raw"}]
    assert compose.min_compose(env_file=True) == "2.30.0"
    assert compose.min_compose() == "2.23.1"


# -- GPUs


def engine_facts(*, devices: tuple[str, ...] = (), runtimes: tuple[str, ...] = ()) -> EngineFacts:
    return EngineFacts(program="docker", version="28", cdi_devices=devices, runtimes=("runc", *runtimes))


CDI = engine_facts(devices=("nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all", "other.com/x=all"))
NVIDIA = engine_facts(runtimes=("nvidia",))


def gpus_of(asked, form, facts, image=GPU) -> GpuGrant:
    request = make.ComposeRequest(
        name=image.name,
        services=("jupyter",),
        gpus=parse_request(asked) if asked else None,
        form=form,
        contents=Contents(),
        network=NetworkSettings(proxies={}),
        output=None,
    )
    return make._gpus(request, image, facts)


@pytest.mark.parametrize(
    ("asked", "form", "facts", "driver", "devices"),
    [
        (None, None, None, "cdi", ["nvidia.com/gpu=all"]),
        (None, None, engine_facts(), "cdi", ["nvidia.com/gpu=all"]),
        (None, None, CDI, "cdi", ["nvidia.com/gpu=all"]),
        (None, None, NVIDIA, "nvidia", None),
        ("all", "runtime", CDI, "nvidia", None),
        ("all", "cdi", NVIDIA, "cdi", ["nvidia.com/gpu=all"]),
        ("1,0", None, CDI, "cdi", ["nvidia.com/gpu=1", "nvidia.com/gpu=0"]),
        ("device=1", None, NVIDIA, "nvidia", ["1"]),
        ("GPU-5f0e", "runtime", None, "nvidia", ["GPU-5f0e"]),
        ("device=7", "runtime", CDI, "nvidia", ["7"]),
        ("none", None, CDI, None, None),
        ("none", "cdi", None, None, None),
        # A specification written by hand need not have `all`.
        (
            None,
            None,
            engine_facts(devices=("nvidia.com/gpu=0", "nvidia.com/gpu=1")),
            "cdi",
            ["nvidia.com/gpu=0", "nvidia.com/gpu=1"],
        ),
    ],
)
def test_gpus_in_the_form_the_engine_takes(asked, form, facts, driver, devices) -> None:
    found = gpus_of(asked, form, facts)
    assert found.form == {"cdi": "cdi", "nvidia": "runtime", None: None}[driver]
    assert found.environment == (UNCHECKED if driver == "nvidia" else HIDDEN)
    service = notebook(described(GPU, gpus=found))
    assert service["environment"].items() >= dict(found.environment).items()
    assert service["labels"]["kit.gpus"] == " ".join(found.devices)
    if driver is None:
        assert "deploy" not in service
        return
    which = {"device_ids": devices} if devices else {"count": "all"}
    reserved = service["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": driver, **which, "capabilities": ["gpu"]}]


def test_gpus_the_engine_does_not_know() -> None:
    with pytest.raises(GpuUnavailableError, match=r"nvidia\.com/gpu=7"):
        gpus_of("device=7", None, CDI)


@pytest.mark.parametrize("text", ["free", "2"])
def test_gpus_only_kit_run_can_choose(text: str) -> None:
    with pytest.raises(BadInputError, match="cannot lease"):
        gpus_of(text, None, CDI)


def test_an_image_for_the_cpu_has_no_gpus() -> None:
    for asked in (None, "none"):
        assert gpus_of(asked, None, CDI, CPU) == GpuGrant()
    with pytest.raises(GpuUnavailableError, match="built for the CPU"):
        gpus_of("all", "cdi", None, CPU)


def test_the_line_about_gpus_says_what_this_engine_cannot() -> None:
    assert make._gpu_line(None, CDI) == "on the CPU"
    assert make._gpu_line("cdi", CDI) == "GPUs by CDI"
    assert make._gpu_line("runtime", NVIDIA) == "GPUs by the NVIDIA runtime"
    assert "no engine answers" in make._gpu_line("cdi", None)
    assert "passes no GPU in" in make._gpu_line("cdi", engine_facts())
    assert make._gpu_line("cdi", NVIDIA).endswith("`kit run` takes the NVIDIA runtime on the engine here")


# -- what is there already


def test_a_changed_file_is_known_by_its_stamp() -> None:
    text = stamped("# first\nname: x\n")
    assert text.splitlines()[0] == "# first"
    assert is_untouched(text)
    assert not is_untouched(text.replace("name: x", "name: y"))
    assert not is_untouched(text.replace("# first", "# 1st"))
    assert not is_untouched(text + "\n")
    assert not is_untouched("")


def test_a_file_is_never_lost(tmp_path: Path) -> None:
    file, text, other = tmp_path / "compose.yaml", stamped("# a\nx: 1\n"), stamped("# a\nx: 2\n")
    assert write(file, text)
    assert not write(file, text), "it is there"
    assert write(file, other), "kit's own, as it was"
    file.write_text(other + "# mine\n")
    with pytest.raises(BadInputError, match="was changed since"):
        write(file, text)
    assert file.read_text() == other + "# mine\n"
    assert write(file, text, force=True)
    assert file.read_text() == text
    with pytest.raises(BadInputError, match="Not a directory"):
        write(tmp_path / "compose.yaml" / "x.yaml", text)


def test_the_token_is_for_its_owner_and_written_once(tmp_path: Path) -> None:
    assert write_token(tmp_path) == "written"
    file = tmp_path / ".env"
    text = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert re.search(r"^JUPYTER_TOKEN=[\w-]{32}$", text, re.MULTILINE)
    assert write_token(tmp_path) == "there"
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "missing"),
        ("PORT=1\n", "missing"),
        ("#JUPYTER_TOKEN=x\n", "missing"),
        ("JUPYTER_TOKEN=\n", "missing"),
        ("A=1\nJUPYTER_TOKEN = x\n", "there"),
        ("export JUPYTER_TOKEN='x'\n", "there"),
    ],
)
def test_an_env_file_that_is_there_stays_as_it_is(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / ".env").write_text(text)
    assert write_token(tmp_path) == expected
    assert (tmp_path / ".env").read_text() == text


def test_a_dangling_link_is_no_place_for_a_token(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to(tmp_path / "elsewhere")
    assert write_token(tmp_path) == "missing"
    assert (tmp_path / ".env").is_symlink()


def test_the_command_line_of_the_engine(engine: Engine) -> None:
    assert docker_words(None) == "docker"
    assert docker_words(Engine()) == "docker"
    private = Engine(
        program="/p/docker", environment={"DOCKER_HOST": "unix:///a b", "DOCKER_CONFIG": "/c", "DOCKER_CONTEXT": ""}
    )
    assert docker_words(private) == "DOCKER_HOST='unix:///a b' DOCKER_CONFIG=/c /p/docker"


@pytest.mark.parametrize(
    ("printed", "problem"),
    [
        ("2.40.3-3\n", ""),
        ("v2.23.1\n", ""),
        ("5.0.2\n", ""),
        ("unknown\n", ""),
        ("2.23.0\n", "this Docker Compose is 2.23.0, and the file needs 2.23.1 or newer"),
        ("v2.6.1\n", "this Docker Compose is 2.6.1, and the file needs 2.23.1 or newer"),
    ],
)
def test_a_compose_that_is_too_old_is_told(fake_docker, engine: Engine, printed: str, problem: str) -> None:
    fake_docker.reply("compose", "version", stdout=printed)
    assert version_problem(engine, compose.min_compose()) == problem


def test_a_docker_without_compose_is_told(fake_docker, engine: Engine) -> None:
    fake_docker.reply("compose", stderr="docker: unknown command: docker compose\n", code=1)
    assert "has no Compose" in version_problem(engine, "2.0.0")


def test_volumes_are_made_under_the_names_kit_run_gives_them(kit, fake_docker, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    fake_docker.reply("image", "inspect", stdout="{}\n")
    assert kit("compose", "tf-cpu", "--user", "77:78").code == 0
    made = [call.args[-1] for call in fake_docker.called("volume", "create")]
    assert made == [mount.source for mount in volume_mounts("tf-cpu", "77", project_of(tmp_path))]
    volumes = loaded((tmp_path / "compose.yaml").read_text(), JUPYTER_TOKEN="x")["volumes"]
    assert [volume["name"] for volume in volumes.values()] == made


def test_podman_is_not_asked_for_volumes_that_are_there(kit, fake_docker, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KIT_ENGINE", "podman")
    fake_docker.program.rename(fake_docker.bin / "podman")
    fake_docker.reply("info", stdout='{"host": {}, "store": {}, "version": {"Version": "4.3.1"}}')
    fake_docker.reply("image", "inspect", stdout="{}\n")
    fake_docker.reply("volume", "exists", code=1)
    fake_docker.reply("volume", "exists", f"kit-0-{project_of(tmp_path)}-home")
    assert kit("compose", "tf-cpu", "--user", "0").code == 0
    made = [call.args[-1] for call in fake_docker.called("volume", "create")]
    assert made == [f"kit-0-{project_of(tmp_path)}-tf-cpu-local"]
