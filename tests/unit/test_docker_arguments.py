"""A container as the arguments of docker."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from kit.spec.container import ContainerSpec, Mount
from kit.spec.gpu_grant import GpuGrant
from kit.targets.docker import arguments, env_file, mount_value


def test_a_container_has_no_capabilities_and_gains_none():
    args = arguments(ContainerSpec(image="i", name="n"))
    assert args == ["--name=n", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--no-healthcheck", "i"]


def test_ports_are_published_on_the_loopback_only():
    args = arguments(ContainerSpec(image="i", name="n", ports=((8890, 8888), (1, 2))))
    assert [a for a in args if a.startswith(("--publish", "-p"))] == [
        "--publish=127.0.0.1:8890:8888",
        "--publish=127.0.0.1:1:2",
    ]
    assert not [a for a in args if "--net" in a or a == "-P"]


def test_secrets_are_in_no_argument():
    spec = ContainerSpec(image="i", name="n", environment={"A": "1"}, secret_environment={"JUPYTER_TOKEN": "s3cret"})
    assert not [word for word in arguments(spec) if "env" in word or "s3cret" in word]
    assert env_file(spec.variables) == ("A=1\nJUPYTER_TOKEN=s3cret\n", {})


def test_every_field_has_its_option_and_the_command_comes_last():
    spec = ContainerSpec(
        image="i",
        name="n",
        command=("python", "-c", "--rm"),
        user="1:2",
        workdir="/w",
        labels={"kit.image": "x"},
        mounts=(
            Mount(source="/a b", target="/c", read_only=True),
            Mount(source="v", target="/d", is_volume=True),
        ),
        gpus=GpuGrant(form="cdi", devices=("nvidia.com/gpu=all",)),
        shm_bytes=64,
        remove=True,
        interactive=True,
        tty=True,
        healthcheck=True,
        restart="always",
    )
    assert arguments(spec) == [
        "--name=n",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--user=1:2",
        "--workdir=/w",
        "--mount=type=bind,source=/a b,target=/c,readonly",
        "--mount=type=volume,source=v,target=/d",
        "--label=kit.image=x",
        "--device=nvidia.com/gpu=all",
        "--shm-size=64",
        "--rm",
        "--interactive",
        "--tty",
        "--restart=always",
        "i",
        "python",
        "-c",
        "--rm",
    ]


# Any path of Linux; what a path cannot have is a NUL.
paths = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
awkward = st.text(st.sampled_from(' ,"=\n\ra家$'), min_size=1)


@given(st.one_of(paths, awkward), st.one_of(paths, awkward), st.booleans(), st.booleans())
def test_no_path_of_a_mount_is_read_as_anything_else(source, target, is_volume, read_only):
    value = mount_value(Mount(source=source, target=target, is_volume=is_volume, read_only=read_only))
    (fields,) = csv.reader(io.StringIO(value, newline=""), strict=True)
    kind = "volume" if is_volume else "bind"
    assert fields == [f"type={kind}", f"source={source}", f"target={target}", *(["readonly"] if read_only else [])]


def test_a_new_volume_without_a_name_has_no_source():
    assert mount_value(Mount(source="", target="/c", is_volume=True)) == "type=volume,target=/c"


def test_a_path_without_a_comma_or_a_quote_stays_as_it_is():
    assert mount_value(Mount(source="/a b'$=", target="/c")) == "type=bind,source=/a b'$=,target=/c"
    assert mount_value(Mount(source='/a,b"', target="/c")) == 'type=bind,"source=/a,b""",target=/c'
