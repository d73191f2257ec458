import dataclasses
import re
import stat
from pathlib import Path

import pytest
import yaml
from kit.compose.file import ComposeFile
from kit.compose.gpus import Reservation, engine_form, injection_in, reservation
from kit.gpu import HIDDEN, Injection, parse_request

from kit import compose, render, run
from kit.catalog import load_catalog
from kit.engine import ContainerSpec, Engine, EngineInfo, Mount
from kit.engine.podman import Podman
from kit.errors import BadInputError, GpuUnavailableError
from kit.network import NetworkSettings

IMAGES = load_catalog().images()
FOLDER = Path("/data/of mine")
# The one in C reads all of these files in a tenth of the time.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What a compose file does not say: Compose names its containers itself, and a service has no terminal.
NOT_COMPARED = {"name", "remove", "interactive", "tty"}


def loaded(file: ComposeFile, **variables: str):
    """The rendered file as Compose reads it, variables filled in."""
    return filled(yaml.load(render.render_compose(file), Loader=LOADER), variables)


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


def as_spec(data, service: str) -> ContainerSpec:
    """A service of a compose file in the terms of `kit run`."""
    found = data["services"][service]
    volumes = {key: value["name"] for key, value in data["volumes"].items()}
    mounts = [Mount(source="passwd", target=c["target"], read_only=True) for c in found["configs"]]
    for volume in found["volumes"]:
        if isinstance(volume, str):
            key, _, target = volume.partition(":")
            mounts.append(Mount(source=volumes[key], target=target, is_volume=True))
        else:
            assert volume["bind"] == {"create_host_path": False}, "`docker run --mount` makes no folder either"
            mounts.append(
                Mount(source=volume["source"], target=volume["target"], read_only=volume.get("read_only", False))
            )
    address, outer, inner = found["ports"][0].split(":")
    assert (address, len(found["ports"])) == ("127.0.0.1", 1)
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["pull_policy"] == "never"
    restart = found["restart"]
    return ContainerSpec(
        image=found["image"],
        name="",
        command=tuple(found["command"]),
        user=found["user"],
        workdir=found["working_dir"],
        environment=found["environment"],
        mounts=tuple(mounts),
        ports=((int(outer), int(inner)),),
        labels=found["labels"],
        gpu_arguments=gpu_arguments(found),
        shm_bytes=int(found["shm_size"]),
        healthcheck=found.get("healthcheck") != {"disable": True},
        restart="" if restart == "no" else restart,
    )


def gpu_arguments(service) -> tuple[str, ...]:
    reserved = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    arguments = []
    for device in reserved:
        assert device["capabilities"] == ["gpu"]
        if device["driver"] == "cdi":
            arguments += [f"--device={name}" for name in device["device_ids"]]
        else:
            names = device.get("device_ids")
            assert names or device["count"] == "all"
            arguments.append(f'--gpus="device={",".join(names)}"' if names else "--gpus=all")
    return tuple(arguments)


def comparable(spec: ContainerSpec) -> dict[str, object]:
    """The fields of a container that both have, in an order of their own."""
    fields = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec) if f.name not in NOT_COMPARED}
    fields["environment"] = {**spec.environment, **fields.pop("secret_environment")}
    fields["mounts"] = {m.target: m if m.target != "/etc/passwd" else m.read_only for m in spec.mounts}
    fields["labels"] = {k: v for k, v in spec.labels.items() if k not in ("kit.client", *OWNERS)}
    return fields


OWNERS = ("kit.owner", "kit.owner-name")


def injections(image) -> list[Injection]:
    if not image.is_gpu:
        return [Injection()]
    named = parse_request("device=0,GPU-5f0e")
    return [
        Injection(environment=HIDDEN),
        *(injection_in(form, request) for form in ("cdi", "nvidia") for request in (None, named)),
    ]


