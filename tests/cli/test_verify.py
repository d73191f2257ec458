"""`kit verify` as a user sees it: table, JSON, JUnit, exit codes; and what `kit run` says of the GPUs inside."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kit import verify
from kit.cli.options import Options
from kit.cli.output import print_gpus
from kit.errors import EngineError
from kit.run import gpu_check
from kit.run.prepare import Ready
from kit.spec.gpu_request import NO_GPUS
from kit.verify.report import Check, Report

PASSED = (
    Check(name="packages.locked", outcome="passed", detail="140 packages"),
    Check(name="packages.besides", outcome="passed"),
    Check(name="framework.cudnn", outcome="not_run", detail="the image is built for the CPU"),
    Check(name="gpu.driver", outcome="not_run", detail="no GPU: the image is built for the CPU"),
    Check(name="gpu.framework", outcome="not_run", detail="no GPU: the image is built for the CPU"),
)
FAILED = Check(name="image.labels", outcome="failed", detail="kit.cuda is `x`, and `12.6` is true\nkit.cudnn is `y`")


@pytest.fixture
def verified(project, fake_docker, monkeypatch):
    """An engine that has tf-cpu; `verify` gives what the test puts into `checks`, and notes how it was called."""
    fake_docker.reply("image", "inspect", stdout="{}")

    class Verified:
        checks: tuple[Check, ...] = PASSED
        asked: list[tuple[Ready, tuple[str, ...]]] = []  # noqa: RUF012 - one object of this class is made
        docker = fake_docker

        def __call__(self, ready, *, only, on_message, on_check):
            self.asked.append((ready, only))
            on_message("a line for the user")
            for check in self.checks:
                on_check(check, len(self.checks))
            return Report(image="tf-cpu", reference=ready.reference or "kit/tf-cpu:latest", checks=self.checks)

    found = Verified()
    monkeypatch.setattr(verify, "verify", found)
    return found


def test_table(kit, verified):
    result = kit("verify", "tf-cpu")
    assert result.code == 0
    assert result.out == (
        "check             result   detail\n"
        "packages.locked   passed   140 packages\n"
        "packages.besides  passed\n"
        "framework.cudnn   not run  the image is built for the CPU\n"
        "gpu (2 checks)    not run  no GPU: the image is built for the CPU\n"
    )
    assert "a line for the user\n" in result.err
    assert result.err.endswith("kit/tf-cpu:latest: 2 passed, 3 not run\n")


def test_a_check_that_fails_is_the_exit_code_and_is_told_in_full(kit, verified):
    verified.checks = (*PASSED, FAILED)
    result = kit("verify", "tf-cpu")
    assert result.code == 1
    assert "image.labels      FAILED   kit.cuda is `x`, and `12.6` is true\n" in result.out
    assert "error: kit/tf-cpu:latest: 2 passed, 1 failed, 3 not run\n" in result.err
    assert "  image.labels: kit.cuda is `x`, and `12.6` is true\n  image.labels: kit.cudnn is `y`\n" in result.err
    assert "hint: `kit verify tf-cpu --only image.labels` runs one again\n" in result.err


def test_json_is_the_interface(kit, verified):
    verified.checks = (PASSED[0], FAILED, PASSED[3])
    result = kit("--json", "verify", "tf-cpu")
    assert result.code == 1
    assert json.loads(result.out) == {
        "image": "tf-cpu",
        "checks": [
            {"name": "packages.locked", "outcome": "passed", "detail": "140 packages"},
            {"name": "image.labels", "outcome": "failed", "detail": FAILED.detail},
            {"name": "gpu.driver", "outcome": "not_run", "detail": "no GPU: the image is built for the CPU"},
        ],
    }


def test_junit_is_written_also_when_a_check_fails(kit, verified, tmp_path):
    verified.checks = (*PASSED, FAILED)
    file = tmp_path / "reports" / "verify.xml"
    assert kit("-q", "verify", "tf-cpu", "--junit", str(file)).code == 1
    suite = ElementTree.parse(file).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("6", "1", "3")
    assert [f.name for f in file.parent.iterdir()] == ["verify.xml"]


def test_junit_that_cannot_be_written(kit, verified, tmp_path):
    (tmp_path / "file").write_text("")
    result = kit("verify", "tf-cpu", "--junit", str(tmp_path / "file" / "verify.xml"))
    assert result.code == 2
    assert "--junit" in result.err
    assert "Traceback" not in result.err


def test_what_was_asked_reaches_the_verification(kit, verified):
    kit("verify", "--gpus", "none", "--only", "packages", "--only", "gpu", "--image", "elsewhere/tf-cpu:1", "tf-cpu")
    ready, only = verified.asked[-1]
    assert (ready.image.name, ready.reference) == ("tf-cpu", "elsewhere/tf-cpu:1")
    assert (ready.gpus.request, only) == (NO_GPUS, ("packages", "gpu"))


def test_an_image_that_is_there_is_not_built_even_when_its_lock_has_changed(kit, verified):
    assert kit("verify", "tf-cpu").code == 0
    assert verified.docker.called("buildx") == []


def test_an_image_that_is_not_there_is_built_first(kit, verified):
    verified.docker.reply("image", "inspect", code=1, stderr="Error response from daemon: No such image: x\n")
    result = kit("verify", "tf-cpu")
    assert result.code == 0
    assert "tf-cpu: built in" in result.err
    assert [call.args[:2] for call in verified.docker.called("buildx", "build")]


def test_errors_are_two_lines(kit, verified, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise EngineError("the engine has no image x", hint="`kit build x` builds it")

    monkeypatch.setattr(verify, "verify", fail)
    result = kit("verify", "tf-cpu", "--image", "x")
    assert (result.code, result.out) == (12, "")
    assert result.err.endswith("error: the engine has no image x\nhint: `kit build x` builds it\n")
    assert kit("verify", "nonsense").code == 4


@pytest.mark.parametrize(
    ("devices", "error", "said"),
    [
        ([{"name": "NVIDIA H200", "uuid": "u", "computes": True}], "", "GPU inside: NVIDIA H200; a kernel ran on it\n"),
        (
            [],
            "libcuda.so.1: cannot open shared object file",
            "warning: no GPU is usable inside: libcuda.so.1: cannot open shared object file; "
            "`kit doctor` looks for the cause\n",
        ),
    ],
)
def test_run_says_whether_the_gpu_is_there(engine, fake_docker, capsys, devices, error, said):
    fake_docker.reply("exec", stdout=json.dumps({"devices": devices, "error": error}))
    found = gpu_check.check(engine, "c", ("nvidia.com/gpu=all",))
    print_gpus(Options(), found)
    assert capsys.readouterr().err == said
    print_gpus(Options(quiet=True), found)
    assert capsys.readouterr().err == (said if error else "")


def test_run_says_nothing_where_no_gpu_was_given(engine, fake_docker, capsys):
    print_gpus(Options(), gpu_check.check(engine, "c", ()))
    assert capsys.readouterr().err == ""
    assert fake_docker.called("exec") == []


def test_junit_path_is_a_file(kit, verified, tmp_path: Path):
    assert kit("verify", "tf-cpu", "--junit", str(tmp_path)).code == 2
