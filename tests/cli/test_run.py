import io
import json
import os

import pytest

from kit import layout, ports
from kit.image.build.inputs import fingerprint
from tests.fake_docker import info
from tests.free_ports import free_ports


@pytest.fixture
def docker(fake_docker, project, monkeypatch):
    """A docker that has the image of `project`, up to date."""
    reference = project.catalog.base_for(project.image).reference
    mark = fingerprint(
        (project.folder / "Dockerfile").read_text(), (project.folder / "requirements.lock").read_text(), reference
    )
    fake_docker.has_image({"kit.fingerprint": mark, "kit.base-identity": reference, "kit.base-source": "registry"})
    monkeypatch.setattr(layout, "JUPYTER_PORT", free_ports(10))
    return fake_docker


def test_a_command_runs_here_and_passes_its_output_and_exit_code_on(kit, docker):
    docker.reply("run", stdout="out\n", stderr="err\n", code=37)
    result = kit("run", "tf-cpu", "python", "-c", "print(1)", "--port", "5")
    assert (result.code, result.out, result.err) == (37, "out\n", "err\n")
    args = docker.called("run")[0].args
    assert args[args.index("kit/tf-cpu:latest") + 1 :] == ["python", "-c", "print(1)", "--port", "5"]
    assert "--rm" in args
    assert "--tty" not in args


def test_an_image_that_is_up_to_date_starts_without_asking_for_buildx(kit, docker):
    assert kit("run", "tf-cpu", "true").code == 0
    assert docker.called("buildx") == []
    assert len(docker.calls) <= 6, "each call costs the user a tenth of a second"


def test_an_image_that_is_not_there_is_built_first(kit, docker):
    docker.reply("image", "inspect", code=1, stderr="Error response from daemon: No such image: x\n")
    result = kit("run", "tf-cpu", "true")
    assert result.code == 0
    words = [call.args[:2] for call in docker.calls]
    assert words.index(["buildx", "build"]) < words.index(docker.called("run")[0].args[:2])
    assert "tf-cpu: built in" in result.err


def test_a_failed_build_starts_nothing(kit, docker):
    docker.reply("image", "inspect", code=1, stderr="Error response from daemon: No such image: x\n")
    docker.reply("buildx", "build", code=1)
    assert kit("run", "tf-cpu", "true").code == 1
    assert docker.called("run") == []


def test_a_notebook_prints_its_url_alone_on_standard_output(kit, docker):
    docker.reply("run", serve=200)
    result = kit("run", "tf-cpu", "jupyter")
    token = docker.called("run")[0].env["JUPYTER_TOKEN"]
    assert result.code == 0
    assert result.out == f"http://127.0.0.1:{layout.JUPYTER_PORT}/lab?token={token}\n"
    assert "it stays up: `kit logs kit-tf-cpu-jupyter-" in result.err
    assert token not in json.dumps([call.args for call in docker.calls])


def test_a_notebook_as_json(kit, docker):
    docker.reply("run", serve=200)
    data = json.loads(kit("--json", "run", "tf-cpu", "jupyter").out)
    assert sorted(data) == ["host", "image", "name", "service", "url"]
    assert (data["image"], data["service"]) == ("tf-cpu", "jupyter")


def test_options_reach_the_container(kit, docker, tmp_path):
    kit(
        "run",
        "--user",
        "1234567890",
        "-C",
        str(tmp_path),
        "-e",
        "A=b=c",
        "-e",
        "EMPTY=",
        "--mount",
        f"{tmp_path}:/data:ro",
        "tf-cpu",
        "true",
    )
    args = docker.called("run")[0].args
    assert "--user=1234567890:1234567890" in args
    assert f"--mount=type=bind,source={tmp_path},target=/workspace" in args
    assert f"--mount=type=bind,source={tmp_path},target=/data,readonly" in args
    assert {"A": "b=c", "EMPTY": ""}.items() <= docker.called("run")[0].env.items()


def test_the_current_folder_is_the_workspace(kit, docker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kit("run", "tf-cpu", "true")
    assert f"--mount=type=bind,source={tmp_path},target=/workspace" in docker.called("run")[0].args


def test_a_program_with_the_name_of_a_service_is_run_after_two_dashes(kit, docker):
    kit("run", "tf-cpu", "--", "jupyter", "--version")
    args = docker.called("run")[0].args
    assert args[args.index("kit/tf-cpu:latest") + 1 :] == ["jupyter", "--version"]
    assert "--detach" not in args


def test_no_words_are_a_shell(kit, docker):
    kit("run", "tf-cpu")
    kit("run", "tf-cpu", "shell")
    assert [call.args[-1] for call in docker.called("run")] == ["bash", "bash"]


def test_kits_options_after_the_service_are_refused_with_the_right_order(kit, docker):
    result = kit("run", "tf-cpu", "jupyter", "--port", "9999")
    assert result.code == 2
    assert "kit run --port 9999 NAME jupyter" in result.err


def test_a_port_in_use_has_its_exit_code(kit, docker):
    with ports.reserved(layout.JUPYTER_PORT, exact=True):
        result = kit("run", "--port", str(layout.JUPYTER_PORT), "tf-cpu", "jupyter")
    assert result.code == 16
    assert "leave out --port" in result.err


@pytest.mark.parametrize(("gpus", "code"), [("all", 17), ("two", 2), ("none", 0)])
def test_gpus_on_an_image_for_the_cpu(kit, docker, gpus, code):
    assert kit("run", "--gpus", gpus, "tf-cpu", "true").code == code


def test_bad_users_and_names_are_refused_before_anything_starts(kit, docker):
    assert kit("run", "--user", "me", "tf-cpu", "true").code == 2
    assert kit("run", "tf-cpuu", "true").code == 4
    assert docker.calls == []


def test_a_command_on_a_full_disk_is_no_traceback(kit, docker):
    docker.reply("info", stdout=info())
    docker.reply("run", code=125, stderr="docker: Error response from daemon: no space left on device\n")
    result = kit("run", "tf-cpu", "jupyter")
    assert result.code == 14
    assert "prune" in result.err


def test_what_standard_input_may_be(tmp_path, monkeypatch):
    from kit.cli.run import _input

    (tmp_path / "s.py").write_text("print(1)")
    reader, writer = os.pipe()
    with (tmp_path / "s.py").open() as file, open(os.devnull) as nothing, os.fdopen(reader) as pipe:  # noqa: PTH123
        for source, expected in ((file, "file"), (nothing, ""), (pipe, "stream"), (io.StringIO(), "")):
            monkeypatch.setattr("sys.stdin", source)
            assert _input() == expected
        os.close(writer)


def test_a_job_without_anybody_takes_no_file(kit, docker, tmp_path, monkeypatch):
    (tmp_path / "s.py").write_text("print(1)")
    with (tmp_path / "s.py").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        result = kit("run", "--detach", "tf-cpu", "python", "-")
    assert result.code == 2
    assert "--detach: nobody is there to hand a file to its standard input" in result.err
    assert docker.called("run") == []