@pytest.mark.parametrize("user", ["0:50", "4294967290:12"])
@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_a_service_is_what_kit_run_starts_field_by_field(engine: Engine, tmp_path: Path, image, user: str) -> None:
    ca_file = tmp_path / "ca $HOME.crt"
    ca_file.write_text("-----BEGIN CERTIFICATE-----")
    uid, _, gid = user.partition(":")
    network = NetworkSettings(ca_file=ca_file, proxies={"http_proxy": "http://u:p@proxy:1", "no_proxy": "a,b"})
    environment = (("LIMIT", "a $HOME ${X} $$ \"q'"), ("no_proxy", "own"))
    mounts = (Mount(source="/srv/d $x", target="/data"), Mount(source="/srv/e", target="/e", read_only=True))
    for injection in injections(image):
        settings = compose.Settings(
            uid=int(uid),
            gid=int(gid),
            services=("jupyter", "tensorboard"),
            injection=injection,
            logdir="runs/$x",
            port=8123,
            restart="always",
            shm_bytes=run.shm_bytes(engine.memory_bytes),
            ca_file=str(ca_file),
            proxies=tuple(network.proxies),
            environment=environment,
            mounts=mounts,
        )
        data = loaded(
            compose.compose_file(image, settings, project="p", header=()),
            JUPYTER_TOKEN="secret",
            TENSORBOARD_PORT="8124",
            FOLDER=str(FOLDER),
            HTTP_PROXY="http://u:p@proxy:1",
            no_proxy="a,b",
        )
        for service, port in (("jupyter", 8123), ("tensorboard", 8124)):
            request = run.RunRequest(
                image=image,
                service=service,
                folder=FOLDER,
                user=user,
                environment=environment,
                mounts=mounts,
                logdir="runs/$x",
                restart="always",
                network=network,
            )
            is_notebook = service == "jupyter"
            hidden = Injection(environment=HIDDEN if image.is_gpu else ())
            spec, _ = run.make_spec(
                request, engine, port=port, token="secret", injection=injection if is_notebook else hidden
            )
            assert comparable(as_spec(data, service)) == comparable(spec)
            assert data["services"][service]["labels"]["kit.client"] == "compose"
        assert data["configs"]["passwd"]["content"] == run.passwd_file(user).read_text()


def test_no_field_of_a_container_is_forgotten() -> None:
    fields = {field.name for field in dataclasses.fields(ContainerSpec)}
    assert fields > NOT_COMPARED
    assert fields - NOT_COMPARED == set(comparable(ContainerSpec(image="", name=""))) | {"secret_environment"}


@pytest.mark.parametrize("image", [i for i in IMAGES if not i.flavor], ids=lambda image: image.name)
def test_examples_are_for_anybody(image) -> None:
    files = compose.examples(image)
    assert set(files) == {f"{image.name}.yaml"} | ({f"{image.name}.cdi.yaml"} if image.is_gpu else set())
    projects = set()
    for name, file in files.items():
        text = render.render_compose(file)
        assert text.startswith(f"# Generated by `kit render {image.name}`")
        assert max(map(len, text.splitlines())) <= 120
        assert "/data" not in text
        assert "external" not in text
        data = loaded(file, JUPYTER_TOKEN="x", USER_ID="7", GROUP_ID="8")
        service = data["services"]["jupyter"]
        assert (service["user"], service["labels"]["kit.user"]) == ("7:8", "7:8")
        assert data["volumes"]["home"]["name"] == "kit-7-home"
        assert data["volumes"]["local"]["name"] == f"kit-7-{image.name}-local"
        assert "kit:x:7:8:" in data["configs"]["passwd"]["content"]
        assert re.fullmatch(r"kit-[a-z0-9_-]+-7", data["name"])
        drivers = [d.split()[-1] for d in text.splitlines() if "driver:" in d]
        assert drivers == ([] if not image.is_gpu else ["cdi" if ".cdi." in name else "nvidia"])
        projects.add(data["name"])
    assert len(projects) == 1, "both forms are the same containers"


def test_a_token_is_needed_and_in_no_file() -> None:
    file = compose.examples(load_catalog().find("tf-cpu"))["tf-cpu.yaml"]
    with pytest.raises(AssertionError, match="JUPYTER_TOKEN is needed"):
        loaded(file)


def test_volumes_of_kit_run_outlive_what_compose_takes_down() -> None:
    settings = compose.Settings(volumes_exist=True)
    file = compose.compose_file(load_catalog().find("tf-cpu"), settings, project="p", header=())
    assert all(volume["external"] is True for volume in loaded(file, JUPYTER_TOKEN="x")["volumes"].values())


def test_containers_of_two_users_in_folders_of_one_name_are_two_projects() -> None:
    names = {
        settings.filled(compose.project_name(Path("/home/a/My Notes.2"), settings))
        for settings in (compose.Settings(uid=5), compose.Settings(uid=6), compose.Settings(uid=0))
    }
    assert names == {"kit-my-notes-2-5", "kit-my-notes-2-6", "kit-my-notes-2-0"}
    assert compose.project_name(Path("/"), compose.Settings(uid=0)) == "kit-folder-0"
    assert compose.project_name(Path("/家"), compose.Settings(uid=0)) == "kit-folder-0"


