"""Words that no engine, ssh or file system takes: kit says so itself, with exit code 2, and starts nothing."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.config.keys import wrong_target
from kit.errors import BadInputError
from kit.run.prepare import mount_on
from kit.spec.container import Mount
from kit.spec.request import parse_mount, parse_user, parse_variable
from kit.targets.docker import mount_value

TARGETS = {
    "a comma": "/data,source=/",
    "a quote": '/a"b',
    "a new line": "/a\nb",
    "an escape sequence": "/\x1b[2J",
    "bytes that are no text": "/\udcff",
    "5,000 characters": "/" + "a" * 5000,
    "5,000 folders": "/a" * 5000,
    "a name of 256": "/" + "é" * 128,
    "the root": "/",
    "the root in other words": "//",
    "the root by its parent": "/a/../..",
    "what the kernel tells": "/proc/sys",
    "devices": "/sys",
}


@pytest.fixture
def project(tmp_path, monkeypatch, fake_docker):
    """The current folder, and an engine that is not asked for anything."""
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KIT_SSH", "/bin/false")
    return folder


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("place", ["flag", "file"])
def test_a_place_that_no_mount_can_have_is_refused(kit, project, target, place):
    words = ["--mount", f"sub:{target}"] if place == "flag" else []
    if place == "file":
        (project / "kit.toml").write_text(f"mounts = [{json.dumps(f'sub:{target}')}]\n")
    result = kit("run", *words, "tf-cpu", "true")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert "defect" not in result.err


def test_two_mounts_at_one_place_are_refused(kit, project):
    result = kit("run", "--mount", "sub:/x", "--mount", "/srv:/x/", "tf-cpu", "true")
    assert (result.code, result.err.partition("\n")[0]) == (2, "error: --mount: two at the same place in the container")


odd = st.text(st.one_of(st.sampled_from('/.:,"\n~ aé\udcff$'), st.characters(codec="utf-8")), max_size=30)


@given(odd)
def test_a_mount_is_refused_or_is_one_field_for_each_word(text):
    try:
        mount = parse_mount(text)
    except BadInputError:
        return
    assert not wrong_target(mount.target)
    # What an engine reads again is what was asked for.
    assert f"target={mount.target}" in mount_value(mount)
    assert mount.target.startswith("/")
    assert not set(mount.target) & set(',"\n')


@given(odd.filter(lambda text: "\0" not in text))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_source_that_is_not_there_is_said_to_be_missing(project, source):
    with contextlib.suppress(BadInputError):
        assert Path(mount_on(Mount(source=source, target="/x"), None).source).exists()


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--mount", "~nobody-here/x:/x", "tf-cpu"],
        ["run", "--mount", "a" * 5000 + ":/x", "tf-cpu"],
        ["run", "--mount", "loop:/x", "tf-cpu"],
        ["run", "--mount", ":/x", "tf-cpu"],
        ["run", "-C", "a" * 5000, "tf-cpu"],
        ["run", "-C", "loop", "tf-cpu"],
        ["run", "--env-file", "a" * 5000, "tf-cpu"],
        ["run", "--ca-cert", "a" * 5000, "tf-cpu"],
        ["run", "-e", "A=\udcff", "tf-cpu"],
        ["run", "-e", "\udcff=A", "tf-cpu"],
        ["compose", "-e", "A=\udcff", "tf-cpu"],
        ["run", "--user", "9" * 5000, "tf-cpu"],
        ["run", "--user", "2147483648", "tf-cpu"],
        ["run", "--user", "1:2147483648", "tf-cpu"],
        ["run", "--user", "١", "tf-cpu"],
        ["run", "--port", "٨٨٨٨", "tf-cpu", "jupyter"],
        ["run", "--port", "8_888", "tf-cpu", "jupyter"],
        ["run", "--port", "9" * 5000, "tf-cpu", "jupyter"],
        ["run", "--gpus", "٢", "torch-cu126"],
        ["logs", "--tail", "٣", "x"],
        ["stop", "--time", "1e3", "x"],
        ["resolve", "--driver", "٥٨٠", "--gpu", "9.0"],
        ["resolve", "--driver", "580.٦٥.06", "--gpu", "9.0"],
        ["resolve", "--driver", "580", "--gpu", "sm_٩٠"],
        ["resolve", "--python", "3.١٢", "torch"],
        ["--host", "\udcff", "ps"],
        ["--host", "a\udcffb", "ps"],
        ["--host", "a\x9bb", "ps"],
        ["--host", "-oProxyCommand=id", "ps"],
        ["bench", "image", "--soak", "nan", "tf-cpu"],
    ],
    ids=lambda words: " ".join(word[:20].encode("ascii", "backslashreplace").decode() for word in words),
)
def test_what_cannot_be_meant_is_bad_input(kit, project, words):
    (project / "loop").symlink_to("loop")
    result = kit(*words)
    assert (result.code, result.out) == (2, "")
    assert "defect" not in result.err


@pytest.mark.parametrize("value", ["\udcff", "/\udcff", "abc", "9" * 5000, "-1", "/dev/null/x"])
@pytest.mark.parametrize(
    "variable", ["KIT_HOST", "SUDO_UID", "SUDO_GID", "XDG_CONFIG_HOME", "KIT_CONFIG", "HOME", "KIT_ENGINE_DIR"]
)
def test_odd_variables_are_no_defects_of_kit(kit, project, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert kit("ps").code != 70
    assert kit("config", "show").code in (0, 2)


@given(st.text(max_size=12))
def test_users_and_variables_are_taken_or_refused(text):
    for parse in (parse_user, parse_variable, parse_mount):
        with contextlib.suppress(BadInputError):
            assert parse(text)
