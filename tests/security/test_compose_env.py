"""What lies beside a compose file does not change unsaid what kit wrote; what is in one stays text."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.compose.written import OVERRIDES, notes_on
from kit.config.keys import wrong_name
from kit.engine import connect
from kit.errors import BadInputError
from kit.spec.container import ContainerSpec, Mount, volume_mounts
from kit.targets import compose
from tests.conftest import Result
from tests.fake_docker import FakeDocker
from tests.security.fuzzing import fuzz

Kit = Callable[..., Result]
PLAIN = st.characters(codec="utf-8", exclude_characters="\0")
TEXTS = st.text(PLAIN, max_size=12) | st.sampled_from(
    [
        "$",
        "$$",
        "${X}",
        "${X:-y}",
        "$X",
        '"',
        "'",
        "\\",
        "a: b",
        "# c",
        "\n",
        "\t",
        "é家😀",
        "\x85",
        "\u2028",
        "\ufeff",
        "~",
    ]
)
NAMES = st.text(PLAIN, min_size=1, max_size=8).filter(lambda name: not wrong_name(name)) | st.sampled_from(
    [
        "yes",
        "null",
        "<<",
        "a:",
        "- b",
        "{x",
        "[y",
        "*z",
        "&w",
        "!t",
        "%u",
        "@v",
        "`",
        "1",
        "A.B",
        "A$B",
        "${X}",
        "'q",
        "?",
    ]
)


def written(environment: dict[str, str], *paths: str) -> str:
    spec = ContainerSpec(
        image="kit/tf-cpu:latest",
        name="",
        command=("true", *paths),
        user="1:1",
        environment={"USER": "kit", **environment},
        mounts=(
            *(Mount(source="/x", target=target) for target in compose.OWN_MOUNTS),
            *(Mount(source=f"/{path}", target=f"/data{number}") for number, path in enumerate(paths)),
            *volume_mounts("tf-cpu", "1", "p"),
        ),
        labels={"kit.service": "jupyter", "kit.user": "1:1"},
        ports=((8888, 8888),),
    )
    return compose.text(compose.ComposeFile(header=(), project="kit-p", services=(spec,)))


@given(st.dictionaries(NAMES, TEXTS, max_size=5), st.lists(TEXTS, max_size=2))
def test_every_name_and_value_stays_text(environment: dict[str, str], paths: list[str]) -> None:
    service = yaml.safe_load(written(environment, *paths))["services"]["jupyter"]
    expected = {"USER": "kit", **environment}
    assert service["environment"] == {name: value.replace("$", "$$") for name, value in expected.items()}
    assert service["command"] == ["true", *(path.replace("$", "$$") for path in paths)]
    binds = [volume["source"] for volume in service["volumes"][1:] if isinstance(volume, dict)]
    assert binds == [f"/{path}".replace("$", "$$") for path in paths]


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(BadInputError, match="UTF-8"):
        written({"A": "\udcff"})
    fuzz(st.dictionaries(st.text(), st.text(), max_size=3), lambda environment: written(environment))


@pytest.mark.parametrize(
    "line", ["FOLDER=/", "USER_ID = 0", "export GROUP_ID=0", "COMPOSE_FILE=evil.yaml", "FOLDER: /"]
)
def test_a_variable_that_reaches_out_is_refused(
    kit: Kit, fake_docker: FakeDocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(f"# Written by `kit compose`.\nA=1\n{line}\nJUPYTER_TOKEN=x\n")
    result = kit("compose", "tf-cpu", "--user", "1:1")
    assert result.code == 2
    assert not Path("compose.yaml").exists()
    assert fake_docker.called("volume", "create") == []
    assert "compose` obeys" in result.err
    result = kit("compose", "tf-cpu", "--user", "1:1", "--force")
    assert result.code == 0
    assert "warning: " in result.err


def test_a_token_that_was_there_is_said(
    kit: Kit, fake_docker: FakeDocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("JUPYTER_TOKEN=known\nRESTART=always\n")
    said = kit("compose", "tf-cpu").err
    assert ".env was there: its JUPYTER_TOKEN, RESTART counts" in said
    assert "known" not in said


@pytest.mark.parametrize("name", OVERRIDES)
def test_what_compose_reads_besides_is_refused(
    kit: Kit, fake_docker: FakeDocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("services: {jupyter: {privileged: true}}\n")
    assert kit("compose", "tf-cpu").code == 2
    result = kit("compose", "tf-cpu", "-o", "own.yaml")
    assert (result.code, Path("own.yaml").exists()) == (0, True)
    assert "compose --file own.yaml up" in result.err


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    with pytest.raises(BadInputError, match="pipe"):
        notes_on(tmp_path / "compose.yaml", "", force=False)


def test_no_text_of_an_env_file_is_a_defect(tmp_path: Path) -> None:
    text = written({"A": "b"})

    def read(data: bytes) -> None:
        (tmp_path / ".env").write_bytes(data)
        notes_on(tmp_path / "compose.yaml", text, force=True)

    fuzz(st.binary(max_size=200) | st.just(b"COMPOSE_" * 20_000) | st.just(b"FOLDER" + b" " * 200_000), read)


def configured(folder: Path, text: str) -> dict[str, str]:
    """The environment that Docker Compose gives the container of a file."""
    (folder / "compose.yaml").write_text(text)
    file = str(folder / "compose.yaml")
    answer = connect().call(["compose", "--file", file, "config", "--format", "json"])
    found: dict[str, str] = json.loads(answer)["services"]["jupyter"]["environment"]
    # `config` writes a file again, in which a sign that is meant has another before it.
    return {name.replace("$$", "$"): value.replace("$$", "$") for name, value in found.items()}


@pytest.mark.engine
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(NAMES, TEXTS, min_size=3, max_size=8))
def test_compose_itself_reads_what_was_meant(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> None:
    assert configured(tmp_path_factory.mktemp("c"), written(environment)) == {"USER": "kit", **environment}


@pytest.mark.engine
def test_compose_finds_all_that_kit_finds(tmp_path: Path) -> None:
    """Whatever way of writing a variable Compose's parser obeys, kit has seen."""
    text = written({"A": "b"})
    for line in (
        "FOLDER=/x",
        "FOLDER =/x",
        " FOLDER=/x",
        "export FOLDER=/x",
        "FOLDER: /x",
        "\tFOLDER='/x'",
        "B=1\rFOLDER=/x",
    ):
        (tmp_path / ".env").write_text(f"{line}\n")
        (tmp_path / "compose.yaml").write_text(text)
        done = connect().ask(["compose", "--file", str(tmp_path / "compose.yaml"), "config", "--format", "json"])
        volumes = json.loads(done.stdout)["services"]["jupyter"]["volumes"] if done.returncode == 0 else []
        if any(volume["source"] == "/x" for volume in volumes):
            with pytest.raises(BadInputError, match="FOLDER"):
                notes_on(tmp_path / "compose.yaml", text, force=False)