def test_another_owner_than_who_it_runs_as_is_told() -> None:
    settings = compose.Settings(owner="12")
    file = compose.compose_file(load_catalog().find("tf-cpu"), settings, project="p", header=())
    assert loaded(file, JUPYTER_TOKEN="x")["services"]["jupyter"]["labels"]["kit.owner"] == "12"


def test_an_env_file_is_read_as_docker_reads_it() -> None:
    settings = compose.Settings(env_file="./my $x.env")
    file = compose.compose_file(load_catalog().find("tf-cpu"), settings, project="p", header=())
    service = loaded(file, JUPYTER_TOKEN="x")["services"]["jupyter"]
    assert service["env_file"] == [{"path": "./my $x.env", "format": "raw"}]
    assert settings.min_compose == "2.30.0"


def info(*, devices: tuple[str, ...] = (), runtimes: tuple[str, ...] = ()) -> EngineInfo:
    return EngineInfo(
        version="28",
        is_containerd_store=True,
        cdi_devices=devices,
        cdi_spec_dirs=(),
        runtimes=("runc", *runtimes),
        data_root="",
        cpus=1,
        memory_bytes=1,
    )


CDI = info(devices=("nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all", "other.com/x=all"))
NVIDIA = info(runtimes=("nvidia",))


@pytest.mark.parametrize(
    ("asked", "form", "engine", "expected"),
    [
        (None, None, None, Reservation(driver="cdi", device_ids=("nvidia.com/gpu=all",))),
        (None, None, info(), Reservation(driver="cdi", device_ids=("nvidia.com/gpu=all",))),
        (None, None, CDI, Reservation(driver="cdi", device_ids=("nvidia.com/gpu=all",))),
        (None, None, NVIDIA, Reservation(driver="nvidia")),
        ("all", "nvidia", CDI, Reservation(driver="nvidia")),
        ("all", "cdi", NVIDIA, Reservation(driver="cdi", device_ids=("nvidia.com/gpu=all",))),
        ("1,0", None, CDI, Reservation(driver="cdi", device_ids=("nvidia.com/gpu=1", "nvidia.com/gpu=0"))),
        ("device=1", None, NVIDIA, Reservation(driver="nvidia", device_ids=("1",))),
        ("GPU-5f0e", "nvidia", None, Reservation(driver="nvidia", device_ids=("GPU-5f0e",))),
        ("device=7", "nvidia", CDI, Reservation(driver="nvidia", device_ids=("7",))),
        ("none", None, CDI, None),
        ("none", "cdi", None, None),
        # A specification written by hand need not have `all`.
        (
            None,
            None,
            info(devices=("nvidia.com/gpu=0", "nvidia.com/gpu=1")),
            Reservation(driver="cdi", device_ids=("nvidia.com/gpu=0", "nvidia.com/gpu=1")),
        ),
    ],
)
def test_gpus_in_the_form_the_engine_takes(asked, form, engine, expected) -> None:
    image = load_catalog().find("torch2.7-cu126")
    request = parse_request(asked) if asked else None
    injection, found = compose.decide_injection(request, image, form=form, info=engine)
    assert reservation(injection) == expected
    assert found == (expected.driver if expected else None)
    variables = dict(injection.environment)
    assert variables == ({"NVIDIA_DISABLE_REQUIRE": "1"} if found == "nvidia" else dict(HIDDEN))


def test_gpus_the_engine_does_not_know() -> None:
    with pytest.raises(GpuUnavailableError, match=r"nvidia\.com/gpu=7"):
        compose.decide_injection(parse_request("device=7"), load_catalog().find("torch2.7-cu126"), form=None, info=CDI)


@pytest.mark.parametrize("text", ["free", "2"])
def test_gpus_only_kit_run_can_choose(text: str) -> None:
    with pytest.raises(BadInputError, match="cannot lease"):
        compose.decide_injection(parse_request(text), load_catalog().find("torch2.7-cu126"), form=None, info=CDI)


def test_an_image_for_the_cpu_has_no_gpus() -> None:
    image = load_catalog().find("tf-cpu")
    for request in (None, parse_request("none")):
        assert compose.decide_injection(request, image, form=None, info=CDI) == (Injection(), None)
    with pytest.raises(GpuUnavailableError, match="built for the CPU"):
        compose.decide_injection(parse_request("all"), image, form="cdi", info=None)


