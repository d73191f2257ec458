"""No value of a container's variables is in a list of processes, and none reaches the programs that start it."""

from __future__ import annotations

import os
import string
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.config.keys import wrong_name
from kit.engine.docker import Engine
from kit.errors import BadInputError
from kit.spec.container import ContainerSpec
from kit.targets import docker as target
from tests.conftest import Result
from tests.engine.conftest import KIT
from tests.fake_docker import FakeDocker

NAMES = st.one_of(
    st.sampled_from(["LD_PRELOAD", "PATH", "DOCKER_HOST", "HOME", "GODEBUG", "a.b", "X-Y", "#x", "家"]),
    st.text(st.characters(exclude_characters="=\0", codec="utf-8"), min_size=1, max_size=12),
).filter(lambda name: not wrong_name(name))
VALUES = st.one_of(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40),
    st.sampled_from(["a\nb", "\r", '"x"', "'x'", "#", " x ", "$X", "\udcff", "x" * 70_000, "\nLD_PRELOAD=/evil"]),
)


def as_docker_reads(text: str) -> dict[str, str]:
    """An env-file as docker/cli reads it (pkg/kvfile): lines, blank to their left cut, `#` a comment, NAME=VALUE."""
    found = {}
    for raw in text.split("\n"):
        line = raw.removesuffix("\r").lstrip()
        if line and not line.startswith("#"):
            name, sign, value = line.partition("=")
            assert sign, "a name alone would be taken from the environment"
            assert not set(name) & set(string.whitespace)
            found[name] = value
    return found


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_variables_arrive_as_they_are_and_as_no_others(variables: dict[str, str]) -> None:
    try:
        text, odd = target.env_file(variables)
    except BadInputError:
        assert any(len(value) > 40 or not value.isprintable() or value[:1] in "'\"" for value in variables.values())
        return
    assert all(len(line.encode()) < 65536 for line in text.splitlines())
    assert {**as_docker_reads(text), **odd} == variables
    assert not {name for name in odd if name in ("PATH", "HOME") or name.startswith(("LD_", "DOCKER_"))}


def test_no_value_is_an_argument_and_none_is_in_the_engines_environment(
    engine: Engine, fake_docker: FakeDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"KEY": "s3cret", "LD_PRELOAD": "/evil.so", "DOCKER_HOST": "tcp://evil", "PATH": "/evil"}
    spec = ContainerSpec(image="i", name="n", environment=variables, secret_environment={"TOKEN": "t0ken"})
    with engine.prepared(["run", *engine.arguments(spec)], spec.variables) as (command, environment):
        assert not [word for word in command if any(value in word for value in spec.variables.values())]
        assert not {"LD_PRELOAD", "DOCKER_HOST", "PATH", "TOKEN"} & set(environment)
        (file,) = [word.partition("=")[2] for word in command if word.startswith("--env-file=")]
        assert as_docker_reads(Path(file).read_text()) == dict(spec.variables)
    assert not Path(file).exists()


def test_what_a_program_would_obey_is_refused_where_a_file_cannot_hold_it() -> None:
    for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "DOCKER_CONFIG", "PATH", "HOME", "GODEBUG", "SSL_CERT_FILE"):
        with pytest.raises(BadInputError, match=name):
            target.env_file({name: "/evil:\n"})


def test_a_compose_file_has_nothing_of_the_users_own_configuration(
    kit: Callable[..., Result], fake_docker: FakeDocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "user.toml").write_text('[env]\nWANDB_API_KEY = "s3cret"\n"od.d" = "s3cret"\nMODE = "replaced"\n')
    (tmp_path / "project/kit.toml").write_text('[env]\nMODE = "offline"\n')
    monkeypatch.setenv("KIT_CONFIG", str(tmp_path / "user.toml"))
    monkeypatch.chdir(tmp_path / "project")
    result = kit("compose", "tf-cpu")
    assert result.code == 0, result.err
    text = Path("compose.yaml").read_text()
    assert "s3cret" not in text
    assert '"MODE": "offline"' in text
    assert '"WANDB_API_KEY": "${WANDB_API_KEY?' in text
    assert "WANDB_API_KEY, od.d of your configuration: not in compose.yaml" in result.err


@pytest.mark.engine
def test_a_variable_of_a_file_is_in_no_list(tf_cpu: str, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "user.toml").write_text('[env]\nWANDB_API_KEY = "s3cret-of-a-test"\nLINES = """a\nb"""\n')
    command = [KIT, "-q", "run", "-C", str(workspace), tf_cpu, "sh", "-c", 'echo "$WANDB_API_KEY $LINES"; sleep 2']
    environment = {**os.environ, "KIT_CONFIG": str(tmp_path / "user.toml")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        seen, lists = False, ""
        while child.poll() is None:
            lists += (now := subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True).stdout)
            seen = seen or str(workspace) in now
            time.sleep(0.05)
        assert child.stdout is not None
        assert child.stdout.read() == "s3cret-of-a-test a\nb\n"
    assert seen
    assert "s3cret-of-a-test" not in lists


def test_other_users_cannot_read_the_file(engine: Engine) -> None:
    with engine.prepared(["run"], {"A": "b"}) as (command, _):
        (file,) = [word.partition("=")[2] for word in command if word.startswith("--env-file=")]
        assert file.startswith(f"/proc/{os.getpid()}/fd/")
        assert Path(file).parent.stat().st_mode & 0o077 == 0


def test_no_argument_of_a_container_has_a_variable() -> None:
    spec: Any = ContainerSpec(image="i", name="n", environment={"A": "value-1"}, secret_environment={"B": "value-2"})
    assert not [word for word in target.arguments(spec) if "value-" in word or word.startswith("--env")]