def test_the_line_about_gpus_says_what_this_engine_cannot() -> None:
    assert engine_form(CDI) == "cdi"
    assert compose.gpu_line(None, CDI) == "on the CPU"
    assert compose.gpu_line("cdi", CDI) == "GPUs by CDI"
    assert compose.gpu_line("nvidia", NVIDIA) == "GPUs by the NVIDIA runtime"
    assert "no engine answers" in compose.gpu_line("cdi", None)
    assert "passes no GPU in" in compose.gpu_line("cdi", info())
    assert compose.gpu_line("cdi", NVIDIA).endswith("`kit run` takes the NVIDIA runtime on the engine here")


def test_a_changed_file_is_known_by_its_stamp() -> None:
    text = compose.stamped("# first\nname: x\n")
    assert text.splitlines()[0] == "# first"
    assert compose.is_untouched(text)
    assert not compose.is_untouched(text.replace("name: x", "name: y"))
    assert not compose.is_untouched(text.replace("# first", "# 1st"))
    assert not compose.is_untouched(text + "\n")
    assert not compose.is_untouched("")


def test_a_file_is_never_lost(tmp_path: Path) -> None:
    file, text, other = tmp_path / "compose.yaml", compose.stamped("# a\nx: 1\n"), compose.stamped("# a\nx: 2\n")
    assert compose.write(file, text)
    assert not compose.write(file, text), "it is there"
    assert compose.write(file, other), "kit's own, as it was"
    file.write_text(other + "# mine\n")
    with pytest.raises(BadInputError, match="was changed since"):
        compose.write(file, text)
    assert file.read_text() == other + "# mine\n"
    assert compose.write(file, text, force=True)
    assert file.read_text() == text
    with pytest.raises(BadInputError, match="cannot be written"):
        compose.write(tmp_path / "compose.yaml" / "x.yaml", text)


def test_the_token_is_for_its_owner_and_written_once(tmp_path: Path) -> None:
    assert compose.write_token(tmp_path) == "written"
    file = tmp_path / ".env"
    text = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert re.search(r"^JUPYTER_TOKEN=[\w-]{32}$", text, re.MULTILINE)
    assert compose.write_token(tmp_path) == "there"
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
    assert compose.write_token(tmp_path) == expected
    assert (tmp_path / ".env").read_text() == text


def test_a_dangling_link_is_no_place_for_a_token(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to(tmp_path / "elsewhere")
    assert compose.write_token(tmp_path) == "missing"
    assert (tmp_path / ".env").is_symlink()


def test_the_command_line_of_the_engine(engine: Engine) -> None:
    assert compose.docker_words(None) == "docker"
    assert compose.docker_words(Engine()) == "docker"
    private = Engine(
        program="/p/docker", environment={"DOCKER_HOST": "unix:///a b", "DOCKER_CONFIG": "/c", "DOCKER_CONTEXT": ""}
    )
    assert compose.docker_words(private) == "DOCKER_HOST='unix:///a b' DOCKER_CONFIG=/c /p/docker"


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
    assert compose.version_problem(engine, compose.Settings().min_compose) == problem


def test_a_docker_without_compose_is_told(fake_docker, engine: Engine) -> None:
    fake_docker.reply("compose", stderr="docker: unknown command: docker compose\n", code=1)
    assert "has no Compose" in compose.version_problem(engine, "2.0.0")


def test_volumes_are_made_under_the_names_kit_run_gives_them(fake_docker, engine: Engine) -> None:
    settings = compose.Settings(uid=77, gid=78)
    image = load_catalog().find("tf-cpu")
    file = compose.compose_file(image, settings, project="p", header=())
    compose.make_volumes(file, settings, engine)
    made = [call.args[-1] for call in fake_docker.called("volume", "create")]
    assert made == [mount.source for mount in run.volume_mounts(image, "77")]


def test_podman_is_not_asked_for_volumes_that_are_there(fake_docker) -> None:
    fake_docker.program.rename(fake_docker.bin / "podman")
    settings = compose.Settings(uid=0, gid=0)
    image = load_catalog().find("tf-cpu")
    fake_docker.reply("volume", "exists", code=1)
    fake_docker.reply("volume", "exists", "kit-0-home")
    compose.make_volumes(compose.compose_file(image, settings, project="p", header=()), settings, Podman())
    made = [call.args[-1] for call in fake_docker.called("volume", "create")]
    assert made == [mount.source for mount in run.volume_mounts(image, "0") if mount.source != "kit-0-home"]
    assert made
